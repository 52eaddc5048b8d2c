"""Stops that somebody else than a server's owner asks for: who, why, and when.

An announced stop is a row: what a command or the console asks for the hub carries out, and a hub
that is restarted keeps it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import notices
from commons.store.ends import Ending
from commons.store.models import AnnouncedStop, utcnow

MOST = 500  # characters of a message


def ending(by: str, message: str) -> Ending:
    """A stop by somebody else."""
    return Ending("stopped_by", by=by, message=message)


def announce(
    session: Session,
    username: str,
    server: str,
    by: str,
    message: str = "",
    stop_at: datetime | None = None,
) -> None:
    """Write down that a server is going to be stopped, and tell its owner; None: at once, which is
    told when it is done.
    """
    now = utcnow()
    session.merge(
        AnnouncedStop(
            username=username,
            server_name=server,
            by=by[:255],
            message=message,
            at=now,
            stop_at=stop_at or now,
        )
    )
    if stop_at is None:
        return
    data: dict[str, Any] = {"by": by, "stop_at": stop_at.replace(tzinfo=UTC).timestamp()}
    notices.add(
        session,
        username=username,
        lease_id=None,
        server=server,
        code="stops_soon",
        data=data | ({"message": message} if message else {}),
        key=f"stops:{username[:60]}:{server[:40]}:{data['stop_at']:.3f}",
    )


def asked(session: Session, username: str, server: str) -> Ending | None:
    """Who is stopping this server, where that is somebody else than its owner."""
    row = session.get(AnnouncedStop, (username, server))
    return ending(row.by, row.message) if row is not None else None


def due(session: Session) -> list[tuple[str, str, str, str, datetime]]:
    """Stops whose time has come: user, server, by whom, message, and when it was announced."""
    query = select(AnnouncedStop).where(AnnouncedStop.stop_at <= utcnow())
    return [
        (row.username, row.server_name, row.by, row.message, row.at)
        for row in session.scalars(query)
    ]


def announced(session: Session) -> bool:
    """Whether a stop is to come, or due."""
    return session.scalars(select(AnnouncedStop).limit(1)).first() is not None


def over(session: Session, username: str, server: str) -> None:
    """It was done, or there is nothing to stop any more."""
    row = session.get(AnnouncedStop, (username, server))
    if row is not None:
        session.delete(row)
