"""When a hand-in is due, for whom, and what is too late. Pure; in seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from commons.units import parse_duration
from courses.document import CourseSpec, HandIn
from spawner.gpu.policy.reservations import wall_to_time

MINUTE = 60  # "due 23:59" is until that minute is over


class Timing(StrEnum):
    """What something that is handed in at a moment is."""

    IN_TIME = "in-time"
    LATE = "late"
    OVER = "over"


@dataclass(frozen=True)
class Deadline:
    """Until ``due`` it is in time, until ``until`` late; what comes at that very moment is after.

    Attributes:
        extended: it is later than the course says.
    """

    due: float
    until: float
    extended: bool = False

    def timing(self, asked: float) -> Timing:
        """What it is to hand in at a moment."""
        if asked < self.due:
            return Timing.IN_TIME
        return Timing.LATE if asked < self.until else Timing.OVER


def moment(text: str, timezone: str) -> float:
    """The end of a minute that is written as ``2026-11-03 23:59``, in a time zone."""
    return wall_to_time(datetime.strptime(text, "%Y-%m-%d %H:%M"), ZoneInfo(timezone)) + MINUTE


def deadline(spec: CourseSpec, handin: HandIn, extensions: Iterable[float] = ()) -> Deadline:
    """The latest of what the course says and of the extensions that somebody has."""
    plain = moment(handin.due, spec.timezone)
    due = max([plain, *extensions])
    late = parse_duration(handin.late) if handin.late else 0
    return Deadline(due, due + late, extended=due > plain)
