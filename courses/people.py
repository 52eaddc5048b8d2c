"""Rosters: whom a file puts into a course, beside those whom the directory's groups do.

The directory knows the people; a roster says of some of them what they are in a course. Whoever is
in both has the higher position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import SCOPES
from commons.store import Store
from commons.store.models import CoursePerson

MOST_PEOPLE = 5000
COURSE = SCOPES["course"]
WORDS = tuple(position.word for position in COURSE.positions)  # the highest first

TOO_MANY_PEOPLE = Text("roster_too_many", N_("A roster has at most {most} people."))
POSITION_UNKNOWN = Text(
    "roster_position", N_("“{position}” is no position in a course; these are: {known}.")
)
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


def apply(
    session: Session, course: str, wanted: Mapping[str, str], by: str, prune: bool
) -> list[Change]:
    """Make the roster what is wanted, and return what changed. Raises BadRequest."""
    for position in wanted.values():
        if position not in WORDS:
            raise BadRequest(POSITION_UNKNOWN(position=position[:40], known=list(WORDS)))
    changes = diff(session, course, wanted, prune)
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
        if stamp is None or stamp != self._stamp:
            self._people = await self._store.read(_by_person)
            self._stamp = stamp
        return self._people.get(username, {})


def _by_person(session: Session) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    query: Any = select(CoursePerson.username, CoursePerson.course, CoursePerson.position)
    for username, course, position in session.execute(query):
        found.setdefault(username, {})[course] = position
    return found
