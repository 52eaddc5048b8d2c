"""The registry on disk: plain kernelspecs that any Jupyter in any image shows by their names.

``<root>/image/<environment>/<version>/kernels/<kernel name>/kernel.json`` for environments in
images, ``<root>/<source>/kernels/<kernel name>/kernel.json`` for those on disk. The folder
above ``kernels`` is a *shelf*: the spawner mounts shelves, read-only, on a server's
JUPYTER_PATH, so a kernel that is put there later shows without a restart. Each step is atomic
and repeatable, so the next pass finishes what a crash left undone. Only what carries our
marker is ever changed or removed, and no symlink is followed: every step is relative to an
open folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kernels.kernelspec import MAX_BYTES
from kernels.messages import Message, say, why

# A folder of the registry, as path below its root: ("shared",) or ("image", "data", "1").
Shelf = tuple[str, ...]
# What each shelf should have: kernel.json by kernel name.
Wanted = Mapping[Shelf, Mapping[str, bytes]]

IMAGE = "image"

_SHELF_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,95}")
_KERNEL_FOLDER = re.compile(r"conda-[a-z0-9._-]{1,122}")
_STAGING = ".staging"
_FILE = "kernel.json"
# Stands for what cannot be read as one.
_NOBODYS = b"null"
# What opening gives for a symlink, a file, nothing, or what only others may read: not ours.
_FOREIGN = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EACCES)
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Changes:
    """What a pass did to the disk.

    ``failed`` has a message for each kernel that could not be written, by shelf and kernel
    name; with an empty name it is about a whole shelf.
    """

    written: int = 0
    removed: int = 0
    failed: dict[tuple[Shelf, str], Message] = field(default_factory=dict)


def write_registry(root: Path, wanted: Wanted, untouched: Set[str] = frozenset()) -> Changes:
    """Make all shelves agree with what is wanted, and remove ours that are wanted no longer.

    Nothing of the sources in ``untouched`` is looked at. Raises OSError where the root itself
    cannot be used; what goes wrong with one kernel is told in ``failed`` and stops no other.
    """
    changes = Changes()
    with _prepared(root) as (top, staging):
        for shelf, kernels in wanted.items():
            if shelf[0] not in untouched:
                _write_shelf(root, top, staging, shelf, kernels, changes)
        for shelf in _shelves(top):
            if shelf[0] not in untouched and shelf not in wanted:
                _clear_shelf(root, top, shelf, (), changes)
                if shelf[0] == IMAGE:  # one of a scope stays for those who have it mounted
                    _remove_empty(top, *shelf, "kernels")
    return changes


def write_shelves(root: Path, wanted: Wanted, written: Wanted) -> Changes:
    """As ``write_registry``, for these shelves and no other.

    What ``written`` says is there already is not looked at.
    """
    changes = Changes()
    with _prepared(root) as (top, staging):
        for shelf, kernels in wanted.items():
            _write_shelf(root, top, staging, shelf, kernels, changes, written.get(shelf, {}))
            if shelf[0] == IMAGE and not kernels:
                _remove_empty(top, *shelf, "kernels")
    return changes


class RegistryError(OSError):
    """What is wrong with the registry's folder or a file in it: ``message``."""

    def __init__(self, number: int | None, message: Message) -> None:
        super().__init__(number, str(message))
        self.message = message


@contextmanager
def _prepared(root: Path) -> Iterator[tuple[int, int]]:
    """The registry's folder and an empty one to stage in, both open."""
    with ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            top = stack.enter_context(_opened(descriptor))
            staging = stack.enter_context(_entered(top, _STAGING))
            _clear_staging(staging)
        except OSError as error:
            message = say("registry_not_written", path=root, error=why(error))
            raise RegistryError(error.errno, message) from error
        yield top, staging


def _write_shelf(
    root: Path,
    top: int,
    staging: int,
    shelf: Shelf,
    kernels: Mapping[str, bytes],
    changes: Changes,
    written: Mapping[str, bytes] | None = None,
) -> None:
    if not all(_SHELF_NAME.fullmatch(part) for part in shelf):
        raise ValueError(f"{shelf!r} is no shelf")
    try:
        with _entered(top, *shelf, "kernels") as folder:
            for name, content in kernels.items():
                if written and written.get(name) == content:
                    continue
                try:
                    changes.written += _write_kernel(folder, staging, shelf, name, content)
                except OSError as error:
                    changes.failed[shelf, name] = _say(root, shelf, error, name)
                    _clear_staging(staging)
    except OSError as error:
        changes.failed[shelf, ""] = _say(root, shelf, error)
        return
    _clear_shelf(root, top, shelf, kernels.keys(), changes)


