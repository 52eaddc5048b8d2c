"""What was handed in is graded by a program, whoever is killed on the way, and gives marks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import delete, update

from commons.audit import AuditTrail
from commons.errors import BadRequest
from commons.site import Site
from commons.store import Store
from commons.store.models import EnvironmentVersion, HandedIn
from courses import grading, handins, marks
from courses.document import CourseSpec
from courses.grade_keeper import GradeKeeper
from courses.handins import State
from courses.marks import Change, Mark
from spawner.runtime.spec import Graded, GradedNotebook

from .test_handin_keeper import ASKED, KEY, LOG
from .test_handin_keeper import World as HandInWorld


def gave(score: float, most: float = 10, digest: str = "a", **changed: Any) -> Graded:
    one = GradedNotebook(name="first.ipynb", score=score, most=most, **changed)
    return Graded(notebooks=(one,), digest=digest * 64, files=1, bytes=9)


class World(HandInWorld):
    @asynccontextmanager
    async def grader(self) -> AsyncIterator[GradeKeeper]:
        keeper = GradeKeeper(
            self.runtime, self.store, self.site, self.identify, AuditTrail(), LOG, "lab",
            lambda: KEY,
        )  # fmt: skip
        running = asyncio.create_task(keeper.run())
        try:
            yield keeper
        finally:
            running.cancel()
            await asyncio.wait([running])
            await keeper.close()

    def kept(self, user: str, members: tuple[str, ...] = (), team: str = "") -> str:
        """Something that was handed in and is there; its place."""

        def write(session: Any) -> str:
            row = handins.ask(session, self.spec, "hw1", user, "", ASKED)
            row.state, row.members, row.team = State.KEPT, list(members or [user]), team or user
            return handins.place(row)

        return self.store.transact(write)

    def grade(self, team: str = "") -> list[str]:
        return self.store.transact(
            lambda s: [r.id for r in grading.ask(s, self.spec, "hw1", team, "ida", ASKED)]
        )

    def of(self, one: str) -> HandedIn:
        def work(session: Any) -> HandedIn:
            row = session.get(HandedIn, one)
            assert row is not None
            return row  # type: ignore[no-any-return]

        return self.store.transact(work)

    async def ended(self, one: str) -> HandedIn:
        async with asyncio.timeout(20):
            while (row := await asyncio.to_thread(self.of, one)).state in handins.WAITING:
                await asyncio.sleep(0.02)
        return row

    def marks(self) -> dict[str, Mark]:
        return self.store.transact(lambda s: marks.marks(s, "ml101", "hw1"))


@pytest.fixture
def world(
    filled: Store, lab: Site, course: Callable[..., CourseSpec], monkeypatch: pytest.MonkeyPatch
) -> World:
    monkeypatch.setattr("courses.handin_keeper.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("courses.handin_keeper.LOOK", 0.1)
    made = World(filled, lab, course(handins=[{"name": "hw1", "due": "2026-11-03 23:59"}]))
    made.store.transact(_with_image)
    return made


def _with_image(session: Any) -> None:
    session.execute(update(EnvironmentVersion).values(image_id=f"sha256:{'0' * 64}"))


async def test_points_become_marks_and_feedback_is_each_students_own(world: World) -> None:
    places = {"@p1": world.kept("alice", ("alice", "bob"), "@p1")}
    world.runtime.graded[places["@p1"]] = gave(7.5)
    [one] = world.grade()
    async with world.grader():
        row = await world.ended(one)
    assert (row.state, row.message) == (State.KEPT, None)
    assert world.marks() == {"alice": Mark("7.5/10"), "bob": Mark("7.5/10")}
    found = {key[2]: (task.reader, task.digest) for key, task in world.runtime.kept.items()}
    assert found == {"alice/hw1": (20003, "a" * 64), "bob/hw1": (20002, "a" * 64)}
    assert world.told("alice") == [("feedback_given", "")]
    assert world.runtime.taken == {}
    [task] = world.runtime.gradings
    assert (task.environment, task.version, task.place) == ("data", "1", places["@p1"])
    assert "hw1" in world.store.transact(lambda s: handins.feedback_for(s, "ml101", "bob"))


@pytest.mark.parametrize("step", ["grade", "grade:graded", "run_task", "keep", "keep:kept", "drop"])
async def test_a_hub_that_is_killed_at_any_step_goes_on(world: World, step: str) -> None:
    world.runtime.graded[world.kept("alice")] = gave(4)
    [one] = world.grade()
    world.runtime.faults[step] = held = asyncio.Event()
    async with world.grader():
        async with asyncio.timeout(20):
            while not world.runtime.calls[step.partition(":")[0]]:
                await asyncio.sleep(0.01)
    world.runtime.faults.clear()
    held.set()
    async with world.grader():
        assert (await world.ended(one)).state == State.KEPT
    assert world.marks() == {"alice": Mark("4/10")}
    assert len(world.runtime.kept) == 1


async def test_an_agent_that_is_silent_is_told_and_waited_for(world: World) -> None:
    world.runtime.graded[world.kept("alice")] = gave(4)
    world.runtime.silence("grade")
    [one] = world.grade()
    async with world.grader():
        async with asyncio.timeout(20):
            while (row := await asyncio.to_thread(world.of, one)).message is None:
                await asyncio.sleep(0.02)
        assert (row.state, row.message["code"]) == (State.ASKED, "handin_held_up")
        world.runtime.faults.clear()
        assert (await world.ended(one)).message is None


async def test_done_again_it_replaces_and_a_persons_mark_stays(world: World) -> None:
    place = [world.kept(who) for who in ("alice", "bob")]
    world.runtime.graded |= dict.fromkeys(place, gave(4))
    async with world.grader():
        for one in world.grade():
            await world.ended(one)
        given = [Change("bob", None, Mark("A+", "well done"))]
        world.store.transact(lambda s: marks.apply(s, "ml101", "hw1", given, "ida", ASKED))
        world.runtime.graded |= dict.fromkeys(place, gave(6, digest="b"))
        rows = [await world.ended(one) for one in world.grade()]
    assert world.marks() == {"alice": Mark("6/10"), "bob": Mark("A+", "well done")}
    assert [row.receipt and row.receipt["kept"] for row in rows] == [[], ["bob"]]
    assert {task.digest for task in world.runtime.kept.values()} == {"b" * 64}


async def test_what_cannot_be_graded_is_told_and_changes_no_mark(world: World) -> None:
    place = world.kept("alice")
    told = []
    for failure in ("source", "nbgrader", "memory", "time", "failed"):
        world.runtime.graded[place] = Graded(failure=failure, detail="{x}")  # type: ignore[arg-type]
        [one] = world.grade("alice")
        async with world.grader():
            row = await world.ended(one)
        assert row.state == State.REFUSED
        assert row.message is not None
        told.append(row.message["code"])
    assert told == [
        "autograde_source", "autograde_no_nbgrader", "autograde_memory", "autograde_time",
        "autograde_failed",
    ]  # fmt: skip
    assert (world.marks(), world.runtime.kept, world.told("alice")) == ({}, {}, [])


async def test_an_environment_that_is_gone_is_told(world: World) -> None:
    world.kept("alice")
    [one] = world.grade()
    world.store.transact(lambda s: s.execute(delete(EnvironmentVersion)) and None)
    async with world.grader():
        row = await world.ended(one)
    assert (row.state, world.runtime.gradings) == (State.REFUSED, [])


def test_the_newest_of_each_is_asked_for_once(world: World) -> None:
    world.kept("alice")
    world.kept("bob")
    first = world.grade()
    assert len(first) == 2
    assert world.grade() == first
    assert world.grade("bob") == [first[1]]


def test_nothing_to_grade_is_refused_with_the_cause(world: World) -> None:
    for team, code in (("", "autograde_nothing"), ("zoe", "autograde_nothing_of")):
        with pytest.raises(BadRequest) as caught:
            world.grade(team)
        assert caught.value.code == code
    world.spec = world.spec.model_copy(update={"environment": ""})
    with pytest.raises(BadRequest) as caught:
        world.grade()
    assert caught.value.code == "autograde_no_environment"


async def test_hand_ins_do_not_wait_for_what_is_graded(world: World) -> None:
    """Each has turns of its own, and none sees to the other's rows."""
    world.runtime.graded[world.kept("alice")] = gave(4)
    [graded] = world.grade()
    world.runtime.files["bob", "hw1"] = b"one"
    asked = world.ask("bob")
    async with world.hub():
        await world.until(asked, State.KEPT)
    assert world.of(graded).state == State.ASKED
    row = world.row(asked)
    assert row.kind == "handin"
    assert world.store.transact(lambda s: handins.before(s, s.get(HandedIn, asked))) == 0
