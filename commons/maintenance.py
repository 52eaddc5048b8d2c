"""Maintenance: nobody but administrators starts a server, everybody is told why and until when, and
servers are stopped at a time that was told before. A row of ``commons.broadcasts``' table.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from commons import notices
from commons.broadcasts import (
    END_WRONG,
    LONGEST,
    MAINTENANCE,
    moment,
    standing,
    texts_of,
    utc,
)
from commons.errors import BadRequest, NotAvailable
from commons.i18n import N_
from commons.leases import ServerKey
from commons.messages import Text
from commons.store.models import Broadcast, GpuNotice, ServerStart, utcnow

STAGES = (None, 3600, 600)  # seconds before the stop at which people are told; None: when planned
CODE = "maintenance_soon"

ALREADY = Text(
    "maintenance_already", N_("There is maintenance already, or it is planned. End it first.")
)
NONE = Text("maintenance_none", N_("There is no maintenance."))
BEGIN_WRONG = Text("maintenance_begin", N_("The begin must be within {days} days."))
STOP_WRONG = Text(
    "maintenance_stop",
    N_("The stop must be after now, not before the begin, before the end, and within {days} days."),
)
_SHOWN = {"reason": notices.site_words, "end_at": notices.moment_of}
CLOSED = Text(
    "maintenance",
    N_("Nobody can start a server now, for maintenance: “{reason}” Try again later."),
    _SHOWN,
)
CLOSED_UNTIL = Text(
    "maintenance_until",
    N_("Nobody can start a server now, for maintenance: “{reason}” Expected end: {end_at}."),
    _SHOWN,
)


def found(session: Session, now: datetime | None = None) -> Broadcast | None:
    """The maintenance that goes on, or is planned; it is over by itself at its end."""
    return next((row for row in standing(session, now) if row.kind == MAINTENANCE), None)


def current(session: Session, now: datetime | None = None) -> Broadcast | None:
    """The maintenance that goes on."""
    now = now or utcnow()
    row = found(session, now)
    return row if row is not None and row.starts_at <= now else None


def lasted(session: Session, since: datetime, now: datetime) -> timedelta:
    """How much of the time from ``since`` to ``now`` was maintenance."""
    rows = session.scalars(
        select(Broadcast).where(Broadcast.kind == MAINTENANCE, Broadcast.starts_at < now)
    )
    # One at a time: they do not overlap.
    spans = (
        min(now, row.ends_at or now, row.withdrawn_at or now) - max(since, row.starts_at)
        for row in rows
    )
    return sum((max(span, timedelta()) for span in spans), timedelta())


def start(
    session: Session,
    *,
    en: object = None,
    zh: object = None,
    starts: object = None,
    until: object = None,
    stop: object = None,
    timezone: str = "UTC",
    by: str,
    now: datetime | None = None,
) -> Broadcast:
    """Begin it now, or plan it: ``starts``, ``until`` and ``stop`` (when servers are stopped) as
    ``broadcasts.moment`` reads them, durations of the last two after the begin. Without, it begins
    now, goes on until it is ended, and no server is stopped. Raises BadRequest.
    """
    now = now or utcnow()
    if found(session, now) is not None:
        error = BadRequest(ALREADY())
        error.status = 409
        raise error
    texts = texts_of(en, zh)
    starts_at = max(now, moment(starts, timezone, now) if starts else now)
    ends_at = moment(until, timezone, starts_at) if until else None
    stop_at = moment(stop, timezone, starts_at) if stop else None
    if starts_at > now + LONGEST:
        raise BadRequest(BEGIN_WRONG(days=LONGEST.days))
    if ends_at is not None and not starts_at < ends_at <= now + LONGEST:
        raise BadRequest(END_WRONG(days=LONGEST.days))
    if stop_at is not None and not (
        now < stop_at and starts_at <= stop_at < (ends_at or now + LONGEST)
    ):
        raise BadRequest(STOP_WRONG(days=LONGEST.days))
    row = Broadcast(
        id=uuid.uuid4().hex[:12],
        kind=MAINTENANCE,
        texts=texts,
        starts_at=starts_at,
        ends_at=ends_at,
        stop_at=stop_at,
        created_by=by[:255],
        created_at=now,
        withdrawn_by="",
        working=[],
    )
    session.add(row)
    session.flush()
    return row


def stop(session: Session, by: str, now: datetime | None = None) -> Broadcast:
    """End it, or plan it no longer; who waits in line starts. Raises BadRequest (404) where there
    is none.
    """
    row = found(session, now)
    if row is None:
        error = BadRequest(NONE())
        error.status = 404
        raise error
    row.withdrawn_at, row.withdrawn_by = now or utcnow(), by[:255]
    forget(session)
    return row


def forget(session: Session) -> None:
    """It is over: what was going to happen is not told any more."""
    session.execute(delete(GpuNotice).where(GpuNotice.code == CODE))


def check(session: Session, username: str, server: str, admin: bool) -> bool:
    """True for who may start. Raises NotAvailable for what is new; what is in line waits on."""
    row = None if admin else current(session)
    if row is None or session.get(ServerStart, (username, server)) is not None:
        return True
    reason = [part for pair in row.texts.items() for part in pair]
    if row.ends_at is None:
        raise NotAvailable(CLOSED(reason=reason))
    raise NotAvailable(
        CLOSED_UNTIL(reason=reason, end_at=row.ends_at.replace(tzinfo=UTC).timestamp())
    )


def stage(stop_at: datetime, now: datetime) -> int | None:
    """The last of ``STAGES`` that has come."""
    left = (stop_at - now).total_seconds()
    return min((s for s in STAGES if s is not None and left <= s), default=None)


def warn(session: Session, servers: Sequence[ServerKey], now: datetime | None = None) -> None:
    """Tell those whose servers are going to be stopped, once for each stage."""
    now = now or utcnow()
    row = found(session, now)
    if row is None or row.stop_at is None or row.stop_at <= now:
        return
    for user, server in servers:
        notices.add(
            session,
            username=user,
            lease_id=None,
            server=server,
            code=CODE,
            data={"stop_at": row.stop_at.replace(tzinfo=UTC).timestamp()},
            key=f"maintenance:{row.id}:{stage(row.stop_at, now)}:{user[:60]}:{server[:40]}",
            now=now,
        )


def as_json(row: Broadcast | None) -> dict[str, Any]:
    """For commands and REST; of None: that there is none."""
    now = utcnow()
    over = row is None or row.withdrawn_at is not None or bool(row.ends_at and row.ends_at <= now)
    planned = row is not None and not over and row.starts_at > now
    return {
        "on": not over and not planned,
        "state": "none" if over else "planned" if planned else "on",
        "en": row.texts.get("en") if row else None,
        "zh": row.texts.get("zh_CN") if row else None,
        "since": utc(row.starts_at) if row else None,
        "ends_at": utc(row.ends_at) if row else None,
        "stop_at": utc(row.stop_at) if row else None,
        "by": row.created_by if row else "",
        # Of an earlier version's rows nothing is known of kernels.
        "working": [{"busy_kernels": None} | one for one in row.working] if row else [],
    }
