"""Servers that are started ahead of time: started, held, found, replaced, released, cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from commons import maintenance
from commons.errors import LabError
from commons.site import CoursePeople, Site
from commons.store import GpuNotice, Lease, Store, ends
from commons.store.models import utcnow
from courses import records as records_of_courses
from courses.document import Materials, check_course
from hub_ext import course_link
from rig.answering import AnsweringRuntime
from rig.hub_in_memory import Lab, hub_lab
from spawner.runtime.memory import silent
from spawner.warm import records
from spawner.warm.keeper import WarmKeeper

COURSE = "course:ml101"
ML101 = check_course(
    {
        "version": 1, "course": "ml101", "title": {"en": "ML"}, "timezone": "UTC",
        "term": {"first": "2031-01-06", "last": "2031-02-28"}, "size": "large",
    }
)  # fmt: skip


class School:
    """A hub, its keeper of warm starts, and a clock that is set."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.store = lab, lab.resources.store
        self.late = timedelta()
        self.keeper = WarmKeeper(
            self.store,
            lab.servers,
            lab.resources.turns.ahead,
            lab.servers.members,
            lab.app.log,
            lambda: utcnow() + self.late,
        )
        self.site = lab.resources.site

    async def ask(self, **wanted: Any) -> str:
        spec = records.check({"name": "Lesson 3", "hold": "1h"} | wanted, self.site)
        return await self.store.run(lambda s: records.create(s, spec, "dan", self.site).id)

    async def states(self) -> dict[str, str]:
        return {user: state for user, (state, _) in (await self.told()).items()}

    async def told(self) -> dict[str, tuple[str, str]]:
        found = await self.store.read(
            lambda s: [records.show(s, row) for row in records.standing(s)]
        )
        return {
            one["user"]: (one["state"], one["reason"] and one["reason"]["code"])
            for start in found
            for one in start["servers"]
        }

    async def until(self, **states: str) -> None:
        """Look until these are the states."""
        async with asyncio.timeout(20):
            while (found := await self.states()) != states:
                await self.keeper.look()
                await asyncio.sleep(0.01)
            assert found == states


def settings() -> Config:
    config = Config()
    config.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "slow_stop_timeout": 10}
    config.JupyterHub.load_groups = {
        "course:ml101:students": {"users": ["alice", "bob"]},
        "course:ml101:instructors": {"users": ["dan"]},
    }
    config.Authenticator.allowed_users = {"alice", "bob", "carol"}
    return config


def in_course(lab: Lab, *names: str) -> None:
    """What the directory said of them at their login."""

    async def at_login() -> dict[str, Any]:
        return {"courses": {"ml101": "student"}}

    for name in names:
        lab.app.users[name].get_auth_state = at_login


@pytest.fixture
def class_site(site: Site) -> Site:
    courses = {"ml101": CoursePeople(students=["ml101"])}
    directory = site.directory.model_copy(update={"courses": courses})
    return site.model_copy(update={"directory": directory})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    return store


@pytest.fixture
async def school(store: Store, class_site: Site, tmp_path: Path) -> AsyncIterator[School]:
    async with hub_lab(store, class_site, tmp_path, settings()) as lab:
        school = School(lab)
        yield school
        await school.keeper.close()
    store.close()


async def test_a_class_finds_its_servers_ready_and_what_failed_has_its_reason(
    school: School,
) -> None:
    lab = school.lab
    begins = utcnow() + timedelta(minutes=10)
    await school.ask(subject=COURSE, starts=begins.isoformat(), options={"size": "small"})
    await school.keeper.look()
    assert await school.states() == {}
    school.late = timedelta(minutes=11)
    await school.until(alice="ready", bob="ready", dan="ready")
    assert len(lab.memory.servers) == 3
    assert lab.spawner("bob").user_options["size"] == "small"
    # Who clicks finds the server ready; nothing is started again.
    assert (await lab.rest("POST", "users/alice/server"))[0] == 400
    assert (await lab.rest("POST", "users/alice/server", {"size": "small"}))[0] == 400
    await school.keeper.opened({("alice", "")})
    await lab.servers.stop("dan", "")
    await school.until(alice="opened", bob="ready", dan="failed")
    assert (await school.told())["dan"][1] == "warm_ended"
    # Nobody has come to bob's by then: it is released, and he is told.
    school.late = timedelta(hours=2)
    await school.until(alice="opened", bob="released", dan="failed")
    await lab.until(lambda: ("bob", "") not in lab.servers.known())
    assert ("alice", "") in lab.servers.known()
    end = await school.store.read(lambda s: ends.last(s, "bob", ""))
    assert end is not None
    assert (end.cause, end.data["name"]) == ("released", "Lesson 3")
    [notice] = await school.store.read(lambda s: s.query(GpuNotice).all())
    assert (notice.username, notice.code) == ("bob", "released")


