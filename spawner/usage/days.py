"""Spans of time cut at midnights, and figures that are summed: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import reduce
from operator import add
from typing import NamedTuple

DAY = timedelta(days=1)


class Figures(NamedTuple):
    """What was used: seconds of GPUs (a slice or a share is a part of one), as budgets count them,
    idle; of cores; of GiB of memory; how long who was granted GPUs had waited, in all and at most.
    """

    gpu_seconds: float = 0.0
    charged_seconds: float = 0.0
    idle_seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_seconds: float = 0.0
    wait_seconds: float = 0.0
    longest_wait: float = 0.0
    waits: int = 0
    servers: int = 0
    jobs: int = 0

    def plus(self, more: Figures) -> Figures:
        """Both together."""
        both = Figures(*map(add, self, more))
        return both._replace(longest_wait=max(self.longest_wait, more.longest_wait))

    @property
    def mean_wait(self) -> float:
        """Seconds; 0 where nobody waited."""
        return self.wait_seconds / self.waits if self.waits else 0.0

    @property
    def idle_share(self) -> float | None:
        """Of the time of GPUs, the part in which they were not used; None without any."""
        return min(1.0, self.idle_seconds / self.gpu_seconds) if self.gpu_seconds else None


FIELDS = Figures._fields


def total(all_of: Iterable[Figures]) -> Figures:
    """All together."""
    return reduce(Figures.plus, all_of, Figures())


def midnight(day: date, zone: tzinfo) -> datetime:
    """When a day begins by a zone's clocks, as the store keeps times: UTC, without a zone."""
    return datetime.combine(day, time(), zone).astimezone(UTC).replace(tzinfo=None)


def day_of(at: datetime, zone: tzinfo) -> date:
    """The day of a time of the store by a zone's clocks."""
    return at.replace(tzinfo=UTC).astimezone(zone).date()


def cut(
    begin: datetime, end: datetime, first: date, last: date, zone: tzinfo
) -> Iterator[tuple[date, float]]:
    """A span's seconds on each of the days ``first`` to ``last`` that it touches."""
    day = max(first, day_of(begin, zone))
    start = midnight(day, zone)
    while day <= last and start < end:
        after = midnight(day + DAY, zone)
        seconds = (min(end, after) - max(begin, start)).total_seconds()
        if seconds > 0:
            yield day, seconds
        day, start = day + DAY, after
