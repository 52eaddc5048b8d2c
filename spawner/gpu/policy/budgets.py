"""Budgets of GPU-hours: windows, decay, and the safe rule (Slurm ``GrpTRESMins``, ``safe``).

A request may start only if ``used + remaining of what runs + its own need <= budget``. What runs
counts with all that it may still use, even beyond the window's end: so the sum that is promised
at any boundary is never more than the budget, and nobody overspends whatever runs to its limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from spawner.gpu.policy.state import Budget

# Rounding of sums of floats, in GPU-seconds.
TINY = 1e-6
_LONGEST_LOOK = 64  # windows ahead


def decay(seconds: float, half_life: float) -> float:
    """What is left of one unit of use after so many seconds (Slurm ``PriorityDecayHalfLife``)."""
    return float(0.5 ** (seconds / half_life))


def decayed_use(rate: float, start: float, end: float, at: float, half_life: float) -> float:
    """Use at a constant rate from ``start`` to ``end``, as it counts at a later moment ``at``."""
    if end <= start:
        return 0.0
    return (
        rate * half_life / math.log(2) * (decay(at - end, half_life) - decay(at - start, half_life))
    )


def window_start(window: str, at: float) -> float:
    """When the window that ``at`` is in began: midnight, Monday, the first of the month.

    Args:
        window: ``total``, or ``day``, ``week`` or ``month``, by the clocks of a time zone:
            ``week@Asia/Shanghai``; UTC without one.
    """
    if window == "total":
        return -math.inf
    return _first_day(window, at).timestamp()


def window_end(window: str, at: float) -> float:
    """When the window that ``at`` is in ends and its budget begins anew."""
    if window == "total":
        return math.inf
    start = _first_day(window, at)
    if window.startswith("month"):
        following = (start + timedelta(days=32)).replace(day=1)
    else:
        following = start + timedelta(days=7 if window.startswith("week") else 1)
    return following.timestamp()


def _first_day(window: str, at: float) -> datetime:
    """The wall midnight that a window began with; days are counted on the wall from there."""
    unit, _, zone = window.partition("@")
    now = datetime.fromtimestamp(at, ZoneInfo(zone or "UTC"))
    day = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if unit == "week":
        day -= timedelta(days=day.weekday())
    elif unit == "month":
        day = day.replace(day=1)
    return day


class Account:
    """One budget over time: what is used, what is promised, and when there is room again.

    Args:
        now: seconds since 1970.
        budget: how much, and when it counts less or begins anew.
        used: weighted GPU-seconds that count against it at ``now``.
        running: ``(end, rate)`` of each lease under it: until when it may run (``inf`` without
            an end), and its weight.
    """

    def __init__(
        self, now: float, budget: Budget, used: float, running: Iterable[tuple[float, float]]
    ) -> None:
        self._now = now
        self._budget = budget
        self.limit = budget.gpu_hours * 3600.0
        self.used = used
        self._spans = [(now, end, rate) for end, rate in running if end > now]
        self.promised = math.fsum((end - now) * rate for _, end, rate in self._spans)
        self._everything = used + self.promised

    def add(self, start: float, end: float, rate: float) -> None:
        """Something is going to run, now or later."""
        if start <= self._now:
            self.promised += (end - start) * rate
        self._spans.append((start, end, rate))
        self._everything += (end - start) * rate

    def remaining(self) -> float:
        """GPU-seconds that may still be asked for now; negative when a limit was lowered."""
        return self.limit - self.used - self.promised

    def earliest(self, rate: float, duration: float, after: float) -> float:
        """When a lease may start, from ``after`` on, so that this and all planned are safe.

        ``inf`` when that is never, or not within the windows looked at.
        """
        need = rate * duration
        if need > self.limit + TINY:
            return math.inf
        if self._everything + need <= self.limit + TINY:
            return after
        start = after
        for _ in range(_LONGEST_LOOK):
            start = self._room(need, start)
            if math.isinf(start):
                return start
            clash = self._first_clash(rate, duration, start)
            if clash is None:
                return start
            # It would take what is planned there: only after that.
            start = clash
        return math.inf

    def _room(self, need: float, after: float) -> float:
        limit = self.limit + TINY
        if self._load(after) + need <= limit:
            return after
        if self._budget.half_life:
            return self._decayed_room(need, after, self._budget.half_life)
        at = after
        for _ in range(_LONGEST_LOOK):
            at = window_end(self._budget.window or "total", at)
            if math.isinf(at):
                break
            if self._load(at) + need <= limit:
                return at
        return math.inf

    def _decayed_room(self, need: float, after: float, half_life: float) -> float:
        limit = self.limit + TINY
        low, high = after, after
        for _ in range(_LONGEST_LOOK):
            high += half_life
            if self._load(high) + need <= limit:
                break
            low = high
        else:
            return math.inf
        while high - low > 1.0:
            middle = (low + high) / 2
            if self._load(middle) + need <= limit:
                high = middle
            else:
                low = middle
        return high

    def _load(self, at: float) -> float:
        """Used and promised at a moment: what the safe rule adds up there."""
        half_life, window = self._budget.half_life, self._budget.window
        load = 0.0
        if half_life:
            load = self.used * decay(at - self._now, half_life)
            for start, end, rate in self._spans:
                if start <= at:
                    load += max(0.0, end - at) * rate
                    load += decayed_use(rate, start, min(end, at), at, half_life)
            return load
        began = window_start(window or "total", at)
        load = self.used if began <= self._now else 0.0
        for start, end, rate in self._spans:
            if start <= at:
                load += max(0.0, end - max(began, start)) * rate
        return load

    def _first_clash(self, rate: float, duration: float, start: float) -> float | None:
        """The first planned start that a lease from ``start`` on would make unsafe."""
        later = sorted({begin for begin, _, _ in self._spans if begin > start})
        if not later:
            return None
        self._spans.append((start, start + duration, rate))
        try:
            return next((at for at in later if self._load(at) > self.limit + TINY), None)
        finally:
            self._spans.pop()
