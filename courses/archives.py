"""Archives of courses, and their removal: asked, listed, and what goes into one; in the store.

Who wants one writes a row; ``courses.term_keeper`` sees to it in the hub's process. An archive has
its name when it was read again to its end, so one that is *kept* is whole.
"""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from commons.errors import BadRequest, NotAvailable
from commons.i18n import N_
from commons.messages import Locale, Message, Text
from commons.scopes import Scope
from commons.store import DiskUse
from commons.store.environments import ScopeEnvironment
from commons.store.models import (
    Course,
    CourseEnd,
    CourseMark,
    CourseWork,
    EnvironmentVersion,
    ExamSitting,
    GpuUsage,
    HandedIn,
    HandInExtension,
    HandInGroup,
    SharedServer,
    utcnow,
)
from courses import handins, marks, people, records, term
from courses.document import CourseSpec, to_yaml
from spawner import shared_servers
from spawner.gpu.views import iso

FOLDER = "archives"  # of the data folder

UNDER_WAY = Text(
    "course_work_under_way",
    N_("“{course}” is being archived or removed already; wait until that is done."),
)
NO_ARCHIVE = Text("course_no_archive", N_("There is no such archive of “{course}”."))
NOT_FROZEN = Text(
    "course_not_frozen",
    N_("“{course}” is not frozen. Freeze it first, so that nobody works in what is removed."),
)
NOT_ARCHIVED = Text(
    "course_not_archived",
    N_(
        "There is no archive of “{course}” that was made since it was frozen. Make one first, or "
        "say that it is to be removed without."
    ),
)
NOT_CONFIRMED = Text(
    "course_not_confirmed", N_("To remove the course with its files, type its name: {course}")
)
SHARED_RUNS = Text(
    "course_shared_runs", N_("The shared server “{name}” of the course runs; stop it first.")
)


class State(StrEnum):
    """Where a work is; the first two go on by themselves."""

    ASKED = "asked"
    PACKED = "packed"
    KEPT = "kept"
    FAILED = "failed"


WAITING = (State.ASKED, State.PACKED)


def ask(session: Session, course: str, by: str, kind: str = "archive") -> CourseWork:
    """Write down that an archive is to be made. Raises BadRequest (404), NotAvailable."""
    records.get(session, course)
    waiting = select(CourseWork.id).where(
        CourseWork.course == course, CourseWork.state.in_(WAITING)
    )
    if session.scalar(waiting.limit(1)) is not None:
        raise NotAvailable(UNDER_WAY(course=course))
    row = CourseWork(
        id=secrets.token_hex(6), course=course, kind=kind, state=State.ASKED, asked_by=by[:255]
    )
    session.add(row)
    session.flush()
    return row


def ask_removal(
    session: Session, course: str, by: str, typed: str, *, without_archive: bool = False
) -> CourseWork:
    """Write down that a course is to be removed with all its files.

    Raises BadRequest, NotAvailable: it is frozen before, its name is typed, and there is an archive
    of when it was frozen, or somebody says that none is wanted.
    """
    records.get(session, course)
    if typed != course:
        raise BadRequest(NOT_CONFIRMED(course=course))
    end = session.get(CourseEnd, course)
    if end is None or end.frozen_at is None:
        raise NotAvailable(NOT_FROZEN(course=course))
    since = end.frozen_at
    kept = (one for one in of_course(session, course) if one.kind == "archive")
    if not without_archive and not any(
        one.state == State.KEPT and one.asked_at >= since for one in kept
    ):
        raise NotAvailable(NOT_ARCHIVED(course=course))
    for server in shared_servers.all_of(session, [Scope("course", course)]):
        if server.state not in shared_servers.DOWN:
            raise NotAvailable(SHARED_RUNS(name=server.name))
    return ask(session, course, by, "remove")


