"""A writer's chain: dated files, each line with its number and the hash of the line before.

``data/audit/<writer>/2026-11-27.jsonl``. A line is one event; in it ``event.sequence`` counts from
1 over all files, and ``labcommons.chain`` has the writer and ``previous``, the SHA-256 of the line
before (without its newline; zeros before the first). Files are never shortened or renamed: a new
day is a new file, and a clock that goes back writes on in the newest. What a kill left of a line is
ended by a newline and told by ``verify``; the chain goes on from the last whole line.

Several processes may be one writer: a lock in the folder lets one at a time.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ORIGIN = "0" * 64
# Bytes of one line. What is longer loses its details, and says so.
MAX_LINE = 64 * 1024
DATED = re.compile(r"\d{4}-\d\d-\d\d\.jsonl")

Sign = Callable[[bytes], bytes]


def encode(event: Mapping[str, Any]) -> bytes:
    """The one way in which an event is a line; in ASCII, nothing in a name ends it or turns it."""
    return json.dumps(event, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def digest(line: bytes) -> str:
    """What the next line says of this one; and its id where it is sent to."""
    return hashlib.sha256(line).hexdigest()


def files(folder: Path) -> list[Path]:
    """A chain's files, the oldest first; none where there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if DATED.fullmatch(path.name))
    except FileNotFoundError:
        return []


@dataclass(frozen=True)
class Head:
    """The last whole line of a chain: its number and its hash."""

    sequence: int = 0
    hash: str = ORIGIN


class Chain:
    """Appends events to a writer's chain.

    Args:
        folder: of this writer; made where it is missing.
        writer: its name, which each line has.
        sign: gives the signature of a line's bytes, for a chain whose lines are signed.
    """

    def __init__(self, folder: Path, writer: str, sign: Sign | None = None) -> None:
        self.folder, self.writer = folder, writer
        self._sign = sign
        self._head = Head()
        self._end: tuple[str, int] | None = None  # the newest file and its size, as we left them

    def append(self, events: Sequence[Mapping[str, Any]]) -> Head:
        """Write events, all or none of them; they are on the disk then. Raises OSError."""
        with self._alone():
            newest = files(self.folder)[-1:]
            size = newest[0].stat().st_size if newest else 0
            torn = False
            if self._end != (newest[0].name if newest else "", size):
                self._head, torn = last(self.folder)
            today = f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
            name = max(today, newest[0].name) if newest else today
            if newest and name != newest[0].name:
                if torn:
                    self._write(newest[0], b"\n")
                torn, size = False, 0
            head, lines = self._head, [b""] if torn else []
            for event in events:
                line = self._line(event, head)
                lines.append(line)
                head = Head(head.sequence + 1, digest(line))
            size += self._write(self.folder / name, b"\n".join([*lines, b""]))
            self._head, self._end = head, (name, size)
            return head

    def _line(self, event: Mapping[str, Any], head: Head) -> bytes:
        chain = {"writer": self.writer, "previous": head.hash}
        whole = dict(event)
        whole["event"] = {**event.get("event", {}), "sequence": head.sequence + 1}
        whole["labcommons"] = {**event.get("labcommons", {}), "chain": chain}
        line = encode(whole)
        if len(line) > MAX_LINE:
            cut = {"bytes": len(line), "sha256": digest(encode(event))}
            whole["labcommons"] = {"chain": chain, "too_long": cut}
            line = encode(whole)
        if self._sign is not None:
            whole["labcommons"]["signature"] = base64.b64encode(self._sign(line)).decode("ascii")
            line = encode(whole)
        return line

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @staticmethod
    def _write(path: Path, data: bytes) -> int:
        """All of it, or, on a full disk, nothing."""
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(file).st_size
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fdatasync(file)
            except OSError:
                os.ftruncate(file, before)
                raise
        finally:
            os.close(file)
        return len(data)


def last(folder: Path, upto: str = "") -> tuple[Head, bool]:
    """The last whole line of a chain (up to a file of it), and whether the newest file ends within
    a line.
    """
    torn: bool | None = None
    for path in reversed([path for path in files(folder) if not upto or path.name <= upto]):
        data = _tail(path)
        if torn is None:
            torn = bool(data) and not data.endswith(b"\n")
        for line in reversed(data.split(b"\n")[:-1]):
            if (event := parse(line)) is not None:
                return Head(event["event"]["sequence"], digest(line)), bool(torn)
    return Head(), bool(torn)


def _tail(path: Path) -> bytes:
    """The end of a file, with a whole line in it at least, if there is one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        length = 4 * MAX_LINE
        while True:
            file.seek(max(0, size - length))
            data = file.read(length)
            lines = data.split(b"\n")
            whole = lines[:-1] if length >= size else lines[1:-1]
            if length >= size or any(parse(line) is not None for line in whole):
                return data
            length *= 4


def parse(line: bytes) -> dict[str, Any] | None:
    """A line's event; None for what is no line of a chain."""
    if len(line) > 2 * MAX_LINE:
        return None
    try:
        event = json.loads(line)
        chain = event["labcommons"]["chain"]
        right = (
            isinstance(event["event"]["sequence"], int)
            and isinstance(chain["previous"], str)
            and isinstance(chain["writer"], str)
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return event if right else None
