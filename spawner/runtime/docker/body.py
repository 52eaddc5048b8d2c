"""Create bodies of all containers that there are: pure, with one hardening profile for all.

What a container may never have is decided here and nowhere else: no privileged mode, no new
privileges, a read-only root, bounded memory, CPU, processes and logs; capabilities for nothing but
the makers of folders.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from commons.scopes import personal
from spawner.runtime import labels
from spawner.runtime.docker.rules import variables
from spawner.runtime.protocol import MAX_OUTPUT
from spawner.runtime.spec import CDI, Account, Limits, ServerSpec

CPU_PERIOD = 100_000  # microseconds, the kernel's default
START_COMMAND = "/opt/labcommons/bin/start"
JOB_COMMAND = "/opt/labcommons/bin/job"
REGISTRY = "/opt/labcommons/registry"
PYTHON = "/opt/labcommons/hub/bin/python"
JOB = "/job"
NONE = "none"  # Docker's word for no network
NVIDIA_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm")  # what every GPU needs beside its own
TMP = "/tmp"  # noqa: S108  (the containers')

# What a task container is for; also what the agent clears away when it starts.
PURPOSE = "labcommons.purpose"
BUILD = "labcommons.build"  # the job's id
STEP = "labcommons.step"
# On all that an agent makes: what it may clear away when it starts. Earlier versions' hubs made
# containers, too, and may be at it while an agent starts for the first time.
MADE = "labcommons.agent"
# A new home is given away (CHOWN), and its mode set after that (FOWNER) in a folder that is not
# root's; FSETID, or the setgid bit would be lost with a group that is not ours.
MAKER = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")


@dataclass(frozen=True)
class Bind:
    """A folder of the Engine's machine, and where it is in the container."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class Log:
    """How much of a container's output is kept: bytes of a file, and files."""

    size: str = "1m"
    files: int = 1


# What a job prints is cut in its container (kernels.job); what gets around that has an end here.
JOB_LOG = Log("8m", 2)


@dataclass(frozen=True)
class Use:
    """What a container may use; ``tmpfs`` are options by target."""

    memory: int
    cpu: float
    pids: int
    shared_memory: int = 2**26
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    log: Log = Log()


@dataclass(frozen=True)
class Ground:
    """What a server's names mean on this machine.

    Attributes:
        home: on the Engine's machine.
        registry: shelves of the kernel registry by source, on the Engine's machine.
        folders: of scopes, packages and the site's own mounts.
        missing: names of the site's own mounts that it does not get: their folder is not there.
        devices: ids of this machine's GPUs that nobody else has; simulated ones are only named.
        request: how they are asked of the Engine (``gpus.request``); ``nodes``: of "devices", each
            GPU's device node.
        address: in the network; "": one that Docker chooses.
        name_servers: whom Docker asks for a server; empty: the machine's.
    """

    site_id: str
    network: str
    home: str
    registry: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[Bind] = ()
    missing: Collection[str] = ()
    devices: frozenset[str] = frozenset()
    simulated: bool = False
    request: str = "runtime"
    nodes: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    name_servers: Sequence[str] = ()


