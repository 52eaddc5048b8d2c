"""What the container of a user's server uses and may use, as the kernel counts it (cgroup v1, v2).

Not the machine's figures, which ``free`` and /proc/meminfo show in every container. Standard
library only; every reading is of a few small files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# What stands in version 1 for "no limit": the largest number of pages.
_UNLIMITED = 2**62


@dataclass(frozen=True)
class Usage:
    """Memory in bytes, CPU in seconds and cores; None where there is no limit, or it is not known.

    Attributes:
        memory: without cached files, which the kernel takes back at once; as ``docker stats`` says.
        shared: of it, files in memory: /tmp, /dev/shm.
        killed: processes that were ended because there was no memory left, since the beginning.
    """

    memory: int
    limit: int | None
    shared: int
    killed: int
    cpu_seconds: float
    cpus: float | None

    @property
    def share(self) -> float:
        """Of the limit, from 0 to 1; 0 without one."""
        return min(1.0, self.memory / self.limit) if self.limit else 0.0


def read(root: Path = ROOT) -> Usage | None:
    """What is used now; None where this is no cgroup that could be read."""
    try:
        return _read_v2(root) if (root / "memory.current").exists() else _read_v1(root)
    except (OSError, ValueError, KeyError):
        return None


def _read_v2(root: Path) -> Usage:
    stat, cpu = _pairs(root / "memory.stat"), _pairs(root / "cpu.stat")
    quota, period = (root / "cpu.max").read_text().split()
    most = (root / "memory.max").read_text().strip()
    return Usage(
        max(0, _number(root / "memory.current") - stat.get("inactive_file", 0)),
        None if most == "max" else int(most),
        stat.get("shmem", 0),
        _pairs(root / "memory.events").get("oom_kill", 0),
        cpu["usage_usec"] / 1e6,
        None if quota == "max" else int(quota) / int(period),
    )


def _read_v1(root: Path) -> Usage:
    memory, cpu = root / "memory", root / "cpu"
    stat = _pairs(memory / "memory.stat")
    most = min(
        _number(memory / "memory.limit_in_bytes"),
        stat.get("hierarchical_memory_limit", _UNLIMITED),
    )
    quota = _number(cpu / "cpu.cfs_quota_us")
    return Usage(
        max(0, _number(memory / "memory.usage_in_bytes") - stat.get("total_inactive_file", 0)),
        None if most >= _UNLIMITED else most,
        stat.get("total_shmem", stat.get("shmem", 0)),
        _pairs(memory / "memory.oom_control").get("oom_kill", 0),
        _number(root / "cpuacct" / "cpuacct.usage") / 1e9,
        None if quota <= 0 else quota / _number(cpu / "cpu.cfs_period_us"),
    )


def _number(file: Path) -> int:
    return int(file.read_text())


def _pairs(file: Path) -> dict[str, int]:
    return {key: int(value) for key, value in map(str.split, file.read_text().splitlines())}


@dataclass(frozen=True)
class Process:
    """A process of this container. ``session``: the first process of its session (setsid(2)): a
    kernel or a terminal's shell, whose children keep it.
    """

    pid: int
    name: str
    session: int
    memory: int  # bytes in memory, shared ones included


def processes(proc: Path = Path("/proc")) -> dict[int, Process]:
    """All that can be read, by pid."""
    found, page = {}, os.sysconf("SC_PAGESIZE")
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text("utf-8", "replace")
            resident = int((entry / "statm").read_text().split()[1]) * page
        except (OSError, ValueError, IndexError):  # it has ended
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        pid = int(entry.name)
        found[pid] = Process(pid, name[:60], int(rest.split()[3]), resident)
    return found


def prefer_to_end(pid: int | str = "self") -> None:
    """Have the kernel end this process, and what it starts, before the server, when there is no
    memory left: the highest oom_score_adj (proc(5)), which needs no right. Raises OSError.
    """
    Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
