"""Looks at a student's notebook: asked for, allowed or refused by the student, over by themselves.

Who asks sees nothing before the student has said yes, and then the one notebook that they chose, as
it is saved, until the time is over or the student ends it.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.store.models import CourseLook, GpuNotice

ASKED_FOR = timedelta(minutes=15)  # after which a question without an answer is over
ALLOWED_FOR = timedelta(minutes=20)
KEPT = timedelta(days=1)  # for which it is shown that one was over
LONGEST_PATH = 500

LOOK_GONE = Text(
    "look_gone", N_("This look is over, or was never allowed. Ask for another in the room.")
)
PATH_WRONG = Text("look_path", N_("Choose one of your notebooks: a path that ends in .ipynb."))


class State(StrEnum):
    """What became of a question."""

    ASKED = "asked"
    ALLOWED = "allowed"
    REFUSED = "refused"
    ENDED = "ended"


def ask(
    session: Session, course: str, username: str, server: str, by: str, now: datetime
) -> CourseLook:
    """Ask a student; who has asked already, or may look, asks nothing new."""
    for row in of_person(session, username, now):
        if (row.course, row.server_name, row.asked_by) == (course, server, by):
            return row
    row = CourseLook(
        id=secrets.token_hex(8),
        course=course,
        username=username,
        server_name=server,
        asked_by=by,
        asked_at=now,
        state=State.ASKED,
        path="",
        until=now + ASKED_FOR,
    )
    session.add(row)
    _tell(session, row, "look_asked", {})
    return row


def of_person(session: Session, username: str, now: datetime) -> list[CourseLook]:
    """A student's: questions that wait for them, and looks that go on."""
    query = select(CourseLook).where(
        CourseLook.username == username,
        CourseLook.state.in_((State.ASKED, State.ALLOWED)),
        CourseLook.until > now,
    )
    return list(session.scalars(query.order_by(CourseLook.asked_at)))


def of_asker(session: Session, course: str, by: str, now: datetime) -> list[CourseLook]:
    """What somebody has asked for in a course of late, the newest first."""
    query = select(CourseLook).where(
        CourseLook.course == course, CourseLook.asked_by == by, CourseLook.asked_at > now - KEPT
    )
    return list(session.scalars(query.order_by(CourseLook.asked_at.desc())))


def state_of(row: CourseLook, now: datetime) -> State:
    """As it is now: what nobody answered, or whose time is over, has ended."""
    going = row.state in (State.ASKED, State.ALLOWED)
    return State.ENDED if going and row.until <= now else State(row.state)


def answer(session: Session, look: str, username: str, path: str, now: datetime) -> CourseLook:
    """The student allows a look at one notebook; without a path they refuse. Raises BadRequest."""
    row = _mine(session, look, username, now)
    if row.state != State.ASKED:
        raise _gone()
    _done_with(session, row, "look_asked")
    if not path:
        row.state = State.REFUSED
        return row
    check_path(path)
    row.state, row.path, row.until = State.ALLOWED, path, now + ALLOWED_FOR
    _tell(session, row, "look_on", {"path": path})
    return row


def end(session: Session, look: str, username: str, now: datetime) -> CourseLook:
    """The student ends it. Raises BadRequest."""
    row = _mine(session, look, username, now)
    row.state = State.ENDED
    _done_with(session, row, "look_on")
    return row


def seen_by(session: Session, look: str, by: str) -> CourseLook:
    """One that somebody has asked for. Raises BadRequest (404) for another's."""
    row = session.get(CourseLook, look[:32])
    if row is None or row.asked_by != by:
        raise _gone()
    return row


def check_path(path: str) -> None:
    """Raises BadRequest for what is no path of a notebook below the home."""
    parts = path.split("/")
    fine = path.endswith(".ipynb") and path.isprintable() and len(path) <= LONGEST_PATH
    if not fine or any(part in ("", ".", "..") for part in parts):
        raise BadRequest(PATH_WRONG())


def _mine(session: Session, look: str, username: str, now: datetime) -> CourseLook:
    row = session.get(CourseLook, look[:32], with_for_update=True)
    if row is None or row.username != username or row.until <= now:
        raise _gone()
    return row


def _gone() -> BadRequest:
    error = BadRequest(LOOK_GONE())
    error.status = 404
    return error


def _tell(session: Session, row: CourseLook, code: str, more: dict[str, str]) -> None:
    data = {
        "by": row.asked_by,
        "course": row.course,
        "until_at": row.until.replace(tzinfo=UTC).timestamp(),
        **more,
    }
    notices.add(
        session, username=row.username, lease_id=None, code=code, data=data, key=_key(row, code),
        server=row.server_name,
    )  # fmt: skip


def _done_with(session: Session, row: CourseLook, code: str) -> None:
    """What was told of it is no longer so."""
    done = update(GpuNotice).where(GpuNotice.key == _key(row, code))
    session.execute(done.values(seen_at=row.asked_at))


def _key(row: CourseLook, code: str) -> str:
    return f"{code}:{row.id}"
