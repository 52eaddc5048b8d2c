"""What was asked is kept, whoever is killed on the way; on a runtime that can be made to fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from commons import notices
from commons.audit import AuditTrail
from commons.principal import Principal
from commons.site import Site
from commons.store import Store
from commons.store.models import Course, HandedIn, HandInGroup
from courses import handins, receipts
from courses.document import CourseSpec, to_plain
from courses.handin_keeper import HandInKeeper
from courses.handins import State
from spawner.runtime.memory import MemoryRuntime, silent

LOG = logging.getLogger("test")
KEY = Ed25519PrivateKey.generate()
ASKED = 1_793_700_000.0  # 3 November 2026, 10:00 in Berlin
UIDS = {"alice": 20003, "bob": 20002}


class World:
    def __init__(self, store: Store, site: Site, spec: CourseSpec) -> None:
        self.store, self.site, self.spec = store, site, spec
        self.runtime = MemoryRuntime()
        self.people = dict(UIDS)

        def write(session: Session) -> None:
            session.add(Course(name=spec.course, spec=to_plain(spec), changed_by="ida"))

        store.transact(write)

    async def identify(self, name: str) -> Principal | None:
        uid = self.people.get(name)
        return Principal(name, uid=uid, gid=20000) if uid else None

    @asynccontextmanager
    async def hub(self) -> AsyncIterator[HandInKeeper]:
        keeper = HandInKeeper(
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

    def ask(self, user: str = "alice", asked: float = ASKED, path: str = "") -> str:
        return self.store.transact(lambda s: handins.ask(s, self.spec, "hw1", user, path, asked).id)

    def row(self, one: str) -> HandedIn:
        return self.store.transact(lambda s: handins.get(s, "ml101", one, None))

    def told(self, who: str) -> list[tuple[str, str]]:
        shown = self.store.transact(lambda s: notices.show(s, who, str))
        return [(one.code, one.more) for one in shown]

    def feedback(self, one: str) -> HandedIn:
        def work(session: Session) -> HandedIn:
            [row] = [row for row in handins.given_back(session, "ml101") if row.id == one]
            return row

        return self.store.transact(work)

    async def until(self, one: str, *states: State) -> HandedIn:
        async with asyncio.timeout(20):
            while (row := await asyncio.to_thread(self.row, one)).state not in states:
                await asyncio.sleep(0.02)
        return row

    async def until_told(self, one: str) -> HandedIn:
        async with asyncio.timeout(20):
            while (row := await asyncio.to_thread(self.row, one)).message is None:
                await asyncio.sleep(0.02)
        return row


@pytest.fixture
def world(store: Store, lab: Site, course: Callable[..., CourseSpec], monkeypatch: Any) -> World:
    monkeypatch.setattr("courses.handin_keeper.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("courses.handin_keeper.LOOK", 0.1)
    return World(store, lab, course(handins=[{"name": "hw1", "due": "2026-11-03 23:59"}]))


async def test_forty_in_one_minute_are_kept_with_the_time_of_asking(world: World) -> None:
    world.people |= {f"s{n:02}": 21000 + n for n in range(40)}
    for n in range(40):
        world.runtime.files[f"s{n:02}", "hw1"] = b"%d" % n
    due = handins.seconds(world.row(world.ask()).due_at)  # type: ignore[arg-type]
    ids = [world.ask(f"s{n:02}", due - 60 + 1.5 * n) for n in range(40)]
    async with world.hub():
        rows = [await world.until(one, State.KEPT) for one in ids]
    for n, row in enumerate(rows):
        assert row.receipt is not None
        assert receipts.problems(row.receipt, KEY.public_key()) == []
        said = row.receipt["receipt"]
        assert (said["asked_by"], said["late"]) == (f"s{n:02}", False)
        assert handins.seconds(row.asked_at) == due - 60 + 1.5 * n
        assert (
            said["digest"]
            == world.runtime.kept["course-ml101", "handins", handins.place(row)].digest
        )
    assert world.runtime.taken == {}


async def test_what_is_not_there_is_refused_with_the_cause(world: World) -> None:
    one = world.ask()
    async with world.hub():
        row = await world.until(one, State.REFUSED)
    assert row.message is not None
    assert row.message["code"] == "handin_absent"
    assert world.told("alice") == [("handin_refused", "There is no “hw1” in your home.")]


@pytest.mark.parametrize("step", ["run_task", "take", "take:taken", "keep", "keep:kept", "drop"])
async def test_a_hub_that_is_killed_at_any_step_loses_nothing(world: World, step: str) -> None:
    """The next hub goes on from the row; what is kept is kept once."""
    world.runtime.files["alice", "hw1"] = b"one"
    one = world.ask()
    world.runtime.faults[step] = held = asyncio.Event()
    async with world.hub():
        async with asyncio.timeout(20):
            while not world.runtime.calls[step.partition(":")[0]]:
                await asyncio.sleep(0.01)
    world.runtime.faults.clear()
    held.set()
    async with world.hub():
        row = await world.until(one, State.KEPT)
    assert handins.seconds(row.asked_at) == ASKED
    assert len(world.runtime.kept) == 1


@pytest.mark.parametrize("step", ["run_task", "take", "keep", "drop"])
async def test_an_agent_that_is_silent_is_told_and_waited_for(world: World, step: str) -> None:
    world.runtime.files["alice", "hw1"] = b"one"
    world.runtime.silence(step)
    one = world.ask()
    async with world.hub():
        row = await world.until_told(one)
        assert row.message is not None
        assert (row.message["code"], row.state in handins.WAITING) == ("handin_held_up", True)
        world.runtime.faults.clear()
        row = await world.until(one, State.KEPT)
    assert row.message is None


async def test_a_snapshot_that_was_lost_is_read_anew(world: World) -> None:
    world.runtime.files["alice", "hw1"] = b"one"
    world.runtime.silence("keep")
    one = world.ask()
    async with world.hub():
        await world.until(one, State.TAKEN)
        world.runtime.taken.clear()
        world.runtime.faults.clear()
        row = await world.until(one, State.KEPT)
    assert row.digest == next(iter(world.runtime.kept.values())).digest


async def test_one_that_is_held_up_holds_nobody_else_up(world: World) -> None:
    """Whatever is wrong with one: those behind it go on."""
    world.runtime.files["bob", "hw1"] = b"bob's"
    real = world.runtime.take

    async def take(task: Any) -> Any:
        if task.user == "alice":
            raise silent()
        return await real(task)

    world.runtime.take = take  # type: ignore[method-assign]
    first, second = world.ask("alice"), world.ask("bob", ASKED + 1)
    async with world.hub():
        await world.until(second, State.KEPT)
        assert (await world.until_told(first)).state == State.ASKED


@pytest.mark.parametrize("step", ["take:taken", "keep:kept", "drop"])
async def test_feedback_is_each_students_own_whoever_is_killed(world: World, step: str) -> None:
    world.people |= {"carol": 20005, "ida": 20009}
    world.runtime.files["ida", "back"] = b"alice/note @p1/note zoe/note"
    world.store.transact(
        lambda s: (
            [
                s.add(HandInGroup(course="ml101", handin="hw1", username=who, name="p1"))
                for who in ("bob", "alice")
            ]
            and None
        )
    )
    one = world.store.transact(
        lambda s: (
            handins.give_back(
                s, world.spec, "hw1", "ida", "back", ["alice", "bob", "carol"], ASKED
            ).id
        )
    )
    world.runtime.faults[step] = held = asyncio.Event()
    async with world.hub():
        async with asyncio.timeout(20):
            while not world.runtime.calls[step.partition(":")[0]]:
                await asyncio.sleep(0.01)
    world.runtime.faults.clear()
    held.set()
    async with world.hub():
        async with asyncio.timeout(20):
            while (await asyncio.to_thread(world.feedback, one)).state != State.KEPT:
                await asyncio.sleep(0.02)
    found = {key[2]: (task.only, task.reader) for key, task in world.runtime.kept.items()}
    assert found == {"alice/hw1": ("alice", 20003), "bob/hw1": ("@p1", 20002)}
    assert [world.told(who) for who in ("alice", "carol")] == [[("feedback_given", "")], []]
    assert {"alice", "bob"} == {
        who
        for who in world.people
        if world.store.transact(lambda s, w=who: handins.feedback_for(s, "ml101", w))
    }


async def test_feedback_for_nobody_is_told(world: World) -> None:
    world.people["ida"] = 20009
    world.runtime.files["ida", "back"] = b"zoe/note"
    one = world.store.transact(
        lambda s: handins.give_back(s, world.spec, "hw1", "ida", "back", ["alice"], ASKED).id
    )
    async with world.hub():
        async with asyncio.timeout(20):
            while (row := await asyncio.to_thread(world.feedback, one)).state != State.REFUSED:
                await asyncio.sleep(0.02)
    assert row.message is not None
    assert row.message["code"] == "feedback_nobodys"


async def test_a_home_of_another_and_an_account_that_is_gone_are_refused(world: World) -> None:
    world.runtime.homes["alice"] = 4711
    del world.people["bob"]
    first, second = world.ask("alice"), world.ask("bob")
    async with world.hub():
        codes = [(await world.until(one, State.REFUSED)).message for one in (first, second)]
    assert [told and told["code"] for told in codes] == ["home_of_another", "handin_not_admitted"]
