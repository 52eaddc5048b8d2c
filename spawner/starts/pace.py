"""How many servers may start at once, learned from how long starts take.

As TCP finds out what a line can carry (additive increase, multiplicative decrease): while a start
takes about as long as one usually does, one more may start beside it; where it takes much longer,
too many share the machine's cores, its disk or its Engine, and fewer may. More than that at once
brings nobody's server sooner, and everybody's later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

SLOW = 1.6  # times the usual: from here on a crowd is too large
BACK = 0.3  # share of the limit that a whole crowd of slow starts takes away
LEARNT = 0.5  # share of what one start without a crowd says of the usual
LATE = 4.0  # times the usual after which a start is waiting for something, and not at work
LATEST, SOONEST = 30.0, 5.0  # seconds: the same, at most and at least
SMOOTH = 0.3  # share of a new start in the mean
FIRST = 1.5  # seconds: how long a start takes, before one was seen
MOST = 64


@dataclass(frozen=True)
class Pace:
    """How many may start at once, and what is known of starts.

    Attributes:
        limit: as learned so far; whole starts are ``at_once``.
        least, most: the limit's own limits.
        usual: seconds of a start that no crowd slows down; None: none was seen.
        mean: seconds of a start, of late.
    """

    limit: float
    least: float = 1.0
    most: float = MOST
    usual: float | None = None
    mean: float = FIRST

    @classmethod
    def of(cls, cores: int, fixed: int | None = None) -> Pace:
        """Where learning begins on a machine: one beside each core's own; or a site's number."""
        if fixed is not None:
            return cls(fixed, fixed, fixed)
        return cls(min(max(cores, 1) + 1, MOST))

    @property
    def at_once(self) -> int:
        """Starts that may be under way together; never less than one."""
        return max(1, int(self.limit))

    @property
    def late(self) -> float:
        """Seconds after which a start no longer stands in the way of others."""
        return min(LATEST, max(SOONEST, LATE * (self.usual or FIRST)))

    def after(self, seconds: float, under_way: int) -> Pace:
        """What is known after a start of that length, while so many were under way, it included.

        Where there was no crowd, how long it took is not the crowd's doing: it is what is usual
        now, of an Engine that has become slow, too.
        """
        usual = seconds if self.usual is None else min(self.usual, seconds)
        if self.usual is not None and under_way <= self.least:
            usual = min(seconds, self.usual + LEARNT * (seconds - self.usual))
        mean = self.mean + (SMOOTH if self.usual is not None else 1) * (seconds - self.mean)
        limit = self.limit
        # Of a crowd of ``limit`` each has its share, so that a crowd moves it once.
        if seconds > SLOW * usual:
            limit -= BACK
        elif under_way >= self.at_once:
            limit += 1 / limit
        return replace(self, limit=min(self.most, max(self.least, limit)), usual=usual, mean=mean)

    def after_failure(self) -> Pace:
        """After one that the machine did not bring about: half as many."""
        return replace(self, limit=max(self.least, self.limit / 2))

    def after_late(self, seconds: float) -> Pace:
        """After one became late that has been under way for so long: half as many, and patience.

        Starts take at least that long now. Were others let in as if it were lost, each of them
        would make all of them later, until the Engine's calls are given up.
        """
        return replace(self.after_failure(), usual=max(self.usual or 0.0, seconds))

    def wait(self, place: int) -> float:
        """Seconds until whoever has this place in line (1: next) may be expected to start."""
        return math.ceil(place / self.at_once) * self.mean