async def test_only_a_server_for_which_nobody_waits_asks_itself_ahead(school: School) -> None:
    await school.lab.servers.start("bob", "", {"size": "small"})
    await school.ask(people=["alice"])
    await school.until(alice="ready")
    ahead = {one.user: "LABCOMMONS_AHEAD" in one.env for one in school.lab.memory.specs.values()}
    assert ahead == {"alice": True, "bob": False}


async def test_in_maintenance_none_is_started_and_none_fails(school: School) -> None:
    await school.store.run(lambda s: maintenance.start(s, en="Disks", by="carol").id)
    await school.ask(subject=COURSE, starts=(utcnow() + timedelta(minutes=5)).isoformat())
    school.late = timedelta(minutes=6)
    for _ in range(3):
        await school.keeper.look()
    assert set((await school.states()).values()) == {"waiting"}
    await school.store.run(lambda s: maintenance.stop(s, "carol").id)
    await school.until(alice="ready", bob="ready", dan="ready")


async def test_who_chose_before_keeps_that_and_who_chooses_else_gets_it(school: School) -> None:
    lab = school.lab
    lab.memory.faults["start:created"] = held = asyncio.Event()
    await lab.servers.start("alice", "", {"size": "small"})
    await school.ask(people=["alice", "bob", "carol"], options={"size": "large"})
    held.set()
    await school.until(alice="theirs", bob="ready", carol="ready")
    assert lab.spawner("alice").user_options["size"] == "small"
    # A click on something else, while it is held and while it starts.
    assert (await lab.rest("POST", "users/bob/server", {"size": "small"}))[0] in (201, 202)
    await lab.until(lambda: lab.spawner("bob").ready)
    assert lab.spawner("bob").user_options["size"] == "small"
    await school.keeper.look()
    school.late = timedelta(hours=2)
    await school.until(alice="theirs", bob="theirs", carol="released")
    assert lab.spawner("bob").ready
    assert len(lab.memory.servers) == 2


async def test_a_class_has_its_servers_beside_what_its_people_run(school: School) -> None:
    """Alice works at something of her own, Bob has started the course's himself."""
    lab, asked = school.lab, {"course": "ml101", "size": "large"}
    in_course(lab, "alice", "bob")
    await lab.servers.start("alice", "", {"size": "small"})
    await lab.servers.start("bob", "", {"course": "ml101"})
    await lab.until(lambda: lab.spawner("alice").ready and lab.spawner("bob").ready)
    await school.ask(subject=COURSE, people=["alice", "bob"], options=asked)
    await school.until(alice="ready", bob="theirs")
    assert (await school.told())["bob"][1] == "warm_has_its"
    assert lab.spawner("alice", "ml101").user_options["size"] == "large"
    assert lab.spawner("alice").user_options["size"] == "small"
    assert set(await school.store.read(records.held)) == {("alice", "ml101")}
    # Her own server is no visit to the other.
    await school.keeper.opened({("alice", "")})
    assert (await school.states())["alice"] == "ready"
    school.late = timedelta(hours=2)
    await school.until(alice="released", bob="theirs")
    assert lab.servers.known() == {("alice", ""), ("bob", "")}
    assert "ml101" not in lab.app.users["alice"].orm_spawners


