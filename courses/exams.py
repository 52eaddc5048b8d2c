"""Exams by the clock: when one is for whom, who has begun, and what has ended.

Everybody's end is that of the exam and the extra time they have, whenever they begin, and follows
the course.yaml. Who gets more time when it has ended for them goes on with what they had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import frozen, notices
from commons.errors import BadRequest, NotAllowed
from commons.i18n import N_
from commons.messages import Text
from commons.notices import moment_of
from commons.store.models import Course, ExamSitting, utcnow
from commons.units import parse_duration
from courses.document import CourseSpec, Exam
from spawner.exams import EXAM_ON, EXAM_OVER, begun, place_of, seconds, server_of
from spawner.gpu.policy.reservations import wall_to_time
from spawner.runtime.spec import ExamPlace

# Seconds before somebody's end at which they are told.
WARNINGS = (900, 300, 60)

EXAM_UNKNOWN = Text("exam_unknown", N_("The course “{course}” has no exam “{exam}”."))
EXAM_NOT_YET = Text("exam_not_yet", N_("The exam begins at {starts_at}."), {"starts_at": moment_of})


class State(StrEnum):
    """What an exam is for somebody now."""

    BEFORE = "before"
    OPEN = "open"  # it may be begun
    IN = "in"  # they have begun
    OVER = "over"


@dataclass(frozen=True)
class Hours:
    """Seconds since 1970."""

    starts: float
    ends: float


@dataclass(frozen=True)
class Due:
    """Somebody who has begun: what the keeper of exams needs."""

    course: str
    exam: str
    username: str
    place: ExamPlace
    ends: float

    @property
    def server(self) -> str:
        """Its name."""
        return server_of(self.exam)

    @property
    def key(self) -> tuple[str, str, str]:
        """Of its row."""
        return (self.course, self.exam, self.username)


def find(session: Session, course: str, name: str) -> tuple[CourseSpec, Exam]:
    """Raises BadRequest (404)."""
    row = session.get(Course, course)
    spec = CourseSpec.model_validate(row.spec) if row else None
    for exam in spec.exams if spec else ():
        if exam.name == name:
            assert spec is not None
            return spec, exam
    error = BadRequest(EXAM_UNKNOWN(course=course[:80], exam=name[:80]))
    error.status = 404
    raise error


def hours(spec: CourseSpec, exam: Exam, username: str = "") -> Hours:
    """When it is, for somebody."""
    zone = ZoneInfo(spec.timezone)
    starts = wall_to_time(datetime.combine(exam.day, exam.starts), zone)
    extra = exam.extra_time.get(username)
    long = parse_duration(exam.duration) + (parse_duration(extra) if extra else 0)
    return Hours(starts, starts + long)


def state(when: Hours, sitting: ExamSitting | None, now: float) -> State:
    """What it is at this moment, by the clock."""
    if now >= when.ends:
        return State.OVER
    if sitting is not None:
        return State.IN
    return State.OPEN if now >= when.starts else State.BEFORE


def begin(session: Session, course: str, name: str, username: str, now: float) -> ExamSitting:
    """Begin it, or go on; from then on nobody starts another server of this person.

    Raises BadRequest for no such exam, NotAllowed before and after its time, and while they are in
    another.
    """
    frozen.check(session, course)
    spec, exam = find(session, course, name)
    when = hours(spec, exam, username)
    sitting = session.get(ExamSitting, (course, name, username), with_for_update=True)
    match state(when, sitting, now):
        case State.BEFORE:
            raise NotAllowed(EXAM_NOT_YET(starts_at=when.starts))
        case State.OVER:
            raise NotAllowed(EXAM_OVER(exam=name))
    other = begun(session, username)
    if other is not None and (other.course, other.exam) != (course, name):
        ends_at = seconds(other.ends_at)
        raise NotAllowed(EXAM_ON(exam=other.exam, course=other.course, ends_at=ends_at))
    if sitting is None:
        sitting = ExamSitting(course=course, exam=name, username=username, begun_at=_utc(now))
        sitting.options = {**exam.options, "course": course}
        session.add(sitting)
    sitting.ends_at, sitting.ended_at, sitting.collected_at = _utc(when.ends), None, None
    _tell(session, sitting, "exam_until")
    session.flush()
    return sitting


def due(session: Session, now: float) -> list[Due]:
    """All that has begun and is not collected, with ends as the courses say them now."""
    query = select(ExamSitting).where(ExamSitting.collected_at.is_(None))
    specs: dict[str, CourseSpec | None] = {}
    found = []
    for row in session.scalars(query.with_for_update()):
        if row.course not in specs:
            course = session.get(Course, row.course)
            specs[row.course] = CourseSpec.model_validate(course.spec) if course else None
        spec = specs[row.course]
        exam = next((e for e in spec.exams if e.name == row.exam), None) if spec else None
        if spec and exam:
            ends = hours(spec, exam, row.username).ends
            if _utc(ends) != row.ends_at:
                row.ends_at = _utc(ends)
                if now < ends and row.ended_at is None:
                    _tell(session, row, "exam_until")
        if row.ended_at is None:
            _warn(session, row, now)
        ends = seconds(row.ends_at)
        found.append(Due(row.course, row.exam, row.username, place_of(row), ends))
    return found


def any_open(session: Session) -> bool:
    """Whether there is anything for the keeper to do."""
    query = select(ExamSitting.course).where(ExamSitting.collected_at.is_(None)).limit(1)
    return session.scalar(query) is not None


def ended(session: Session, one: Due, collected: bool) -> None:
    """Its server is gone; or its folder is the instructors'."""
    row = session.get(ExamSitting, one.key, with_for_update=True)
    if row is None:
        return
    if not collected:
        row.ended_at = row.ended_at or utcnow()
    elif row.ended_at is not None:  # or they have got more time meanwhile, and gone on
        row.collected_at = utcnow()


