"""What is kept of a job's output: bounded, whole after a killed hub, and its end quickly found."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from jobs import output
from jobs.output import Outputs
from spawner.runtime.memory import MemoryRuntime, Task
from spawner.runtime.protocol import TaskEnd

LOG = logging.getLogger("test")


@pytest.fixture
def runtime() -> MemoryRuntime:
    found = MemoryRuntime()
    found.long["h"] = Task(None)  # type: ignore[arg-type]
    return found


async def test_it_is_written_as_it_comes_and_goes_on_after_a_killed_hub(
    runtime: MemoryRuntime, tmp_path: Path
) -> None:
    outputs = Outputs(tmp_path, LOG)
    following = asyncio.create_task(outputs.follow(runtime, 1, 1, "h"))
    await runtime.print("h", b"one", b"two")
    async with asyncio.timeout(10):
        while output.part(tmp_path, 1, 1, 0)[0] != "one\ntwo\n":
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.wait([following])
    with outputs.file(1, 1).open("ab") as file:
        file.write(b"a half-written li")
    await runtime.print("h", b"three", end=TaskEnd(exit_code=0))
    await outputs.follow(runtime, 1, 1, "h")
    assert output.part(tmp_path, 1, 1, 0) == ("one\ntwo\nthree\n", 14)
    assert output.part(tmp_path, 1, 1, 8) == ("three\n", 14)
    assert output.part(tmp_path, 1, 1, 99) == ("", 14)


async def test_ten_gigabytes_have_an_end(
    runtime: MemoryRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever gets around the container's own cut; scaled down."""
    monkeypatch.setattr(output, "MOST", 10_000)
    await runtime.print("h", *[b"x" * 99] * 5000, end=TaskEnd(exit_code=0))
    await Outputs(tmp_path, LOG).follow(runtime, 1, 1, "h")
    assert 9000 <= (tmp_path / "jobs" / "1.1.log").stat().st_size <= 10_000


def test_the_memory_that_was_used_is_in_the_last_line(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path, LOG)
    outputs.folder.mkdir()
    said = "labcommons: exit code 0; memory peak 7 bytes\nmore\n" * 500
    outputs.file(1, 1).write_text(f"{said}labcommons: exit code 3; memory peak 4096 bytes\n")
    assert outputs.peak(1, 1) == 4096
    assert outputs.peak(2, 1) is None


def test_the_end_begins_with_a_whole_line(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "1.1.log").write_text("line of some length\n" * 20_000)
    text, end = output.part(tmp_path, 1, 1, None)
    assert text.startswith("line of some length\n")
    assert end == 400_000
