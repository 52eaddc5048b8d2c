"""How much room the channel may take: beyond that, what no lock names goes, the oldest first.

What goes can be made again: PyPI keeps what it has, and equal wheels make equal packages.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from environments.channel import OFFLINE_URL
from environments.offline.index import write_index
from environments.offline.note import Note

# A lock may have been made a moment ago, and be known to nobody yet but the build that made it.
FRESH = 86400  # seconds
_URL = re.compile(re.escape(OFFLINE_URL) + r"((?:noarch|linux-64)/[^\s\"']+\.conda)")


@dataclass(frozen=True)
class Room:
    """Bytes that the channel takes, and that were (or would be) made free."""

    size: int
    freed: int


def named_in(locks: Iterable[str]) -> set[str]:
    """The paths of the channel's packages that some locks' texts name, whether or not whole."""
    return {unquote(path) for text in locks for path in _URL.findall(text)}


def touch(channel: Path, paths: Iterable[str]) -> None:
    """Remember that packages are in use now, as far as one may write there."""
    for path in paths:
        with suppress(OSError):
            os.utime(channel / path)


def size(channel: Path) -> int:
    """Bytes of the channel's packages."""
    return sum(path.lstat().st_size for path in channel.glob("*/*.conda"))


def trim(channel: Path, limit: int, needed: Collection[str], dry_run: bool = False) -> Room:
    """Remove packages until the channel takes at most ``limit`` bytes.

    Those ``needed``, by their paths, and those used within the last day stay, even where it
    remains too large. Whoever calls sees that nobody else writes to the channel.
    """
    found = []
    for package in channel.glob("*/*.conda"):
        seen = package.lstat()
        found.append((seen.st_mtime, seen.st_size, package.relative_to(channel).as_posix()))
    left = total = sum(taken for _, taken, _ in found)
    gone = set[str]()
    for used, taken, path in sorted(found):
        if left <= limit:
            break
        if path not in needed and time.time() - used > FRESH:
            gone.add(path)
            left -= taken
    if gone and not dry_run:
        _remove(channel, gone)
    return Room(left, total - left)


def _remove(channel: Path, gone: set[str]) -> None:
    """First from the index, so that nobody is offered it, then from the disk."""
    note = Note.read(channel)
    note.packages = {path: kept for path, kept in note.packages.items() if path not in gone}
    note.asked = {key: paths for key, paths in note.asked.items() if not gone & set(paths)}
    write_index(channel, note.packages)
    note.write(channel)
    for path in gone:
        (channel / path).unlink(missing_ok=True)
