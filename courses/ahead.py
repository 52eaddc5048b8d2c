"""The servers of a class, ahead of its hours: one start ahead of time for each session.

The record of a session has an id of its own, made of the course and the hour: whoever plans it
again, in whichever process, finds it, so that nobody's server is started twice. What has not begun
follows the course when that changes; what has begun goes on.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session as Store

from commons import frozen
from commons.errors import LabError
from commons.site import Site
from commons.store.models import Course, WarmServer, WarmStart
from commons.units import parse_duration
from courses.document import CourseSpec
from courses.timetable import Session, sessions, warm_before
from spawner.warm import records
from spawner.warm.records import State

PLANNED = 26 * 3600.0  # seconds ahead: a day, and what a clock change adds
_log = logging.getLogger(__name__)


def author(course: str) -> str:
    """Who asked for the starts that a course plans, for their records."""
    return f"course:{course}"


def warm_id(course: str, session: Session) -> str:
    """The id of the start ahead of time of one session."""
    return hashlib.sha256(f"{course} {session.starts:.0f}".encode()).hexdigest()[:12]


def planned(store: Store, course: str) -> list[WarmStart]:
    """Those of a course that have not begun, and were not cancelled."""
    query = select(WarmStart).where(
        WarmStart.created_by == author(course),
        WarmStart.begun_at.is_(None),
        WarmStart.cancelled_at.is_(None),
    )
    return list(store.scalars(query.order_by(WarmStart.starts_at)))


@dataclass(frozen=True)
class Ready:
    """Of the servers of a session, how many.

    Attributes:
        ready: that their people have, or find; also where somebody started it themselves.
        beside: of these, beside another server of the same person.
        own: whose people have a server of their own choice instead.
        unopened: that were given back, because nobody came.
        all: of the people.
    """

    ready: int = 0
    beside: int = 0
    own: int = 0
    failed: int = 0
    unopened: int = 0
    all: int = 0


def ready(store: Store, start: WarmStart) -> Ready | None:
    """What became of the servers of a session; None before it has begun."""
    if start.begun_at is None:
        return None
    query = select(WarmServer.state, WarmServer.reason, WarmServer.server_name)
    found: Counter[str] = Counter()
    for state, reason, server in store.execute(query.where(WarmServer.warm_id == start.id)):
        its = state == State.THEIRS and (reason or {}).get("code") == records.HAS_ITS.code
        if its or state in (State.READY, State.OPENED):
            found["ready"] += 1
            found["beside"] += bool(server)
        elif state == State.THEIRS:
            found["own"] += 1
        elif state == State.FAILED:
            found["failed"] += 1
        elif state in (State.RELEASED, State.CANCELLED):
            found["unopened"] += 1
        found["all"] += 1
    return Ready(**found)


def plan(store: Store, site: Site, now: float, only: str = "") -> None:
    """Bring the starts of the next day in line with what the courses say."""
    query = select(Course).where(Course.name == only) if only else select(Course)
    still = frozen.courses(store)
    # One after the other: of two that plan the same session, the second finds the first's.
    for row in store.scalars(query.order_by(Course.name).with_for_update()):
        _plan(store, site, CourseSpec.model_validate(row.spec), now, row.name in still)


def _plan(store: Store, site: Site, spec: CourseSpec, now: float, still: bool) -> None:
    wanted = {}
    if spec.warm is not None and not still:
        # Also of a class that has begun, while its servers would be held: the hub was away.
        hold = parse_duration(spec.warm.hold)
        for session in sessions(spec, now - hold, now + PLANNED):
            if now < session.starts + hold:
                wanted[warm_id(spec.course, session)] = session
    for start in planned(store, spec.course):
        if start.id not in wanted or _differs(start, spec, wanted[start.id]):
            store.delete(start)
    store.flush()
    for one, session in wanted.items():
        if store.get(WarmStart, one) is not None:
            continue
        try:
            moment = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
            records.create(store, _asked(spec, session), author(spec.course), site, moment, one)
        except LabError as error:
            # What instructors chose has gone since: told on the course's page, not to the hub.
            _log.warning("course %s: servers of %s: %s", spec.course, session.wall, error)


def _begins(spec: CourseSpec, session: Session) -> datetime:
    moment = datetime.fromtimestamp(session.starts - warm_before(spec), UTC)
    return moment.replace(tzinfo=None)


def _hold(spec: CourseSpec) -> int:
    assert spec.warm is not None
    return warm_before(spec) + parse_duration(spec.warm.hold)


def _differs(start: WarmStart, spec: CourseSpec, session: Session) -> bool:
    begins = _begins(spec, session)
    return (
        start.starts_at != begins
        or start.hold_until != begins + timedelta(seconds=_hold(spec))
        or start.user_options != spec.options
    )


def _asked(spec: CourseSpec, session: Session) -> records.WarmSpec:
    return records.WarmSpec.model_validate(
        {
            "name": f"{spec.course} {session.wall.isoformat(' ', 'minutes')}",
            "subject": spec.scope.account,
            "starts": _begins(spec, session).isoformat(timespec="seconds"),
            "timezone": "UTC",
            "hold": _hold(spec),
            "options": spec.options,
        }
    )
