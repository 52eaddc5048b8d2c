"""Servers that nobody uses, in a real hub: warned, kept, stopped, and told why."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyterhub import orm
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import NotAvailable
from commons.site import Site
from commons.site.culling import CullingRule
from commons.store import ServerWatch, Store, ends
from commons.store.models import utcnow
from rig.hub_in_memory import Lab, hub_lab
from spawner.culling import culler
from spawner.culling.culler import Culler
from spawner.culling.policy import Facts
from spawner.gpu.watch.idle import Use
from spawner.gpu.watch.server_activity import Jupyter
from spawner.warm import records

IDLE, BUSY, SILENT = Jupyter(0, 0.0), Jupyter(1, 0.0), Jupyter()


@pytest.fixture
async def lab(tmp_path: Path, site: Site) -> AsyncIterator[Lab]:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    async with hub_lab(store, site, tmp_path) as lab:
        yield lab
    store.close()


class Days:
    """A site with rules, on a clock of its own; ``goes_on`` is what servers say."""

    def __init__(self, lab: Lab, *rules: dict[str, Any]) -> None:
        self.lab, self.rules = lab, [CullingRule(**rule) for rule in rules]
        self.goes_on = IDLE
        [running] = lab.servers.culled()
        self.now = running.started
        self.again()

    def again(self) -> None:
        """As a hub begins that was started anew."""
        store = self.lab.resources.store
        log = logging.getLogger("test")
        self.culler = Culler(store, self.rules, self.lab.servers, self._said, log, lambda: self.now)

    async def _said(self, _server: Any) -> Jupyter:
        return self.goes_on

    async def go(self, minutes: int) -> None:
        for _ in range(minutes):
            self.now += 60
            await self.culler.look()
        await self.lab.until(lambda: not self.culler.busy)

    async def told(self) -> list[str]:
        found = await self.lab.resources.store.read(lambda s: notices.show(s, "alice", str))
        return [one.code for one in found if not one.seen]

    async def keep(self) -> float:
        now = self.now
        return await self.lab.resources.store.run(lambda s: culler.keep(s, "alice", "", now))

    async def end(self) -> tuple[str, Any] | None:
        row = await self.lab.resources.store.read(lambda s: ends.last(s, "alice", ""))
        return row and (row.cause, row.data.get("idle_for") or row.data.get("age_for"))


@pytest.fixture(autouse=True)
def _shown_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' clock is far from today's."""
    monkeypatch.setattr(notices, "still_true", lambda *_: True)


async def test_what_nobody_uses_is_warned_of_kept_and_stopped_and_told(lab: Lab) -> None:
    """Kind: the whole way of an idle server, with a hub that is started anew in the middle."""
    await lab.started()
    days = Days(lab, {"sizes": ["large"], "gpus": False, "after": "1h", "keep": "2h"})
    await days.go(46)
    assert await days.told() == ["cull_warning"]
    days.again()
    assert await days.keep() == days.now + 7200
    assert await days.told() == ["server_kept"]
    await days.go(100)
    assert await days.told() == ["server_kept"]
    await days.go(30)
    assert lab.servers.known() == set()
    cause, idle_for = await days.end() or ("", 0)
    assert cause == "culled"
    assert idle_for > 3600
    await days.go(1)
    # What was going to happen is no news any more.
    assert await days.told() == ["culled"]
    with pytest.raises(NotAvailable, match="not going to be stopped"):
        await days.keep()


@pytest.mark.parametrize("said", [BUSY, SILENT], ids=["busy", "silent"])
async def test_what_is_at_work_or_does_not_answer_is_left_alone(lab: Lab, said: Jupyter) -> None:
    await lab.started()
    days = Days(lab, {"after": "1h", "max_age": "2h"})
    days.goes_on = said
    await days.go(150)
    assert lab.servers.known()
    assert await days.told() == ["max_age_soon"]
    days.goes_on = IDLE
    await days.go(1)
    assert await days.end() == ("max_age", 7200)


async def test_a_site_may_say_that_kernels_at_work_do_not_count(lab: Lab) -> None:
    await lab.started()
    days = Days(lab, {"after": "1h", "over_busy": True})
    days.goes_on = BUSY
    await days.go(62)
    assert await days.end() is not None