def of_course(session: Session, course: str) -> list[CourseWork]:
    """All works, the newest first."""
    query = select(CourseWork).where(CourseWork.course == course)
    return list(session.scalars(query.order_by(CourseWork.asked_at.desc(), CourseWork.id)))


def find(session: Session, course: str, one: str = "") -> CourseWork:
    """An archive that is kept; without an id, the newest. Raises BadRequest (404)."""
    for row in of_course(session, course):
        if row.kind == "archive" and row.state == State.KEPT and one in ("", row.id):
            return row
    error = BadRequest(NO_ARCHIVE(course=course[:80]))
    error.status = 404
    raise error


def file_name(row: CourseWork) -> str:
    """What an archive is called."""
    return f"{row.course}-{row.asked_at:%Y-%m-%d}-{row.id}.tar.gz"


def path(data: Path, row: CourseWork) -> Path:
    """Where it is."""
    return data / FOLDER / row.course / file_name(row)


def show(row: CourseWork) -> dict[str, Any]:
    """One, as plain data ready for JSON."""
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "asked_at": iso(row.asked_at),
        "asked_by": row.asked_by,
        "ended_at": iso(row.ended_at) if row.ended_at else None,
        "message": row.message,
        "all_bytes": row.all_bytes,
        "bytes": row.bytes,
        "files": row.files,
        "left_out": row.left_out,
        "size": row.size,
        "name": file_name(row) if row.kind == "archive" else "",
    }


# -- what goes into one ----------------------------------------------------------------------------


def environments(session: Session, spec: CourseSpec) -> list[tuple[str, str]]:
    """The versions of the site's environments that it is taught and examined with."""
    asked = [spec.environment, *(one.environment for one in spec.exams)]
    found = []
    for name, _, version in (one.partition(":") for one in asked if one and "/" not in one):
        query = select(EnvironmentVersion.version).where(EnvironmentVersion.name == name)
        if version:
            query = query.where(EnvironmentVersion.version == version)
        newest = session.scalars(query.order_by(EnvironmentVersion.id.desc())).first()
        if newest is not None and (name, newest) not in found:
            found.append((name, newest))
    return found


def texts(
    session: Session, spec: CourseSpec, members: Mapping[str, Collection[str]]
) -> dict[str, str]:
    """What the store knows of a course, as files by path.

    ``members``: by position, whom the directory's groups put into it, as the hub knows them.
    """
    name = spec.course
    found = {"records/course.yaml": to_yaml(spec)}
    roster = people.roster(session, name)
    rows = [(who, word, "roster") for who, word in roster.items()]
    rows += [(who, word, "directory") for word, known in members.items() for who in sorted(known)]
    found["records/people.csv"] = _csv(("username", "position", "by"), rows)
    handed = handins.of_course(session, name)
    head = (
        "id", "handin", "team", "members", "asked_by", "asked_at", "due_at", "late", "state",
        "files", "bytes", "left_out", "digest",
    )  # fmt: skip
    found["records/handed-in.csv"] = _csv(head, [_handed(row) for row in handed])
    works = sorted({one.name for one in spec.handins} | {row.handin for row in handed})
    for work in works:
        found[f"records/marks/{work}.csv"] = marks.to_csv(marks.marks(session, name, work))
        groups = handins.groups(session, name, work)
        if groups:
            found[f"records/groups/{work}.csv"] = _csv(("username", "group"), list(groups.items()))
    given = [
        (row.handin, row.team or "all", iso(row.due_at), row.given_by)
        for work in works
        for row in handins.extensions(session, name, work).values()
    ]
    found["records/extensions.csv"] = _csv(("handin", "team", "until", "given_by"), given)
    sat = session.scalars(
        select(ExamSitting)
        .where(ExamSitting.course == name)
        .order_by(ExamSitting.exam, ExamSitting.username)
    )
    found["records/exams.csv"] = _csv(
        ("exam", "username", "begun_at", "ends_at"),
        [(one.exam, one.username, iso(one.begun_at), iso(one.ends_at)) for one in sat],
    )
    used = session.execute(
        select(GpuUsage.username, func.sum(GpuUsage.gpu_seconds), func.count())
        .where(GpuUsage.account == spec.scope.account)
        .group_by(GpuUsage.username)
        .order_by(GpuUsage.username)
    )
    found["records/usage.csv"] = _csv(
        ("username", "gpu_hours", "servers_with_gpus"),
        [(who, round(seconds / 3600, 2), count) for who, seconds, count in used],
    )
    query = select(ScopeEnvironment).where(
        ScopeEnvironment.scope == "course", ScopeEnvironment.owner == name
    )
    for env in session.scalars(query):
        folder = f"records/environments/course-{env.name}-{env.version}"
        found[f"{folder}/environment.yml"] = env.spec
        if env.lock:
            found[f"{folder}/pixi.lock"] = env.lock
    return found


