"""Reservations: when they are, and which get into each other's way. Pure.

A reservation begins at a wall time in its own time zone, so that 10:00 stays 10:00 when clocks
change; it lasts for its duration in real seconds, and ends where its next one begins: of a day that
has 23 hours, a window of 24 does not overlap the next day's. A time that a clock change leaves out
(the gap in spring) moves forward by as much as the clock did; a time that comes twice (in autumn)
is the first of the two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.state import Subject, Window

DAY = 86_400  # seconds


@dataclass(frozen=True)
class Reservation:
    """GPUs set aside for a subject, once or again and again.

    Attributes:
        devices: their ids; without, ``gpus`` of ``gpu_type`` ("" for any).
        starts: wall time in ``timezone``, of the first occurrence.
        duration: seconds.
        timezone: an IANA name.
        repeat: ``once``, ``daily`` or ``weekly``.
        weekdays: of ``weekly``, 0 is Monday; none: the weekday of ``starts``.
        until: the last day, ISO 8601, in ``timezone``.
        skipped: days left out, ISO 8601, in ``timezone``.
    """

    id: str
    name: str
    subject: Subject
    gpus: int
    starts: datetime
    duration: int
    timezone: str = "UTC"
    repeat: str = "once"
    weekdays: tuple[int, ...] = ()
    until: str | None = None
    skipped: tuple[str, ...] = ()
    gpu_type: str = ""
    devices: tuple[str, ...] = ()


def wall_to_time(wall: datetime, timezone: ZoneInfo) -> float:
    """Seconds since 1970 of a wall time; one in a gap moves forward, of two it is the first."""
    # fold=0: in a gap the offset before the change holds, which is the move forward (PEP 495).
    return wall.replace(tzinfo=timezone, fold=0).astimezone(UTC).timestamp()


def occurrences(reservation: Reservation, start: float, end: float) -> tuple[Window, ...]:
    """Its windows that overlap ``[start, end)``, the earliest first.

    Raises ``zoneinfo.ZoneInfoNotFoundError`` for a time zone that is not known.
    """
    timezone = ZoneInfo(reservation.timezone)
    windows = []
    time = reservation.starts.time()
    for day in _days(reservation, timezone, start, end):
        begins = wall_to_time(datetime.combine(day, time), timezone)
        ends = begins + reservation.duration
        for days in range(1, reservation.duration // DAY + 2):
            later = day + timedelta(days=days)
            if _begins_on(reservation, later):
                ends = min(ends, wall_to_time(datetime.combine(later, time), timezone))
                break
        if begins < end and ends > start:
            windows.append(
                Window(
                    reservation.id,
                    reservation.name,
                    reservation.subject,
                    begins,
                    ends,
                    len(reservation.devices) or reservation.gpus,
                    reservation.gpu_type,
                    reservation.devices,
                )
            )
    return tuple(windows)


def _days(reservation: Reservation, timezone: ZoneInfo, start: float, end: float) -> Iterator[date]:
    """The days on which it begins, of those whose window could overlap a span."""
    last = datetime.fromtimestamp(end, timezone).date() + timedelta(days=1)
    # A day more on both sides than the span needs: offsets and gaps move a start by hours.
    earliest = datetime.fromtimestamp(start - reservation.duration, timezone).date()
    first = reservation.starts.date()
    day = max(first, earliest - timedelta(days=1))
    if reservation.repeat == "once":
        last = min(last, first)
    elif reservation.until is not None:
        last = min(last, date.fromisoformat(reservation.until))
    while day <= last:
        if _begins_on(reservation, day):
            yield day
        day += timedelta(days=1)


def _begins_on(reservation: Reservation, day: date) -> bool:
    first, repeat = reservation.starts.date(), reservation.repeat
    if day < first or day.isoformat() in reservation.skipped:
        return False
    if repeat == "once":
        return day == first
    if reservation.until is not None and day.isoformat() > reservation.until:
        return False
    weekdays = reservation.weekdays or (first.weekday(),)
    return repeat == "daily" or day.weekday() in weekdays


def clashes(
    new: Reservation,
    existing: Iterable[Reservation],
    devices: Sequence[Device],
    start: float,
    horizon: float,
) -> tuple[tuple[Window, Window], ...]:
    """Windows of ``new`` that cannot be had beside those of others, each with one in its way.

    Looked at from ``start`` for ``horizon`` seconds. Named devices clash where they are named
    twice; counts clash where more is reserved at one moment than there is. A window that asks for
    more than exists even alone is paired with itself.
    """
    end = start + horizon
    others = sorted(
        (
            window
            for reservation in existing
            if reservation.id != new.id
            for window in occurrences(reservation, start, end)
        ),
        key=lambda window: (window.start, window.reservation),
    )
    found = []
    begins = [window.start for window in others]
    longest = max((window.end - window.start for window in others), default=0.0)
    before: list[Window] = []  # of itself: one longer than a day may overlap the next day's
    for window in occurrences(new, start, end):
        first, last = bisect_left(begins, window.start - longest), bisect_left(begins, window.end)
        before = [other for other in before if other.end > window.start]
        overlapping = [other for other in (*others[first:last], *before) if _overlap(window, other)]
        before.append(window)
        clash = _clash(window, overlapping, devices)
        if clash is not None:
            found.append((window, clash))
    return tuple(found)


def _overlap(one: Window, other: Window) -> bool:
    return one.start < other.end and other.start < one.end


def _clash(window: Window, others: Sequence[Window], devices: Sequence[Device]) -> Window | None:
    """One of the windows that leave no room for another one; itself when there is none anyway."""
    if not _possible([window], devices):
        return window
    for other in others:
        if set(window.devices) & set(other.devices):
            return other
    # More can only be reserved at once where a window begins: look at these moments.
    for at in sorted({window.start, *(o.start for o in others if o.start > window.start)}):
        together = [other for other in others if other.start <= at < other.end]
        if together and not _possible([window, *together], devices):
            return next((o for o in together if not _possible([window, o], devices)), together[0])
    return None


def _possible(windows: Sequence[Window], devices: Sequence[Device]) -> bool:
    """Whether windows can all have what they ask for at once.

    Named devices first; then those who want a type; what is left is for those who take any. That
    is exact, because wishes are nested: certain devices, one type, any.
    """
    left: dict[str, int] = {}
    known = {device.id: device.model for device in devices}
    for model in known.values():
        left[model] = left.get(model, 0) + 1
    named: set[str] = set()
    for window in windows:
        for device in window.devices:
            if device in named or device not in known:
                return False
            named.add(device)
            left[known[device]] -= 1
    for window in windows:
        if not window.devices and window.gpu_type:
            left[window.gpu_type] = left.get(window.gpu_type, 0) - window.gpus
    if any(count < 0 for count in left.values()):
        return False
    return sum(left.values()) >= sum(
        window.gpus for window in windows if not window.devices and not window.gpu_type
    )
