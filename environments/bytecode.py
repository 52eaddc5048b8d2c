"""The bytecode of an environment, compiled once for each package and Python.

Without it each kernel's start takes a second longer. What a package's modules compile to depends
on the package and the Python alone, so it is kept in the package cache and linked into each
prefix: ``bytecode/<format>-<sha256 of the Python and all it needs>/<sha256 of the package>/``, with
the paths that the files have in a prefix. An entry is renamed to its place when it is whole.

A cache belongs to one user. Another one, which this user cannot write (the site's own), may lend
its entries; they are copied. What fills the site's own runs a Python with nothing but what it
needs (``compile_with``): a package must not write what another's modules compile to. A package
says where its files are, so paths are looked at before anything is written to them.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from environments import compiler
from environments.errors import BuildError
from environments.files import BYTECODE
from environments.interpreter import run_python
from environments.inventory import records
from environments.lock import Lock, LockedPackage
from environments.messages import making as texts

# Raise it when modules are compiled differently.
_FORMAT = 2
TIMEOUT = 900  # seconds
_MOST_PROCESSES = 4
_FEW = 16  # files: not worth a process more
# Few will ever import them.
_LEFT_OUT = "/tests/"
# Where rattler puts the second of two packages' files of one name.
_CLOBBERED = "__clobbers__/"
_PART = ".part-"
# Puts one file, the first path, at the second.
Put = Callable[[str, str], None]
Hands = Sequence[Sequence[str]]
# Compiles modules of a prefix, dealt out to processes, with the Python of a lock, into the folder
# ``out`` of another one; last, the package cache. Gives the exit status of ``compiler``.
CompileWith = Callable[[Path, Lock, Hands, Path, Path], int]


@dataclass(frozen=True)
class _Part:
    """The modules of one package, whose hash is ``digest``."""

    digest: str
    sources: tuple[str, ...]


def own_python(prefix: Path, lock: Lock, hands: Hands, work: Path, cache: Path) -> int:
    """Compile with the prefix's own Python, in this process's own surroundings."""
    words = ["-S", "-W", "ignore", str(compiler.__file__)]
    request = ask(work, prefix, work / "out", hands)
    return run_python(prefix, [*words, str(request)], TIMEOUT).returncode


def ask(work: Path, prefix: Path, out: Path, hands: Hands) -> Path:
    """Write what ``compiler`` is asked for; the two folders are as it sees them."""
    request = work / "request.json"
    request.write_text(json.dumps({"prefix": str(prefix), "out": str(out), "hands": hands}))
    return request


def compile_all(
    staging: Path,
    lock: Lock,
    cache: Path,
    lent: Path | None = None,
    compile_with: CompileWith = own_python,
) -> None:
    """Compile the modules of all packages in a staging folder. Raises BuildError.

    ``cache`` is this user's package cache, ``lent`` one that is only read.
    """
    python = lock.version_of("python")
    if python is None:
        return
    own = cache / BYTECODE / home(lock)
    others = [own, *([lent / BYTECODE / home(lock)] if lent else [])]
    library = f"lib/python{'.'.join(python.split('.')[:2])}/"
    shared, rest = _parts(staging, lock, library)
    missing = [part for part in shared if not _take(part, staging, others)]
    sources = [*rest, *(source for part in missing for source in part.sources)]
    if not sources:
        return
    work = staging.with_name(f"{staging.name}.bytecode")
    shutil.rmtree(work, ignore_errors=True)
    try:
        made = _compile(staging, lock, sources, work, cache, compile_with)
        for part in missing:
            files = [made[path] for path in part.sources if path in made]
            _keep(own / part.digest, work / "out", files, _link)
        for path in made.values():
            _link(f"{work}/out/{path}", f"{staging}/{path}")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildError(texts.DISK_FULL_BELOW(folder=staging.parent)) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def home(lock: Lock) -> str:
    """The cache's folder for the Python of a lock: what runs when it compiles decides."""
    digests = "".join(sorted(f"{item.sha256}\n" for item in python_needs(lock)))
    return f"{_FORMAT}-{hashlib.sha256(digests.encode()).hexdigest()}"


def python_needs(lock: Lock) -> list[LockedPackage]:
    """A lock's Python, first, and the packages that it needs itself."""
    known, found, names = {item.name: item for item in lock.packages}, {}, ["python"]
    while names:
        name = names.pop()
        if name in known and name not in found:
            found[name] = known[name]
            names += [re.split(r"[\s<>=!~\[]", need, maxsplit=1)[0] for need in known[name].depends]
    return list(found.values())


def _parts(staging: Path, lock: Lock, library: str) -> tuple[list[_Part], list[str]]:
    """The modules of each package that can be shared, and all others."""
    parts: list[_Part] = []
    rest: list[str] = []
    within = _Within(staging)
    for digest, files, here in (*_conda(staging, lock), *_wheels(staging, lock, library)):
        modules = [path for path in files if _is_module(path, library) and within.has(path)]
        # Where another package's file is in the place of its own, it is not whole.
        whole = digest and not any(path.startswith(_CLOBBERED) for path in files)
        # What holds the prefix's own path is not the same in the next one.
        rest += [path for path in modules if path in here or not whole]
        if whole:
            parts.append(_Part(digest, tuple(path for path in modules if path not in here)))
    return parts, rest


