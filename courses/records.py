"""Courses in the store: applied, shown, removed; each in one transaction with what follows of it.

What follows: the reservations of the timetable. Windows that stay as they are keep theirs, so that
a change of the title takes nobody's GPUs. Servers ahead of time ``courses.ahead`` plans.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from commons import frozen
from commons.errors import BadRequest, LabError, NotAllowed
from commons.i18n import N_
from commons.messages import Text
from commons.principal import Principal
from commons.rights import Action, check
from commons.site import Site
from commons.store.models import (
    Course,
    CourseCode,
    CourseEnd,
    CourseLook,
    CourseMaterials,
    CoursePerson,
    ExamSitting,
    GpuDevice,
    WarmStart,
    utcnow,
)
from courses import ahead, people
from courses.document import CourseError, CourseSpec, check_granted, to_plain
from courses.timetable import check_sessions, sessions, windows
from spawner import options
from spawner.gpu.ledger import reservations
from spawner.gpu.ledger.reservations import RESERVATION_PAST
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.problems import Problem
from spawner.gpu.views import iso

_log = logging.getLogger(__name__)
COURSE_UNKNOWN = Text(
    "course_not_set_up",
    N_("Nothing is said of the course “{name}” yet. Apply a course.yaml, or fill in its page."),
)
MORE_THAN_THERE = Text(
    "course_gpus_not_there",
    N_("This site has {count} GPUs; reserve that many at most."),
    when={"model": N_("This site has {count} GPUs of type {model}; reserve that many at most.")},
)
GRANTED_BY_ADMINS = Text(
    "course_granted_by_admins",
    N_("What is granted to a course only an administrator changes. Leave “granted” as it is."),
)


@dataclass(frozen=True)
class Change:
    """One key of a course that is set, changed or removed; None: not there."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.key}: {self.after}"
        if self.after is None:
            return f"- {self.key}: {self.before}"
        return f"~ {self.key}: {self.before} -> {self.after}"


def get(session: Session, name: str) -> Course:
    """Raises BadRequest (404) for a course of which nothing is said."""
    row = session.get(Course, name)
    if row is None:
        error = BadRequest(COURSE_UNKNOWN(name=name[:80]))
        error.status = 404
        raise error
    return row


def spec_of(row: Course) -> CourseSpec:
    """What its course.yaml says."""
    return CourseSpec.model_validate(row.spec)


def all_of(session: Session) -> list[Course]:
    """All courses of which something is said, by name."""
    return list(session.scalars(select(Course).order_by(Course.name)))


def names(session: Session) -> list[str]:
    """The names of all of them."""
    return list(session.scalars(select(Course.name).order_by(Course.name)))


