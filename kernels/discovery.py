"""Find conda environments on disk and the kernels in them, without ever calling conda.

An environment is a folder with ``conda-meta/history``, whichever of conda, mamba, micromamba,
pixi or rattler made it. It is looked at with the rights of the process, so permissions
filter by themselves, and nothing of it is run.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from kernels.kernelspec import (
    MAX_BYTES,
    CheckedSpec,
    Place,
    SpecError,
    check_document,
    load_document,
)
from kernels.sources import (
    MAX_ENVIRONMENTS,
    Root,
    Source,
    environment_name,
    fill,
    list_folder,
    listed_prefixes,
    matching,
    roots,
)

__all__ = ["MAX_ENVIRONMENTS", "Discovery", "Environment", "FoundKernel", "Source", "State"]

# Past this many, the rest of an environment's kernels are left out.
MAX_KERNELS = 100
# Seconds that what was known is shown, marked, after its storage went away.
KEEP_UNAVAILABLE = 15 * 60.0

_PYTHON_RECORD = re.compile(r"python-(\d+\.\d+(?:\.[^-]+)?)-[^-]+\.json")
_PYTHON_PROGRAM = re.compile(r"python(\d+\.\d+)")
# What storage that went away answers with.
_LOST = frozenset(
    (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EREMOTEIO)
)
# A file system's clock ticks every few milliseconds: what has a time as young as this, in
# seconds, may change once more without its time telling.
_YOUNG = 2.0
# With up to this many environments each pass looks at everything; with more, at the files
# inside folders (which only an edit in place changes without their folder) by turns.
_ALL_AT_ONCE = 64
_TURNS = 8


class State(StrEnum):
    """Whether an environment can be used as a kernel."""

    HEALTHY = "healthy"
    NO_KERNEL = "no_kernel"
    INCOMPLETE = "incomplete"
    BROKEN = "broken"
    UNREADABLE = "unreadable"
    WITHDRAWN = "withdrawn"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class FoundKernel:
    """A usable kernelspec of an environment; ``own_name`` is its folder's name."""

    own_name: str
    resource_dir: str
    spec: CheckedSpec


@dataclass(frozen=True)
class Environment:
    """One environment as it was found. ``reason`` says why it is not healthy and what to do.

    ``problems`` are kernels of it that cannot be used, as (own name, reason). ``deprecated``
    is the date (ISO 8601) since which it should not be chosen any more. ``identity`` is the
    device and inode of its folder, equal for two paths of one environment. ``changed`` is
    when it was last seen to change, in seconds since the epoch.
    """

    place: Place
    state: State
    reason: str = ""
    kernels: tuple[FoundKernel, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    deprecated: str | None = None
    identity: tuple[int, int] | None = None
    changed: float = 0.0


# What was seen of one path: None where there is nothing, else what changes when it changes.
Stamp = tuple[int, int, int] | None


@dataclass
class Known:
    """An environment with the stamps of all that the answer rests on.

    ``folders`` are looked at in every pass, ``files`` by turns. ``settled`` is False as long
    as something of it is so young that a change might not show.
    """

    environment: Environment
    folder: str
    folders: list[tuple[str, Stamp]]
    files: list[tuple[str, Stamp]]
    settled: bool


@dataclass
class _Folder:
    stamp: Stamp
    device: int
    names: list[str]


@dataclass
class _Root:
    """A root that has had environments; ``lost_since`` is when its storage went away."""

    root: Root
    device: int
    lost_since: float | None = None


class SourceDiscovery:
    """Scans one source, and looks again only at what has changed since.

    ``known`` may be filled beforehand with what an earlier process saw. Not thread-safe.
    """

    def __init__(
        self,
        source: Source,
        keep: float = KEEP_UNAVAILABLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.known: dict[str, Known] = {}
        self._folders: dict[str, _Folder] = {}
        self._roots: dict[str, _Root] = {}
        self._keep, self._clock, self._turn = keep, clock, 0

    def scan(self) -> list[Environment]:
        """All environments of the source, by path. Never raises for what is on disk."""
        self._turn = (self._turn + 1) % _TURNS
        everything = len(self.known) <= _ALL_AT_ONCE
        known: dict[str, Known] = {}
        for index, (prefix, folder, captures) in enumerate(self._candidates()):
            before = self.known.get(prefix)
            in_turn = everything or index % _TURNS == self._turn
            if before is not None and before.settled and _unchanged(before, in_turn):
                known[prefix] = before
            elif (seen := look(self._place(prefix, captures), folder)) is not None:
                known[prefix] = _survive(before, seen)
        lost = {folder for folder, root in self._roots.items() if root.lost_since is not None}
        for prefix, before in self.known.items():
            if prefix not in known and before.folder in lost:
                known[prefix] = _unavailable(before)
        self.known = known
        return [entry.environment for entry in known.values()]

    def _candidates(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Prefixes, the root of each, and what the pattern's wildcards matched."""
        if self.source.pattern.startswith("@"):
            try:
                yield from ((prefix, "", ()) for prefix in listed_prefixes(self.source))
            except OSError:
                return
            return
        found = roots(self.source, self._names)
        for root in [*found, *self._vanished(found)]:
            for name in self._environments(root):
                yield f"{root.folder.rstrip('/')}/{name}", root.folder, (*root.captures, name)

    def _place(self, prefix: str, captures: tuple[str, ...]) -> Place:
        source, label = (fill(text, captures) for text in (self.source.id, self.source.label))
        return Place(source, label, prefix, environment_name(prefix))

    def _names(self, folder: str) -> list[str]:
        """The names in a folder, read again only when it has changed. Raises OSError."""
        seen = os.stat(folder)
        stamp = (seen.st_mtime_ns, seen.st_ino, seen.st_dev)
        before = self._folders.get(folder)
        if before is not None and before.stamp == stamp and not _is_young(seen.st_mtime):
            return before.names
        names = list_folder(folder)
        self._folders[folder] = _Folder(stamp, seen.st_dev, names)
        return names

    def _environments(self, root: Root) -> list[str]:
        """The names in a root; none, and a note, while its storage is away."""
        before = self._roots.get(root.folder)
        try:
            names = matching(self._names(root.folder), root.leaf)
        except OSError as error:
            self._folders.pop(root.folder, None)
            if before is not None and _is_lost(root.folder, before.device, error):
                self._note_loss(root.folder, before)
            else:
                self._roots.pop(root.folder, None)
            return []
        now = self._folders[root.folder]
        if before is not None and not names and now.device != before.device:
            self._note_loss(root.folder, before)  # the bare mount point
        elif names:
            self._roots[root.folder] = _Root(root, now.device)
        else:
            self._roots.pop(root.folder, None)
        return names

    def _note_loss(self, folder: str, root: _Root) -> None:
        if root.lost_since is None:
            root.lost_since = self._clock()
        elif self._clock() - root.lost_since > self._keep:
            del self._roots[folder]

    def _vanished(self, found: Sequence[Root]) -> list[Root]:
        there = {root.folder for root in found}
        return [known.root for folder, known in self._roots.items() if folder not in there]


def _unchanged(known: Known, files: bool) -> bool:
    for path, before in known.folders:
        if _stamp(path) != before:
            return False
    return not files or all(_stamp(path) == before for path, before in known.files)


def _survive(before: Known | None, seen: Known) -> Known:
    """Keep an environment's kernels on show while the storage behind its link is away."""
    if before is None or seen.environment.state is not State.UNAVAILABLE:
        return seen
    kept = replace(before.environment, state=State.UNAVAILABLE, reason=seen.environment.reason)
    return replace(seen, environment=kept)


def _unavailable(known: Known) -> Known:
    if known.environment.state is State.UNAVAILABLE:
        return known
    reason = _away(known.folder)
    environment = replace(known.environment, state=State.UNAVAILABLE, reason=reason)
    return replace(known, environment=environment, settled=False)


def _away(folder: str) -> str:
    return (
        f"its storage ({folder}) cannot be reached at the moment; wait a little and try again, "
        "or tell an administrator"
    )


def _is_lost(folder: str, device: int, error: OSError) -> bool:
    """Whether a folder's storage went away, rather than somebody having removed it."""
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return True
    while folder not in ("", "/"):
        folder = os.path.dirname(folder)
        try:
            return os.stat(folder).st_dev != device
        except OSError:
            continue
    return False


class Discovery:
    """Scans sources in order, and looks again only at what has changed since."""

    def __init__(self) -> None:
        self._sources: dict[Source, SourceDiscovery] = {}

    def scan(self, sources: Sequence[Source]) -> list[Environment]:
        """All environments of the sources, in their order, each source's by path.

        A source that is not there has none. Never raises for what is on disk.
        """
        self._sources = {
            source: self._sources.get(source) or SourceDiscovery(source) for source in sources
        }
        return merge(each.scan() for each in self._sources.values())


def merge(lists: Iterable[Sequence[Environment]]) -> list[Environment]:
    """The environments of several sources as one list; of two with one folder, the first has it."""
    merged: list[Environment] = []
    paths: set[str] = set()
    identities: set[tuple[int, int] | None] = {None}
    for environments in lists:
        new = [
            each
            for each in environments
            if each.place.prefix not in paths
            and (each.identity is None or each.identity not in identities)
        ]
        paths.update(each.place.prefix for each in new)
        identities.update(each.identity for each in new)
        merged += new
    return merged


def look(place: Place, folder: str) -> Known | None:
    """One prefix, with the stamps of all that the answer rests on; None for no environment."""
    prefix = place.prefix
    meta, kernel_root = f"{prefix}/conda-meta", f"{prefix}/share/jupyter/kernels"
    notes_file = f"{meta}/labcommons.json"
    # Stamped before it is read, so that a change in between is seen the next time.
    meta_stamp, kernels_stamp, notes_stamp = map(_stamp, (meta, kernel_root, notes_file))
    files = [(notes_file, notes_stamp)]
    identity: tuple[int, int] | None = None
    try:
        seen = os.stat(prefix)
        if not stat.S_ISDIR(seen.st_mode) or (meta_stamp is None and not _exists(meta)):
            return None
        identity = (seen.st_dev, seen.st_ino)
        history = f"{meta}/history"
        if not _exists(history) and not _exists(f"{meta}/pixi"):
            reason = (
                f"its installation did not finish ({history} is missing); wait until it has, or "
                f"remove {prefix} and create the environment again"
            )
            environment = Environment(place, State.INCOMPLETE, reason)
        else:
            notes = read_notes(notes_file) if notes_stamp is not None else {}
            python = _python(prefix, notes.get("python"))
            place = replace(place, version=notes.get("version"), python=python)
            environment = _annotated(_with_kernels(place, kernel_root, files), notes)
    except PermissionError:
        reason = "you may not read it; ask whoever maintains it for read access"
        environment = Environment(place, State.UNREADABLE, reason)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in _LOST:
            environment = Environment(place, State.UNAVAILABLE, _away(prefix))
        else:
            reason = f"it cannot be read: {error.strerror}"
            environment = Environment(place, State.BROKEN, reason)
    folders = [(meta, meta_stamp)]
    # conda's work always changes conda-meta. Only pip's does not: that is waited for where there
    # is no kernel yet.
    healthy = environment.state is State.HEALTHY
    (files if healthy else folders).append((kernel_root, kernels_stamp))
    newest = max(
        (stamp[0] / 1e9 for _, stamp in (*folders, *files) if stamp and stamp[1]), default=0.0
    )
    environment = replace(environment, identity=identity, changed=newest)
    settled = not _is_young(newest) and environment.state is not State.INCOMPLETE
    return Known(environment, folder, folders, files, settled)


def _is_young(modified: float) -> bool:
    # A time in the future (a clock that was set back) tells nothing, so it counts as young.
    return modified > time.time() - _YOUNG


def _exists(path: str) -> bool:
    """Whether there is something. Raises PermissionError where that cannot be known."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError as error:
        # "Not allowed" and "not there" must differ, or a granted right would go unseen.
        return None if error.errno == errno.ENOENT else (error.errno or 0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def read_notes(path: str) -> dict[str, str]:
    """The texts of conda-meta/labcommons.json, which whoever built the environment wrote."""
    try:
        document: Any = json.loads(_read(path)[0])
    except (OSError, SpecError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {
        key: value[:500]
        for key in ("version", "python", "deprecated", "withdrawn")
        if isinstance(value := document.get(key), str) and value.isprintable()
    }


def _annotated(environment: Environment, notes: dict[str, str]) -> Environment:
    if reason := withdrawal(notes):
        environment = replace(environment, state=State.WITHDRAWN, reason=reason)
    return replace(environment, deprecated=notes.get("deprecated"))


def withdrawal(notes: dict[str, str]) -> str:
    """Why an environment must not be used any more and what to do; empty where it may."""
    if "withdrawn" not in notes:
        return ""
    what = f"version {notes['version']} of it" if "version" in notes else "it"
    return (
        f"{what} was withdrawn ({notes['withdrawn'] or 'no reason given'}); choose its newer "
        "version where there is one (stop the server and start it with that), or another kernel"
    )


def _python(prefix: str, noted: str | None) -> str | None:
    """The version of Python, ``3.13.5`` or ``3.13``, by what costs least to look at."""
    if noted:
        return noted
    try:
        if match := _PYTHON_PROGRAM.fullmatch(os.readlink(f"{prefix}/bin/python")):
            return match[1]
    except OSError:
        pass
    with os.scandir(f"{prefix}/conda-meta") as entries:
        for entry in entries:
            if match := _PYTHON_RECORD.fullmatch(entry.name):
                return match[1]
    return None


def _with_kernels(place: Place, kernel_root: str, files: list[tuple[str, Stamp]]) -> Environment:
    try:
        names = sorted(os.listdir(kernel_root))[:MAX_KERNELS]
    except (FileNotFoundError, NotADirectoryError):
        return Environment(place, State.NO_KERNEL, _no_kernel(place.prefix))
    kernels: list[FoundKernel] = []
    problems: list[tuple[str, str]] = []
    for name in names:
        folder = f"{kernel_root}/{name}"
        path = f"{folder}/kernel.json"
        stamp: Stamp = None
        try:
            raw, stamp = _read(path)
            kernels.append(FoundKernel(name, folder, _checked(raw, place.prefix)))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except SpecError as error:
            problems.append((name, str(error)))
        except OSError as error:
            problems.append((name, f"{path} cannot be read: {error.strerror}"))
        files.append((path, stamp or _stamp(path)))
    if kernels:
        return Environment(place, State.HEALTHY, "", tuple(kernels), tuple(problems))
    if problems:
        reason = "; ".join(f"{name}: {why}" for name, why in problems)
        return Environment(place, State.BROKEN, reason, (), tuple(problems))
    return Environment(place, State.NO_KERNEL, _no_kernel(place.prefix))


def read_spec(path: str, prefix: str) -> CheckedSpec:
    """Read and check one kernel.json. Raises SpecError, or OSError where it cannot be read."""
    return _checked(_read(path)[0], prefix)


def _checked(raw: bytes, prefix: str) -> CheckedSpec:
    document = load_document(raw)
    try:
        spec = check_document(document, prefix)
    except SpecError:
        # Written with the path behind a symlink, perhaps; following it costs too much to do always.
        spec = check_document(document, prefix, os.path.realpath(prefix))
    check_program(spec.argv[0])
    return spec


def _read(path: str) -> tuple[bytes, Stamp]:
    """A file as far as it is not larger than may be. Raises OSError, SpecError."""
    # Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise SpecError(f"{os.path.basename(path)} is not a file")
        raw = os.read(descriptor, MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    return raw, (seen.st_mtime_ns, seen.st_ino, seen.st_size)


def check_program(program: str) -> None:
    """Raise SpecError unless the program of a kernel is there and may be run."""
    try:
        mode = os.stat(program).st_mode
    except OSError as error:
        raise SpecError(f"its program {program} cannot be started: {error.strerror}") from error
    runs = mode & 0o111 == 0o111 or os.access(program, os.X_OK)
    if not stat.S_ISREG(mode) or not runs:
        raise SpecError(f"its program {program} cannot be started: not an executable file")


def _no_kernel(prefix: str) -> str:
    return f"no kernel is installed in it; {how_to_install(prefix)}"


def how_to_install(prefix: str) -> str:
    """What gives an environment a kernel, with the exact command, for who may do it."""
    command = f"conda install --prefix {shlex.quote(prefix)} ipykernel"
    if os.access(prefix, os.W_OK):
        return f"run: {command}"
    return f"ask whoever maintains it to add ipykernel to its environment.yml, or to run: {command}"
