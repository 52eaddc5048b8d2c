"""From a job and a person to the create body of its builder container: a pure function.

A builder has no more than it needs: one person's numbers, one folder to write to, no
capabilities, no Docker socket, bounded CPU, memory, processes and log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from kernels.hostile import Lines
from spawner.container import CPU_PERIOD, LABEL_SITE, bind
from spawner.tiers.groups import SHARED_OWNER
from spawner.tiers.tongue import MAX_RESULT

LABEL_PURPOSE = "labcommons.purpose"
LABEL_BUILD = "labcommons.build"
PURPOSE = "build"
JOB = "/job"
DATA = PurePosixPath("/srv/labcommons/data")
PYTHON = "/opt/labcommons/hub/bin/python"
# The log has progress, what programs printed and, at its end, the result with all packages.
MAX_LOG, MAX_LOG_LINES = 32 * 2**20, 200_000  # bytes, lines


@dataclass(frozen=True)
class Account:
    """The numbers that a builder runs with; never root's."""

    uid: int
    gid: int
    gids: tuple[int, ...] = ()


SERVICE = Account(SHARED_OWNER, SHARED_OWNER)


@dataclass(frozen=True)
class Mount:
    """A folder of the Engine's machine, and where it is in the builder."""

    host: str
    target: str
    read_only: bool = True


@dataclass(frozen=True)
class BuilderSpec:
    """All that makes up one builder container. Memory in bytes, CPU in cores."""

    site_id: str
    job_id: str
    image: str
    account: Account
    folder: str  # with job.json, on the Engine's machine
    cpu: float
    memory: int
    network: str = "bridge"
    home: str = "/tmp"  # noqa: S108
    mounts: Sequence[Mount] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def builder_name(site_id: str, job_id: str, work: str) -> str:
    """One name for one work of one job: it is found again after a restart of the hub."""
    return f"{site_id}-build-{job_id}-{work}"


def builder_body(spec: BuilderSpec) -> dict[str, Any]:
    """The JSON body of ``POST /containers/create`` (Engine API 1.41)."""
    if spec.account.uid < 1 or spec.account.gid < 1:
        raise ValueError("a builder never runs as root")
    env = {**spec.env, "HOME": spec.home, "LANG": "C.UTF-8"}
    return {
        "Image": spec.image,
        "Entrypoint": [],
        "Cmd": [PYTHON, "-I", "-m", "spawner.tiers.inside", JOB],
        "Env": [f"{key}={value}" for key, value in sorted(env.items())],
        "User": f"{spec.account.uid}:{spec.account.gid}",
        "WorkingDir": "/tmp",  # noqa: S108
        "Labels": {
            LABEL_SITE: spec.site_id,
            LABEL_PURPOSE: PURPOSE,
            LABEL_BUILD: spec.job_id,
        },
        "HostConfig": {
            "NetworkMode": spec.network,
            "Mounts": [
                bind(spec.folder, JOB, read_only=True),
                *(bind(mount.host, mount.target, mount.read_only) for mount in spec.mounts),
            ],
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": "rw,nosuid,nodev,exec,mode=1777,size=2147483648"},  # noqa: S108
            "GroupAdd": [str(gid) for gid in spec.account.gids if gid > 0],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "PidsLimit": 512,
            "Memory": spec.memory,
            "MemorySwap": spec.memory,
            "CpuPeriod": CPU_PERIOD,
            "CpuQuota": max(1000, int(spec.cpu * CPU_PERIOD)),
            # The first process must be ours: see spawner.tiers.tongue.
            "Init": False,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": f"{2 * MAX_LOG}", "max-file": "1"},
            },
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        },
    }


def limits() -> Lines:
    """Of what is read of one builder's log."""
    return Lines(MAX_RESULT, MAX_LOG, MAX_LOG_LINES)