def diff(session: Session, spec: CourseSpec) -> list[Change]:
    """What applying it would change, by key."""
    row = session.get(Course, spec.course)
    before = _flat(row.spec if row else {})
    after = _flat(to_plain(spec))
    keys = [*before, *(key for key in after if key not in before)]
    return [
        Change(key, before.get(key), after.get(key))
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.") or {f"{prefix}{key}": {}}
        else:
            found[f"{prefix}{key}"] = value
    return found


def check_may(session: Session, spec: CourseSpec, viewer: Principal) -> None:
    """Whether somebody may apply it. Raises NotAllowed: instructors, within what is granted."""
    check(viewer, Action.RUN_COURSE, spec.scope)
    row = session.get(Course, spec.course)
    granted = spec_of(row).granted if row else type(spec.granted)()
    if not viewer.admin and spec.granted != granted:
        raise NotAllowed(GRANTED_BY_ADMINS())


def apply(
    session: Session,
    spec: CourseSpec,
    by: str,
    site: Site,
    *,
    anyway: bool = False,
    now: float | None = None,
) -> list[Change]:
    """Make the course what it says, with its reservations and planned servers, and return what
    changed.

    Raises CourseError for what cannot be, ReservationClash and ReservationUnkept as
    ``reservations.create`` does: then nothing is changed.
    """
    now = time.time() if now is None else now
    check_granted(spec, site)
    check_sessions(spec)
    quota_store.lock(session)  # of two who save at once, the second sees what the first has saved
    _check_fleet(session, spec)
    _check_start(session, spec, site)
    changes = diff(session, spec)
    row = session.get(Course, spec.course, with_for_update=True)
    if row is None:
        row = Course(name=spec.course, spec={}, reservations={}, changed_by=by[:255])
        session.add(row)
    if changes:
        row.spec, row.changed_at, row.changed_by = to_plain(spec), utcnow(), by[:255]
    _reserve(session, row, spec, by, anyway, now)
    session.flush()
    ahead.plan(session, site, now, only=spec.course)
    return changes


def _check_fleet(session: Session, spec: CourseSpec) -> None:
    """Raises CourseError where more is to be reserved than there is, whoever else has it."""
    wanted = spec.gpus.type
    query = select(GpuDevice.model).where(GpuDevice.present)
    there = [model for model in session.scalars(query) if wanted in ("", model)]
    if spec.gpus.reserved > len(there):
        raise CourseError(
            [Problem("gpus.reserved", MORE_THAN_THERE(count=len(there), model=wanted or None))]
        )


def _check_start(session: Session, spec: CourseSpec, site: Site) -> None:
    """Raises CourseError where no student could start what it asks for."""
    word = spec.scope.row.positions[-1].word
    somebody = Principal("", positions={spec.scope: word}, uid=1, gid=1)
    try:
        where, catalog = "", options.offered(session, somebody)
        options.resolve(options.parse(spec.options), catalog, site, somebody)
        for number, one in enumerate(spec.exams):
            where = f"exams.{number}"
            options.resolve(options.parse(one.options), catalog, site, somebody)
    except LabError as error:
        raise CourseError([Problem(where, error.message)]) from error


def _reserve(
    session: Session, row: Course, spec: CourseSpec, by: str, anyway: bool, now: float
) -> None:
    standing = {one.id: one for one in reservations.standing(session)}
    still = frozen.is_frozen(session, spec.course)
    wanted = {} if still else {one.key: one for one in windows(spec)}
    kept: dict[str, str] = {}
    for key, reservation_id in row.reservations.items():
        # One that somebody cancelled by hand stays so until its window changes.
        if key in wanted:
            kept[key] = reservation_id
        elif reservation_id in standing:
            reservations.cancel(session, reservation_id)
    session.flush()
    for key, window in wanted.items():
        if key in kept:
            continue
        asked = window.spec.model_copy(update={"anyway": anyway})
        try:
            kept[key] = reservations.create(session, asked, by, now, window.skipped).id
        except BadRequest as error:
            if error.message.code != RESERVATION_PAST.code:
                raise  # of what is over nothing has to be reserved
    row.reservations = kept


def settle(session: Session, row: Course, by: str, site: Site, now: float) -> None:
    """Bring reservations and planned servers in line with whether it is frozen.

    What others have reserved meanwhile it does not get again; saving the course says so.
    """
    quota_store.lock(session)
    try:
        with session.begin_nested():
            _reserve(session, row, spec_of(row), by, anyway=True, now=now)
    except LabError as error:
        _log.warning("course %s: its GPUs are not reserved again: %s", row.name, error)
    session.flush()
    ahead.plan(session, site, now, only=row.name)


def remove(session: Session, name: str) -> Course:
    """Forget what is said of a course, its roster, reservations and planned servers.

    Its folder, and whom the directory puts into it, stay.
    """
    row = get(session, name)
    standing = {one.id for one in reservations.standing(session)}
    for reservation_id in row.reservations.values():
        if reservation_id in standing:
            reservations.cancel(session, reservation_id)
    for start in ahead.planned(session, name):
        session.delete(start)
    for table in (CoursePerson, CourseCode, CourseLook, CourseMaterials, CourseEnd):
        session.execute(delete(table).where(table.course == name))
    # Of one that is on, the end by the clock, and who has its folder then, are kept.
    over = ExamSitting.collected_at.is_not(None)
    session.execute(delete(ExamSitting).where(ExamSitting.course == name, over))
    session.delete(row)
    return row


def show(session: Session, row: Course, now: float, span: float = 14 * 86400) -> dict[str, Any]:
    """A course with its next sessions, as plain data ready for JSON."""
    found = []
    for one in sessions(spec_of(row), now, now + span):
        warm = ahead.warm_id(row.name, one)
        found.append(
            {
                "starts": iso(one.starts),
                "ends": iso(one.ends),
                "day": one.wall.date().isoformat(),
                "time": one.wall.time().isoformat("minutes"),
                "warm": warm if session.get(WarmStart, warm) else None,
            }
        )
    return {
        "course": row.spec,
        "changed_at": iso(row.changed_at),
        "changed_by": row.changed_by,
        "on_roster": len(people.roster(session, row.name)),
        "sessions": found,
    }
