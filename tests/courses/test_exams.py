"""Exams: their document, everybody's own end, and what the clock does whoever is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from commons import notices
from commons.audit import AuditTrail
from commons.errors import LabError
from commons.leases import ServerKey
from commons.site import Site
from commons.store import Store
from commons.store.ends import Ending
from commons.store.models import ExamSitting, GpuNotice
from courses import exams, records
from courses.document import CourseError, CourseSpec, check_course, read_course, to_yaml
from courses.exam_keeper import ExamKeeper
from courses.exams import State
from spawner import exams as rules
from spawner.runtime.memory import MemoryRuntime, silent
from spawner.runtime.spec import CloseExam, task_key

MIDTERM = {
    "name": "midterm",
    "title": {"en": "Midterm", "zh": "期中考试"},
    "day": "2026-12-01",
    "starts": "10:00",
    "duration": "90m",
    "environment": "data:1",
    "size": "small",
    "extra_time": {"s07": "30m"},
}
TEN = datetime(2026, 12, 1, 9, tzinfo=UTC).timestamp()  # in Berlin
Make = Callable[..., CourseSpec]


def exam(**changes: object) -> dict[str, object]:
    return {**MIDTERM, **changes}


def test_what_is_exported_is_the_same_course(course: Make) -> None:
    spec = course(exams=[exam()])
    assert read_course(to_yaml(spec)) == spec
    assert spec.exams[0].called("zh_CN") == "期中考试"


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"environment": "data"}, "version"),
        ({"environment": "team-vision/torch:1"}, "version"),
        ({"environment": ""}, "version"),
        ({"name": "Mid Term"}, "short name"),
        ({"name": "../x"}, "short name"),
        ({"name": "x" * 41}, "short name"),
        ({"day": "2027-06-01"}, "not in the term"),
        ({"duration": "13h"}, "12 hours"),
        ({"extra_time": {"s07": "soon"}}, "duration"),
        ({"starts": "25:00"}, "time of the day"),
    ],
)
def test_what_cannot_be_is_said(course: Make, changed: dict[str, object], where: str) -> None:
    with pytest.raises(CourseError, match=where):
        course(exams=[exam(**changed)])
    with pytest.raises(CourseError, match="there twice"):
        course(exams=[exam(), exam(day="2026-12-02")])


def test_instructors_have_in_exams_what_is_granted_and_what_there_is(
    course: Make, filled: Store, lab: Site
) -> None:
    for spec in (
        course(exams=[exam(size="large")], granted={"gpus": 2, "sizes": ["small"]}),
        course(exams=[exam(environment="data:9")]),
    ):
        with pytest.raises(CourseError, match=r"exams\.0"):
            filled.transact(lambda s, one=spec: records.apply(s, one, "dan", lab, now=TEN - 9e5))  # type: ignore[misc]


@given(
    at=st.integers(-7200, 4 * 3600),
    extra=st.sampled_from([None, "1m", "30m", "2h"]),
    sits=st.booleans(),
)
def test_everybody_has_the_time_they_have_and_no_more(
    at: int, extra: str | None, sits: bool
) -> None:
    more = {"1m": 60, "30m": 1800, "2h": 7200, None: 0}[extra]
    spec = check_course(
        {
            "version": 1, "course": "ml101", "title": {"en": "ML"}, "timezone": "Europe/Berlin",
            "term": {"first": "2026-10-12", "last": "2027-02-05"},
            "exams": [exam(extra_time={"s07": extra} if extra else {})],
        }
    )  # fmt: skip
    mine = exams.hours(spec, spec.exams[0], "s07")
    assert (mine.starts, mine.ends) == (TEN, TEN + 5400 + more)
    assert exams.hours(spec, spec.exams[0], "other").ends == TEN + 5400
    sitting = ExamSitting() if sits else None
    found = exams.state(mine, sitting, TEN + at)
    assert (found is State.OVER) == (at >= 5400 + more)
    assert found is not State.OPEN or at >= 0
    assert found is not State.BEFORE or at < 0


def test_ten_oclock_is_ten_oclock_of_the_course_when_clocks_change(course: Make) -> None:
    for day, utc in (("2026-10-24", 8), ("2026-10-26", 9)):
        spec = course(exams=[exam(day=day)])
        hour = datetime.fromtimestamp(exams.hours(spec, spec.exams[0]).starts, UTC).hour
        assert hour == utc


class Hub:
    """Servers that are words, and what the keeper did to them."""

    def __init__(self, *running: ServerKey) -> None:
        self.up = set(running)
        self.ended: list[tuple[str, str, str]] = []
        self.forgotten: list[ServerKey] = []
        self.refuses = False

    def known(self) -> set[ServerKey]:
        return set(self.up)

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        if self.refuses:
            raise RuntimeError("the hub did not stop it")
        if (user, server) in self.up:
            self.up.discard((user, server))
            self.ended.append((user, server, ending.cause if ending else ""))

    def forget(self, user: str, server: str) -> None:
        self.forgotten.append((user, server))


class Class:
    """A course with an exam, its keeper, and a clock that is set."""

    def __init__(self, store: Store, site: Site, course: Make) -> None:
        self.store, self.site, self.course = store, site, course
        self.runtime, self.hub, self.now = MemoryRuntime(), Hub(), TEN - 600
        self.apply()

    def apply(self, **changes: object) -> None:
        spec = self.course(exams=[exam(**changes)], gpus={"each": 0}, warm=None)
        self.store.transact(lambda s: records.apply(s, spec, "dan", self.site, now=TEN - 600))

    def begin(self, user: str) -> None:
        self.store.transact(lambda s: exams.begin(s, "ml101", "midterm", user, self.now) and None)
        self.hub.up.add((user, "exam-midterm"))

    async def look(self, at: float) -> None:
        """With a keeper of a hub that has just been started."""
        self.now = at
        keeper = ExamKeeper(
            self.store, self.runtime, self.hub, AuditTrail(), logging.getLogger("test"),
            lambda: self.now,
        )  # fmt: skip
        await keeper.look()
        async with asyncio.timeout(20):
            while keeper.busy:
                await asyncio.sleep(0.001)

    def row(self, user: str) -> ExamSitting:
        def work(session: object) -> ExamSitting:
            row = session.get(ExamSitting, ("ml101", "midterm", user))  # type: ignore[attr-defined]
            session.expunge(row)  # type: ignore[attr-defined]
            return row  # type: ignore[no-any-return]

        return self.store.transact(work, read=True)

    def collected(self, user: str) -> int:
        place = rules.place_of(self.row(user))
        return self.runtime.made[task_key(CloseExam(place=place, user=user))]


@pytest.fixture
def school(filled: Store, lab: Site, course: Make) -> Class:
    return Class(filled, lab, course)


async def test_nobody_begins_before_it_begins_or_after_their_own_end(school: Class) -> None:
    with pytest.raises(LabError, match="begins at"):
        school.begin("s01")
    school.now = TEN
    school.begin("s01")
    school.now = TEN + 5400
    school.begin("s07")  # who has half an hour more
    with pytest.raises(LabError, match="over for you"):
        school.begin("s02")
    with pytest.raises(LabError, match="no exam"):
        school.store.transact(lambda s: exams.begin(s, "ml101", "final", "s01", TEN) and None)


async def test_each_servers_end_is_its_persons_own_and_each_folder_is_collected_once(
    school: Class,
) -> None:
    school.now = TEN
    for user in ("s01", "s07"):
        school.begin(user)
    await school.look(TEN + 5399)
    assert school.hub.ended == []
    await school.look(TEN + 5400)
    assert school.hub.ended == [("s01", "exam-midterm", "exam_over")]
    assert (school.collected("s01"), school.collected("s07")) == (1, 0)
    await school.look(TEN + 7200)
    await school.look(TEN + 9999)
    assert school.hub.up == set()
    assert (school.collected("s01"), school.collected("s07")) == (1, 1)
    assert set(school.hub.forgotten) == {("s01", "exam-midterm"), ("s07", "exam-midterm")}


async def test_a_hub_that_was_away_at_the_end_ends_it_when_it_is_back(school: Class) -> None:
    school.now = TEN
    school.begin("s01")
    await school.look(TEN + 86400)
    assert school.hub.ended == [("s01", "exam-midterm", "exam_over")]
    assert school.collected("s01") == 1


async def test_what_was_left_half_done_is_done_by_the_next_look(school: Class) -> None:
    """Kind: a hub, or an agent, that is killed in the middle of it."""
    school.now = TEN
    school.begin("s01")
    school.hub.refuses = True
    await school.look(TEN + 5400)
    assert school.row("s01").ended_at is None
    school.hub.refuses = False
    school.runtime.faults["run_task"] = silent()
    await school.look(TEN + 5405)
    assert school.row("s01").ended_at is not None
    assert school.row("s01").collected_at is None
    school.runtime.faults.clear()
    await school.look(TEN + 5410)
    assert school.row("s01").collected_at is not None


async def test_more_time_counts_at_once_also_for_whom_it_has_ended(school: Class) -> None:
    school.now = TEN
    for user in ("s01", "s02"):
        school.begin(user)
    school.apply(extra_time={"s01": "10m"})
    await school.look(TEN + 5400)
    assert school.hub.up == {("s01", "exam-midterm")}
    school.apply(extra_time={"s01": "10m", "s02": "20m"})
    school.begin("s02")
    assert school.row("s02").collected_at is None
    await school.look(TEN + 5405)
    assert ("s02", "exam-midterm") in school.hub.up
    await school.look(TEN + 5400 + 1200)
    assert school.hub.up == set()
    assert school.collected("s02") == 2


async def test_an_exam_that_is_taken_out_of_the_course_ends_when_it_would_have(
    school: Class,
) -> None:
    school.now = TEN
    school.begin("s01")
    school.store.transact(lambda s: records.remove(s, "ml101") and None)
    await school.look(TEN + 5399)
    assert school.hub.ended == []
    await school.look(TEN + 5400)
    assert school.collected("s01") == 1


async def test_while_it_is_on_there_is_no_other_server(school: Class) -> None:
    def check(user: str, server: str) -> bool:
        return school.store.transact(lambda s: rules.check(s, user, server) is not None)

    school.now = TEN
    assert not check("s01", "")
    school.store.transact(lambda s: exams.begin(s, "ml101", "midterm", "s01", TEN) and None)

    def later(session: object) -> None:  # the test's clock is not the store's
        session.get(ExamSitting, ("ml101", "midterm", "s01")).ends_at = datetime(2090, 1, 1)  # type: ignore[attr-defined]

    school.store.transact(later)
    assert check("s01", "exam-midterm")
    assert not check("s02", ""), "others' it does not concern"
    for other in ("", "ml101", "exam-final"):
        with pytest.raises(LabError, match="Until it has ended"):
            check("s01", other)
    # What was on its way when they began is stopped.
    school.hub.up |= {("s01", ""), ("s02", ""), ("s01", "exam-midterm")}
    await school.look(TEN + 10)
    assert school.hub.up == {("s02", ""), ("s01", "exam-midterm")}


async def test_the_time_that_is_left_is_told_with_a_warning_each(school: Class) -> None:
    school.now = TEN
    school.begin("s01")
    for left in (1000, 900, 850, 301, 300, 60, 55, 1):
        await school.look(TEN + 5400 - left)
    codes = school.store.transact(
        lambda s: [
            (row.code, row.data.get("left_for"))
            for row in s.scalars(select(GpuNotice).order_by(GpuNotice.id))
        ],
        read=True,
    )
    assert codes == [
        ("exam_until", None),
        *(("exam_ends_soon", left) for left in (900, 300, 60)),
    ]
    said = notices.sentence(
        "exam_ends_soon", {"exam": "midterm", "ends_at": TEN, "left_for": 300}, str
    )
    assert "in 5 min" in said
