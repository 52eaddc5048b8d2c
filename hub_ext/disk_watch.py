"""What homes, teams and courses have of the disk: measured one after the other, and told in time.

A folder is looked at again when its person has had a server since, sooner where it is near its
limit, and once a week otherwise: to look through a home costs its machine some minutes of one disk.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from commons import notices
from commons.leases import ServerKey
from commons.messages import Message
from commons.scopes import Scope
from commons.site.storage import AREAS, Area, Storage
from commons.store import DiskUse, Store
from commons.store.models import utcnow
from spawner import storage
from spawner.runtime.protocol import FolderUse, Runtime
from spawner.storage import share

EVERY = 60  # seconds between two looks at what is due
USED = timedelta(hours=6)  # from a look to the next, where somebody works in it
NEAR = timedelta(minutes=20)  # the same near the limit
REST = timedelta(days=7)  # where nobody does
LISTED = timedelta(hours=1)  # from a list of folders to the next

Folder = tuple[Area, str]  # area and name


def due(
    now: datetime,
    folders: Iterable[Folder],
    known: Mapping[tuple[str, str], tuple[datetime, float]],
    used: Collection[str],
) -> Folder | None:
    """The folder to measure now, if any: what was never measured, then what is overdue longest.

    ``known``: when each was measured, and its share of its limit; ``used``: who has, or has had
    since, a server.
    """

    def late(folder: Folder) -> timedelta:
        if folder not in known:
            return timedelta.max
        at, part = known[folder]
        wait = REST
        if folder[0] != "homes" or folder[1] in used:
            wait = USED if part < 1 else NEAR
        return now - at - wait

    latest = max(folders, key=late, default=None)
    return latest if latest is not None and late(latest) >= timedelta(0) else None


class DiskWatch:
    """Measures for one site.

    Args:
        running: servers that run now.
        answerable: who is told of a scope's folder, beside its person.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        limits: Storage,
        running: Callable[[], Collection[ServerKey]],
        answerable: Callable[[Scope], Collection[str]],
        log: logging.Logger,
    ) -> None:
        self.store, self.runtime, self.limits = store, runtime, limits
        self.running, self.answerable, self.log = running, answerable, log
        self._folders: set[Folder] = set()
        self._listed: datetime | None = None
        self._used: set[str] = set()

    async def once(self) -> None:
        """Measure what is due, one folder at most. Raises LabError, StoreError."""
        now = utcnow()
        self._used.update(user for user, _ in self.running())
        if self._listed is None or now - self._listed > LISTED:
            found = {area: await self.runtime.list_folders(area) for area in AREAS}
            self._folders = {(area, name) for area, names in found.items() for name in names}
            self._listed = now
            await self.store.run(self._forget)
        rows, limits = await self.store.read(
            lambda s: (list(s.scalars(select(DiskUse))), storage.Limits(s, self.limits))
        )
        known = {
            (row.area, row.name): (
                row.at, share(row.bytes, limits.of(row.area, row.name)) / self.limits.warn
            )
            for row in rows
        }  # fmt: skip
        folder = due(now, self._folders, known, self._used)
        if folder is None:
            return
        running = {user for user, _ in self.running()}
        use = await self.runtime.measure(*folder)
        if use is None:
            self._folders.discard(folder)
            return
        told = sorted(self.answerable(storage.scope_of(*folder)))
        await self.store.run(partial(self._write, folder, use, told))
        if folder[0] == "homes" and folder[1] not in running:
            self._used.discard(folder[1])

    def _forget(self, session: Session) -> None:
        """Folders that are gone."""
        for row in session.scalars(select(DiskUse)).all():
            if (row.area, row.name) not in self._folders:
                session.execute(
                    delete(DiskUse).where(DiskUse.area == row.area, DiskUse.name == row.name)
                )

    def _level(self, limit: int | None, used: int) -> int:
        """0: well; 1: near the limit; 2: over it."""
        part = share(used, limit)
        return (part >= self.limits.warn) + (part >= 1)

    def _write(self, folder: Folder, use: FolderUse, told: list[str], session: Session) -> None:
        area, name = folder
        row = session.get(DiskUse, folder) or DiskUse(area=area, name=name, bytes=0)
        limit = storage.Limits(session, self.limits).of(area, name)
        before = self._level(limit, row.bytes)
        row.bytes, row.whole, row.at = use.bytes, use.whole, utcnow()
        row.largest = [{"folder": one.path, "bytes": one.bytes} for one in use.largest]
        session.add(row)
        level = self._level(limit, use.bytes)
        if not level:
            return
        part = share(use.bytes, limit)
        self.log.warning("disk: %s/%s has %d %% of its limit", area, name, int(100 * part))
        largest = storage.largest(row.largest)
        more: list[Message] = [largest] if largest else []

        def tell(username: str, code: str, about: str) -> None:
            data = {"used_bytes": use.bytes, "limit_bytes": limit, "folder": f"{area}/{name}"}
            key = _key(about, code, row.at)
            notices.add(
                session, username=username, lease_id=None, code=code, data=data, key=key, more=more
            )

        if area == "homes":
            tell(name, "home_full" if level > 1 else "home_fills", name)
        if level > before:  # who answers for it is told when it comes to that, and not every day
            for one in told:
                if folder != ("homes", one):
                    code = "folder_full" if level > 1 else "folder_fills"
                    tell(one, code, f"{one}/{area}/{name}")


def _key(about: str, code: str, at: datetime) -> str:
    """Once a day for each."""
    return f"disk:{code}:{at:%Y-%m-%d}:{hashlib.sha256(about.encode()).hexdigest()[:40]}"
