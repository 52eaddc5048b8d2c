"""Locks: the exact packages of an environment, as a pixi.lock with two lines of our own.

A lock is committed beside its environment.yml, or kept under ``data/locks``. Its first lines
say which spec it answers, and for the offline channel which index; a lock that answers
another spec is never used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import rattler

from spawner.environments import worker
from spawner.environments.channel import Source
from spawner.environments.errors import BuildError, LockError
from spawner.environments.spec import LOCK_FILE, EnvironmentSpec

SOLVE_TIMEOUT = 600  # seconds, fetching the channels' indexes included
_SOLVER_TIMEOUT = 120  # seconds for the solver alone
_MAX_BYTES = 32 * 2**20
_HEADER = "# labcommons {key}: {value}\n"
_HEADER_LINE = re.compile(r"# labcommons (spec|index): ([0-9a-f]{64})")


@dataclass(frozen=True)
class LockedPackage:
    """One package of a lock."""

    name: str
    version: str
    build: str
    url: str
    sha256: str
    channel: str


@dataclass(frozen=True)
class Lock:
    """A lock that was read and checked.

    Attributes:
        spec_digest: of the spec that it answers.
        index_digest: of the offline channel's index that it was solved with, or "".
        channels: canonical URLs, in their order.
        packages: sorted by name.
    """

    path: Path
    spec_digest: str
    index_digest: str
    channels: tuple[str, ...]
    packages: tuple[LockedPackage, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the packages' URLs and hashes: equal for equal contents."""
        lines = sorted(f"{package.url}#{package.sha256}\n" for package in self.packages)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def version_of(self, name: str) -> str | None:
        """The version of a package; None where it is not in the lock."""
        return next((item.version for item in self.packages if item.name == name), None)


def committed_lock(spec: EnvironmentSpec) -> Lock | None:
    """The lock beside environment.yml when it answers this spec, else None."""
    return _answering(spec, spec.folder / LOCK_FILE)


def kept_lock(spec: EnvironmentSpec, locks: Path) -> Lock | None:
    """The lock under ``data/locks`` when it answers this spec, else None."""
    return _answering(spec, kept_path(spec, locks))


def kept_path(spec: EnvironmentSpec, locks: Path) -> Path:
    """Where the lock of an environment is kept that has none of its own."""
    return locks / spec.name / LOCK_FILE


def _answering(spec: EnvironmentSpec, path: Path) -> Lock | None:
    if not path.exists():
        return None
    lock = read_lock(path)
    return lock if lock.spec_digest == spec.digest else None


def read_lock(path: Path) -> Lock:
    """Read and check a lock. Raises LockError that says which file to make anew."""
    remedy = f"make it anew with: labcommons env lock {path.parent.name}"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LockError(f"{path}: larger than {_MAX_BYTES >> 20} MB; {remedy}")
        with path.open(encoding="utf-8") as file:
            head = dict(_HEADER_LINE.findall(file.readline() + file.readline()))
        environment = rattler.LockFile.from_path(path).environment(worker.DEFAULT_ENVIRONMENT)
        here = [p for p in environment.platforms() if p.subdir == rattler.Subdir.current()]
        records = environment.conda_repodata_records_for_platform(here[0])
        if environment.pypi_packages_for_platform(here[0]):
            raise LockError(f"{path}: has packages from PyPI, which are not supported; {remedy}")
        channels = tuple(f"{str(c).rstrip('/')}/" for c in environment.channels())
    except LockError:
        raise
    except Exception as error:  # py-rattler raises many kinds, some of them plain Exception
        raise LockError(f"{path}: cannot be read: {error}; {remedy}") from error
    packages = tuple(_package(record, path, channels, remedy) for record in records)
    return Lock(
        path,
        head.get("spec", ""),
        head.get("index", ""),
        channels,
        tuple(sorted(packages, key=lambda package: package.name)),
    )


def _package(
    record: rattler.RepoDataRecord, path: Path, channels: Sequence[str], remedy: str
) -> LockedPackage:
    url, name = str(record.url), record.name.normalized
    channel = next((base for base in channels if url.startswith(base)), None)
    if channel is None or urlsplit(url).scheme not in ("http", "https"):
        raise LockError(f"{path}: {url} is in none of its channels; {remedy}")
    if record.sha256 is None:
        raise LockError(f"{path}: {name} has no sha256, so nothing could check it; {remedy}")
    return LockedPackage(
        name, str(record.version), str(record.build), url, record.sha256.hex(), channel
    )


def solve(
    spec: EnvironmentSpec, sources: Sequence[Source], target: Path, cache: Path, index: str = ""
) -> Lock:
    """Solve a spec into a lock file, which is replaced only by a whole one.

    ``index`` is the digest of the offline channel's index where it is among the sources.
    Raises LockError with the solver's reason, BuildError where a channel fails.
    """
    urls = {source.channel: source.url for source in sources}
    specs = [
        f"{urls[item.channel]}::{item.spec}" if item.channel else item.spec
        for item in spec.dependencies
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    request = {
        "sources": {source.url: source.place for source in sources},
        "specs": specs,
        "cache": str(cache),
        "lock": str(partial),
        "timeout": _SOLVER_TIMEOUT,
    }
    try:
        worker.call("solve", request, SOLVE_TIMEOUT)
    except LockError as error:
        raise LockError(
            f"{spec.name}: these packages cannot be had together:\n{error}\n"
            f"Change the dependencies in {spec.folder / 'environment.yml'}."
        ) from error
    except BuildError as error:
        raise BuildError(f"{spec.name}: the packages cannot be looked up: {error}") from error
    header = {"spec": spec.digest, "index": index}
    lines = [_HEADER.format(key=key, value=value) for key, value in header.items() if value]
    partial.write_text("".join(lines) + partial.read_text("utf-8"), "utf-8")
    partial.rename(target)
    return read_lock(target)