def _is_module(path: str, library: str) -> bool:
    return path.startswith(library) and path.endswith(".py") and _LEFT_OUT not in path


class _Within:
    """Tells whether a file is where its path says, with no link on the way, and is a file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = os.path.realpath(folder), dict[str, bool]()

    def has(self, path: str) -> bool:
        place = os.path.join(self.folder, path)
        above = os.path.dirname(place)
        if above not in self.seen:
            cache = os.path.join(above, "__pycache__")
            self.seen[above] = os.path.realpath(cache) == cache
        with suppress(OSError, ValueError):
            return self.seen[above] and stat.S_ISREG(os.lstat(place).st_mode)
        return False


def _conda(staging: Path, lock: Lock) -> Iterator[tuple[str, list[str], set[str]]]:
    """Hash, files, and files that hold the prefix, of each conda package."""
    known = {item.record: item.sha256 for item in lock.packages}
    for path, record in records(staging):
        # By the file's name, which was checked with the lock: its contents are the package's word.
        paths = record.get("paths_data", {}).get("paths") or []
        here = {entry["_path"] for entry in paths if entry.get("prefix_placeholder")}
        yield known.get(path.name, ""), [entry["_path"] for entry in paths], here


def _wheels(staging: Path, lock: Lock, library: str) -> Iterator[tuple[str, list[str], set[str]]]:
    """The same of pip's wheels, of which only programs hold the prefix."""
    known = {item.name: item.sha256 for item in lock.pip}
    site = f"{library}site-packages"
    for item in distributions(path=[str(staging / site)]) if known else ():
        name = canonicalize_name(item.metadata["Name"] or "")
        if name in known:
            files = [os.path.normpath(f"{site}/{file}") for file in item.files or ()]
            yield known[name], files, set()


# Compiling ---------------------------------------------------------------------------------------


def _compile(
    staging: Path,
    lock: Lock,
    sources: Iterable[str],
    work: Path,
    cache: Path,
    compile_with: CompileWith,
) -> dict[str, str]:
    """Compile modules into ``work/out``, on all cores that we may use; gives what was made."""
    # Dealt out by size, and always alike: which files one process compiles must not be chance.
    sized = sorted(sources, key=lambda path: (-_size(staging / path), path))
    processes = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)), -(-len(sized) // _FEW))
    out = work / "out"
    out.mkdir(parents=True)
    hands = [sized[number::processes] for number in range(processes)]
    status = compile_with(staging, lock, hands, work, cache)
    if status == errno.ENOSPC:
        raise BuildError(texts.DISK_FULL_BELOW(folder=staging.parent))
    # A Python that does not start is found out, and said, when it is tried.
    asked, within = set(sized), _Within(out)
    made = {}
    for path in _files(out):
        with suppress(ValueError):
            source = importlib.util.source_from_cache(path)
            if source in asked and within.has(path):
                made[source] = path
    return made


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# Keeping -----------------------------------------------------------------------------------------


def _take(part: _Part, staging: Path, caches: Sequence[Path]) -> bool:
    """Put a package's bytecode, from the first cache that has it, into the staging folder."""
    own, *others = (cache / part.digest for cache in caches)
    if not own.is_dir():
        for other in others:
            if other.is_dir() and _keep(own, other, _files(other), _copy):
                break
        else:
            return False
    here = set(part.sources)
    for path in _files(own):
        if importlib.util.source_from_cache(path) in here:
            _link(f"{own}/{path}", f"{staging}/{path}")
    return True


def _keep(entry: Path, folder: Path, files: Iterable[str], put: Put) -> bool:
    """Make a cache's entry of files; False where that fails, and they are compiled next time."""
    before = os.umask(0o022)  # who reads the cache is said by its own folder
    partial = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial = tempfile.mkdtemp(prefix=_PART, dir=entry.parent)
        for path in files:
            put(f"{folder}/{path}", f"{partial}/{path}")
        os.chmod(partial, 0o755)  # noqa: S103  (as all folders of the cache)
        os.rename(partial, entry)
    except OSError:
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
        return entry.is_dir()  # another build was quicker
    finally:
        os.umask(before)
    return True


def _files(folder: Path) -> Iterator[str]:
    """The paths of all files below a folder."""
    for here, _, names in os.walk(folder):
        below = os.path.relpath(here, folder)
        yield from (os.path.normpath(os.path.join(below, name)) for name in names)


def _link(source: str, target: str) -> None:
    """A hard link in place of whatever is there; a copy where there can be none."""
    for _ in range(3):
        try:
            return os.link(source, target)
        except FileExistsError:  # some packages bring bytecode of their own
            os.unlink(target)
        except FileNotFoundError:
            if not os.path.exists(source):
                raise
            os.makedirs(os.path.dirname(target), exist_ok=True)
        except OSError:  # another mount, or too many links
            break
    _copy(source, target)


def _copy(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(source, target)
    os.chmod(target, 0o644)