def container(
    image: str,
    command: Sequence[str],
    user: Account | None,
    use: Use,
    *,
    labelled: Mapping[str, str],
    env: Mapping[str, str],
    binds: Sequence[Bind] = (),
    network: str = NONE,
    folder: str = TMP,
    init: bool = False,
    maker: bool = False,
    visible: str | None = "void",
) -> dict[str, Any]:
    """``POST /containers/create`` (Engine API 1.41). ``user`` None: root, for a ``maker`` alone.

    ``visible``: for the NVIDIA runtime, which may be Docker's default: "void" keeps GPUs out.
    """
    if (user is None) is not maker or (maker and network != NONE):
        raise ValueError("only a maker is root, and it has no network")
    groups = () if user is None else user.gids
    env = {**env, **({} if visible is None else {"NVIDIA_VISIBLE_DEVICES": visible})}
    return {
        "Image": image,
        "Cmd": list(command),
        "Entrypoint": [],
        "Env": [f"{key}={value}" for key, value in sorted(env.items())],
        "User": "0:0" if user is None else f"{user.uid}:{user.gid}",
        "WorkingDir": folder,
        "Labels": {**labelled, MADE: "1"},
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "NetworkMode": network,
            "Mounts": [bind(one) for one in binds],
            "ReadonlyRootfs": True,
            "Tmpfs": dict(use.tmpfs),
            "GroupAdd": [str(gid) for gid in groups],
            "CapDrop": ["ALL"],
            "CapAdd": list(MAKER) if maker else [],
            "SecurityOpt": ["no-new-privileges:true"],
            "Privileged": False,
            "PidsLimit": use.pids,
            "Memory": use.memory,
            "MemorySwap": use.memory,
            # Not NanoCpus: Docker refuses more of those than the machine has cores, and a
            # limit that is larger than the machine does no harm.
            "CpuPeriod": CPU_PERIOD,
            "CpuQuota": max(1000, int(use.cpu * CPU_PERIOD)),
            "ShmSize": use.shared_memory,
            "Init": init,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": use.log.size, "max-file": str(use.log.files)},
            },
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "DeviceRequests": [],
        },
    }


def server_body(spec: ServerSpec, ground: Ground) -> dict[str, Any]:
    """One person's server."""
    home, environment = str(personal(spec.user).mount), f"{spec.environment}:{spec.version}"
    env = variables(spec.env) | {
        "HOME": home,
        "USER": spec.user,
        "LOGNAME": spec.user,
        "NB_USER": spec.user,
        "LABCOMMONS_ENVIRONMENT": environment,
        "LABCOMMONS_DEFAULT_KERNEL": f"conda-image-{spec.environment}-python3",
    }
    if ground.registry:
        env["JUPYTER_PATH"] = ":".join(f"{REGISTRY}/{source}" for source in ground.registry)
    marks = {
        labels.SITE: ground.site_id,
        PURPOSE: "server",  # whatever the image says
        labels.USER: spec.user,
        labels.SERVER: spec.server,
        labels.ENVIRONMENT: environment,
        labels.ADDRESSES: spec.addresses,
        **labels.of_use(spec.limits),
    }
    if spec.exam is not None:
        marks[labels.EXAM] = f"{spec.exam.course}/{spec.exam.exam}"
        marks[labels.ADDRESS] = ground.address
    command = spec.command or (START_COMMAND,)
    if spec.job is not None:
        marks[labels.JOB] = spec.job.mark
        command = (JOB_COMMAND,)
    if ground.missing:
        marks[labels.MISSING] = " ".join(sorted(ground.missing))
    asked: dict[str, Any] = {}
    visible: str | None = "void"
    if spec.gpus is not None:
        marks[labels.LEASE] = spec.gpus.lease
        marks[labels.GPUS] = labels.show_devices(spec.gpus.devices)
        marks[labels.ACCOUNT] = spec.gpus.account
        if spec.gpus.time_limit is not None:
            marks[labels.TIME_LIMIT] = f"{spec.gpus.time_limit:.0f}"
        ids = list(dict.fromkeys(device.id for device in spec.gpus.devices))
        if not ground.devices.issuperset(ids):
            raise ValueError("a GPU that was not looked for")
        if ground.simulated:
            visible = ",".join(ids)
        else:
            asked = _asked(ids, ground)
            # NVIDIA's runtime sets the variable itself, from the request.
            visible = "void" if ground.request == "cdi" else None
    binds = [Bind(ground.home, home, read_only=False)]
    binds += [Bind(shelf, f"{REGISTRY}/{source}") for source, shelf in ground.registry.items()]
    body = container(
        spec.image,
        [*command, *spec.args],
        spec.account,
        _server_use(spec.limits, Log("5m", 2) if spec.job is None else JOB_LOG),
        labelled=marks,
        env=env,
        binds=[*binds, *ground.folders],
        network=ground.network,
        folder=home,
        init=True,
        visible=visible,
    )
    body["Hostname"] = re.sub(r"[^a-z0-9-]", "-", spec.environment)[:63].strip("-") or "server"
    body["HostConfig"] |= asked
    if ground.address:
        given = {"IPAMConfig": {"IPv4Address": ground.address}}
        body["NetworkingConfig"] = {"EndpointsConfig": {ground.network: given}}
    if ground.name_servers:
        body["HostConfig"]["Dns"] = list(ground.name_servers)
    return body


