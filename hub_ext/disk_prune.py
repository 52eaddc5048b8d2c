"""Once a day, at the site's hour, what nobody needs is removed: by a builder, as ``labcommons disk
prune`` does it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Any

from commons.audit import AuditTrail, make_event
from commons.i18n import choose_timezone
from commons.site import Site
from commons.store import Store, prunes
from commons.store.models import utcnow
from hub_ext.in_builder import NoEnd, in_builder
from spawner.runtime.protocol import Runtime

EVERY = 60.0  # seconds between two looks at the clock
MAX_LOCK, MAX_LOCKS = 4 * 2**20, 24 * 2**20  # bytes of one, and of all, that a builder is told


def moment(at: time, zone: tzinfo, now: datetime) -> datetime:
    """The last time at which it was to begin (UTC without zone); ``now`` likewise."""
    here = now.replace(tzinfo=UTC).astimezone(zone)
    found = datetime.combine(here.date(), at, zone)
    if found > here:
        found = datetime.combine(here.date() - timedelta(days=1), at, zone)
    return found.astimezone(UTC).replace(tzinfo=None)


class NightlyPrune:
    """Of one site.

    Args:
        environments: the administrator's folder of environments, whose locks count.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        site: Site,
        environments: Path,
        audit: AuditTrail,
        log: logging.Logger,
    ) -> None:
        self.store, self.runtime, self.site = store, runtime, site
        self.environments, self.audit, self.log = environments, audit, log
        self._began = utcnow()

    async def once(self) -> None:
        """Remove, where the hour has come since the last time. Raises LabError, StoreError."""
        at = self.site.storage.prune_time()
        if at is None:
            return
        due = moment(at, choose_timezone(self.site.servers.timezone), utcnow())
        last = await self.store.read(prunes.last)
        if (last.at if last else self._began) >= due:
            return
        problem, removed = "", list[dict[str, Any]]()
        try:
            removed = await self._remove(f"prune-{due:%Y%m%dT%H%M}")
        except NoEnd as error:
            problem = str(error)
            self.log.error("disk prune: %s", problem)
        await self.store.run(lambda session: prunes.note(session, removed, problem))
        for details in prunes.versions(removed):
            self.audit.record(make_event("environment-prune", "success", user="", details=details))
        freed = sum(int(one["freed"]) for one in removed)
        self.log.info("disk prune: %d MiB given back", freed >> 20)

    async def _remove(self, job_id: str) -> list[dict[str, Any]]:
        """In a builder; one that an earlier hub began is found. Raises NoEnd, LabError."""
        locks = await asyncio.to_thread(_locks, self.environments)
        job = {
            "work": "prune",
            "umask": "022",
            "settings": self.site.environments.model_dump(mode="json", exclude={"credentials"}),
            "cache": "/srv/labcommons/data/cache",
            "locks": locks,
            "asked_for": await self.store.read(prunes.asked_for),
        }
        result = await in_builder(self.runtime, job_id, job)
        return list(result.get("removed") or [])


def _locks(folder: Path) -> list[str]:
    """The texts of the administrator's locks. Raises OSError."""
    found, room = [], MAX_LOCKS
    for path in sorted(folder.glob("*/pixi.lock")):
        with path.open("rb") as file:
            raw = file.read(MAX_LOCK + 1)
        room -= len(raw)
        if len(raw) > MAX_LOCK or room < 0:
            raise NoEnd(f"{path} is too large to be told to a builder")
        found.append(raw.decode("utf-8", "replace"))
    return found