async def test_the_courses_link_leads_to_the_courses_server_whichever_that_is(
    store: Store, class_site: Site, tmp_path: Path
) -> None:
    config = settings()
    config.JupyterHub.extra_handlers = course_link.HANDLERS
    async with hub_lab(store, class_site, tmp_path, config) as lab:
        school = School(lab)
        in_course(lab, "alice")
        await store.run(lambda s: records_of_courses.apply(s, ML101, "dan", class_site))
        async with lab.browser("alice") as alice:

            async def led(path: str = "") -> str:
                answer = await alice.get(f"course/ml101{path}")
                return answer.headers["Location"]

            where = await led("/a%20b.ipynb")
            assert where.startswith("/hub/spawn/alice?course=ml101&size=large&next=%2Fuser%2Falice")
            form = await (await alice.get(where.removeprefix("/hub/"))).text()
            assert '"course": "ml101"' in form
            await lab.servers.start("alice", "", {"size": "small"})
            await lab.until(lambda: lab.spawner("alice").ready)
            await school.ask(subject=COURSE, people=["alice"], options=ML101.options)
            await school.until(alice="ready")
            assert await led("/a%20b.ipynb") == "/user/alice/ml101/lab/tree/a%20b.ipynb"
            await lab.servers.stop("alice", "")
            assert await led() == "/user/alice/ml101/"
            given = ML101.model_copy(update={"materials": Materials.model_validate("folder")})
            await store.run(lambda s: records_of_courses.apply(s, given, "dan", class_site))
            materials = "/user/alice/ml101/labcommons/course/ml101/"
            assert await led("/a%20b.ipynb") == f"{materials}a%20b.ipynb"
            assert await led("/") == await led("/../x") == materials
            assert await led() == "/user/alice/ml101/"
        await school.keeper.close()
    store.close()


async def test_the_form_leads_to_the_held_server_or_to_what_was_chosen_instead(
    school: School,
) -> None:
    lab = school.lab
    await school.ask(people=["bob"], options={"size": "large"})
    await school.until(bob="ready")
    status, address = await lab.page("bob", size="large", gpus="0")
    assert (status, address.split("?")[0]) == (302, "/user/bob/")
    assert (await school.states())["bob"] == "ready"
    status, address = await lab.page("bob", size="small")
    assert (status, address.split("?")[0]) == (302, "/hub/spawn-pending/bob")
    await lab.until(lambda: lab.spawner("bob").ready)
    assert lab.spawner("bob").user_options["size"] == "small"
    assert (await school.states())["bob"] == "theirs"


async def test_a_click_on_something_else_during_the_start_gets_that(school: School) -> None:
    lab = school.lab
    lab.memory.faults["start:created"] = held = asyncio.Event()
    await school.ask(people=["alice"], options={"size": "large"})
    await school.keeper.look()
    await lab.until(lambda: lab.memory.servers)
    assert ("alice", "") in lab.resources.turns.ahead
    click = asyncio.create_task(lab.rest("POST", "users/alice/server", {"size": "small"}))
    await lab.until(lambda: lab.spawner("alice")._spawn_future.cancelling())
    held.set()
    assert (await click)[0] in (201, 202)
    await lab.until(lambda: lab.spawner("alice").ready)
    assert lab.spawner("alice").user_options["size"] == "small"
    await school.until(alice="theirs")
    assert lab.resources.turns.ahead == set()


async def test_what_was_chosen_last_is_offered_again_when_nobody_came(school: School) -> None:
    lab = school.lab
    await lab.servers.start("alice", "", {"size": "small"})
    await lab.until(lambda: lab.spawner("alice").ready)
    await lab.servers.stop("alice", "")
    await school.ask(people=["alice"], options={"size": "large"})
    await school.until(alice="ready")
    assert lab.servers.chosen("alice", "")["size"] == "large"
    school.late = timedelta(hours=2)
    await school.until(alice="released")
    async with asyncio.timeout(20):
        while lab.servers.chosen("alice", "").get("size") != "small":
            await asyncio.sleep(0.01)


async def test_what_is_cancelled_starts_no_more_and_gives_back_what_nobody_opened(
    school: School,
) -> None:
    lab = school.lab
    lab.memory.faults["start"] = held = asyncio.Event()
    warm = await school.ask(people=["alice", "bob"])
    await school.keeper.look()
    await school.keeper.look()
    await lab.until(lambda: lab.memory.calls["start"] == 2)
    await school.store.run(lambda s: records.cancel(s, warm))
    await school.keeper.look()
    held.set()
    await school.until(alice="cancelled", bob="cancelled")
    await lab.until(lambda: not lab.servers.known() and not lab.memory.servers)
    begins = utcnow() + timedelta(days=1)
    later = await school.ask(name="Next", people=["carol"], starts=begins.isoformat())
    await school.store.run(lambda s: records.cancel(s, later))
    school.late = timedelta(days=1, minutes=1)
    await school.keeper.look()
    assert "carol" not in await school.states()


