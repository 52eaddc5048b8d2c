"""What nobody needs is removed each day at the site's hour, and by hand; never what is needed."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from commons.audit import AuditTrail
from commons.leases import LeaseState
from commons.site import Environments, Site
from commons.site.storage import Storage
from commons.store import Lease, Store, prunes
from commons.store.models import Prune, ServerStart, WarmStart, utcnow
from environments import image
from environments.build import Places
from hub_ext import disk_cli
from hub_ext.disk_prune import NightlyPrune, moment
from spawner.runtime.memory import MemoryRuntime, silent
from spawner.runtime.protocol import Dangling, TaskEnd

GONE = {"kind": "versions", "count": 1, "freed": 2**30, "names": ["data:v1"]}


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (datetime(2026, 11, 28, 2, 29), datetime(2026, 11, 27, 2, 30)),
        (datetime(2026, 11, 28, 2, 30), datetime(2026, 11, 28, 2, 30)),
        (datetime(2026, 7, 1, 1, 29), datetime(2026, 6, 30, 1, 30)),  # in summer
        (datetime(2026, 3, 29, 12, 0), datetime(2026, 3, 29, 1, 30)),  # 03:30 after the change
    ],
)
def test_the_hour_is_of_the_sites_clock(now: datetime, found: datetime) -> None:
    assert moment(time(3, 30), ZoneInfo("Europe/Berlin"), now) == found


class Night:
    """A hub's nightly work whose hour has come, over a runtime in memory."""

    def __init__(self, store: Store, site: Site, tmp_path: Path) -> None:
        self.store, self.runtime = store, MemoryRuntime()
        self.locks = tmp_path / "environments"
        (self.locks / "data").mkdir(parents=True)
        (self.locks / "data" / "pixi.lock").write_text("version: 6")
        hour = (datetime.now(UTC) - timedelta(minutes=1)).strftime("%H:%M")
        self.site = site.model_copy(update={"storage": Storage(prune=hour)})
        self.begin()

    def begin(self) -> None:
        """As another hub, which began an hour ago."""
        audit = AuditTrail()
        self.work = NightlyPrune(
            self.store, self.runtime, self.site, self.locks, audit, logging.getLogger()
        )
        self.work._began -= timedelta(hours=1)

    async def ends(self, *lines: object, code: int = 0) -> None:
        """The builder says this, and ends."""
        while not self.runtime.long:
            await asyncio.sleep(0.01)
        [handle] = self.runtime.long
        said = [json.dumps(line).encode() for line in lines]
        await self.runtime.print(handle, *said, end=TaskEnd(exit_code=code))

    def last(self) -> Prune | None:
        return self.store.transact(prunes.last, read=True)


@pytest.fixture
def night(store: Store, site: Site, tmp_path: Path) -> Night:
    return Night(store, site, tmp_path)


async def test_it_is_done_once_when_the_hour_has_come(night: Night) -> None:
    await asyncio.gather(night.work.once(), night.ends({"result": {"removed": [GONE]}}))
    last = night.last()
    assert last is not None
    assert (last.problem, prunes.freed(last)) == ("", 2**30)
    assert night.runtime.long == {}  # its container is gone
    await night.work.once()
    assert night.runtime.calls["begin"] == 1
    night.begin()
    await night.work.once()
    assert night.runtime.calls["begin"] == 1


async def test_a_new_hub_waits_for_its_first_hour_and_never_is_never(night: Night) -> None:
    night.work._began = utcnow()
    await night.work.once()
    night.site = night.site.model_copy(update={"storage": Storage(prune="never")})
    night.begin()
    await night.work.once()
    assert night.runtime.calls["begin"] == 0


async def test_the_builder_is_told_what_it_cannot_see(night: Night) -> None:
    lease = Lease(id="1", username="alice", state=LeaseState.QUEUED, gpus=1)
    lease.user_options = {"environment": "data:v1"}
    night.store.transact(lambda s: s.add(lease))
    going = asyncio.create_task(night.work.once())
    while not night.runtime.long:
        await asyncio.sleep(0.01)
    [task] = night.runtime.long.values()
    job = json.loads(task.job.job)
    assert job["locks"] == ["version: 6"]
    assert job["asked_for"] == {"data:v1": "alice"}
    assert "credentials" not in job["settings"]
    Environments.model_validate(job["settings"])
    await night.ends({"result": {"removed": []}})
    await going


