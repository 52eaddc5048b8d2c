"""When a course is: its sessions, and what the ledger and the servers ahead of time make of them.

Pure. What a clock change does to a wall time, ``spawner.gpu.policy.reservations`` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from commons.i18n import N_
from commons.messages import Text
from commons.units import parse_duration
from courses.document import CourseError, CourseSpec, Extra, Weekly
from spawner.gpu.ledger.reservations import WEEKDAYS, ReservationSpec
from spawner.gpu.policy.reservations import wall_to_time
from spawner.gpu.quotas.problems import Problem

SESSIONS_OVERLAP = Text(
    "sessions_overlap", N_("{day} {first} and {day} {second} overlap; leave one of them out")
)


@dataclass(frozen=True)
class Session:
    """One meeting of the class; seconds since 1970.

    Attributes:
        wall: when it begins, in the course's zone.
    """

    wall: datetime
    starts: float
    ends: float


def sessions(spec: CourseSpec, start: float, end: float) -> list[Session]:
    """Those that overlap ``[start, end)``, the earliest first."""
    zone = ZoneInfo(spec.timezone)
    first = max(spec.term.first, _day_of(start, zone) - timedelta(days=1))
    last = min(spec.term.last, _day_of(end, zone) + timedelta(days=1))
    found = []
    day = first
    while day <= last:
        for begins, duration in _times(spec, day):
            wall = datetime.combine(day, begins)
            at = wall_to_time(wall, zone)
            if at < end and at + duration > start:
                found.append(Session(wall, at, at + duration))
        day += timedelta(days=1)
    return sorted(found, key=lambda one: one.starts)


def _day_of(moment: float, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(moment, zone).date()


def _times(spec: CourseSpec, day: date) -> Iterator[tuple[time, int]]:
    if day not in spec.days_off:
        for weekly in spec.sessions:
            if WEEKDAYS[day.weekday()] in weekly.weekdays:
                yield weekly.starts, parse_duration(weekly.duration)
    for extra in spec.extra:  # said for this very day, whatever else it is
        if extra.day == day:
            yield extra.starts, parse_duration(extra.duration)


def check_sessions(spec: CourseSpec) -> None:
    """Raises CourseError where two sessions overlap: each has the class's GPUs to itself."""
    zone = ZoneInfo(spec.timezone)
    start = wall_to_time(datetime.combine(spec.term.first, time()), zone)
    end = wall_to_time(datetime.combine(spec.term.last, time(23, 59)), zone)
    found = sessions(spec, start, end)
    for one, other in pairwise(found):
        if other.starts < one.ends:
            said = SESSIONS_OVERLAP(
                day=other.wall.date().isoformat(),
                first=one.wall.time().isoformat("minutes"),
                second=other.wall.time().isoformat("minutes"),
            )
            raise CourseError([Problem("sessions", said)])


def warm_before(spec: CourseSpec) -> int:
    """Seconds before a session from which on its servers are started; 0: none are."""
    return parse_duration(spec.warm.before) if spec.warm else 0


@dataclass(frozen=True)
class Window:
    """GPUs that are reserved for a row of the timetable, with the days on which they are not."""

    spec: ReservationSpec
    skipped: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The same for the same window: what is kept when a course changes elsewhere."""
        return hashlib.sha256(f"{self.spec.model_dump_json()}{self.skipped}".encode()).hexdigest()


def windows(spec: CourseSpec) -> list[Window]:
    """What is to be reserved: for each row its hours, and the time before in which servers start.

    That time ends at midnight: a window begins on the day of its session.
    """
    if not spec.gpus.reserved:
        return []
    rows: list[Weekly | Extra] = [*spec.sessions, *spec.extra]
    found = [(one, _first_day(spec, one)) for one in rows]
    return [_window(spec, one, day) for one, day in found if day <= spec.term.last]


def _first_day(spec: CourseSpec, one: Weekly | Extra) -> date:
    day = one.day if isinstance(one, Extra) else spec.term.first
    while isinstance(one, Weekly) and WEEKDAYS[day.weekday()] not in one.weekdays:
        day += timedelta(days=1)
    return day


def _window(spec: CourseSpec, one: Weekly | Extra, day: date) -> Window:
    minutes = one.starts.hour * 60 + one.starts.minute
    before = min(warm_before(spec), minutes * 60)
    starts = datetime.combine(day, one.starts) - timedelta(seconds=before)
    weekly = isinstance(one, Weekly)
    return Window(
        ReservationSpec.model_validate(
            {
                "name": f"{spec.course} {_called(one)}",
                "subject": spec.scope.account,
                "starts": starts.isoformat(timespec="seconds"),
                "duration": parse_duration(one.duration) + before,
                "timezone": spec.timezone,
                "gpus": spec.gpus.reserved,
                "gpu_type": spec.gpus.type,
                "repeat": "weekly" if weekly else "once",
                "weekdays": list(one.weekdays) if isinstance(one, Weekly) else [],
                "until": spec.term.last.isoformat() if weekly else None,
            }
        ),
        tuple(sorted(day.isoformat() for day in spec.days_off)) if weekly else (),
    )


def _called(one: Weekly | Extra) -> str:
    """In no language: whoever reads it beside its days."""
    day = "" if isinstance(one, Weekly) else f"{one.day.isoformat()} "
    return f"{day}{one.starts.isoformat('minutes')}"
