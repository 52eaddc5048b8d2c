"""Files of others, read without trusting what they are; files of ours, which appear whole.

A process with more rights than who wrote the files reads them ``beneath`` a folder: what a link
leads to outside of it is not read. Each file is opened first, and asked where it is then, so that
a link that is changed meanwhile gains nothing.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import stat
import tempfile
import urllib.request
from collections.abc import Iterator
from contextvars import ContextVar

from kernels.messages import Message, say

TIMEOUT = 20.0  # seconds for an address to answer
_beneath: ContextVar[str] = ContextVar("beneath", default="")


@contextlib.contextmanager
def beneath(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Within it, what ``read``, ``status``, ``names`` and ``link`` find is in this folder, or
    they raise OutsideError. Of this thread or task alone.
    """
    before = _beneath.set(os.path.realpath(folder))
    try:
        yield
    finally:
        _beneath.reset(before)


class OutsideError(PermissionError):
    """A link leads out of the folder that this process keeps to."""

    def __init__(self, message: Message) -> None:
        super().__init__(errno.EACCES, str(message))
        self.message = message


class NotAFileError(OSError):
    """There is something, but no file: a folder, a pipe."""


class AddressError(OSError):
    """An address does not answer with what it has."""


def read(path: str | os.PathLike[str], most: int) -> tuple[bytes, os.stat_result]:
    """The first ``most`` bytes of a file, and what it was then. Raises OSError."""
    # Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
    descriptor = _opened(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise NotAFileError(errno.EINVAL, "Not a file", os.fspath(path))
        return os.read(descriptor, most), seen
    finally:
        os.close(descriptor)


def read_named(path: str, most: int) -> bytes:
    """The first ``most`` bytes of what a person named: a file, or an address. Raises OSError."""
    if not path.lower().startswith(("http://", "https://")):
        return read(path, most)[0]
    try:
        with urllib.request.urlopen(path, timeout=TIMEOUT) as answer:  # noqa: S310  (see above)
            return bytes(answer.read(most))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None)
        words = getattr(reason, "strerror", None) or str(reason or error)
        raise AddressError(errno.EREMOTEIO, words, path) from error


def status(path: str | os.PathLike[str]) -> os.stat_result:
    """What is at a path, links followed. Raises OSError."""
    if not _beneath.get():
        return os.stat(path)
    descriptor = _opened(path, os.O_PATH)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def names(folder: str | os.PathLike[str]) -> list[str]:
    """The names in a folder. Raises OSError."""
    descriptor = _opened(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def link(path: str | os.PathLike[str]) -> str:
    """What a link says. Raises OSError for what is none."""
    descriptor = _opened(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return os.readlink("", dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _opened(path: str | os.PathLike[str], flags: int) -> int:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    if folder := _beneath.get():
        there = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.commonpath((folder, there)) != folder:
            os.close(descriptor)
            raise OutsideError(say("link_outside", folder=folder))
    return descriptor


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