async def test_a_start_that_fails_is_tried_again_and_one_that_is_refused_is_not(
    school: School,
) -> None:
    lab = school.lab
    lab.memory.faults["run_task"] = silent()
    await school.ask(people=["alice"])
    await school.until(alice="failed")
    assert lab.memory.calls["run_task"] == 3
    assert (await school.told())["alice"][1] == "engine_silent"
    lab.memory.faults.clear()
    await school.ask(name="Other", people=["bob", "nobody"], options={"environment": "none"})
    await school.until(alice="failed", bob="failed", nobody="failed")
    told = await school.told()
    assert (told["bob"][1], told["nobody"][1]) == ("environment_unknown", "warm_never_here")
    # A click after that is a click.
    await lab.servers.start("alice", "", {})
    await lab.until(lambda: lab.spawner("alice").ready)


async def test_gpus_of_a_class_are_charged_to_it_and_to_nobody_else(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: who teaches spends neither a student's own budget nor that of another team."""
    for named in ("user:alice", "group:vision"):
        with pytest.raises(LabError, match="cannot charge"):
            await school.ask(subject=COURSE, options={"gpus": 1, "account": named})

    async def at_login() -> dict[str, Any]:
        return {"teams": {"vision": "member"}, "courses": {"ml101": "student"}}

    monkeypatch.setattr(school.lab.app.users["alice"], "get_auth_state", at_login)
    await school.ask(subject=COURSE, people=["alice"], options={"gpus": 1})
    await school.until(alice="ready")
    leases = await school.store.read(lambda s: [one.account for one in s.query(Lease)])
    assert leases == [COURSE]


async def test_servers_with_gpus_are_not_idle_before_their_time(school: School) -> None:
    await school.ask(people=["alice"], options={"gpus": 1})
    await school.until(alice="ready")
    [lease] = await school.store.read(lambda s: s.query(Lease).all())
    assert {("alice", ""): lease.keep_until} == await school.store.read(records.held)
    assert lease.opened_at is None


@pytest.mark.parametrize("step", ["waiting", "starting", "started", "ready"])
async def test_a_hub_that_is_killed_at_any_step_leaves_the_next_one_to_go_on(
    store: Store, class_site: Site, tmp_path: Path, step: str
) -> None:
    runtime = AnsweringRuntime()
    async with hub_lab(store, class_site, tmp_path, settings()) as lab:
        await School(lab).ask(people=["alice"])
    killed: list[str] = []
    async with hub_lab(store, class_site, tmp_path, settings(), runtime) as lab:
        school = School(lab)
        move = school.keeper._move

        async def dies(held: Any, to: Any, *rest: Any, **more: Any) -> bool:
            """Nothing is written from the step on: the hub is gone."""
            if to == {"starting": "starting", "started": "ready"}.get(step):
                killed.append(to)
                await asyncio.Event().wait()
            return await move(held, to, *rest, **more)

        school.keeper._move = dies  # type: ignore[method-assign]
        if step == "ready":
            await school.until(alice="ready")
        elif step != "waiting":
            await school.keeper.look()
            await lab.until(lambda: killed)
        else:
            await store.run(
                lambda s: [
                    records.begin(s, row.id, None, utcnow()) for row in records.due(s, utcnow())
                ]
            )
        await school.keeper.close()
    before = dict(runtime.calls)
    async with hub_lab(store, class_site, tmp_path, settings(), runtime) as lab:
        school = School(lab)
        await school.until(alice="ready")
        assert len(runtime.servers) == 1
        # What ran goes on, and is not started a second time.
        assert (runtime.calls["start"] == before.get("start", 0)) is (step in ("started", "ready"))
        school.late = timedelta(hours=2)
        await school.until(alice="released")
        await lab.until(lambda: not lab.servers.known())
        await school.keeper.close()
    await runtime.close()
    store.close()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({}, "a team or course, or people"),
        ({"subject": "course:none"}, "no such team or course"),
        ({"subject": "user:alice"}, "no such team or course"),
        ({"people": ["alice"], "hold": "2d"}, "a minute to a day"),
        ({"people": "alice"}, "login names"),
        ({"people": ["alice"], "options": {"size": "huge"}}, "Sizes: small, large"),
        ({"people": ["alice"], "options": {"image": "x"}}, "no option"),
        ({"people": ["alice"], "starts": "10:00"}, "a day and a time"),
        ({"people": ["alice"], "starts": "2020-01-01T10:00"}, "over already"),
        ({"people": ["alice"], "until": 1}, "until"),
        ({"subject": COURSE, "options": {"environment": "none"}}, "Environments: data"),
    ],
)
async def test_what_cannot_be_is_told_when_it_is_asked(
    school: School, wanted: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError) as caught:
        await school.ask(**wanted)
    assert words in str(caught.value)
