"""From a resolved request to the Engine's create body: a pure function.

What users' containers may never have is decided here and nowhere else: no root, no
capabilities, no new privileges, a read-only root, bounded memory, CPU, processes, logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spawner.gpu.state import Slot

SERVER_PORT = 8888
CPU_PERIOD = 100_000  # microseconds, the kernel's default
START_COMMAND = "/opt/labcommons/bin/start"
REGISTRY = "/opt/labcommons/registry"

LABEL_SITE = "labcommons.site"
LABEL_USER = "labcommons.user"
LABEL_SERVER = "labcommons.server"
LABEL_ENVIRONMENT = "labcommons.environment"
LABEL_LEASE = "labcommons.lease"
# What the server was told of the site's addresses; `make up` stops those that know others.
LABEL_ADDRESSES = "labcommons.addresses"
# From these a lease is written again when the store has lost it.
LABEL_GPUS = "labcommons.gpus"  # ids, each with "#SLOT" where the device is shared
LABEL_ACCOUNT = "labcommons.account"
LABEL_TIME_LIMIT = "labcommons.time-limit"  # seconds

# Variables that decide what a container may see; never taken from anybody but the lease.
RESERVED_PREFIXES = ("NVIDIA_", "DOCKER_RESOURCE_")


@dataclass(frozen=True)
class Identity:
    """Who runs in the container: the directory's numbers, never 0."""

    name: str
    uid: int
    gid: int
    gids: tuple[int, ...] = ()


@dataclass(frozen=True)
class GpuGrant:
    """The slots of a lease, and what is written on its container."""

    lease_id: str
    slots: tuple[Slot, ...]
    simulated: bool
    account: str = ""
    time_limit: float | None = None

    @property
    def device_ids(self) -> tuple[str, ...]:
        """Each device once, as Docker takes them."""
        return tuple(dict.fromkeys(slot.device for slot in self.slots))


@dataclass(frozen=True)
class Limits:
    """What one container may use. Memory in bytes, CPU in cores."""

    cpu: float
    memory: int
    pids: int
    shared_memory: int
    tmp: int


@dataclass(frozen=True)
class ContainerSpec:
    """All that makes up one user's container."""

    site_id: str
    who: Identity
    server_name: str
    image: str
    environment: str  # name:version
    environment_name: str
    home: str  # on the Engine's machine
    # Shelves of the kernel registry by source, on the Engine's machine.
    registry: Mapping[str, str]
    network: str
    limits: Limits
    # Folders of environments: (on the Engine's machine, in the container, read-only).
    folders: Sequence[tuple[str, str, bool]] = ()
    gpus: GpuGrant | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] = ()
    addresses: str = ""


def container_name(site_id: str, username: str, server_name: str) -> str:
    """One name for one server of one person: Docker itself then refuses a second one.

    A server's name has no ``--`` in it, so that the last one separates the two.
    """
    return f"{site_id}-user-{_escape(username)}--{_escape(server_name)}"


def _escape(text: str) -> str:
    return re.sub(r"[^a-z0-9.-]", lambda match: f"_{ord(match[0]):x}_", text)


def create_body(spec: ContainerSpec) -> dict[str, Any]:
    """The JSON body of ``POST /containers/create`` (Engine API 1.41)."""
    if spec.who.uid < 1 or spec.who.gid < 1:
        raise ValueError("a user's container never runs as root")
    home = f"/home/{spec.who.name}"
    env = {key: value for key, value in spec.env.items() if not key.startswith(RESERVED_PREFIXES)}
    env |= {
        "HOME": home,
        "USER": spec.who.name,
        "LOGNAME": spec.who.name,
        "NB_USER": spec.who.name,
        "LABCOMMONS_ENVIRONMENT": spec.environment,
        "LABCOMMONS_DEFAULT_KERNEL": f"conda-image-{spec.environment_name}-python3",
    }
    if spec.registry:
        env["JUPYTER_PATH"] = ":".join(f"{REGISTRY}/{source}" for source in spec.registry)
    labels = {
        LABEL_SITE: spec.site_id,
        LABEL_USER: spec.who.name,
        LABEL_SERVER: spec.server_name,
        LABEL_ENVIRONMENT: spec.environment,
        LABEL_ADDRESSES: spec.addresses,
    }
    requests: list[dict[str, Any]] = []
    if spec.gpus is None:
        # Where the NVIDIA runtime is Docker's default, this is what keeps GPUs out.
        env["NVIDIA_VISIBLE_DEVICES"] = "void"
    else:
        labels[LABEL_LEASE] = spec.gpus.lease_id
        labels[LABEL_GPUS] = show_slots(spec.gpus.slots)
        labels[LABEL_ACCOUNT] = spec.gpus.account
        if spec.gpus.time_limit is not None:
            labels[LABEL_TIME_LIMIT] = f"{spec.gpus.time_limit:.0f}"
        if spec.gpus.simulated:
            env["NVIDIA_VISIBLE_DEVICES"] = ",".join(spec.gpus.device_ids)
        else:
            requests.append(
                {
                    "Driver": "nvidia",
                    "Count": 0,
                    "DeviceIDs": list(spec.gpus.device_ids),
                    "Capabilities": [["gpu", "compute", "utility"]],
                    "Options": {},
                }
            )
    mounts = [bind(spec.home, home, read_only=False)]
    mounts += [
        bind(shelf, f"{REGISTRY}/{source}", read_only=True)
        for source, shelf in spec.registry.items()
    ]
    mounts += [bind(*folder) for folder in spec.folders]
    return {
        "Image": spec.image,
        "Cmd": [START_COMMAND, *spec.args],
        "Entrypoint": [],
        "Env": [f"{key}={value}" for key, value in sorted(env.items())],
        "User": f"{spec.who.uid}:{spec.who.gid}",
        "WorkingDir": home,
        "Hostname": _hostname(spec),
        "Labels": labels,
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "NetworkMode": spec.network,
            "Mounts": mounts,
            "ReadonlyRootfs": True,
            "Tmpfs": {
                "/tmp": f"rw,nosuid,nodev,exec,mode=1777,size={spec.limits.tmp}",  # noqa: S108
                "/run": "rw,nosuid,nodev,noexec,mode=1777,size=16777216",
            },
            "GroupAdd": [str(gid) for gid in spec.who.gids if gid > 0],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Privileged": False,
            "PidsLimit": spec.limits.pids,
            "Memory": spec.limits.memory,
            "MemorySwap": spec.limits.memory,
            # Not NanoCpus: Docker refuses more of those than the machine has cores, and a
            # limit that is larger than the machine does no harm.
            "CpuPeriod": CPU_PERIOD,
            "CpuQuota": max(1000, int(spec.limits.cpu * CPU_PERIOD)),
            "ShmSize": spec.limits.shared_memory,
            "Init": True,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}},
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "DeviceRequests": requests,
        },
    }


def show_slots(slots: Sequence[Slot]) -> str:
    """Slots as their label says them: ``GPU-a GPU-b#2``."""
    return " ".join(f"{s.device}#{s.index}" if s.index else s.device for s in slots)


def read_slots(label: str) -> tuple[Slot, ...]:
    """The other way round."""
    parts = (part.partition("#") for part in label.split())
    return tuple(Slot(device, int(index) if index.isdigit() else 0) for device, _, index in parts)


def bind(source: str, target: str, read_only: bool) -> dict[str, Any]:
    """One bind mount as the Engine's API wants it."""
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _hostname(spec: ContainerSpec) -> str:
    return re.sub(r"[^a-z0-9-]", "-", spec.environment_name)[:63].strip("-") or "server"
