"""Files of others, read without trusting what they are; files of ours, which appear whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile


class NotAFileError(OSError):
    """There is something, but no file: a folder, a pipe."""


def read(path: str | os.PathLike[str], most: int) -> tuple[bytes, os.stat_result]:
    """The first ``most`` bytes of a file, and what it was then. Raises OSError."""
    # Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise NotAFileError(errno.EINVAL, "Not a file", os.fspath(path))
        return os.read(descriptor, most), seen
    finally:
        os.close(descriptor)


def replace(path: str, raw: bytes) -> None:
    """Put a file in a path's place, whole at any moment. Raises OSError."""
    folder, name = os.path.split(path)
    descriptor, staged = tempfile.mkstemp(dir=folder, prefix=f".{name}-")
    try:
        with open(descriptor, "wb") as file:
            file.write(raw)
        os.replace(staged, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(staged)
        raise
