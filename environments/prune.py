"""Old versions and cached packages: which may go, and their removal.

A version goes in two steps: first its row, so that nobody is offered it, then its image. What
a killed run leaves is an image without a row, which the next one removes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.messages import Message
from commons.site import Environments
from commons.store import Store
from commons.store.environments import EnvironmentBuild, ScopeEnvironment
from commons.store.usage import last_used
from environments import bytecode, catalog, offline
from environments.build import Places
from environments.catalog import CatalogEntry
from environments.channel import OFFLINE_URL
from environments.errors import BuildError, LockError
from environments.files import BYTECODE, PRIVATE
from environments.image import Images
from environments.install import remove
from environments.lock import read_lock
from environments.logs import KEPT
from environments.maker import alone
from environments.messages import prune as texts
from environments.offline import Room

# What a build left that was killed is not taken from under one that goes on.
_LEFT_OVER = 86400  # seconds
# Packages that came lately stay where nobody asked in so many words: the next lock may name them.
YOUNG = 7 * 86400.0  # seconds
NOBODY: Mapping[str, str] = {}


@dataclass(frozen=True)
class Verdict:
    """What becomes of a version, and why. ``last_used`` is UTC, None where nobody started it."""

    entry: CatalogEntry
    keep: bool
    why: Message
    last_used: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {
            "name": self.entry.name,
            "version": self.entry.version,
            "size": self.entry.size,
            "keep": self.keep,
            "reason": str(self.why),
            "why": self.why.as_json(),
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
) -> tuple[bool, Message]:
    if user:
        return True, texts.IN_USE(user=user)
    if entry.pinned:
        return True, texts.PINNED()
    if entry.is_offered and place <= keeping.versions:
        return True, texts.AMONG_LAST(count=keeping.versions)
    day = f"{last:%Y-%m-%d}" if last else None
    if last is not None and last >= keeping.used_since:
        return True, texts.LAST_USED(day=day)
    if entry.is_offered:
        unused, used = texts.OLDER, texts.OLDER_USED
    elif entry.state == "withdrawn":
        unused, used = texts.WITHDRAWN, texts.WITHDRAWN_USED
    else:
        unused, used = texts.REMOVED, texts.REMOVED_USED
    return False, (used if day else unused)(count=keeping.versions, day=day)


def prune(
    store: Store,
    images: Images,
    places: Places,
    keeping: Keeping,
    dry_run: bool = False,
    asked_for: Mapping[str, str] = NOBODY,
) -> list[Verdict]:
    """Remove what ``plan`` lets go. Gives what was decided; raises BuildError.

    ``asked_for``: ``name:version`` that somebody waits for, and who.
    """
    versions, used = store.transact(lambda s: (catalog.newest(s), last_used(s, "image")), read=True)
    by_version = {(name, version): when for (_, name, version), when in used.items()}
    verdicts = plan(versions, {**asked_for, **images.in_use()}, by_version, keeping)
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


def prune_cache(places: Places, dry_run: bool = False, young: float = 0.0) -> dict[str, list[int]]:
    """Remove cached packages that no lock names, and came more than ``young`` seconds ago; waits
    for installs to end. Gives the bytes of each by kind: packages, bytecode, left over.
    """
    if not places.cache.is_dir():
        return {}
    wanted = _wanted(places)
    with alone(places.cache / ".lock"):
        packages: list[Path] = []
        compiled: list[Path] = []
        for cache in (places.cache, places.cache / PRIVATE):
            some, more = _unneeded(cache, *wanted)
            packages += some
            compiled += more
        left = [
            path
            for name in ("scratch-*", "*/scratch-*", "staging/*")
            for path in places.cache.glob(name)
        ]
        return {
            kind: [_drop(path, dry_run) for path in paths if _age(path) > least]
            for kind, paths, least in (
                ("packages", packages, young),
                ("bytecode", compiled, young),
                ("left over", left, _LEFT_OVER),
            )
        }


def _age(path: Path) -> float:
    """Seconds since something last came to be or changed there; none where it is gone."""
    try:
        return time.time() - path.lstat().st_ctime
    except OSError:
        return -1.0


def prune_channel(places: Places, store: Store, limit: int, dry_run: bool = False) -> Room:
    """Keep the offline channel within ``limit`` bytes, without what any lock names.

    Those of people's and teams' versions and of builds that wait are known from the store.
    """
    if not places.channel.is_dir():
        return Room(0, 0)
    places.cache.mkdir(parents=True, exist_ok=True)
    with alone(places.cache / ".channel.lock"):
        needed = offline.named_in(p.read_text("utf-8", "replace") for p in _lock_files(places))
        needed |= store.transact(_named_in_store, read=True)
        return offline.trim(places.channel, limit, needed, dry_run)


def _named_in_store(session: Session) -> set[str]:
    """What the locks in the store name of the offline channel; they are many, and large."""
    found: set[str] = set()
    for column in (ScopeEnvironment.lock, EnvironmentBuild.lock):
        texts = select(column).where(column.contains(OFFLINE_URL))
        found |= offline.named_in(session.scalars(texts).yield_per(20))
    return found


def _lock_files(places: Places) -> list[Path]:
    return [
        *places.locks.glob("*/pixi.lock"),
        *places.versions.glob("*/*/pixi.lock"),
        *places.environments.glob("*/pixi.lock"),
    ]


def _unneeded(
    cache: Path, stems: set[str], hashes: set[str], homes: set[str]
) -> tuple[list[Path], list[Path]]:
    """Packages that no lock names, and what was compiled for them."""
    gone = [
        path
        for path in _children(cache / "packages")
        if path.name.removesuffix(".lock").removesuffix(".conda").removesuffix(".tar.bz2")
        not in stems
    ]
    gone += [path for path in _children(cache / "wheels") if path.name not in hashes]
    compiled = []
    for path in _children(cache / BYTECODE):
        if path.name not in homes:
            compiled.append(path)
        else:
            compiled += [part for part in _children(path) if part.name not in hashes]
    return gone, compiled


def _wanted(places: Places) -> tuple[set[str], set[str], set[str]]:
    """Stems of conda packages, hashes of all packages, and folders of bytecode, of all locks."""
    stems: set[str] = set()
    homes: set[str] = set()
    hashes: set[str] = set()
    for path in _lock_files(places):
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


# Everything ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removed:
    """What went of one kind: how many, bytes, and the names of those that have one."""

    kind: str
    count: int = 0
    freed: int = 0
    names: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        return {**asdict(self), "names": list(self.names)}


def prune_logs(places: Places, dry_run: bool = False) -> list[int]:
    """Remove logs of builds beyond the last ones of each environment. Gives their bytes."""
    return [
        _drop(path, dry_run)
        for folder in _children(places.logs)
        if folder.is_dir() and not folder.is_symlink()
        for path in sorted(folder.glob("*.log"))[:-KEPT]
    ]


def everything(
    store: Store,
    images: Images,
    places: Places,
    settings: Environments,
    asked_for: Mapping[str, str],
    now: datetime,
    dry_run: bool = False,
) -> Iterator[Removed]:
    """Remove all that nobody needs, one kind after the other. Raises BuildError.

    Versions with their images, cached packages and bytecode, the offline channel beyond its bound,
    logs beyond their number, and images of ours that have lost their name.
    """
    keeping = Keeping.of(settings.keep, settings.keep_used, now)
    verdicts = prune(store, images, places, keeping, dry_run, asked_for)
    going = [verdict.entry for verdict in verdicts if not verdict.keep]
    yield Removed(
        "versions",
        len(going),
        sum(entry.size for entry in going),
        tuple(f"{entry.name}:{entry.version}" for entry in going),
    )
    for kind, sizes in prune_cache(places, dry_run, YOUNG).items():
        yield Removed(kind, len(sizes), sum(sizes))
    room = prune_channel(places, store, settings.offline_bytes, dry_run)
    yield Removed("offline channel", int(room.freed > 0), room.freed)
    logs = prune_logs(places, dry_run)
    yield Removed("logs", len(logs), sum(logs))
    dangling = images.prune_dangling(dry_run)
    yield Removed("images", dangling.count, dangling.bytes)