def told(
    session: Session, spec: CourseSpec, username: str, now: float, language: str
) -> list[dict[str, Any]]:
    """The exams of a course as somebody sees them, in the order of their times."""
    mine = {
        row.exam: row
        for row in session.scalars(
            select(ExamSitting).where(
                ExamSitting.course == spec.course, ExamSitting.username == username
            )
        )
    }
    found = []
    for exam in spec.exams:
        when = hours(spec, exam, username)
        found.append(
            {
                "name": exam.name,
                "title": exam.called(language),
                "starts": when.starts,
                "ends": when.ends,
                "state": str(state(when, mine.get(exam.name), now)),
            }
        )
    return sorted(found, key=lambda one: one["starts"])


def sittings(session: Session, course: str) -> Mapping[str, list[ExamSitting]]:
    """Who has begun, by exam, for its instructors."""
    query = select(ExamSitting).where(ExamSitting.course == course)
    found: dict[str, list[ExamSitting]] = {}
    for row in session.scalars(query.order_by(ExamSitting.username)):
        found.setdefault(row.exam, []).append(row)
    return found


def _utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)


def _warn(session: Session, row: ExamSitting, now: float) -> None:
    left = seconds(row.ends_at) - now
    for before in WARNINGS:
        if 0 < left <= before and left > max((w for w in WARNINGS if w < before), default=0):
            _tell(session, row, "exam_ends_soon", left_for=before)


def _tell(session: Session, row: ExamSitting, code: str, **data: Any) -> None:
    ends_at = seconds(row.ends_at)
    left = data.get("left_for", "")
    notices.add(
        session,
        username=row.username,
        lease_id=None,
        server=server_of(row.exam),
        code=code,
        data={"exam": row.exam, "ends_at": ends_at, **data},
        key=f"exam:{row.course}:{row.exam}:{row.username[:50]}:{ends_at:.0f}:{left}",
    )