def _asked(ids: Sequence[str], ground: Ground) -> dict[str, Any]:
    """What asks the Engine for GPUs.

    What NVIDIA's hook adds behind its back, Docker does not know, and systemd takes away again
    when it is reloaded; what CDI or a list of nodes names belongs to the container.
    """
    if ground.request == "cdi":
        names = [CDI + id_ for id_ in ids]
        return {"DeviceRequests": [{"Driver": "cdi", "Count": 0, "DeviceIDs": names}]}
    request = {
        "Driver": "nvidia",
        "Count": 0,
        "DeviceIDs": list(ids),
        "Capabilities": [["gpu", "compute", "utility"]],
        "Options": {},
    }
    if ground.request != "devices":
        return {"DeviceRequests": [request]}
    nodes = [*NVIDIA_NODES, *(ground.nodes[id_] for id_ in ids)]
    return {
        "DeviceRequests": [request],
        "Devices": [
            {"PathOnHost": node, "PathInContainer": node, "CgroupPermissions": "rw"}
            for node in nodes
        ],
    }


def _server_use(limits: Limits, log: Log) -> Use:
    return Use(
        limits.memory,
        limits.cpu,
        limits.pids,
        limits.shared_memory,
        {
            TMP: f"rw,nosuid,nodev,exec,mode=1777,size={limits.tmp}",
            "/run": "rw,nosuid,nodev,noexec,mode=1777,size=16777216",
        },
        log,
    )


def maker_body(
    site_id: str, purpose: str, image: str, command: Sequence[str], folder: Bind
) -> dict[str, Any]:
    """What makes a home or a folder: root, with one folder and the right to give it away."""
    return container(
        image,
        command,
        None,
        Use(2**26, 1, 16),
        labelled={labels.SITE: site_id, PURPOSE: purpose},
        env={},
        binds=[folder],
        folder="/",
        maker=True,
    )


def build_body(
    site_id: str,
    job: tuple[str, str],
    image: str,
    user: Account,
    limits: Limits,
    *,
    env: Mapping[str, str],
    binds: Sequence[Bind],
    home: str = TMP,
    network: str = "bridge",
) -> dict[str, Any]:
    """One step of a build (``job``: its id, and the step); ``binds`` has its folder at JOB.

    The first process must be ours, so there is no init: see environments.builds.result_channel.
    """
    return container(
        image,
        [PYTHON, "-I", "-m", "environments.builds.task_main", JOB],
        user,
        Use(
            limits.memory,
            limits.cpu,
            min(limits.pids, 512),
            tmpfs={TMP: f"rw,nosuid,nodev,exec,mode=1777,size={2**31}"},
            log=Log(f"{2 * MAX_OUTPUT}"),
        ),
        labelled={labels.SITE: site_id, PURPOSE: "build", BUILD: job[0], STEP: job[1]},
        env={**env, "HOME": home, "LANG": "C.UTF-8"},
        binds=binds,
        network=network,
    )


def trial_body(
    site_id: str,
    image: str,
    program: Sequence[str],
    user: Account,
    env: Mapping[str, str],
    binds: Sequence[Bind] = (),
) -> dict[str, Any]:
    """An environment's own programs, tried or compiled with: no network, no rights."""
    return container(
        image,
        program,
        user,
        Use(2**32, 64, 512, tmpfs={TMP: "size=64m"}),
        labelled={labels.SITE: site_id, PURPOSE: "trial"},
        env=env,
        binds=binds,
        folder="/",
    )


def bind(one: Bind) -> dict[str, Any]:
    """One bind mount as the Engine's API wants it."""
    return {
        "Type": "bind",
        "Source": one.source,
        "Target": one.target,
        "ReadOnly": one.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }
