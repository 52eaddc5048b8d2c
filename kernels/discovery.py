"""Find conda environments on disk and the kernels in them, without ever calling conda.

An environment is a folder with ``conda-meta/history``, whichever of conda, mamba, micromamba,
pixi or rattler made it. It is looked at with the rights of the process, so permissions
filter by themselves, and nothing of it is run.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from kernels.kernelspec import (
    MAX_BYTES,
    CheckedSpec,
    Place,
    SpecError,
    check_document,
    load_document,
)

# Past these, the rest of a folder is left out: a listing must end.
MAX_ENVIRONMENTS = 10_000
MAX_KERNELS = 100

_PYTHON_RECORD = re.compile(r"python-(\d+\.\d+(?:\.[^-]+)?)-[^-]+\.json")


@dataclass(frozen=True)
class Source:
    """A place where environments are looked for.

    ``id`` goes into kernel names (``image``, ``team-bio``), ``pattern`` is a glob of prefixes
    (``~`` is the home), ``label`` is what people see, empty for the image's own.
    """

    id: str
    pattern: str
    label: str = ""


class State(StrEnum):
    """Whether an environment can be used as a kernel."""

    HEALTHY = "healthy"
    NO_KERNEL = "no_kernel"
    BROKEN = "broken"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class FoundKernel:
    """A usable kernelspec of an environment; ``own_name`` is its folder's name."""

    own_name: str
    resource_dir: str
    spec: CheckedSpec


@dataclass(frozen=True)
class Environment:
    """One environment as it was found. ``reason`` says why it is not healthy and what to do.

    ``problems`` are kernels of it that cannot be used, as (own name, reason).
    """

    place: Place
    state: State
    reason: str = ""
    kernels: tuple[FoundKernel, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


# What was seen of one path: None where there is nothing, else what changes when it changes.
_Stamp = tuple[int, int, int] | None
_Signature = tuple[tuple[str, _Stamp], ...]


class Discovery:
    """Scans sources, and looks again only at what has changed since."""

    def __init__(self) -> None:
        self._known: dict[tuple[Source, str], tuple[_Signature, Environment]] = {}

    def scan(self, sources: Sequence[Source]) -> list[Environment]:
        """All environments of the sources, in their order, each source's by path.

        A source that is not there has none. Never raises for what is on disk.
        """
        known: dict[tuple[Source, str], tuple[_Signature, Environment]] = {}
        taken: set[str] = set()
        for source in sources:
            for prefix in candidates(source):
                if prefix in taken:  # of two sources with one folder, the first has it
                    continue
                taken.add(prefix)
                before = self._known.get((source, prefix))
                if before is not None and all(_stamp(path) == old for path, old in before[0]):
                    known[source, prefix] = before
                elif (seen := _look(source, prefix)) is not None:
                    known[source, prefix] = seen
        self._known = known
        return [environment for _, environment in known.values()]


def candidates(source: Source) -> Iterator[str]:
    """Folders that match a source's pattern and may be environments, by path."""
    parent, leaf = os.path.split(os.path.expanduser(source.pattern).rstrip("/"))
    parents = sorted(glob.glob(parent)) if glob.has_magic(parent) else [parent]
    for folder in parents:
        try:
            with os.scandir(folder) as entries:
                names = sorted(
                    entry.name
                    for entry in entries
                    if not entry.name.startswith(".") and fnmatchcase(entry.name, leaf)
                )
        except OSError:
            continue
        for name in names[:MAX_ENVIRONMENTS]:
            yield f"{folder.rstrip('/')}/{name}"


def _look(source: Source, prefix: str) -> tuple[_Signature, Environment] | None:
    """One folder, and the stamps of all that the answer rests on; None for no environment."""
    meta, kernel_root = f"{prefix}/conda-meta", f"{prefix}/share/jupyter/kernels"
    history = f"{meta}/history"
    # Stamped before it is read, so that a change in between is seen the next time.
    stamps: dict[str, _Stamp] = {path: _stamp(path) for path in (meta, history, kernel_root)}
    place = Place(source.id, source.label, prefix, os.path.basename(prefix))
    try:
        if not stat.S_ISDIR(os.stat(prefix).st_mode):
            return None
        if not _exists(meta):
            return None
        if not _exists(history):
            reason = (
                f"its installation did not finish ({history} is missing); "
                f"remove {prefix} and create the environment again"
            )
            return tuple(stamps.items()), Environment(place, State.BROKEN, reason)
        place = Place(source.id, source.label, prefix, place.environment, None, _python(meta))
        environment = _with_kernels(place, kernel_root, stamps)
    except PermissionError:
        reason = "you may not read it; ask whoever maintains it for read access"
        environment = Environment(place, State.UNREADABLE, reason)
    except FileNotFoundError:
        return None
    except OSError as error:
        environment = Environment(place, State.BROKEN, f"it cannot be read: {error.strerror}")
    return tuple(stamps.items()), environment


def _exists(path: str) -> bool:
    """Whether there is something. Raises PermissionError where that cannot be known."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError as error:
        # "Not allowed" and "not there" must differ, or a granted right would go unseen.
        return None if error.errno == errno.ENOENT else (error.errno or 0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _python(meta: str) -> str | None:
    """The version of Python by the file name of its conda record, as ``3.13.5``."""
    with os.scandir(meta) as entries:
        for entry in entries:
            if match := _PYTHON_RECORD.fullmatch(entry.name):
                return match[1]
    return None


def _with_kernels(place: Place, kernel_root: str, stamps: dict[str, _Stamp]) -> Environment:
    if not _exists(kernel_root):
        return Environment(place, State.NO_KERNEL, _no_kernel(place.prefix))
    with os.scandir(kernel_root) as entries:
        names = sorted(entry.name for entry in entries)[:MAX_KERNELS]
    kernels: list[FoundKernel] = []
    problems: list[tuple[str, str]] = []
    for name in names:
        folder = f"{kernel_root}/{name}"
        path = f"{folder}/kernel.json"
        stamps[folder], stamps[path] = _stamp(folder), _stamp(path)
        try:
            spec = read_spec(path, place.prefix)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except SpecError as error:
            problems.append((name, str(error)))
        except OSError as error:
            problems.append((name, f"{path} cannot be read: {error.strerror}"))
        else:
            kernels.append(FoundKernel(name, folder, spec))
    if kernels:
        return Environment(place, State.HEALTHY, "", tuple(kernels), tuple(problems))
    if problems:
        reason = "; ".join(f"{name}: {why}" for name, why in problems)
        return Environment(place, State.BROKEN, reason, (), tuple(problems))
    return Environment(place, State.NO_KERNEL, _no_kernel(place.prefix))


def read_spec(path: str, prefix: str) -> CheckedSpec:
    """Read and check one kernel.json. Raises SpecError, or OSError where it cannot be read."""
    # Without O_NONBLOCK, opening a named pipe would wait for its writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SpecError("kernel.json is not a file")
        raw = file.read(MAX_BYTES + 1)
    spec = check_document(load_document(raw), prefix, os.path.realpath(prefix))
    check_program(spec.argv[0])
    return spec


def check_program(program: str) -> None:
    """Raise SpecError unless the program of a kernel is there and may be run."""
    try:
        mode = os.stat(program).st_mode
    except OSError as error:
        raise SpecError(f"its program {program} cannot be started: {error.strerror}") from error
    if not stat.S_ISREG(mode) or not os.access(program, os.X_OK):
        raise SpecError(f"its program {program} cannot be started: not an executable file")


def _no_kernel(prefix: str) -> str:
    return f"no kernel is installed in it; {how_to_install(prefix)}"


def how_to_install(prefix: str) -> str:
    """What gives an environment a kernel, with the exact command, for who may do it."""
    command = f"conda install --prefix {shlex.quote(prefix)} ipykernel"
    if os.access(prefix, os.W_OK):
        return f"run: {command}"
    return f"ask whoever maintains it to add ipykernel to its environment.yml, or to run: {command}"
