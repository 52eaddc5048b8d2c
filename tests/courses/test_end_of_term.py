"""After its term a course is frozen, archived whole, and removed on an administrator's word."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.orm import Session

from commons import frozen, notices
from commons.audit import AuditTrail
from commons.errors import BadRequest, LabError, NotAvailable
from commons.rights import Action
from commons.scopes import Scope
from commons.site import Builds, Site
from commons.store import Store
from commons.store.models import Course, CourseMark, CourseWork, ExamSitting, WarmStart
from commons.work import Periodic
from courses import (
    ahead,
    archives,
    exams,
    grading,
    handins,
    marks,
    materials,
    people,
    receipts,
    records,
    term,
)
from courses.archives import State
from courses.document import CourseSpec, read_course, to_yaml
from courses.term_keeper import TRIES, TermKeeper
from environments.builds import queue
from spawner.gpu.ledger import reservations
from spawner.runtime.docker import archive_task
from spawner.runtime.memory import MemoryRuntime, silent
from spawner.runtime.protocol import TaskEnd
from spawner.runtime.spec import CourseStep, LongTask

from .conftest import fill

LOG = logging.getLogger("test")
KEY = Ed25519PrivateKey.generate()
DAY = 86400.0
LAST = datetime(2027, 2, 5, 23, 0, tzinfo=UTC).timestamp()  # midnight in Berlin after its last day
IN_TERM = datetime(2026, 11, 3, 12, tzinfo=UTC).timestamp()
ENDS = {"freeze": "14d"}
HANDINS = [{"name": "hw1", "due": "2027-02-03 23:59"}]


class Runtime(MemoryRuntime):
    """Its tasks at a course's end are done for real, in folders of a test.

    ``killed``: how many of them end before they have done anything.
    """

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.data, self.killed = data, 0
        self.steps: list[str] = []

    async def begin(self, task: LongTask) -> str:
        fresh = f"course-{task.job_id}-{getattr(task, 'step', '')}" not in self.long
        handle = await super().begin(task)
        assert isinstance(task, CourseStep)
        if fresh:
            self.steps.append(task.step)
            if self.killed:
                self.killed -= 1
                await self.print(handle, end=TaskEnd(exit_code=137))
                return handle
            said: list[bytes] = []

            def say(what: dict[str, Any]) -> None:
                said.append(json.dumps(what).encode())

            words = json.loads(task.job)
            if task.step == "remove":
                shutil.rmtree(self.data / "course", ignore_errors=True)
            else:
                work = {"pack": archive_task.pack, "seal": archive_task.seal}[task.step]
                say({"done": await asyncio.to_thread(work, words, say)})
            await self.print(handle, *said, end=TaskEnd(exit_code=0))
        return handle


class World:
    def __init__(self, store: Store, site: Site, spec: CourseSpec, data: Path) -> None:
        self.store, self.site, self.spec, self.data = store, site, spec, data
        self.runtime = Runtime(data)
        store.transact(lambda s: records.apply(s, spec, "ida", site, now=IN_TERM))

    @asynccontextmanager
    async def hub(self) -> AsyncIterator[TermKeeper]:
        keeper = TermKeeper(
            self.runtime, self.store, self.site, AuditTrail(), LOG, lambda scope: {"root"},
            lambda scope: {"student": ["s01"]}, "lab", lambda: KEY,
        )  # fmt: skip
        looks = Periodic("test", keeper.look, 0.02, LOG, expected=(LabError,))
        running = asyncio.create_task(looks.run())
        try:
            yield keeper
        finally:
            running.cancel()
            await asyncio.wait([running])
            await keeper.close()

    def do(self, work: Callable[[Session], Any]) -> Any:
        return self.store.transact(work)

    def freeze(self, now: float = IN_TERM) -> None:
        self.do(lambda s: term.freeze(s, "ml101", "ida", self.site, now))

    async def until(self, one: str, *states: State) -> CourseWork:
        async with asyncio.timeout(20):
            while True:
                row = await asyncio.to_thread(self.do, lambda s: s.get(CourseWork, one))
                if row.state in states:
                    return row
                await asyncio.sleep(0.02)


@pytest.fixture
def make(
    lab: Site, course: Callable[..., CourseSpec], tmp_path: Path, monkeypatch: Any
) -> Callable[[Store], World]:
    """A course with its folder, in a store."""
    for name in ("course", "versions", "archives"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(archive_task, name.upper(), tmp_path / name)
    monkeypatch.setattr(archive_task, "RESERVE", 0)
    monkeypatch.setattr("courses.term_keeper.FIRST_PAUSE", 0.05)
    (tmp_path / "course" / "files").mkdir()
    (tmp_path / "course" / "files" / "first.ipynb").write_text("{}")
    return lambda store: World(store, lab, course(end=ENDS, handins=HANDINS), tmp_path)


@pytest.fixture
def world(make: Callable[[Store], World], lab: Site, tmp_path: Path) -> World:
    """In SQLite alone, which is there at once."""
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    store.transact(lambda s: fill(s, lab))
    return make(store)


def test_what_is_exported_of_an_end_changes_nothing(course: Callable[..., CourseSpec]) -> None:
    spec = course(end={"freeze": "14d", "archive": False})
    assert read_course(to_yaml(spec)) == spec


def test_it_is_frozen_after_the_term_and_the_days_of_grace(world: World) -> None:
    at = LAST + 14 * DAY
    assert term.freezes_at(world.spec) == at
    assert world.do(lambda s: term.due(s, at - 1)) == []
    assert world.do(lambda s: term.due(s, at)) == ["ml101"]
    world.freeze(at)
    assert world.do(lambda s: term.due(s, at)) == []
    assert world.do(lambda s: term.thaw(s, "ml101", "ida", world.site, at))
    # Who thawed it has it so, until its end is another day.
    assert world.do(lambda s: term.due(s, at + DAY)) == []
    later = world.spec.model_copy(
        update={"end": world.spec.end.model_copy(update={"freeze": "20d"})}
    )  # type: ignore[union-attr]
    world.do(lambda s: records.apply(s, later, "ida", world.site, now=at))
    assert world.do(lambda s: term.due(s, at + 7 * DAY)) == ["ml101"]


def test_instructors_are_told_a_week_before_once(world: World) -> None:
    world.do(
        lambda s: people.apply(s, "ml101", {"dan": "instructor", "s01": "student"}, "x", False)
    )
    at = LAST + 14 * DAY
    for now in (at - 8 * DAY, at - 6 * DAY, at - 5 * DAY):
        world.do(lambda s, now=now: term.warn(s, now, lambda scope: {"root"}))

    def told(who: str) -> list[str]:
        return world.do(lambda s: [one.code for one in notices.show(s, who, str)])

    assert told("dan") == told("root") == ["course_freezes"]
    assert told("s01") == []


def test_nobody_writes_into_a_frozen_course_or_starts_something_for_it(world: World) -> None:
    world.freeze()
    spec = world.spec.model_copy(update={"materials": None})
    change = [marks.Change("s01", None, marks.Mark("1"))]
    build = queue.BuildRequest(Action.CREATE, spec.scope, "e", "ida")
    code = world.do(lambda s: people.make_code(s, "ml101", "ida", 1, 1, datetime(2026, 11, 1)).code)
    writes: list[Callable[[Session], Any]] = [
        lambda s: handins.ask(s, spec, "hw1", "s01", "", IN_TERM),
        lambda s: handins.give_back(s, spec, "hw1", "ida", "x", [], IN_TERM),
        lambda s: grading.ask(s, spec, "hw1", "", "ida", IN_TERM),
        lambda s: marks.apply(s, "ml101", "hw1", change, "ida", IN_TERM),
        lambda s: people.join(s, code, "s01", datetime(2026, 11, 1)),
        lambda s: exams.begin(s, "ml101", "midterm", "s01", IN_TERM),
        lambda s: queue.enqueue(s, build, Builds()),
        lambda s: frozen.check_account("course:ml101", frozen.courses(s)),
    ]
    for write in writes:
        with pytest.raises(NotAvailable) as caught:
            world.do(write)
        assert caught.value.code == "course_frozen"
    world.do(lambda s: frozen.check_account("course:art7", frozen.courses(s)))
    world.do(lambda s: frozen.check_account("user:s01", frozen.courses(s)))
    world.do(lambda s: term.thaw(s, "ml101", "ida", world.site, IN_TERM))
    world.do(writes[0])


def test_materials_of_a_frozen_course_are_not_fetched(world: World) -> None:
    spec = read_course(to_yaml(world.spec) + "materials: folder\n")
    world.do(lambda s: records.apply(s, spec, "ida", world.site, now=IN_TERM))
    now = datetime(2026, 11, 3)
    assert [one for one, _ in world.do(lambda s: materials.due(s, now))] == ["ml101"]
    world.freeze()
    assert world.do(lambda s: materials.due(s, now)) == []
    with pytest.raises(NotAvailable):
        world.do(lambda s: materials.want(s, "ml101", now))


def test_its_gpus_and_planned_servers_are_given_back_and_come_again(world: World) -> None:
    day_before = datetime(2026, 11, 9, 12, tzinfo=UTC).timestamp()

    def standing() -> tuple[int, int]:
        return world.do(lambda s: (len(reservations.standing(s)), len(ahead.planned(s, "ml101"))))

    world.do(lambda s: ahead.plan(s, world.site, day_before))
    before = standing()
    assert min(before) > 0
    world.freeze(day_before)
    assert standing() == (0, 0)
    world.do(lambda s: ahead.plan(s, world.site, day_before))
    assert standing() == (0, 0)
    world.do(lambda s: term.thaw(s, "ml101", "ida", world.site, day_before))
    assert standing() == before


def test_it_is_not_frozen_while_somebody_is_in_an_exam(world: World) -> None:
    now = datetime(2026, 11, 3)
    world.do(
        lambda s: s.add(
            ExamSitting(course="ml101", exam="m", username="s01", options={}, ends_at=now)
        )
    )
    with pytest.raises(NotAvailable) as caught:
        world.freeze()
    assert caught.value.code == "freeze_exam_on"


async def test_a_course_whose_time_has_come_is_frozen_and_archived(
    make: Callable[[Store], World], filled: Store, monkeypatch: Any
) -> None:
    world = make(filled)
    world.do(
        lambda s: s.add(
            CourseMark(course="ml101", handin="hw1", username="s01", mark="1.0", comment="",
                       changed_by="ida")
        )
    )  # fmt: skip
    monkeypatch.setattr("time.time", lambda: LAST + 15 * DAY)
    async with world.hub() as keeper:
        await keeper.tick()
        [row] = world.do(lambda s: archives.of_course(s, "ml101"))
        row = await world.until(row.id, State.KEPT)
    assert row.asked_by == "course:ml101"
    assert world.do(lambda s: frozen.is_frozen(s, "ml101"))
    made = archives.path(world.data, row)
    assert made.stat().st_size == row.size
    with made.open("rb") as file:
        read = archive_task.check(file)
    assert read.wrong == []
    statement = json.loads(read.statement)
    assert (statement["course"], statement["site"]) == ("ml101", "lab")
    KEY.public_key().verify(read.texts["STATEMENT.sig"], receipts.canonical(statement))
    assert {"files/first.ipynb", "records/course.yaml", "records/marks/hw1.csv"} <= set(read.met)


async def test_a_hub_that_hears_nothing_goes_on_from_there(world: World) -> None:
    def message(one: str) -> Any:
        return world.do(lambda s: s.get(CourseWork, one).message)

    for fault in ("begin", "follow", "task_end", "remove", "run_task"):
        one = world.do(lambda s: archives.ask(s, "ml101", "ida").id)
        world.runtime.faults[fault] = silent()
        async with world.hub(), asyncio.timeout(20):
            while await asyncio.to_thread(message, one) is None:
                await asyncio.sleep(0.02)
        world.runtime.faults.clear()
        async with world.hub():
            row = await world.until(one, State.KEPT)
        assert row.message is None
        with archives.path(world.data, row).open("rb") as file:
            assert archive_task.check(file).wrong == []


async def test_what_is_killed_is_begun_anew_and_not_for_ever(world: World) -> None:
    one = world.do(lambda s: archives.ask(s, "ml101", "ida").id)
    world.runtime.killed = 2
    async with world.hub():
        await world.until(one, State.KEPT)
    assert world.runtime.steps == ["pack", "pack", "pack", "seal"]
    other = world.do(lambda s: archives.ask(s, "ml101", "ida").id)
    world.runtime.killed = 2 * TRIES
    async with world.hub():
        row = await world.until(other, State.FAILED)
    assert row.message is not None
    assert row.message["code"] == "course_work_killed"


async def test_what_a_course_may_have_of_the_disk_is_told_once(world: World) -> None:
    spec = read_course(to_yaml(world.spec) + "storage: 5G\n")
    world.do(lambda s: records.apply(s, spec, "ida", world.site, now=IN_TERM))
    async with world.hub() as keeper:
        await keeper.tick()
        await keeper.tick()
        assert world.runtime.own_limits == {("courses", "ml101"): 5 * 2**30}
        assert world.runtime.calls["limit_folder"] == 1
        world.do(lambda s: records.apply(s, world.spec, "ida", world.site, now=IN_TERM))
        await keeper.tick()
    assert world.runtime.own_limits == {("courses", "ml101"): 0}


def test_one_work_of_a_course_at_a_time(world: World) -> None:
    world.do(lambda s: archives.ask(s, "ml101", "ida"))
    with pytest.raises(NotAvailable) as caught:
        world.do(lambda s: archives.ask(s, "ml101", "ida"))
    assert caught.value.code == "course_work_under_way"


async def test_a_course_is_removed_when_its_name_is_typed_and_it_is_archived(world: World) -> None:
    def remove(typed: str = "ml101", **more: bool) -> str:
        return world.do(lambda s: archives.ask_removal(s, "ml101", "root", typed, **more).id)

    def refused(typed: str = "ml101", **more: bool) -> str:
        with pytest.raises((BadRequest, NotAvailable)) as caught:
            remove(typed, **more)
        return caught.value.code

    early = world.do(lambda s: archives.ask(s, "ml101", "ida").id)
    async with world.hub():
        await world.until(early, State.KEPT)
        world.do(lambda s: people.apply(s, "ml101", {"s01": "student"}, "x", False))
        assert refused("ml102") == "course_not_confirmed"
        assert refused() == "course_not_frozen"
        world.freeze(datetime.now(UTC).timestamp())
        assert refused() == "course_not_archived"  # one of before it was frozen is not enough
        late = world.do(lambda s: archives.ask(s, "ml101", "ida").id)
        row = await world.until(late, State.KEPT)
        told = world.do(lambda s: archives.removed(s, "ml101"))
        assert (told["on_roster"], told["folder"]) == (1, "courses/ml101")
        await world.until(remove(), State.KEPT)
    assert not (world.data / "course").exists()
    assert archives.path(world.data, row).exists()
    assert world.do(lambda s: s.get(Course, "ml101")) is None
    assert world.do(lambda s: people.roster(s, "ml101")) == {}
    assert not world.do(lambda s: frozen.is_frozen(s, "ml101"))
    assert world.do(lambda s: [r for r in s.query(WarmStart) if "ml101" in r.created_by]) == []
    assert world.do(lambda s: archives.find(s, "ml101")).id == late


def test_a_course_can_be_removed_without_an_archive_where_somebody_says_so(world: World) -> None:
    world.freeze()
    one = world.do(
        lambda s: archives.ask_removal(s, "ml101", "root", "ml101", without_archive=True)
    )
    assert one.kind == "remove"


def test_what_the_store_knows_goes_into_the_archive_as_text_that_no_table_runs(
    world: World,
) -> None:
    world.do(lambda s: handins.ask(s, world.spec, "hw1", "s01", "", IN_TERM))
    found = world.do(lambda s: archives.texts(s, world.spec, {"student": ["=cmd", "s01"]}))
    assert read_course(found["records/course.yaml"]) == world.spec
    assert "'=cmd" in found["records/people.csv"]
    assert "hw1" in found["records/handed-in.csv"]
    assert Scope("course", "ml101").account == "course:ml101"
