"""Rosters: whom a file puts into a course, beside those whom the directory's groups do.

The directory knows the people; a roster says of some of them what they are in a course. Whoever is
in both has the higher position.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from commons import frozen
from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import SCOPES
from commons.store import Store
from commons.store.models import CourseCode, CoursePerson
from spawner.gpu.quotas import quota_store

MOST_PEOPLE = 5000
LONGEST_CODE = 180  # days
MOST_CODES = 20
_LOGIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # as the hub has names
COURSE = SCOPES["course"]
WORDS = tuple(position.word for position in COURSE.positions)  # the highest first

TOO_MANY_PEOPLE = Text("roster_too_many", N_("A roster has at most {most} people."))
NOT_A_LOGIN = Text("roster_login", N_("“{name}” is no login name."))
POSITION_UNKNOWN = Text(
    "roster_position", N_("“{position}” is no position in a course; these are: {known}.")
)
CODE_WRONG = Text(
    "course_code_wrong",
    N_("This link does not open a course any more. Ask whoever gave it to you for another."),
)
CODE_LIMITS = Text(
    "course_code_limits", N_("A link is for 1 to {days} days and for 1 to {uses} people.")
)
TOO_MANY_CODES = Text(
    "course_codes_most", N_("There are {most} links already; take one back that nobody needs.")
)
LEAVING = Text(
    "roster_leaving",
    N_(
        "{count} people would leave the course: {names}. To take them off, confirm that number "
        "(“leaving” by REST)."
    ),
)
MOST_NAMES = 20  # of a sentence
NOT_ON_ROSTER = Text("not_on_roster", N_("“{name}” is not on the roster of “{course}”."))


@dataclass(frozen=True)
class Change:
    """Somebody who is added, moved or removed; an empty position: not there."""

    username: str
    before: str
    after: str

    def __str__(self) -> str:
        if not self.before:
            return f"+ {self.username}: {self.after}"
        if not self.after:
            return f"- {self.username}: {self.before}"
        return f"~ {self.username}: {self.before} -> {self.after}"


def roster(session: Session, course: str) -> dict[str, str]:
    """Login names, and what each is, by name."""
    query = select(CoursePerson).where(CoursePerson.course == course)
    return {
        row.username: row.position for row in session.scalars(query.order_by(CoursePerson.username))
    }


def diff(session: Session, course: str, wanted: Mapping[str, str], prune: bool) -> list[Change]:
    """What applying a roster would change; with ``prune``, who is not on it is removed."""
    before = roster(session, course)
    names = sorted({*wanted, *(before if prune else ())})
    return [
        Change(name, before.get(name, ""), wanted.get(name, ""))
        for name in names
        if before.get(name, "") != wanted.get(name, "")
    ]


def leaving(changes: Sequence[Change]) -> list[str]:
    """Who would be on the roster no more."""
    return [change.username for change in changes if not change.after]


def check_leaving(changes: Sequence[Change], said: int) -> None:
    """Raises BadRequest (409) where others would leave than whoever asked for it has seen."""
    gone = leaving(changes)
    if len(gone) != said:
        shown = [*gone[:MOST_NAMES], *(["…"] if len(gone) > MOST_NAMES else [])] or ["–"]
        error = BadRequest(LEAVING(count=len(gone), names=shown))
        error.status = 409
        raise error


def apply(
    session: Session,
    course: str,
    wanted: Mapping[str, str],
    by: str,
    prune: bool,
    said: int | None = None,
) -> list[Change]:
    """Make the roster what is wanted, and return what changed. Raises BadRequest.

    ``said``: how many somebody expects to leave; None: it was not asked.
    """
    if len(wanted) > MOST_PEOPLE:
        raise BadRequest(TOO_MANY_PEOPLE(most=MOST_PEOPLE))
    for name, position in wanted.items():
        if not _LOGIN.fullmatch(name):
            raise BadRequest(NOT_A_LOGIN(name=name[:80]))
        if position not in WORDS:
            raise BadRequest(POSITION_UNKNOWN(position=position[:40], known=list(WORDS)))
    quota_store.lock(session)  # of two who change it at once, the second sees what the first did
    changes = diff(session, course, wanted, prune)
    if said is not None:
        check_leaving(changes, said)
    for change in changes:
        row = session.get(CoursePerson, (course, change.username))
        if not change.after:
            session.delete(row)
        elif row is None:
            session.add(
                CoursePerson(
                    course=course,
                    username=change.username,
                    position=change.after,
                    added_by=by[:255],
                )
            )
        else:
            row.position, row.added_by = change.after, by[:255]
    session.flush()
    there = select(func.count()).where(CoursePerson.course == course)
    if (session.scalar(there) or 0) > MOST_PEOPLE:
        raise BadRequest(TOO_MANY_PEOPLE(most=MOST_PEOPLE))
    return changes


def remove(session: Session, course: str, username: str) -> None:
    """Take somebody off the roster. Raises BadRequest (404)."""
    row = session.get(CoursePerson, (course, username))
    if row is None:
        error = BadRequest(NOT_ON_ROSTER(name=username[:80], course=course[:80]))
        error.status = 404
        raise error
    session.delete(row)


# -- codes ----------------------------------------------------------------------------------------


def make_code(
    session: Session, course: str, by: str, days: int, uses: int, now: datetime
) -> CourseCode:
    """A code with which ``uses`` people can join within some days. Raises BadRequest."""
    if not 1 <= days <= LONGEST_CODE or not 1 <= uses <= MOST_PEOPLE:
        raise BadRequest(CODE_LIMITS(days=LONGEST_CODE, uses=MOST_PEOPLE))
    if len(codes(session, course, now)) >= MOST_CODES:
        raise BadRequest(TOO_MANY_CODES(most=MOST_CODES))
    row = CourseCode(
        code=secrets.token_urlsafe(12),
        course=course,
        expires_at=now + timedelta(days=days),
        uses_left=uses,
        created_by=by[:255],
    )
    session.add(row)
    return row


def codes(session: Session, course: str, now: datetime) -> list[CourseCode]:
    """Those that still let somebody in, the newest first."""
    query = select(CourseCode).where(
        CourseCode.course == course, CourseCode.expires_at > now, CourseCode.uses_left > 0
    )
    return list(session.scalars(query.order_by(CourseCode.created_at.desc(), CourseCode.code)))


def take_back(session: Session, course: str, code: str) -> None:
    """Let nobody in with it any more; who has joined stays."""
    row = session.get(CourseCode, code)
    if row is not None and row.course == course:
        session.delete(row)


def course_of(session: Session, code: str, now: datetime, lock: bool = False) -> CourseCode:
    """What a code opens. Raises BadRequest (404) for one that is unknown, over or used up."""
    row = session.get(CourseCode, code[:32], with_for_update=lock or None)
    if row is None or row.expires_at <= now or row.uses_left < 1:
        error = BadRequest(CODE_WRONG())
        error.status = 404
        raise error
    return row


def join(session: Session, code: str, username: str, now: datetime) -> str:
    """Put somebody on the roster as a student, and return the course; once for each person."""
    row = course_of(session, code, now, lock=True)
    frozen.check(session, row.course)
    if session.get(CoursePerson, (row.course, username)) is None:
        apply(session, row.course, {username: WORDS[-1]}, f"{row.created_by} (code)", prune=False)
        row.uses_left -= 1
    return row.course


def joined(directory: Mapping[str, str], rosters: Mapping[str, str]) -> dict[str, str]:
    """Positions by course, of the directory and of rosters together: the higher one counts."""
    found = dict(directory)
    for course, word in rosters.items():
        words = {word, found.get(course, word)}
        found[course] = min(words, key=WORDS.index)
    return found


class Rosters:
    """What rosters say of people, asked at each login: read anew when somebody has written."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stamp: object = None
        self._people: dict[str, dict[str, str]] = {}

    async def of(self, username: str) -> Mapping[str, str]:
        """Somebody's positions by course. Raises StoreError."""
        stamp = self._store.stamp()
        if stamp is None:
            return (await self._store.read(lambda s: _by_person(s, username))).get(username, {})
        if stamp != self._stamp:
            self._people = await self._store.read(_by_person)
            self._stamp = stamp
        return self._people.get(username, {})


def _by_person(session: Session, only: str = "") -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    query: Any = select(CoursePerson.username, CoursePerson.course, CoursePerson.position)
    if only:
        query = query.where(CoursePerson.username == only)
    for username, course, position in session.execute(query):
        found.setdefault(username, {})[course] = position
    return found
