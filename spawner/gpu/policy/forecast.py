"""What a person may still use, and when a request that is not made yet would start. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from commons.leases import LeaseState
from spawner.gpu.policy import limits
from spawner.gpu.policy.budgets import Account
from spawner.gpu.policy.decision import at_the_door, decide
from spawner.gpu.policy.limits import LimitScope, budget_limits, person_limit
from spawner.gpu.policy.state import HOUR, Budget, Claim, Reason, Snapshot, Subject, Verdict

PROBE = "probe"
MINUTE = 60.0
SHORTEST = 10  # minutes: what is over sooner is not worth a start
FARTHEST = 14 * 24 * 60  # minutes that are looked at where a request has no time limit


@dataclass(frozen=True)
class BudgetLeft:
    """A budget that a lease would be charged to. GPU-hours, weighted.

    ``promised`` is what running leases may still use; ``left`` is what may still be asked for.
    """

    subject: Subject
    user: str
    budget: Budget
    used: float
    promised: float
    left: float


@dataclass(frozen=True)
class Outlook:
    """What would become of a request: refused, started at once (neither), or made to wait."""

    refused: tuple[Reason, ...] = ()
    waits: Verdict | None = None


def probe(
    user: str,
    account: Subject,
    now: float,
    gpus: int = 1,
    gpu_type: str = "",
    time_limit: float | None = None,
) -> Claim:
    """A request that is only thought of."""
    return Claim(PROBE, user, account, LeaseState.REQUESTED, gpus, now, gpu_type, time_limit)


def usual_time_limit(snapshot: Snapshot, user: str, account: Subject) -> float | None:
    """Seconds that count where no time limit is asked for."""
    return limits.usual_time_limit(user, account, snapshot.quotas)


def longest_time_limit(snapshot: Snapshot, user: str, account: Subject) -> float | None:
    """The most seconds that may be asked for; None: no such limit."""
    found = person_limit("time_limit", user, account, snapshot.quotas)
    return float(found[0]) if found else None


def budgets_left(snapshot: Snapshot, user: str, account: Subject) -> tuple[BudgetLeft, ...]:
    """Every budget that concerns a person charging an account.

    The snapshot must have been read with a claim of theirs, or with a ``probe``.
    """
    found = []
    for limit in budget_limits(user, account, snapshot.quotas):
        running = [
            (math.inf if claim.ends_at is None else claim.ends_at, claim.weight)
            for claim in snapshot.claims
            if claim.held_at is not None
            and limit.scope.counts(claim.user, claim.account, "", snapshot.quotas)
        ]
        used = snapshot.usage.budgets.get(limit.key, 0.0)
        counted = Account(snapshot.now, limit.budget, used, running)
        found.append(
            BudgetLeft(
                limit.source,
                limit.scope.user,
                limit.budget,
                used / HOUR,
                counted.promised / HOUR,
                max(0.0, counted.remaining()) / HOUR,
            )
        )
    return tuple(found)


def held(snapshot: Snapshot, scope: LimitScope) -> int:
    """GPUs held now within a scope, whatever their model."""
    return sum(
        len(claim.slots)
        for claim in snapshot.claims
        if scope.counts(claim.user, claim.account, "", snapshot.quotas)
    )


def outlook(snapshot: Snapshot, request: Claim) -> Outlook:
    """What a pass at the snapshot's moment would make of one more request."""
    others = tuple(claim for claim in snapshot.claims if claim.id != PROBE)
    asked = replace(snapshot, claims=(*others, request))
    refused = at_the_door(request, asked)
    if refused:
        return Outlook(refused)
    verdicts = decide(asked).verdicts
    return Outlook(waits=next((one for one in verdicts if one.lease == request.id), None))


@dataclass(frozen=True)
class Gap:
    """A request that waits would start at once if it ended by ``until``.

    Attributes:
        reserved: whether GPUs are reserved from then on.
    """

    until: float
    reserved: bool


def gap_now(snapshot: Snapshot, request: Claim, enough: Callable[[], bool] = bool) -> Gap | None:
    """The longest time for which a request that waits would start now, to the minute.

    None where that is no time worth a start, or ``enough`` says that looking took too long.
    """
    whole = FARTHEST if request.time_limit is None else int(request.time_limit // MINUTE)
    fits, too_long = 0, whole + 1
    tried = min(SHORTEST, whole)  # first of all: whether there is a gap
    while too_long - fits > 1:
        if enough():
            return None
        seen = outlook(snapshot, replace(request, time_limit=tried * MINUTE))
        if seen.waits is None and not seen.refused:
            fits = tried
        elif not fits:
            return None
        else:
            too_long = tried
        tried = (fits + too_long) // 2
    until = snapshot.now + fits * MINUTE
    starts = [window.start for window in snapshot.windows]
    reserved = any(0 <= start - until < MINUTE for start in starts)
    return Gap(min((s for s in starts if 0 <= s - until < MINUTE), default=until), reserved)
