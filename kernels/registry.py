"""The registry: plain kernelspecs on disk for the kernels of all built environments.

``<root>/image/<environment>/<version>/kernels/<kernel name>/kernel.json``. The spawner mounts
one version's folder, read-only, on a server's JUPYTER_PATH, so that any Jupyter in any image
shows its kernels under their names. One pass makes the disk and the table of kernels agree
with the catalog; each step is atomic and repeatable, so the next pass finishes what a crash
left undone. Only what carries our marker is ever changed or removed, and no symlink is
followed: every step is relative to an open folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernels.kernelspec import (
    MAX_BYTES,
    CheckedSpec,
    Place,
    SpecError,
    check_document,
    display_name,
    kernel_names,
    load_document,
    plain_spec,
)

SOURCE = "image"

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_KERNEL_FOLDER = re.compile(rf"conda-{SOURCE}-[a-z0-9._-]{{1,122}}")
_MAX_KERNELS = 100
_STAGING = ".staging"
_FILE = "kernel.json"
# What opening gives for a symlink, a file, nothing, or what only others may read: not ours.
_FOREIGN = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EACCES)
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class CatalogEntry:
    """What the catalog says of one built environment; not yet checked."""

    name: str
    version: str
    prefix: str
    python: str | None
    kernelspecs: Mapping[str, Any]


@dataclass(frozen=True)
class RegisteredKernel:
    """One kernel as the registry shows it; ``document`` is its kernel.json."""

    name: str
    place: Place
    display_name: str
    language: str
    document: Mapping[str, Any]

    @property
    def folders(self) -> tuple[str, str]:
        """Environment and version, which are folders of the registry."""
        return self.place.environment, self.place.version or ""


# What should be there (pure) -----------------------------------------------------------------


def kernels_of(entry: CatalogEntry) -> tuple[list[RegisteredKernel], list[str]]:
    """The kernels of a catalog entry, and one sentence for each that cannot be used."""
    where = f"environment {entry.name!r}, version {entry.version!r}"
    for value in (entry.name, entry.version):
        if not isinstance(value, str) or not _FOLDER.fullmatch(value):
            return [], [f"{where}: not a name that a folder can have; build it again"]
    prefix = entry.prefix
    if not isinstance(prefix, str) or not _is_plain_path(prefix):
        return [], [f"{where}: prefix {prefix!r} is not a plain absolute path; build it again"]
    if not isinstance(entry.kernelspecs, Mapping) or len(entry.kernelspecs) > _MAX_KERNELS:
        return [], [f"{where}: its kernelspecs are not usable; build it again"]
    if os.path.basename(prefix) != entry.name:
        # A user's server names kernels by the prefix; both lists must give one name.
        return [], [f"{where}: prefix {prefix!r} does not end in its name; build it again"]
    python = entry.python if isinstance(entry.python, str) else None
    place = Place(SOURCE, "", prefix, entry.name, entry.version, python)
    checked: list[tuple[str, CheckedSpec]] = []
    problems: list[str] = []
    for own_name, document in sorted(entry.kernelspecs.items(), key=lambda item: str(item[0])):
        try:
            raw = json.dumps(document).encode()
            checked.append((str(own_name), check_document(load_document(raw), prefix)))
        except (SpecError, TypeError, ValueError, RecursionError) as error:
            problems.append(f"{where}, kernel {own_name!r}: {error}")
    names = kernel_names([(place, own_name) for own_name, _ in checked])
    return [
        RegisteredKernel(
            name=name,
            place=place,
            display_name=display_name(place, own_name, spec),
            language=spec.language,
            document=plain_spec(place, own_name, spec),
        )
        for name, (own_name, spec) in zip(names, checked, strict=True)
    ], problems


def _is_plain_path(path: str) -> bool:
    return (
        path.startswith("/")
        and os.path.normpath(path) == path
        and path.isprintable()
        and 1 < len(path) <= 255
    )


# What is there (disk) ------------------------------------------------------------------------


@dataclass
class Changes:
    """What a pass did to the disk. ``failed`` are versions that it could not finish."""

    written: int = 0
    removed: int = 0
    failed: dict[tuple[str, str], str] = field(default_factory=dict)


def write_registry(root: Path, kernels: Sequence[RegisteredKernel]) -> Changes:
    """Make the folders agree with the kernels, and remove ours that are no longer wanted.

    Raises OSError where the root itself cannot be used; what goes wrong with one version is
    told in ``failed`` and stops no other.
    """
    changes = Changes()
    wanted: dict[tuple[str, str], dict[str, RegisteredKernel]] = {}
    for kernel in kernels:
        wanted.setdefault(kernel.folders, {})[kernel.name] = kernel
    root.mkdir(parents=True, exist_ok=True)
    with _opened(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as top:
        with _entered(top, _STAGING) as staging:
            _clear_staging(staging)
            for version, names in wanted.items():
                try:
                    with _entered(top, SOURCE, *version, "kernels") as folder:
                        for name, kernel in names.items():
                            changes.written += _write_kernel(folder, staging, name, kernel)
                except OSError as error:
                    changes.failed[version] = _say(root, version, error)
                    _clear_staging(staging)
        with _entered(top, SOURCE) as source:
            _remove_unwanted(root, source, wanted, changes)
    return changes


def _write_kernel(folder: int, staging: int, name: str, kernel: RegisteredKernel) -> bool:
    """Write one kernel's folder where it is not right yet. Returns whether it was not."""
    content = (json.dumps(kernel.document, indent=1, sort_keys=True) + "\n").encode()
    try:
        with _entered(folder, name, create=False) as existing:
            found = os.listdir(existing)
            current = _read(existing) if _FILE in found else None
            if current == content:
                return False
            if found and _marked(current) != _own_marker(*kernel.folders):
                raise FileExistsError(errno.EEXIST, f"{name} is not of the registry; move it away")
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


