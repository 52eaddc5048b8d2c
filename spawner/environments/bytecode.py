"""The bytecode of an environment, compiled once for each package and Python.

Without it each kernel's start takes a second longer. What a package's modules compile to depends
on the package and the Python alone, so it is kept in the package cache and linked into each
prefix: ``bytecode/<format>-<sha256 of the Python>/<sha256 of the package>/``, with the paths
that the files have in a prefix. An entry is renamed to its place when it is whole.

A cache belongs to one user. Another one, which this user cannot write (the site's own), may lend
its entries; they are copied.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from spawner.environments import compiler
from spawner.environments.errors import BuildError
from spawner.environments.files import BYTECODE
from spawner.environments.interpreter import run_python
from spawner.environments.inventory import records
from spawner.environments.lock import Lock

# Raise it when modules are compiled differently.
_FORMAT = 1
_TIMEOUT = 900  # seconds
_MOST_PROCESSES = 4
_FEW = 16  # files: not worth a process more
# Few will ever import them.
_LEFT_OUT = "/tests/"
# Where rattler puts the second of two packages' files of one name.
_CLOBBERED = "__clobbers__/"
_PART = ".part-"
# Puts one file, the first path, at the second.
Put = Callable[[str, str], None]


@dataclass(frozen=True)
class _Part:
    """The modules of one package, whose hash is ``digest``."""

    digest: str
    sources: tuple[str, ...]


def compile_all(staging: Path, lock: Lock, cache: Path, lent: Path | None = None) -> None:
    """Compile the modules of all packages in a staging folder. Raises BuildError.

    ``cache`` is this user's package cache, ``lent`` one that is only read.
    """
    python = next((item for item in lock.packages if item.name == "python"), None)
    if python is None:
        return
    name = f"{_FORMAT}-{python.sha256}"
    own = cache / BYTECODE / name
    others = [own, *([lent / BYTECODE / name] if lent else [])]
    library = f"lib/python{'.'.join(python.version.split('.')[:2])}/"
    shared, rest = _parts(staging, lock, library)
    missing = [part for part in shared if not _take(part, staging, others)]
    sources = [*rest, *(source for part in missing for source in part.sources)]
    made = _compile(staging, sources)
    for part in missing:
        files = [made[path] for path in part.sources if path in made]
        _keep(own / part.digest, staging, files, _link)


def python_of(folder: Path) -> str:
    """The SHA-256 of the Python that a folder of the cache is for; "" for an older format's."""
    form, _, digest = folder.name.partition("-")
    return digest if form == str(_FORMAT) else ""


def _parts(staging: Path, lock: Lock, library: str) -> tuple[list[_Part], list[str]]:
    """The modules of each package that can be shared, and all others."""
    parts: list[_Part] = []
    rest: list[str] = []
    for digest, files, here in (*_conda(staging, lock), *_wheels(staging, lock, library)):
        modules = [path for path in files if _is_module(path, library)]
        # Where another package's file is in the place of its own, it is not whole.
        whole = digest and not any(path.startswith(_CLOBBERED) for path in files)
        # What holds the prefix's own path is not the same in the next one.
        rest += [path for path in modules if path in here or not whole]
        if whole:
            parts.append(_Part(digest, tuple(path for path in modules if path not in here)))
    return parts, rest


def _is_module(path: str, library: str) -> bool:
    return path.startswith(library) and path.endswith(".py") and _LEFT_OUT not in path


def _conda(staging: Path, lock: Lock) -> Iterator[tuple[str, list[str], set[str]]]:
    """Hash, files, and files that hold the prefix, of each conda package."""
    known = {item.name: item.sha256 for item in lock.packages}
    for _, record in records(staging):
        paths = record.get("paths_data", {}).get("paths") or []
        here = {entry["_path"] for entry in paths if entry.get("prefix_placeholder")}
        yield known.get(record["name"], ""), [entry["_path"] for entry in paths], here


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


def _compile(staging: Path, sources: Iterable[str]) -> dict[str, str]:
    """Compile modules, on all cores that this process may use; gives what was made of each."""
    # Dealt out by size, and always alike: which files one process compiles must not be chance.
    sized = sorted(sources, key=lambda path: (-_size(staging / path), path))
    processes = min(_MOST_PROCESSES, len(os.sched_getaffinity(0)), -(-len(sized) // _FEW))
    if not sized:
        return {}
    hands = [sized[number::processes] for number in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        made = pool.map(lambda hand: _compile_some(staging, hand), hands)
        return {source: target for some in made for source, target in some.items()}


def _compile_some(staging: Path, sources: Sequence[str]) -> dict[str, str]:
    request = json.dumps({"prefix": str(staging), "sources": sources})
    done = run_python(staging, ["-W", "ignore", str(compiler.__file__)], _TIMEOUT, stdin=request)
    if done.returncode == errno.ENOSPC:
        raise BuildError(f"the disk below {staging.parent} is full; make room")
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        return {}  # a Python that does not start is found out, and said, when it is tried


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
    for path in _files(own):
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
        yield from (os.path.join(below, name) for name in names)


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
