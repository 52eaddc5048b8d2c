"""Courses that are frozen after their term: nobody writes, people still read.

Whoever is about to write for a course asks here, in the transaction in which it does so; who
freezes and thaws is ``courses.term``.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import Scope, of_account
from commons.store.models import CourseEnd

FROZEN = Text(
    "course_frozen",
    N_(
        "The course “{course}” is frozen: it can be read, and nothing is handed in, changed or "
        "started for it. An instructor can thaw it on its page."
    ),
)


def courses(session: Session) -> frozenset[str]:
    """Those that are frozen."""
    return frozenset(
        session.scalars(select(CourseEnd.course).where(CourseEnd.frozen_at.is_not(None)))
    )


def is_frozen(session: Session, course: str) -> bool:
    """Whether one is."""
    row = session.get(CourseEnd, course)
    return row is not None and row.frozen_at is not None


def check(session: Session, course: str) -> None:
    """Raises NotAvailable where it is frozen."""
    if is_frozen(session, course):
        raise NotAvailable(FROZEN(course=course))


def check_scope(session: Session, scope: Scope) -> None:
    """The same of whatever scope it is."""
    if scope.kind == "course":
        check(session, scope.owner)


def check_account(account: str, frozen: Collection[str]) -> None:
    """Raises NotAvailable where what is charged is a frozen course."""
    scope = of_account(account)
    if scope is not None and scope.kind == "course" and scope.owner in frozen:
        raise NotAvailable(FROZEN(course=scope.owner))