def _write_kernel(folder: int, staging: int, shelf: Shelf, name: str, content: bytes) -> bool:
    """Write one kernel's folder where it is not right yet. Returns whether it was not."""
    if not _KERNEL_FOLDER.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a kernel of ours")
    try:
        with _entered(folder, name, create=False) as existing:
            found = os.listdir(existing)
            current = _read(existing) if _FILE in found else None
            if current == content:
                return False
            if found and not _is_ours(current, shelf):
                raise RegistryError(errno.EEXIST, say("not_of_registry"))
            if current is not None:
                _write_file(staging, _FILE, content)
                os.replace(_FILE, _FILE, src_dir_fd=staging, dst_dir_fd=existing)
                return True
    except FileNotFoundError:
        pass
    with _entered(staging, name) as fresh:
        _write_file(fresh, _FILE, content)
    # Onto nothing, or onto an empty folder that an interrupted pass left.
    os.rename(name, name, src_dir_fd=staging, dst_dir_fd=folder)
    return True


def _shelves(top: int) -> list[Shelf]:
    """All shelves that are there, ours or not."""
    found: list[Shelf] = []
    for source in sorted(os.listdir(top)):
        if source == IMAGE:
            found += [
                (IMAGE, environment, version)
                for environment in _listed(top, IMAGE)
                for version in _listed(top, IMAGE, environment)
            ]
        elif _SHELF_NAME.fullmatch(source):
            found.append((source,))
    return found


def _clear_shelf(
    root: Path, top: int, shelf: Shelf, keep: Set[str] | tuple[()], changes: Changes
) -> None:
    """Remove kernels of ours from a shelf, but for those to keep."""
    try:
        with _entered(top, *shelf, "kernels", create=False) as folder:
            for name in sorted(set(os.listdir(folder)) - set(keep)):
                changes.removed += _remove_kernel(folder, name, shelf)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in _FOREIGN:
            changes.failed[shelf, ""] = _say(root, shelf, error)


def _remove_kernel(folder: int, name: str, shelf: Shelf) -> bool:
    """Remove a kernel that is ours. Returns whether it was."""
    if not _KERNEL_FOLDER.fullmatch(name):
        return False
    try:
        with _entered(folder, name, create=False) as kernel:
            if _FILE in os.listdir(kernel):
                if not _is_ours(_read(kernel), shelf):
                    return False
                # Gone from every list with this one step.
                os.unlink(_FILE, dir_fd=kernel)
        _rmdir_if_empty(folder, name)
    except OSError as error:
        if error.errno in _FOREIGN:
            return False
        raise
    return True


def _remove_empty(top: int, *names: str) -> None:
    """Remove folders of a shelf that is no longer there, innermost first, where empty."""
    for depth in range(len(names), 1, -1):
        try:
            with _entered(top, *names[: depth - 1], create=False) as parent:
                _rmdir_if_empty(parent, names[depth - 1])
        except OSError as error:
            if error.errno not in _FOREIGN:
                raise


def _rmdir_if_empty(folder: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, *_FOREIGN):
            raise


def _clear_staging(staging: int) -> None:
    """Remove what an interrupted pass left; nobody else works in this folder."""
    for name in os.listdir(staging):
        if stat.S_ISDIR(os.stat(name, dir_fd=staging, follow_symlinks=False).st_mode):
            with _entered(staging, name, create=False) as folder:
                for file in os.listdir(folder):
                    os.unlink(file, dir_fd=folder)
            os.rmdir(name, dir_fd=staging)
        else:
            os.unlink(name, dir_fd=staging)


def _listed(folder: int, *names: str) -> list[str]:
    try:
        with _entered(folder, *names, create=False) as opened:
            return sorted(os.listdir(opened))
    except OSError as error:
        if error.errno in _FOREIGN:
            return []
        raise


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _entered(folder: int, *names: str, create: bool = True) -> Iterator[int]:
    """A folder below an open one, by real folders only (ELOOP or ENOTDIR for a symlink)."""
    descriptor = os.dup(folder)
    try:
        for name in names:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=descriptor)
            inner = os.open(name, _OPEN_FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
            # People's servers read it as other users, whatever our umask is.
            if create and stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o755:
                os.fchmod(descriptor, 0o755)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_file(folder: int, name: str, content: bytes) -> None:
    # Not synced: a file that a power cut emptied is written anew by the first pass after it.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o644, dir_fd=folder), "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)


def _read(folder: int) -> bytes:
    """The kernel.json in a folder; nobody's for what is no file of a readable size."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(_FILE, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in _FOREIGN:
            return _NOBODYS
        raise
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return _NOBODYS
        # Ours are larger than what they were made from, by the marker and the layout.
        content = file.read(4 * MAX_BYTES + 1)
    return content if len(content) <= 4 * MAX_BYTES else _NOBODYS


def _is_ours(content: bytes | None, shelf: Shelf) -> bool:
    """Whether a kernel.json says that it was written for this shelf.

    An empty one is what a power cut leaves of ours.
    """
    if content == b"":
        return True
    try:
        document = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return False
    metadata = document.get("metadata") if isinstance(document, dict) else None
    mark = metadata.get("labcommons") if isinstance(metadata, dict) else None
    if not isinstance(mark, dict):
        return False
    written_for = (mark.get("source"), mark.get("environment"), mark.get("version"))
    return written_for[: len(shelf)] == shelf


def _say(root: Path, shelf: Shelf, error: OSError, name: str = "") -> Message:
    where = root.joinpath(*shelf, *(["kernels", name] if name else []))
    return say("registry_not_written", path=where, error=why(error))
