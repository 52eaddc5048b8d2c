"""What a container uses, by the kernel's own count, in both versions of cgroups; who ends first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import cgroup, deaths, limits

GIB = 2**30
V1 = {
    "memory/memory.usage_in_bytes": 900 << 20,
    "memory/memory.limit_in_bytes": GIB,
    "memory/memory.stat": (
        f"cache 1\nshmem 5\nhierarchical_memory_limit {GIB}\n"
        f"total_inactive_file {100 << 20}\ntotal_shmem {50 << 20}"
    ),
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3",
    "cpu/cpu.cfs_quota_us": 150000,
    "cpu/cpu.cfs_period_us": 100000,
    "cpuacct/cpuacct.usage": 2_500_000_000,
}
V2 = {
    "memory.current": 900 << 20,
    "memory.max": GIB,
    "memory.stat": f"anon 1\ninactive_file {100 << 20}\nshmem {50 << 20}",
    "memory.events": "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3",
    "cpu.max": "150000 100000",
    "cpu.stat": "usage_usec 2500000\nuser_usec 1",
}
NO_LIMITS = {
    "v1": {
        "memory/memory.limit_in_bytes": 2**63 - 4096,
        "memory/memory.stat": "cache 1",
        "cpu/cpu.cfs_quota_us": -1,
    },
    "v2": {"memory.max": "max", "cpu.max": "max 100000"},
}


def write(root: Path, files: dict[str, object]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_both_versions_say_the_same(tmp_path: Path, files: dict[str, object]) -> None:
    """Kind: figures are the container's, not the machine's, whatever the version of cgroups."""
    usage = cgroup.read(write(tmp_path, files))
    assert usage == cgroup.Usage(800 << 20, GIB, 50 << 20, 3, 2.5, 1.5)
    assert round(usage.share, 2) == 0.78


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_without_limits_there_are_none(tmp_path: Path, version: str) -> None:
    files = {"v1": V1, "v2": V2}[version] | NO_LIMITS[version]
    usage = cgroup.read(write(tmp_path, files))
    assert usage is not None
    assert (usage.limit, usage.cpus, usage.share) == (None, None, 0.0)


def test_where_nothing_can_be_read_nothing_is_said(tmp_path: Path) -> None:
    assert cgroup.read(tmp_path) is None
    assert cgroup.read(write(tmp_path, {"memory.current": "x"})) is None


def test_what_was_started_last_ends_first_and_its_children_with_it() -> None:
    """Kind: without memory the server is the last to be ended, also where each child is smaller."""
    code = (
        "import subprocess, sys; sys.stdin.read();"
        "print(*[open(f'/proc/{p}/oom_score_adj').read() for p in ('self', subprocess.Popen("
        "['sleep', '9']).pid)])"
    )
    before = Path("/proc/self/oom_score_adj").read_text()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    limits.apply(process.pid, {}, 0)
    said, _ = process.communicate(timeout=20)
    assert said.split() == ["1000", "1000"]
    assert Path("/proc/self/oom_score_adj").read_text() == before


def test_a_process_that_has_ended_says_how_much_memory_it_had() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "x = b'1' * (64 << 20); import os; os._exit(3)"]
    )
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert deaths.reap(process) > 64 << 20
    assert process.poll() == 3
    assert deaths.reap(process) == 0, "it is known once"


def test_processes_are_known_with_their_session() -> None:
    found = cgroup.processes()
    mine = found[os.getpid()]
    assert mine.memory > 2**20
    assert mine.session == os.getsid(0)