def _remove_unwanted(
    root: Path,
    source: int,
    wanted: Mapping[tuple[str, str], Mapping[str, object]],
    changes: Changes,
) -> None:
    for environment in sorted(os.listdir(source)):
        for version in _listed(source, environment):
            key = (environment, version)
            try:
                with _entered(source, *key, "kernels", create=False) as folder:
                    for name in sorted(set(os.listdir(folder)) - set(wanted.get(key, ()))):
                        changes.removed += _remove_kernel(folder, name, key)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in _FOREIGN:
                    changes.failed[key] = _say(root, key, error)
            if key not in wanted:
                _remove_empty(source, environment, version, "kernels")


def _remove_kernel(folder: int, name: str, version: tuple[str, str]) -> bool:
    """Remove a kernel that is ours. Returns whether it was."""
    if not _KERNEL_FOLDER.fullmatch(name):
        return False
    try:
        with _entered(folder, name, create=False) as kernel:
            if _FILE in os.listdir(kernel):
                if _marked(_read(kernel)) != _own_marker(*version):
                    return False
                # Gone from every list with this one step.
                os.unlink(_FILE, dir_fd=kernel)
        _rmdir_if_empty(folder, name)
    except OSError as error:
        if error.errno in _FOREIGN:
            return False
        raise
    return True


def _remove_empty(source: int, *names: str) -> None:
    """Remove folders of a version that is no longer there, innermost first, where empty."""
    for depth in range(len(names), 0, -1):
        try:
            with _entered(source, *names[: depth - 1], create=False) as parent:
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


def _listed(folder: int, name: str) -> list[str]:
    try:
        with _entered(folder, name, create=False) as opened:
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
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o644, dir_fd=folder), "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(folder: int) -> bytes:
    """The kernel.json in a folder; empty for what is no file of a readable size."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(_FILE, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in _FOREIGN:
            return b""
        raise
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        # Ours are larger than what they were made from, by the marker and the layout.
        content = file.read(4 * MAX_BYTES + 1)
    return content if len(content) <= 4 * MAX_BYTES else b""


def _marked(content: bytes | None) -> tuple[object, object, object]:
    """Source, environment and version that a kernel.json says it was written for."""
    try:
        document = json.loads(content or b"null")
    except (ValueError, RecursionError):
        document = None
    metadata = document.get("metadata") if isinstance(document, dict) else None
    mark = metadata.get("labcommons") if isinstance(metadata, dict) else None
    if not isinstance(mark, dict):
        return (None, None, None)
    return (mark.get("source"), mark.get("environment"), mark.get("version"))


def _own_marker(environment: str, version: str) -> tuple[object, object, object]:
    return (SOURCE, environment, version)


def _say(root: Path, version: tuple[str, str], error: OSError) -> str:
    return f"registry folder {root / SOURCE / version[0] / version[1]}: {error.strerror}"
