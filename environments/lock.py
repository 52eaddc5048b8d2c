"""Locks: the exact packages of an environment, as a pixi.lock with lines of our own above it.

A lock is committed beside its environment.yml, or kept under ``data/locks``. Its first lines,
comments to everybody else, say which spec it answers, what that asked for, when the packages
were chosen, and for the offline channel from which index. A lock that answers another spec is
never used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import rattler

from commons.messages import Message
from environments.errors import LockError
from environments.files import DEFAULT_ENVIRONMENT, KERNELS, LOCK_FILE
from environments.messages import making as texts
from environments.packages import PipPackage
from environments.spec import EnvironmentSpec

_MAX_BYTES = 32 * 2**20
_HEADER = "# labcommons {key}: {value}\n"
_HEADER_LINE = re.compile(r"# labcommons (spec|index|locked|asks): (.{1,200000})")
_HEADER_LINES = 8
# For a lock that does not say when it was made.
NEVER = datetime.fromtimestamp(0, UTC)
_BRING_KERNELS = {
    "almond", "coconut", "iruby", "ihaskell", "root", "root_base", "sage", "sagelib",
    "sagemath-standard", "sos-notebook",
}  # fmt: skip
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class LockedPackage:
    """One conda package of a lock. ``size`` is in bytes; md5 and size may be unknown."""

    name: str
    version: str
    build: str
    url: str
    sha256: str
    channel: str
    subdir: str = ""
    md5: str = ""
    size: int = 0
    license: str = ""
    depends: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Its name in a package cache."""
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def record(self) -> str:
        """The name of its record in ``conda-meta``."""
        return f"{self.stem}.json"


@dataclass(frozen=True)
class Lock:
    """A lock that was read and checked, for one platform.

    Attributes:
        spec_digest: of the spec that it answers.
        asks: what that spec asked for, one line each.
        index_digest: of the offline channel's index that it was solved with, or "".
        locked: when its packages were chosen, UTC.
        channels: canonical URLs, in their order.
        packages, pip: sorted by name.
    """

    path: Path
    spec_digest: str
    index_digest: str
    channels: tuple[str, ...]
    packages: tuple[LockedPackage, ...]
    pip: tuple[PipPackage, ...] = ()
    platform: str = "linux-64"
    locked: datetime = NEVER
    asks: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over the packages' URLs and hashes: equal for equal contents."""
        lines = sorted(f"{package.url}#{package.sha256}\n" for package in self.packages)
        lines += sorted(f"{package.filename}#{package.sha256}\n" for package in self.pip)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def has_ipykernel(self) -> bool:
        """Whether a Python kernel is among its packages."""
        names = [item.name for item in self.packages] + [item.name for item in self.pip]
        return "ipykernel" in names

    @property
    def has_kernel(self) -> bool:
        """Whether a package is called as kernels are; one that is not can bring one, too."""
        names = [item.name for item in self.packages] + [item.name for item in self.pip]
        return any("kernel" in name or name.startswith("xeus") for name in names)

    @property
    def missing_kernel(self) -> str | None:
        """The package with a kernel that its language wants; None where one is there, or may be.

        A few packages bring a kernel without being called so.
        """
        names = {item.name for item in self.packages} | {item.name for item in self.pip}
        if self.has_kernel or names & _BRING_KERNELS:
            return None
        return next((kernel for language, kernel in KERNELS.items() if language in names), None)

    def version_of(self, name: str) -> str | None:
        """The version of a conda package; None where it is not in the lock."""
        return next((item.version for item in self.packages if item.name == name), None)


def committed_lock(spec: EnvironmentSpec) -> Lock | None:
    """The lock beside environment.yml when it answers this spec, else None."""
    return answering(spec, spec.folder / LOCK_FILE) if spec.folder else None


def kept_lock(spec: EnvironmentSpec, locks: Path) -> Lock | None:
    """The lock under ``data/locks`` when it answers this spec, else None."""
    return answering(spec, kept_path(spec, locks))


def kept_path(spec: EnvironmentSpec, locks: Path) -> Path:
    """Where the lock of an environment is kept that has none of its own."""
    return locks / spec.name / LOCK_FILE


def answering(spec: EnvironmentSpec, path: Path) -> Lock | None:
    """The lock in a file when it answers this spec, else None."""
    if not path.exists():
        return None
    lock = read_lock(path, spec.platforms[0])
    return lock if lock.spec_digest == spec.digest else None


def changes(spec: EnvironmentSpec, lock: Lock) -> list[str]:
    """What a spec asks for that the lock's did not (``+``), and the other way round (``-``)."""
    asked, now = set(lock.asks), set(spec.asks)
    return [f"- {line}" for line in sorted(asked - now)] + [
        f"+ {line}" for line in sorted(now - asked)
    ]


