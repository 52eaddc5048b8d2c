"""Students of two courses at once, and with servers of their own: each class finds its servers,
and what somebody started themselves is touched by nobody.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from commons.leases import ServerKey
from commons.scopes import Scope
from commons.site import Site
from commons.store import Store
from commons.store.ends import Ending
from commons.store.models import WarmStart
from courses import ahead, people, records
from courses.document import CourseSpec
from courses.timetable import sessions
from spawner.warm.keeper import WarmKeeper
from spawner.warm.records import beside, serves

COURSES = ("ml101", "art7")
MOST_NAMED = 1


class Servers:
    """What the hub does for the keeper, at once and without fail."""

    def __init__(self) -> None:
        self.up: dict[ServerKey, dict[str, Any]] = {}
        self.last: dict[ServerKey, dict[str, Any]] = {}
        self.stopped: list[ServerKey] = []

    def known(self) -> set[ServerKey]:
        return set(self.up)

    def running(self) -> dict[ServerKey, str]:
        return {key: f"{key} {number['at']}" for key, number in self.up.items()}

    def chosen(self, user: str, server: str) -> dict[str, Any]:
        return self.last.get((user, server), {})

    def choose(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        self.last[(user, server)] = dict(options)

    def runs(self, user: str, server: str) -> dict[str, Any]:
        return self.up[(user, server)]

    def may_have(self, user: str, server: str) -> bool:
        there = {name for who, name in self.last if who == user and name}
        return server in there or len(there) < MOST_NAMED

    def forget(self, user: str, server: str) -> None:
        self.last.pop((user, server), None)

    async def bring_up(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        assert (user, server) not in self.up, "started twice"
        self.last[(user, server)] = dict(options)
        self.up[(user, server)] = {**options, "at": len(self.stopped) + len(self.up)}

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        del self.up[(user, server)]
        self.stopped.append((user, server))


@pytest.mark.parametrize("seed", range(4))
async def test_each_class_finds_its_servers_whatever_else_its_people_have(
    lab: Site, course: Callable[..., CourseSpec], seed: int, tmp_path: Path
) -> None:
    from .conftest import fill

    chance = random.Random(seed)
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    store.transact(lambda s: fill(s, lab))
    now = datetime(2026, 10, 10, tzinfo=UTC).timestamp()
    specs = {
        name: course(
            course=name, gpus={"each": 0}, granted={},
            term={"first": "2026-10-12", "last": "2026-11-06"}, days_off=[],
            sessions=[{"weekdays": ["tue"], "starts": starts, "duration": "2h"}],
        )
        for name, starts in zip(COURSES, ("10:00", chance.choice(["10:00", "10:15"])), strict=True)
    }  # fmt: skip
    everybody = [f"s{number:02}" for number in range(12)]
    rosters = {name: sorted(chance.sample(everybody, 8)) for name in COURSES}
    for name, spec in specs.items():
        store.transact(lambda s, one=spec: records.apply(s, one, "dan", lab, now=now))  # type: ignore[misc]
        there = dict.fromkeys(rosters[name], "student")
        store.transact(lambda s, n=name, t=there: people.apply(s, n, t, "dan", True))  # type: ignore[misc]
    clock, servers = [now], Servers()
    keeper = WarmKeeper(
        store,
        servers,
        set(),
        lambda scope: rosters[scope.owner],
        logging.getLogger("test"),
        lambda: datetime.fromtimestamp(clock[0], UTC).replace(tzinfo=None),
    )

    async def look(at: float) -> None:
        clock[0] = at
        store.transact(lambda s: ahead.plan(s, lab, at))
        for _ in range(8):
            await keeper.look()
            async with asyncio.timeout(20):
                while keeper.busy:
                    await asyncio.sleep(0.001)

    for meeting in sessions(specs["ml101"], now, now + 30 * 86400):
        servers.up.clear()
        own = {
            (user, ""): {"environment": "data:1", "size": "large", "at": -1}
            for user in chance.sample(everybody, 4)
        }
        by_hand = chance.choice(rosters["ml101"])
        own[(by_hand, "")] = {**specs["ml101"].options, "at": -1}
        servers.up |= own
        servers.stopped.clear()
        await look(meeting.starts - 300)
        await look(meeting.starts + 600)
        for name in COURSES:
            wanted = specs[name].options
            has = {user for (user, _), options in servers.up.items() if serves(options, wanted)}
            [day] = [
                one
                for one in sessions(specs[name], meeting.starts - 7200, meeting.starts + 7200)
                if one.wall.date() == meeting.wall.date()
            ]
            start = ahead.warm_id(name, day)
            told = store.transact(
                lambda s, i=start: ahead.ready(s, s.get(WarmStart, i)), read=True  # type: ignore[misc, arg-type]
            )  # fmt: skip
            assert told is not None
            assert told.all == 8
            # Nobody is without: who has no server of the course may have no other one.
            without = set(rosters[name]) - has
            for user in without:
                assert (user, "") in servers.up
                assert not servers.may_have(user, beside(Scope("course", name).account))
            assert (told.ready, told.own) == (8 - len(without), len(without))
            named = {user for user, server in servers.up if server == beside(f"course:{name}")}
            assert told.beside == len(named)
        for key, options in own.items():
            assert servers.up[key] == options
        await look(meeting.starts + 7200)  # nobody came
        assert servers.up == own
        assert not set(servers.stopped) & set(own)
        assert not [name for _, name in servers.last if name], "names are not used up"
    store.close()


@pytest.mark.parametrize(
    ("runs", "its"),
    [
        ({"course": "ml101", "environment": "data:1", "size": "huge", "gpus": 2}, True),
        ({"course": "ml101", "environment": "data:2", "gpus": 1}, False),
        ({"course": "art7", "environment": "data:1", "gpus": 1}, False),
        ({"environment": "data:1", "gpus": 1}, False),
        ({"course": "ml101", "environment": "data:1"}, False),
        ({}, False),
    ],
)
def test_what_a_course_needs_is_its_environment_with_its_gpus(
    course: Callable[..., CourseSpec], runs: dict[str, Any], its: bool
) -> None:
    assert serves(runs, course().options) is its
    assert not serves(runs, {}), "what no course asks for is nobody's"


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("course:ml101", "ml101"),
        ("course:7up", "course-7up"),
        ("course:a.b_c--d", "a-b-c-d"),
        ("group:vision", "vision"),
        ("course:" + "x" * 60, "x" * 30),
        ("", ""),
    ],
)
def test_a_server_beside_has_a_name_that_jupyterhub_takes(subject: str, name: str) -> None:
    from jupyterhub.slugs import is_valid_safe_slug

    assert beside(subject) == name
    assert not name or is_valid_safe_slug(name)