def _handed(row: HandedIn) -> tuple[object, ...]:
    return (
        row.id, row.handin, row.team, " ".join(row.members), row.username, iso(row.asked_at),
        iso(row.due_at) if row.due_at else "", "late" if handins.is_late(row) else "", row.state,
        row.files, row.bytes, row.left_out, row.digest,
    )  # fmt: skip


def _csv(head: Collection[str], rows: Collection[Collection[object]]) -> str:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\r\n")
    table.writerow(head)
    table.writerows([marks.guarded(str(cell)) for cell in row] for row in rows)
    return out.getvalue()


# -- removing --------------------------------------------------------------------------------------


def removed(session: Session, course: str) -> dict[str, Any]:
    """What goes with a course, counted; ready for JSON."""

    def count(table: Any) -> int:
        query = select(func.count()).select_from(table).where(table.course == course)
        return session.scalar(query) or 0

    use = session.get(DiskUse, ("courses", course))
    envs = select(func.count(func.distinct(ScopeEnvironment.name))).where(
        ScopeEnvironment.scope == "course", ScopeEnvironment.owner == course
    )
    return {
        "folder": f"courses/{course}",
        "bytes": use.bytes if use else None,
        "on_roster": len(people.roster(session, course)),
        "handed_in": count(HandedIn),
        "marks": count(CourseMark),
        "exams": count(ExamSitting),
        "environments": session.scalar(envs) or 0,
        "shared_servers": len(shared_servers.all_of(session, [Scope("course", course)])),
    }


def forget(session: Session, course: str) -> None:
    """What the store has of a course whose folder is gone; archives and what was used stay."""
    for table in (HandedIn, HandInExtension, HandInGroup, CourseMark, ExamSitting):
        session.execute(delete(table).where(table.course == course))
    session.execute(
        delete(ScopeEnvironment).where(
            ScopeEnvironment.scope == "course", ScopeEnvironment.owner == course
        )
    )
    session.execute(
        delete(SharedServer).where(SharedServer.scope == Scope("course", course).source)
    )
    session.execute(delete(DiskUse).where(DiskUse.area == "courses", DiskUse.name == course))
    records.remove(session, course)


def end(session: Session, one: str, state: State, **changed: Any) -> None:
    """Write down how far a work has come."""
    row = session.get(CourseWork, one, with_for_update=True)
    if row is None:
        return
    row.state = state
    for key, value in changed.items():
        setattr(row, key, value)
    if state not in WAITING:
        row.ended_at = utcnow()


def shown(
    session: Session, name: str, row: Course | None, locale: Locale, runs: bool, admin: bool
) -> dict[str, Any]:
    """As page and REST tell it: archives to its instructors, what would go to administrators."""
    found = term.show(session, name, records.spec_of(row) if row else None)
    rows = [show(one) for one in of_course(session, name)] if runs else []
    for one in rows:
        said = one["message"]
        one["message"] = Message.from_json(said).in_words(locale) if said else None
    return {
        **found,
        "archives": rows,
        "removed": removed(session, name) if admin and row else None,
    }
