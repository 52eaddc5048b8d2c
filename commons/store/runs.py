"""What servers and jobs had, and from when until when: one row for each container.

Written by whoever starts it and whoever sees its end; what a hub that was killed could not write is
made up for by the reconciler, from what runs. The first word about an end stays.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from commons.store.models import ServerEnd, ServerRun, utcnow


def begin(session: Session, run: ServerRun) -> None:
    """Whoever started it says so; the reconciler may have seen it first, and knows less."""
    known = session.get(ServerRun, run.key)
    if known is None:
        session.add(run)
    else:
        known.account, known.environment = run.account, run.environment


def found(session: Session, run: ServerRun) -> None:
    """It runs, and may not be written down yet."""
    if session.get(ServerRun, run.key) is None:
        session.add(run)


def over(session: Session, key: str, at: datetime | None = None) -> None:
    """It runs no more."""
    of_key = (ServerRun.key == key, ServerRun.ended_at.is_(None))
    session.execute(update(ServerRun).where(*of_key).values(ended_at=at or utcnow()))


def goes_on(session: Session, key: str) -> None:
    """It was going to be stopped, and was not."""
    session.execute(update(ServerRun).where(ServerRun.key == key).values(ended_at=None))


def open_keys(session: Session) -> set[str]:
    """The containers that are taken to run."""
    return set(session.scalars(select(ServerRun.key).where(ServerRun.ended_at.is_(None))))


def gone(session: Session, keys: Collection[str], at: datetime) -> None:
    """There are no such containers: they ended when that was written, or else now (``at``)."""
    written = select(ServerEnd.key, ServerEnd.at).where(ServerEnd.key.in_(keys))
    ends = {row.key: row.at for row in session.execute(written)}
    for key in keys:
        over(session, key, ends.get(key, at))
