"""What is kept of a job's output: a file of an attempt in the data folder, written as it comes.

It is the hub's to write and the console's to read, and shown to whom the job's rights allow. The
job's container has cut it already (``kernels.job``); what gets around that ends at ``MOST``.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from pathlib import Path

from commons.work import Log
from spawner.runtime.protocol import Runtime, TooMuchSaid

MOST = 8 * 2**20  # bytes of a file
PART = 256 * 1024  # bytes that are shown at once
PAUSE = 0.2  # seconds between two writings
KEPT = 30 * 86_400  # seconds
_LAST = 4096  # bytes in which the last line is
_PEAK = re.compile(rb"^labcommons: exit code \d{1,3}; memory peak (\d{1,18}) bytes$", re.MULTILINE)


class Outputs:
    """The files of one site."""

    def __init__(self, data: Path, log: Log) -> None:
        self.folder, self.log = data / "jobs", log

    def file(self, job: int, attempt: int) -> Path:
        """Of one attempt."""
        return self.folder / f"{job}.{attempt}.log"

    async def follow(self, runtime: Runtime, job: int, attempt: int, handle: str) -> None:
        """Write what a job prints until it has ended; what an earlier hub has written stays.

        Raises LabError where the runtime does not answer, OSError where nothing can be written.
        """
        file = self.file(job, attempt)
        size, lines = await asyncio.to_thread(_begin, file)
        new: list[bytes] = []
        more, over = asyncio.Event(), asyncio.Event()

        async def write() -> None:
            nonlocal size
            while new or not over.is_set():
                await more.wait()
                more.clear()
                chunk = b"".join(new)[: max(0, MOST - size)]
                new.clear()
                if chunk:
                    size += len(chunk)
                    await asyncio.to_thread(_append, file, chunk)
                with suppress(TimeoutError):  # not one line at a time; the end is not waited for
                    async with asyncio.timeout(PAUSE):
                        await over.wait()

        writing = asyncio.create_task(write())
        try:
            with suppress(TooMuchSaid):
                async for line in runtime.follow(handle, lines):
                    if size + sum(map(len, new[-1:])) < MOST and not writing.done():
                        new.append(line + b"\n")
                        more.set()
        finally:
            over.set()
            more.set()
            await writing

    def peak(self, job: int, attempt: int) -> int | None:
        """The most memory that a job says it has used: its own word."""
        with suppress(OSError), self.file(job, attempt).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LAST))
            if found := _PEAK.findall(file.read()):
                return int(found[-1])
        return None

    def forget_old(self) -> None:
        """Remove what is older than is kept."""
        with suppress(FileNotFoundError):
            for file in self.folder.iterdir():
                with suppress(OSError):
                    if file.suffix == ".log" and time.time() - file.stat().st_mtime > KEPT:
                        file.unlink()


def part(data: Path, job: int, attempt: int, offset: int | None) -> tuple[str, int]:
    """A file from an offset in bytes on, and the next offset; None: its end.

    Whole lines, so that no character is cut in two; the last one, too, where it is a part.
    """
    try:
        with (data / "jobs" / f"{job}.{attempt}.log").open("rb") as file:
            size = file.seek(0, 2)
            start = max(0, size - PART) if offset is None else min(offset, size)
            file.seek(start)
            found = file.read(PART)
    except OSError:
        return "", 0
    if offset is None and start:
        found = found[found.find(b"\n") + 1 :]
        start = size - len(found)
    end = found.rfind(b"\n") + 1 or len(found)
    return found[:end].decode("utf-8", "replace"), start + end


def _begin(file: Path) -> tuple[int, int]:
    """Its size and its whole lines; a part of one, which a killed hub left, is taken away."""
    file.parent.mkdir(mode=0o750, exist_ok=True)
    with file.open("ab+") as opened:
        opened.seek(0)
        found = opened.read(MOST + 1)
        whole = found.rfind(b"\n") + 1
        opened.truncate(whole)
        return whole, found.count(b"\n")


def _append(file: Path, chunk: bytes) -> None:
    with file.open("ab") as opened:
        opened.write(chunk)
