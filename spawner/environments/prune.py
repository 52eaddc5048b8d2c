"""Old versions and cached packages: which may go, and their removal.

A version goes in two steps: first its row, so that nobody is offered it, then its image. What
a killed run leaves is an image without a row, which the next one removes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hub_ext.store import Store
from hub_ext.store.usage import last_used
from spawner.environments import bytecode, catalog
from spawner.environments.build import Places
from spawner.environments.catalog import CatalogEntry
from spawner.environments.errors import BuildError, LockError
from spawner.environments.files import BYTECODE, PRIVATE
from spawner.environments.image import Images
from spawner.environments.install import remove
from spawner.environments.lock import read_lock
from spawner.environments.maker import alone

# What a build left that was killed is not taken from under one that goes on.
_LEFT_OVER = 86400  # seconds


@dataclass(frozen=True)
class Verdict:
    """What becomes of a version, and why. ``last_used`` is UTC, None where nobody started it."""

    entry: CatalogEntry
    keep: bool
    reason: str
    last_used: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "name": self.entry.name,
            "version": self.entry.version,
            "size": self.entry.size,
            "keep": self.keep,
            "reason": self.reason,
            "last_used": f"{self.last_used.isoformat()}Z" if self.last_used else None,
        }


@dataclass(frozen=True)
class Keeping:
    """What stays: the last ``versions`` of each, and what was used since a moment (UTC)."""

    versions: int
    used_since: datetime

    @classmethod
    def of(cls, versions: int, days: int, now: datetime) -> Keeping:
        """``days`` without use, after which a version may go."""
        return cls(versions, now - timedelta(days))


def plan(
    versions: Mapping[str, Sequence[CatalogEntry]],
    in_use: Mapping[str, str],
    used: Mapping[tuple[str, str], datetime],
    keeping: Keeping,
) -> list[Verdict]:
    """What may go: neither in use, pinned, lately used, nor among the last offered ones.

    ``versions`` are newest first; ``in_use`` maps ``name:version`` and image ids
    to who uses them; ``used`` says when a kernel of (name, version) was last started, UTC.
    """
    verdicts = []
    for entries in versions.values():
        place = 0
        for entry in entries:
            place += entry.is_offered
            last = used.get((entry.name, entry.version))
            keep, reason = _verdict(entry, place, _user_of(entry, in_use), last, keeping)
            verdicts.append(Verdict(entry, keep, reason, last))
    return verdicts


def _user_of(entry: CatalogEntry, in_use: Mapping[str, str]) -> str | None:
    return in_use.get(f"{entry.name}:{entry.version}") or in_use.get(entry.image_id)


def _verdict(
    entry: CatalogEntry, place: int, user: str | None, last: datetime | None, keeping: Keeping
) -> tuple[bool, str]:
    if user:
        return True, f"in use by {user}"
    if entry.pinned:
        return True, "pinned"
    if entry.is_offered and place <= keeping.versions:
        return True, f"among the last {keeping.versions}"
    if last is not None and last >= keeping.used_since:
        return True, f"last used on {last:%Y-%m-%d}"
    why = entry.state if not entry.is_offered else f"older than the last {keeping.versions}"
    return False, f"{why}, last used on {last:%Y-%m-%d}" if last else f"{why}, not used"


def prune(
    store: Store, images: Images, places: Places, keeping: Keeping, dry_run: bool = False
) -> list[Verdict]:
    """Remove what ``plan`` lets go. Gives what was decided; raises BuildError."""
    versions, used = store.transact(lambda s: (catalog.newest(s), last_used(s, "image")), read=True)
    by_version = {(name, version): when for (_, name, version), when in used.items()}
    verdicts = plan(versions, images.in_use(), by_version, keeping)
    for verdict in verdicts:
        if verdict.keep or dry_run:
            continue
        entry = verdict.entry
        _forget(store, entry)
        images.discard(entry.image_id)
        with suppress(BuildError):
            remove(places.versions / entry.name / entry.version)
    if not dry_run:
        known = [
            entry.image_id
            for entries in store.transact(catalog.newest, read=True).values()
            for entry in entries
        ]
        for image in images.orphans(known):
            images.discard(image)
    return verdicts


def _forget(store: Store, entry: CatalogEntry) -> None:
    store.transact(lambda session: catalog.delete(session, entry.name, entry.version))


# The cache -------------------------------------------------------------------------------------


def disk_use(places: Places) -> dict[str, int]:
    """Bytes of each folder that builds fill."""
    folders = {
        "packages": places.cache / "packages",
        "wheels": places.cache / "wheels",
        "bytecode": places.cache / BYTECODE,
        "indexes": places.cache / "repodata",
        "pip": places.cache / "pip",
        "offline channel": places.channel,
        "versions": places.versions,
        "logs": places.logs,
    }
    return {name: _size(folder) for name, folder in folders.items()}


def prune_cache(places: Places, dry_run: bool = False) -> int:
    """Remove cached packages that no lock names. Gives the bytes; waits for installs to end."""
    if not places.cache.is_dir():
        return 0
    stems, hashes, homes = _wanted(places)
    freed = 0
    with alone(places.cache / ".lock"):
        for cache in (places.cache, places.cache / PRIVATE):
            freed += _prune_packages(cache, stems, hashes, homes, dry_run)
        left = [
            path
            for name in ("scratch-*", "*/scratch-*", "staging/*")
            for path in places.cache.glob(name)
        ]
        for path in left:
            if time.time() - path.lstat().st_mtime > _LEFT_OVER:
                freed += _drop(path, dry_run)
    return freed


def _prune_packages(
    cache: Path, stems: set[str], hashes: set[str], homes: set[str], dry_run: bool
) -> int:
    gone = [
        path
        for path in _children(cache / "packages")
        if path.name.removesuffix(".lock").removesuffix(".conda").removesuffix(".tar.bz2")
        not in stems
    ]
    gone += [path for path in _children(cache / "wheels") if path.name not in hashes]
    for path in _children(cache / BYTECODE):
        gone += [path] if path.name not in homes else []
        gone += [part for part in _children(path) if path.name in homes and part.name not in hashes]
    return sum(_drop(path, dry_run) for path in gone)


def _wanted(places: Places) -> tuple[set[str], set[str], set[str]]:
    """Stems of conda packages, hashes of all packages, and folders of bytecode, of all locks."""
    stems: set[str] = set()
    homes: set[str] = set()
    hashes: set[str] = set()
    locks = [
        *places.locks.glob("*/pixi.lock"),
        *places.versions.glob("*/*/pixi.lock"),
        *places.environments.glob("*/pixi.lock"),
    ]
    for path in locks:
        with suppress(LockError):
            lock = read_lock(path)
            stems |= {item.stem for item in lock.packages}
            homes.add(bytecode.home(lock))
            hashes |= {item.sha256 for item in lock.packages}
            hashes |= {item.sha256 for item in lock.pip}
    return stems, hashes, homes


def _children(folder: Path) -> Collection[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _drop(path: Path, dry_run: bool) -> int:
    size = _size(path)
    if not dry_run:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return size


def _size(path: Path) -> int:
    """Bytes of the files below a path; hard links are counted once."""
    seen: dict[tuple[int, int], int] = {}
    for item in [path, *path.rglob("*")] if path.exists() else []:
        with suppress(OSError):
            status = item.lstat()
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())