@pytest.mark.parametrize(
    ("lines", "code", "why"),
    [
        ([{"error": "the disk is full"}], 1, "the disk is full"),
        ([{"result": {"removed": [GONE]}}], 137, "without a result"),
        ([], 0, "without a result"),
        (["nonsense"], 0, "without a result"),
        ([{"log": "KeyError: x"}, {"log": " "}], 1, "KeyError: x"),
    ],
)
async def test_what_came_to_no_end_is_told_and_not_tried_all_night(
    night: Night, lines: list[object], code: int, why: str
) -> None:
    await asyncio.gather(night.work.once(), night.ends(*lines, code=code))
    last = night.last()
    assert last is not None
    assert why in last.problem
    await night.work.once()
    assert night.runtime.calls["begin"] == 1


async def test_a_hub_that_is_killed_meanwhile_leaves_it_to_the_next(night: Night) -> None:
    going = asyncio.create_task(night.work.once())
    while not night.runtime.long:
        await asyncio.sleep(0.01)
    night.runtime.faults["remove"] = silent()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    night.runtime.faults.clear()
    assert night.last() is None
    night.begin()
    await asyncio.gather(night.work.once(), night.ends({"result": {"removed": [GONE]}}))
    assert night.last() is not None


def test_what_is_asked_for_and_has_no_container(store: Store) -> None:
    now = utcnow()
    old = Lease(id="1", username="alice", state=LeaseState.ENDED, gpus=1)
    old.user_options = {"environment": "data:v1"}
    start = ServerStart(username="bob", server_name="", asked_at=now, tries=1)
    start.user_options = {"environment": "data:v2"}
    warm = [
        WarmStart(
            id=str(day), name="x", subject="", people=[], created_by="carol",
            user_options={"environment": f"data:v{day}"},
            starts_at=now + timedelta(days=day), hold_until=now + timedelta(days=day, hours=1),
        )
        for day in (-3, 3)
    ]  # fmt: skip
    store.transact(lambda s: s.add_all([old, start, *warm]))
    assert store.transact(prunes.asked_for, read=True) == {"data:v2": "bob", "data:v3": "carol"}


def test_the_last_ones_are_kept(store: Store) -> None:
    for number in range(prunes.KEPT + 5):
        store.transact(lambda s, n=number: prunes.note(s, [{"kind": "logs", "freed": n}]))
    assert store.transact(lambda s: s.query(Prune).count()) == prunes.KEPT
    last = store.transact(prunes.last)
    assert last is not None
    assert prunes.freed(last) == prunes.KEPT + 4


class Images:
    """In the place of the agent's."""

    def in_use(self) -> dict[str, str]:
        return {}

    def orphans(self, _known: object) -> list[str]:
        return []

    def prune_dangling(self, dry_run: bool) -> Dangling:
        return Dangling(count=2, bytes=100)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A site with more logs of builds than are kept, and a package that no lock names."""
    places = Places(tmp_path / "environments", tmp_path / "data")
    (places.logs / "data").mkdir(parents=True)
    for number in range(12):
        (places.logs / "data" / f"2026{number:02}.log").write_text("x" * 10)
    (places.cache / "packages" / "omega-9-0").mkdir(parents=True)
    return places


def test_the_command_says_what_goes_and_how_much(
    store: Store, site: Site, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "Images", Images)
    monkeypatch.setattr(disk_cli, "places", lambda: places)
    monkeypatch.setattr(disk_cli, "settings", lambda: site.environments)
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", store.url)

    def run(*words: str, answer: str = "") -> str:
        done = CliRunner().invoke(disk_cli.disk, ["prune", *words], input=answer)
        assert done.exit_code == (1 if answer == "n\n" else 0), done.output
        return done.output

    logs = places.logs / "data"
    assert "logs that would go: 2" in run("--dry-run")
    run(answer="n\n")
    assert len(list(logs.iterdir())) == 12
    assert store.transact(prunes.last, read=True) is None
    found = json.loads(run("--yes", "--json"))
    assert found["freed"] == 120
    kinds = {one["kind"]: one["count"] for one in found["removed"]}
    assert (kinds["logs"], kinds["images"], kinds["packages"]) == (2, 2, 0)
    assert sorted(path.name for path in logs.iterdir())[0] == "202602.log"
    assert (places.cache / "packages" / "omega-9-0").exists()  # it came today
    last = store.transact(prunes.last, read=True)
    assert last is not None
    assert prunes.freed(last) == 120