def read_lock(path: Path, platform: str = "linux-64") -> Lock:
    """Read and check a lock. Raises LockError that says which file to make anew."""
    remedy = texts.MAKE_ANEW(name=path.parent.name)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise LockError(texts.LOCK_TOO_LARGE(file=path, most=_MAX_BYTES >> 20, remedy=remedy))
        head = _head(path)
        environment = rattler.LockFile.from_path(path).environment(DEFAULT_ENVIRONMENT)
        here = next((p for p in environment.platforms() if p.name == platform), None)
        if here is None:
            raise LockError(texts.LOCK_PLATFORM(file=path, platform=platform, remedy=remedy))
        records = environment.conda_repodata_records_for_platform(here) or []
        wheels = environment.pypi_packages_for_platform(here) or []
        channels = tuple(f"{str(c).rstrip('/')}/" for c in environment.channels())
        asks = tuple(map(str, json.loads(head.get("asks", "[]"))))
        locked = datetime.fromisoformat(head.get("locked", "1970-01-01T00:00:00+00:00"))
    except LockError:
        raise
    except Exception as error:  # py-rattler raises many kinds, some of them plain Exception
        raise LockError(texts.LOCK_UNREADABLE(file=path, reason=error, remedy=remedy)) from error
    packages = [_package(record, path, channels, remedy) for record in records]
    pip = [_wheel(wheel, path, remedy) for wheel in wheels]
    digests = {key: head.get(key, "") for key in ("spec", "index")}
    return Lock(
        path,
        digests["spec"] if _DIGEST.fullmatch(digests["spec"]) else "",
        digests["index"] if _DIGEST.fullmatch(digests["index"]) else "",
        channels,
        tuple(sorted(packages, key=lambda package: package.name)),
        tuple(sorted(pip, key=lambda package: package.name)),
        platform,
        locked,
        asks,
    )


def _head(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8") as file:
        lines = [file.readline(300_000) for _ in range(_HEADER_LINES)]
    found = [match for line in lines if (match := _HEADER_LINE.fullmatch(line.rstrip("\n")))]
    return {match[1]: match[2] for match in found}


def _package(
    record: rattler.RepoDataRecord, path: Path, channels: Sequence[str], remedy: Message
) -> LockedPackage:
    url, name = str(record.url), record.name.normalized
    channel = next((base for base in channels if url.startswith(base)), None)
    if channel is None or urlsplit(url).scheme not in ("http", "https"):
        raise LockError(texts.LOCK_CHANNEL(file=path, url=url, remedy=remedy))
    if record.sha256 is None:
        raise LockError(texts.LOCK_NO_HASH(file=path, name=name, remedy=remedy))
    return LockedPackage(
        name,
        str(record.version),
        str(record.build),
        url,
        record.sha256.hex(),
        channel,
        str(record.subdir),
        record.md5.hex() if record.md5 else "",
        record.size or 0,
        record.license or "",
        tuple(record.depends),
    )


def _wheel(wheel: Any, path: Path, remedy: Message) -> PipPackage:
    url, digest = str(wheel.location), wheel.hashes.sha256 if wheel.hashes else None
    if not digest:
        raise LockError(texts.LOCK_NO_HASH(file=path, name=wheel.name, remedy=remedy))
    name = urlsplit(url).path.rpartition("/")[2]
    if not re.fullmatch(r"[A-Za-z0-9_.!+-]+\.whl", name):
        raise LockError(texts.LOCK_NO_WHEEL(file=path, url=url[:200], remedy=remedy))
    return PipPackage(
        str(wheel.name),
        str(wheel.version),
        url,
        digest.hex(),
        tuple(wheel.requires_dist),
        wheel.requires_python or "",
    )


def complete(
    spec: EnvironmentSpec, partial: Path, target: Path, pip: Sequence[PipPackage], index: str = ""
) -> Lock:
    """Put pip's packages and our own lines into a solved lock and move it to its place.

    The time of an older lock with the same packages is kept, so that nothing changes where
    nothing changed. ``index`` is the digest of the offline channel's index, where that is used.
    """
    if pip:
        _add_wheels(partial, spec.platforms[0], pip)
    text = partial.read_text("utf-8")
    new = read_lock(partial, spec.platforms[0])
    locked = datetime.now(UTC).replace(microsecond=0)
    try:
        old = read_lock(target, spec.platforms[0])
        if old.digest == new.digest and old.locked.timestamp() > 0:
            locked = old.locked
    except LockError:
        pass  # there is none, or none of use
    header = {
        "spec": spec.digest,
        "index": index,
        "locked": locked.isoformat(),
        "asks": json.dumps(spec.asks),
    }
    lines = [_HEADER.format(key=key, value=value) for key, value in header.items() if value]
    partial.write_text("".join(lines) + text, "utf-8")
    partial.rename(target)
    return read_lock(target, spec.platforms[0])


def _add_wheels(path: Path, platform: str, pip: Sequence[PipPackage]) -> None:
    # A lock that was read cannot be added to: its contents go into a new one.
    old = rattler.LockFile.from_path(path).environment(DEFAULT_ENVIRONMENT)
    here = rattler.LockPlatform(platform)
    lock = rattler.LockFile([here])
    lock.set_channels(DEFAULT_ENVIRONMENT, old.channels())
    there = next(p for p in old.platforms() if p.name == platform)
    for record in old.conda_repodata_records_for_platform(there) or []:
        lock.add_conda_package(DEFAULT_ENVIRONMENT, here, record)
    for item in sorted(pip, key=lambda item: item.url):
        lock.add_pypi_package(DEFAULT_ENVIRONMENT, here, item.name, item.version, item.url)
    lock.to_path(path)
    path.write_text(_with_hashes(path.read_text("utf-8"), {item.url: item for item in pip}))


def _with_hashes(text: str, wheels: Mapping[str, PipPackage]) -> str:
    """py-rattler writes wheels without the hash and the needs that the format has room for."""

    def more(match: re.Match[str]) -> str:
        item = wheels[match[2]]
        lines = [f"  sha256: {item.sha256}"]
        if item.requires_dist:
            lines.append("  requires_dist:")
            lines += [f"  - {json.dumps(need)}" for need in item.requires_dist]
        if item.requires_python:
            lines.append(f"  requires_python: {json.dumps(item.requires_python)}")
        return match[1] + "\n".join(lines) + "\n"

    return re.sub(r"(?m)^(- pypi: (\S+)\n  name: .*\n  version: .*\n)", more, text)
