"""A server that looks after its container: what died of memory is told once, with figures."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernels.cgroup import Process, Usage
from kernels.deaths import Death

sys.path.insert(0, str(Path(__file__).parents[3] / "config" / "images" / "server" / "notices"))
from labcommons_resources import Watch

GIB = 2**30
KERNEL = Process(100, "python3.13", 100, GIB // 2)


class Container:
    """What the kernel would count, at the edge of what a test can have of it."""

    def __init__(self) -> None:
        self.usage = Usage(GIB // 4, GIB, 0, 0, 0.0, 1.0)
        self.there = {100: KERNEL}
        self.now = 0.0
        self.told: list[dict[str, Any]] = []
        self.away = False  # the console

    def watch(self, home: Path) -> Watch:
        return Watch(
            str(home),
            self.tell,
            self.kernels,
            lambda: self.usage,
            lambda: dict(self.there),
            lambda: self.now,
        )

    async def tell(self, event: dict[str, Any]) -> int | None:
        if self.away:
            return None
        self.told.append(event)
        return len(self.told)

    async def kernels(self) -> dict[int, tuple[str, str]]:
        return {100: ("id", "analysis.ipynb")}

    @property
    def memory(self) -> list[dict[str, Any]]:
        """Without what the test's own disk has to say."""
        return [one for one in self.told if one["code"] not in ("disk_high", "tmp_high")]


@pytest.fixture
def container() -> Container:
    return Container()


async def test_a_kernel_that_was_killed_without_memory_is_told_with_figures(
    container: Container, tmp_path: Path
) -> None:
    """Kind: every end by memory says how much of how much, and what was the largest."""
    watch = container.watch(tmp_path)
    container.usage = replace(container.usage, memory=GIB * 6 // 10)
    await watch.look()
    container.usage = replace(container.usage, memory=GIB // 10, killed=1)
    container.there = {}
    watch.died(Death("id", "py313 - Python", -signal.SIGKILL, GIB))
    assert await watch.told["id"] == len(container.told)
    [event] = container.memory
    assert event["code"] == "kernel_out_of_memory"
    assert (event["what"], event["limit_bytes"], event["peak_bytes"]) == (
        "analysis.ipynb",
        GIB,
        GIB,
    )
    assert event["largest"] == {
        "name": "python3.13",
        "what": "analysis.ipynb",
        "memory_bytes": GIB // 2,
    }
    container.now += 60
    await watch.look()
    assert len(container.memory) == 1, "one death is told once"


@pytest.mark.parametrize(
    ("status", "how"), [(-signal.SIGSEGV, "SIGSEGV"), (-signal.SIGKILL, "SIGKILL"), (3, "3")]
)
async def test_a_kernel_that_crashed_did_not_die_of_memory(
    container: Container, tmp_path: Path, status: int, how: str
) -> None:
    watch = container.watch(tmp_path)
    watch.died(Death("id", "py313", status))
    await watch.told["id"]
    assert [(one["code"], one["how"]) for one in container.memory] == [("kernel_ended", how)]


async def test_many_small_children_are_told_together_and_as_the_notebooks(
    container: Container, tmp_path: Path
) -> None:
    """Kind: work in many processes, each smaller than the server."""
    watch = container.watch(tmp_path)
    container.there |= {pid: Process(pid, "python3.13", 100, 45 << 20) for pid in range(200, 220)}
    container.usage = replace(container.usage, memory=GIB * 8 // 10)
    await watch.look()
    for pid in range(200, 204):
        del container.there[pid]
    container.usage = replace(container.usage, killed=4)
    await watch.look()
    assert container.memory == [], "a kernel's own end might be among them"
    container.now += 7
    await watch.look()
    [event] = container.memory
    assert (event["code"], event["what"], event["count"]) == (
        "process_out_of_memory",
        "analysis.ipynb",
        4,
    )


async def test_each_crossing_is_told_once(container: Container, tmp_path: Path) -> None:
    """Kind: a warning at 85 %, once for each crossing; hovering about the limit is one."""
    watch = container.watch(tmp_path)
    for part in (0.84, 0.86, 0.8, 0.9, 0.7, 0.86):
        container.now += 5
        container.usage = replace(container.usage, memory=int(GIB * part))
        await watch.look()
    assert [one["code"] for one in container.memory] == ["memory_high"] * 2


async def test_what_the_console_does_not_hear_is_told_later(
    container: Container, tmp_path: Path
) -> None:
    """Kind: a console that is away for a moment costs nobody the reason."""
    watch = container.watch(tmp_path)
    container.away = True
    watch.died(Death("id", "py313", 3))
    assert await watch.told["id"] is None
    container.away = False
    for _ in range(5):
        await watch.look()
    assert [one["code"] for one in container.memory] == ["kernel_ended"]


async def test_the_page_gets_the_containers_figures(container: Container, tmp_path: Path) -> None:
    watch = container.watch(tmp_path)
    container.now += 10
    container.usage = replace(container.usage, cpu_seconds=5.0)
    await watch.look()
    found = watch.document()
    assert found["memory"] == {"used": GIB // 4, "limit": GIB}
    assert found["cpu"] == {"used": 0.5, "limit": 1.0}
    assert found["disk"]["limit"] > 0
