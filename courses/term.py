"""The end of a term: when a course is frozen, who is told before, and who freezes or thaws it.

What a frozen course refuses is asked in ``commons.frozen`` by whoever is about to write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import Scope
from commons.site import Site
from commons.store.models import Course, CourseEnd, ExamSitting
from commons.units import parse_duration
from courses import people, records
from courses.document import CourseSpec
from spawner.gpu.policy.reservations import wall_to_time
from spawner.gpu.views import iso

BEFORE = 7 * 86400  # seconds before it that instructors are told

EXAM_IS_ON = Text(
    "freeze_exam_on",
    N_("Somebody is in an exam of “{course}”; freeze it when that has ended and is collected."),
)


def freezes_at(spec: CourseSpec) -> float | None:
    """When it is frozen by itself, in seconds since 1970; None: when somebody says so."""
    if spec.end is None or spec.end.freeze is None:
        return None
    over = datetime.combine(spec.term.last + timedelta(days=1), time())
    return wall_to_time(over, ZoneInfo(spec.timezone)) + parse_duration(spec.end.freeze)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _row(session: Session, name: str) -> CourseEnd:
    row = session.get(CourseEnd, name, with_for_update=True)
    if row is None:
        row = CourseEnd(course=name, changed_by="", frozen_for="", told_for="")
        session.add(row)
    return row


def freeze(session: Session, name: str, by: str, site: Site, now: float) -> bool:
    """From now on nobody writes, and its reservations and planned servers are given back.

    Whether it was not so before. Raises BadRequest (404), NotAvailable while an exam is on.
    """
    course = records.get(session, name)
    row = _row(session, name)
    if row.frozen_at is not None:
        return False
    on = select(ExamSitting.course).where(
        ExamSitting.course == name, ExamSitting.collected_at.is_(None)
    )
    if session.scalar(on.limit(1)) is not None:
        raise NotAvailable(EXAM_IS_ON(course=name))
    row.frozen_at = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
    _changed(session, row, course, by, site, now)
    return True


def thaw(session: Session, name: str, by: str, site: Site, now: float) -> bool:
    """It is as it was before; until its end is another day, nothing freezes it but a word.

    Whether it was frozen. Raises BadRequest (404).
    """
    course = records.get(session, name)
    row = _row(session, name)
    if row.frozen_at is None:
        return False
    row.frozen_at = None
    _changed(session, row, course, by, site, now)
    return True


def _changed(
    session: Session, row: CourseEnd, course: Course, by: str, site: Site, now: float
) -> None:
    at = freezes_at(records.spec_of(course))
    row.changed_by, row.frozen_for = by[:255], _day(at) if at is not None else ""
    session.flush()
    records.settle(session, course, by, site, now)


def due(session: Session, now: float) -> list[str]:
    """Courses whose time to be frozen has come, and that were not thawed since."""
    found = []
    for course in records.all_of(session):
        at = freezes_at(records.spec_of(course))
        row = session.get(CourseEnd, course.name)
        if at is None or now < at or (row and (row.frozen_at or row.frozen_for == _day(at))):
            continue
        found.append(course.name)
    return found


def warn(session: Session, now: float, answerable: Callable[[Scope], Collection[str]]) -> None:
    """Tell instructors a week before, once for each day on which it is to be."""
    for course in records.all_of(session):
        at = freezes_at(records.spec_of(course))
        if at is None or not at - BEFORE <= now < at:
            continue
        row = _row(session, course.name)
        if row.frozen_at is not None or _day(at) in (row.told_for, row.frozen_for):
            continue
        row.told_for = _day(at)
        on_roster = people.roster(session, course.name).items()
        teach = {who for who, word in on_roster if word == people.WORDS[0]}
        for who in sorted({*answerable(Scope("course", course.name)), *teach}):
            notices.add(
                session,
                username=who,
                lease_id=None,
                code="course_freezes",
                data={"course": course.name, "freeze_at": at},
                key=f"course-freezes:{course.name}:{_day(at)}:{who}"[:160],
            )


def show(session: Session, name: str, spec: CourseSpec | None) -> dict[str, Any]:
    """Whether it is frozen, since when and by whom, and when it will be; ready for JSON."""
    row = session.get(CourseEnd, name)
    frozen = row.frozen_at if row else None
    at = freezes_at(spec) if spec else None
    thawed = row is not None and at is not None and row.frozen_for == _day(at)
    return {
        "frozen_at": iso(frozen) if frozen else None,
        "changed_by": row.changed_by if row else "",
        "freezes_at": iso(at) if at is not None and frozen is None and not thawed else None,
    }
