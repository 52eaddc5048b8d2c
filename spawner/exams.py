"""Who sits an exam has its server, and no other until it has ended.

Who may sit which exam, and until when, the room of courses says and writes; here is what follows
of it for servers.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.errors import NotAllowed
from commons.i18n import N_
from commons.leases import ServerKey
from commons.messages import Text
from commons.notices import moment_of
from commons.scopes import Scope
from commons.store.models import ExamSitting, utcnow
from spawner.runtime.spec import ExamPlace

EXAM_ON = Text(
    "exam_on",
    N_(
        "You are in the exam “{exam}” of the course “{course}” until {ends_at}. Until it has ended "
        "you have its server and no other; you come to it by the course’s page."
    ),
    {"ends_at": moment_of},
)
EXAM_OVER = Text("exam_is_over", N_("The exam “{exam}” is over for you."))


def server_of(exam: str) -> str:
    """What the server of an exam is called."""
    return f"exam-{exam}"


def place_of(sitting: ExamSitting) -> ExamPlace:
    """As a runtime is told."""
    return ExamPlace(course=Scope("course", sitting.course).source, exam=sitting.exam)


def seconds(at: datetime) -> float:
    """A time of the store, in seconds since 1970."""
    return at.replace(tzinfo=UTC).timestamp()


def begun(session: Session, username: str) -> ExamSitting | None:
    """The exam that somebody has begun and that has not ended."""
    query = select(ExamSitting).where(
        ExamSitting.username == username, ExamSitting.ended_at.is_(None)
    )
    return session.scalars(query.order_by(ExamSitting.begun_at)).first()


def check(session: Session, username: str, server: str) -> ExamSitting | None:
    """The exam that this server is for; None for an ordinary one. Raises NotAllowed."""
    sitting = begun(session, username)
    if sitting is None:
        return None
    if server != server_of(sitting.exam):
        raise NotAllowed(
            EXAM_ON(exam=sitting.exam, course=sitting.course, ends_at=seconds(sitting.ends_at))
        )
    if sitting.ends_at <= utcnow():
        raise NotAllowed(EXAM_OVER(exam=sitting.exam))
    session.expunge(sitting)
    return sitting


def servers(session: Session) -> frozenset[ServerKey]:
    """The servers of all exams that have begun and not ended: nothing but the clock ends them."""
    query = select(ExamSitting.username, ExamSitting.exam).where(ExamSitting.ended_at.is_(None))
    return frozenset((name, server_of(exam)) for name, exam in session.execute(query))
