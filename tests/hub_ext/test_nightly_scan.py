"""Versions are compared with new advisories each day at the site's hour, in a builder."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from commons import holes
from commons.site import Environments, EnvironmentScan, Site
from commons.store import Store
from commons.store.models import utcnow
from hub_ext.nightly_scan import NightlyScan
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import TaskEnd


class Night:
    """A hub whose hour has come, over a runtime in memory."""

    def __init__(self, store: Store, site: Site, **decided: Any) -> None:
        self.store, self.runtime = store, MemoryRuntime()
        hour = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%H:%M")
        decided = {"advisories": Path("/srv/labcommons/data/advisories"), "rescan": hour} | decided
        settings = Environments(scan=EnvironmentScan(**decided))
        site = site.model_copy(update={"environments": settings})
        self.work = NightlyScan(store, self.runtime, site, logging.getLogger())
        self.work._began -= timedelta(hours=1)

    async def ends(self, *lines: object, code: int = 0) -> dict[str, Any]:
        """The builder says this, and ends; the job that it was given."""
        while not self.runtime.long:
            await asyncio.sleep(0.01)
        [(handle, task)] = self.runtime.long.items()
        job: dict[str, Any] = json.loads(task.job.job)
        said = [json.dumps(line).encode() for line in lines]
        await self.runtime.print(handle, *said, end=TaskEnd(exit_code=code))
        return job


async def test_it_is_looked_once_when_the_hour_has_come(store: Store, site: Site) -> None:
    night = Night(store, site)
    _, job = await asyncio.gather(night.work.once(), night.ends({"result": {"holes": 1}}))
    assert job["work"] == "rescan"
    assert "credentials" not in job["settings"]
    assert Environments.model_validate(job["settings"]).scan.advisories is not None
    store.transact(holes.note)  # as the builder does
    await night.work.once()
    assert night.runtime.calls["begin"] == 1


async def test_what_came_to_no_end_is_told_and_not_tried_all_night(
    store: Store, site: Site
) -> None:
    night = Night(store, site)
    await asyncio.gather(night.work.once(), night.ends({"error": "no advisories"}, code=1))
    last = store.transact(holes.last, read=True)
    assert last is not None
    assert "no advisories" in last.problem
    await night.work.once()
    assert night.runtime.calls["begin"] == 1


@pytest.mark.parametrize("decided", [{"rescan": "never"}, {"advisories": None}])
async def test_without_advisories_or_an_hour_nobody_looks(
    store: Store, site: Site, decided: dict[str, Any]
) -> None:
    night = Night(store, site, **decided)
    await night.work.once()
    assert night.runtime.calls["begin"] == 0


async def test_a_new_hub_waits_for_its_first_hour(store: Store, site: Site) -> None:
    night = Night(store, site)
    night.work._began = utcnow()
    await night.work.once()
    assert night.runtime.calls["begin"] == 0
