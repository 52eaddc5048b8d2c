"""Limits, cohorts and budgets as timelines that a lease has to pass.

A gate says from when on a lease may run as far as it is concerned, is told what is granted or
planned, and gives the reason why something waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from spawner.gpu.policy.budgets import TINY, Account
from spawner.gpu.policy.limits import BudgetLimit, LimitScope
from spawner.gpu.policy.state import Reason, Subject
from spawner.gpu.policy.timeline import INF, Profile


class Gate(Protocol):
    """What a lease of ``count`` GPUs, each of a billing weight, has to pass."""

    def earliest(self, count: int, weight: float, duration: float, after: float) -> float:
        """The first moment from ``after`` on at which it may start; ``inf`` when never."""
        ...

    def add(self, count: int, weight: float, start: float, end: float) -> None:
        """It runs, or is planned, in a span."""
        ...

    def reason(self, count: int, weight: float, duration: float, until: float) -> Reason | None:
        """Why it does not pass now; None when only what is planned for others is in the way."""
        ...


def _until(at: float) -> float | None:
    return None if at == INF else at


class CountGate:
    """At most so many GPUs of a scope at once."""

    def __init__(self, code: str, subject: Subject, scope: LimitScope, profile: Profile) -> None:
        self.code, self.subject, self.scope, self.profile = code, subject, scope, profile

    def earliest(self, count: int, weight: float, duration: float, after: float) -> float:
        return self.profile.earliest(count, duration, after)

    def add(self, count: int, weight: float, start: float, end: float) -> None:
        self.profile.add(start, end, count)

    def reason(self, count: int, weight: float, duration: float, until: float) -> Reason | None:
        held = self.profile.held
        if held + count <= self.profile.cap:
            return None
        data: dict[str, Any] = {
            "subject": self.subject,
            "limit": self.profile.cap,
            "held": held,
            "gpus": count,
            "until": _until(until),
        }
        if self.scope.model:
            data["type"] = self.scope.model
        return Reason(self.code, data)


class MaintenanceGate:
    """Nothing starts before the end of a maintenance."""

    def __init__(self, until: float) -> None:
        self.until = until

    def earliest(self, count: int, weight: float, duration: float, after: float) -> float:
        return max(after, self.until)

    def add(self, count: int, weight: float, start: float, end: float) -> None:
        """It comes after the end."""

    def reason(self, count: int, weight: float, duration: float, until: float) -> Reason | None:
        return Reason("maintenance_waits", {"until": _until(self.until)})


class CohortGate:
    """What the accounts of a cohort may hold together (Kueue).

    An account keeps what it does not lend (``own``); the rest of all nominal quotas is the
    cohort's (``shared``), first come first served within each account's borrowing limit.
    """

    def __init__(self, cohort: str, shared: Profile, own: Profile | None) -> None:
        self.cohort, self.shared, self.own = cohort, shared, own
        self._opens: dict[tuple[int, float, float], float] = {}  # many ask for the same
        self._opens_of = (0, 0)  # versions of both

    def _from_shared(self, count: int, start: float, end: float) -> int:
        if self.own is None:
            return count
        return count - max(0, min(count, self.own.cap - self.own.peak(start, end)))

    def missing(self, count: int, at: float) -> int:
        """How many GPUs have to come back to the cohort before so many can start at a moment."""
        kept = self.own.cap - self.own.peak(at, at) if self.own is not None else 0
        return max(0, self.shared.peak(at, at) + max(0, count - max(0, kept)) - self.shared.cap)

    def earliest(self, count: int, weight: float, duration: float, after: float) -> float:
        versions = self.shared.version, self.own.version if self.own is not None else 0
        if versions != self._opens_of:
            self._opens.clear()
            self._opens_of = versions
        asked = count, duration, after
        found = self._opens.get(asked)
        if found is None:
            found = self._opens[asked] = self._earliest(count, duration, after)
        return found

    def _earliest(self, count: int, duration: float, after: float) -> float:
        while True:
            need = self._from_shared(count, after, after + duration)
            at = self.shared.earliest(need, duration, after) if need else after
            if at in (after, INF):
                return at
            after = at

    def add(self, count: int, weight: float, start: float, end: float) -> None:
        need = self._from_shared(count, start, end)
        if need:
            self.shared.add(start, end, need)
        if self.own is not None and count > need:
            self.own.add(start, end, count - need)

    def reason(self, count: int, weight: float, duration: float, until: float) -> Reason | None:
        if not self.missing(count, self.shared.begins):
            return None
        return Reason(
            "cohort_full",
            {
                "cohort": self.cohort,
                "limit": self.shared.cap,
                "held": self.shared.held,
                "gpus": count,
                "until": _until(until),
            },
        )


class BudgetGate:
    """The safe rule of one budget."""

    def __init__(self, limit: BudgetLimit, account: Account) -> None:
        self.limit, self.account = limit, account

    def earliest(self, count: int, weight: float, duration: float, after: float) -> float:
        return self.account.earliest(count * weight, duration, after)

    def add(self, count: int, weight: float, start: float, end: float) -> None:
        self.account.add(start, end, count * weight)

    def reason(self, count: int, weight: float, duration: float, until: float) -> Reason | None:
        need = count * weight * duration
        if need <= self.account.remaining() + TINY:
            return None
        return Reason(
            self.limit.code,
            {
                "subject": self.limit.source,
                "budget": self.limit.budget.gpu_hours,
                "used": self.account.used / 3600.0,
                "promised": _until(self.account.promised / 3600.0),
                "need": _until(need / 3600.0),
                "until": _until(until),
            },
        )


def held_first(cap: int, running: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    """Of leases ``(end, count)`` in the order they were granted, what a guaranteed part covers."""
    covered = []
    for end, count in running:
        part = min(cap, count)
        cap -= part
        covered.append((end, part))
    return covered
