"""A file that is kept on a disk that others can fill, and given up for what must be written."""

from __future__ import annotations

import os
from pathlib import Path

RESERVE = 64 * 2**20  # bytes of the file
FILE = "reserve"


def left(folder: Path) -> int:
    """Bytes that anybody may still write in a folder. Raises OSError."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def keep(folder: Path, size: int = RESERVE) -> None:
    """Keep the file, where the disk has plenty. Raises OSError."""
    path, part = folder / FILE, folder / f"{FILE}.part"
    if path.exists() or left(folder) < 4 * size:
        return
    try:
        with part.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def drop(folder: Path) -> bool:
    """Give the file up; whether there was one."""
    try:
        (folder / FILE).unlink()
    except OSError:
        return False
    return True
