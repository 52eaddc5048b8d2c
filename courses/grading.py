"""Grading by a program: asked for what was handed in, and what it gave; in the store.

One row for each time that something is graded, as for a hand-in: written before anything runs, and
what becomes of it ``courses.grade_keeper`` sees to. What it gives are marks like any other, by a
name that nobody has: a mark that a person gave is not taken away by a program.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import frozen
from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.principal import Principal
from commons.site import Site
from commons.store.database import tell
from commons.store.models import CourseMark, HandedIn
from courses import handins, marks
from courses.document import CourseSpec
from courses.handins import State, stored
from courses.marks import Change, Mark
from spawner import options
from spawner.gpu.views import iso
from spawner.options import Choice

KIND = "autograde"
BY = "(autograding)"  # no login name

NO_ENVIRONMENT = Text(
    "autograde_no_environment",
    N_(
        "The course “{course}” says no environment to grade with. Write one that has nbgrader into "
        "its course.yaml."
    ),
)
NOTHING_KEPT = Text(
    "autograde_nothing",
    N_("Nothing that could be graded was handed in for “{name}” yet."),
)
NOTHING_OF = Text(
    "autograde_nothing_of",
    N_("Nothing that could be graded was handed in by “{team}” for “{name}”."),
)


def ask(
    session: Session, spec: CourseSpec, name: str, team: str, by: str, now: float
) -> list[HandedIn]:
    """Write down that somebody has graded what a team, or (empty) everybody, handed in last.

    What waits already is not asked for twice. Raises BadRequest, NotAvailable.
    """
    frozen.check(session, spec.course)
    handin = handins.find(spec, name)
    if not spec.environment:
        raise BadRequest(NO_ENVIRONMENT(course=spec.course))
    last: dict[str, HandedIn] = {}
    for row in handins.of_course(session, spec.course, handin.name):
        if row.state == State.KEPT:
            last.setdefault(row.team, row)
    if team and team not in last:
        raise BadRequest(NOTHING_OF(team=team[:80], name=handin.name))
    if not last:
        raise BadRequest(NOTHING_KEPT(name=handin.name))
    waiting = {
        row.path: row
        for row in _rows(session, spec.course, handin.name)
        if row.state in handins.WAITING
    }
    found = []
    for one in (last[name] for name in sorted(last) if team in ("", name)):
        asked = waiting.get(one.id)
        if asked is None:
            asked = HandedIn(
                id=secrets.token_hex(6),
                kind=KIND,
                course=spec.course,
                handin=handin.name,
                team=one.team,
                username=by[:255],
                members=list(one.members),
                path=one.id,
                asked_at=stored(now),
                due_at=None,
                state=State.ASKED,
            )
            session.add(asked)
        found.append(asked)
    session.flush()
    tell(session, handins.NEWS)
    return found


def _rows(session: Session, course: str, handin: str) -> list[HandedIn]:
    """The newest first."""
    query = select(HandedIn).where(
        HandedIn.kind == KIND, HandedIn.course == course, HandedIn.handin == handin
    )
    return list(session.scalars(query.order_by(HandedIn.asked_at.desc(), HandedIn.id)))


def newest(session: Session, course: str, handin: str) -> dict[str, HandedIn]:
    """Of each team the last grading that was asked for."""
    found: dict[str, HandedIn] = {}
    for row in _rows(session, course, handin):
        found.setdefault(row.team, row)
    return found


def show(row: HandedIn) -> dict[str, Any]:
    """One, as plain data ready for JSON."""
    result: Mapping[str, Any] = row.receipt or {}
    return {
        "id": row.id,
        "handed_in": row.path,
        "team": row.team,
        "asked_by": row.username,
        "asked_at": iso(row.asked_at),
        "state": row.state,
        "message": row.message,
        "score": result.get("score"),
        "most": result.get("most"),
        "manual": bool(result.get("manual")),
        "kept": list(result.get("kept", ())),
        "notebooks": list(result.get("notebooks", ())),
    }


def starts(session: Session, spec: CourseSpec, site: Site) -> Choice:
    """The environment and size in which a course's notebooks are run. Raises BadRequest."""
    word = spec.scope.row.positions[-1].word
    somebody = Principal("", positions={spec.scope: word}, uid=1, gid=1)
    catalog = options.offered(session, somebody, packages=False)
    return options.resolve(options.parse(spec.options), catalog, site, somebody)


def points(number: float) -> str:
    """As a person writes them: 7, 7.5."""
    return f"{round(number, 2):g}"


def set_marks(session: Session, row: HandedIn, now: float) -> tuple[list[Change], list[str]]:
    """Give each of a team what it got; what changes, and whose mark a person gave, which stays."""
    result: Mapping[str, Any] = row.receipt or {}
    each = [
        f"{one['name'].removesuffix('.ipynb')}: {points(one['score'])}/{points(one['most'])}"
        for one in result["notebooks"]
    ]
    got = Mark(
        f"{points(result['score'])}/{points(result['most'])}"[: marks.LONGEST_MARK],
        "; ".join(each)[: marks.LONGEST_COMMENT] if len(each) > 1 else "",
    )
    wanted, kept = {}, []
    for who in row.members:
        there = session.get(CourseMark, (row.course, row.handin, who))
        if there is not None and there.changed_by != BY:
            kept.append(who)
        else:
            wanted[who] = got
    changes = marks.diff(marks.marks(session, row.course, row.handin), wanted)
    marks.apply(session, row.course, row.handin, changes, BY, now)
    return changes, kept