async def test_a_warning_is_taken_back_when_somebody_works_again(lab: Lab) -> None:
    await lab.started()
    days = Days(lab, {"after": "1h"})
    await days.go(46)
    days.goes_on = BUSY
    await days.go(1)
    assert await days.told() == ["cull_resumed"]


async def test_rules_go_by_the_teams_and_courses_that_the_hub_knows(lab: Lab) -> None:
    await lab.started()
    user = lab.app.users["alice"]
    group = orm.Group(name="course:ml101:students", users=[user.orm_user])
    lab.app.db.add(group)
    lab.app.db.commit()
    days = Days(lab, {"courses": ["ml101"], "after": "20m"}, {"after": "8h"})
    await days.go(22)
    assert await days.end() is not None


async def test_keeping_has_an_end_and_another_server_begins_anew(lab: Lab) -> None:
    spawner = await lab.started()
    days = Days(lab, {"after": "1h", "keep": "1h", "keep_at_most": "90m"})
    await days.go(50)
    await days.keep()
    await days.go(30)
    await days.keep()
    await days.go(30)
    with pytest.raises(NotAvailable, match="as long as is allowed"):
        await days.keep()
    first = spawner.container_ref
    await lab.servers.stop("alice", "")
    await lab.started()
    await days.go(1)
    rows = await lab.resources.store.read(lambda s: list(s.query(ServerWatch)))
    assert [row.key for row in rows] != [first]
    assert (rows[0].kept_seconds, rows[0].idle_seconds) == (0, 0)


async def test_a_server_is_kept_on_my_servers_by_its_owner_alone(lab: Lab) -> None:
    await lab.started()
    days = Days(lab, {"after": "1h"})

    async def press(who: str, body: object) -> tuple[int, str]:
        token = lab.app.users[who].new_api_token()
        return await lab.rest("POST", "users/alice/servers-kept", body, token)

    code, said = await press("alice", {"server": ""})
    assert (code, "not going to be stopped" in str(said)) == (409, True)
    await days.go(46)
    assert (await press("bob", {"server": ""}))[0] == 404
    assert (await press("alice", {}))[0] == 400
    assert (await press("alice", {"server": ""}))[0] == 200
    assert await days.told() == ["server_kept"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_is_kept_in_either_database(
    kind: str, store: Store, request: pytest.FixtureRequest
) -> None:
    if kind == "postgresql":
        store = Store(request.getfixturevalue("postgres").database("culling"))
        store.migrate()
    one = culler.Running(("alice", ""), "c1", 0.0, Facts("small", 0, frozenset()))
    look = culler.Look(one, CullingRule(after="1h"), Use.IDLE, False)
    for minute in range(47):
        assert store.transact(lambda s, at=60.0 * minute: culler.judge(s, [look], at)) == []
    assert store.transact(lambda s: culler.keep(s, "alice", "", 2800.0)) == 2800 + 4 * 3600
    assert store.transact(lambda s: culler.judge(s, [look], 9000.0)) == []
    assert store.transact(lambda s: culler.judge(s, [], 9060.0)) == []
    with pytest.raises(NotAvailable):
        store.transact(lambda s: culler.keep(s, "alice", "", 9100.0))


async def test_what_was_started_ahead_of_time_is_not_idle_before_somebody_came(lab: Lab) -> None:
    await lab.started()
    store, site = lab.resources.store, lab.resources.site

    def hold(session: Session) -> records.Held:
        spec = records.check({"name": "Lesson", "people": ["alice"], "hold": "1d"}, site)
        row = records.create(session, spec, "carol", site)
        records.begin(session, row.id, None, utcnow())
        session.flush()
        [held] = records.live(session)
        records.move(session, held, records.State.READY)
        return replace(held, state=records.State.READY)

    held = await store.run(hold)
    days = Days(lab, {"after": "30m", "warn": "5m"})
    await days.go(60)
    assert lab.spawner().ready
    assert await days.told() == []
    await store.run(lambda s: records.move(s, held, records.State.OPENED))
    await days.go(60)
    assert await days.end() is not None
