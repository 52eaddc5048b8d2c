"""Whether a running lease may be extended: within every limit, and at nobody's cost. Pure.

The rule: the whole time stays within the person's time limit, what is held within every limit on
GPUs at once as it is now, the additional GPU-hours within every budget, no reservation that is open
before the new end, whenever it began, loses a GPU that it could have, and nobody who waits is
expected to start later than without the extension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from commons.leases import LeaseState
from spawner.gpu.policy.budgets import TINY, Account
from spawner.gpu.policy.decision import at_the_door, decide
from spawner.gpu.policy.gates import CountGate
from spawner.gpu.policy.limits import BudgetLimit, budget_limits
from spawner.gpu.policy.plan import Plan
from spawner.gpu.policy.promises import missing, moments
from spawner.gpu.policy.state import Claim, Reason, Snapshot
from spawner.gpu.policy.timeline import INF

RUNS = (LeaseState.HELD, LeaseState.ACTIVE)
MINUTE = 60.0  # seconds: what a lease is extended by, where all that was asked for is too much


def allowed(lease: str, by: float, snapshot: Snapshot) -> tuple[float, tuple[Reason, ...]]:
    """How much of ``by`` seconds a lease may run longer, and every reason against all of it.

    All of it, or as many whole minutes as nothing speaks against; 0.0 where that is none.
    """
    reasons = reasons_against(lease, by, snapshot)
    if not reasons:
        return by, ()
    fits, too_many = 0, int(-(-by // MINUTE))  # minutes
    while too_many - fits > 1:
        tried = (fits + too_many) // 2
        if reasons_against(lease, tried * MINUTE, snapshot):
            too_many = tried
        else:
            fits = tried
    return fits * MINUTE, reasons


def reasons_against(lease: str, by: float, snapshot: Snapshot) -> tuple[Reason, ...]:
    """Every reason why a lease may not run ``by`` seconds longer; none: it may."""
    claim = next((claim for claim in snapshot.claims if claim.id == lease), None)
    if claim is None or claim.state not in RUNS:
        return (Reason("extend_over"),)
    if claim.ends_at is None or claim.held_at is None:
        return (Reason("extend_endless"),)
    if claim.stops_at is not None:
        return (Reason("extend_stopping", {"until": claim.stops_at}),)
    end = max(claim.ends_at, snapshot.now) + by
    longer = replace(claim, ends_at=end, time_limit=end - claim.held_at)
    return tuple(_reasons(claim, longer, by, snapshot))


def _reasons(claim: Claim, longer: Claim, by: float, snapshot: Snapshot) -> Iterator[Reason]:
    yield from (r for r in at_the_door(longer, snapshot) if r.code.startswith("time_limit"))
    yield from _lowered(claim, snapshot)
    for limit in budget_limits(claim.user, claim.account, snapshot.quotas):
        yield from _budget(limit, claim.weight * by, snapshot)
    yield from _windows(claim, longer, snapshot)
    before = {v.lease: v.expected_start for v in decide(snapshot).verdicts}
    claims = tuple(longer if other.id == claim.id else other for other in snapshot.claims)
    after = {v.lease: v.expected_start for v in decide(replace(snapshot, claims=claims)).verdicts}
    later = [
        lease
        for lease, start in before.items()
        if start is not None and lease in after and (after[lease] or start + 2) > start + 1
    ]
    if later:
        yield Reason("extend_delays", {"count": len(later)})


def _lowered(claim: Claim, snapshot: Snapshot) -> Iterator[Reason]:
    """Limits on GPUs at once that are exceeded now: lowered since, they end nothing, but nothing
    that they count goes on for longer, either."""
    models = {device.id: device.model for device in snapshot.devices}
    held = {models.get(slot.device) for slot in claim.slots}
    for model, gate in Plan(snapshot).request(claim).gates:
        if isinstance(gate, CountGate) and (not model or model in held):
            why = gate.reason(0, claim.weight, 0.0, INF)
            if why is not None:
                yield why


def _budget(limit: BudgetLimit, need: float, snapshot: Snapshot) -> Iterator[Reason]:
    scope, now = limit.scope, snapshot.now
    running = [
        (claim.ends_at if claim.ends_at is not None else now, claim.weight)
        for claim in snapshot.claims
        if claim.state in RUNS
        if scope.counts(claim.user, claim.account, "", snapshot.quotas)
    ]
    account = Account(now, limit.budget, snapshot.usage.budgets.get(limit.key, 0.0), running)
    if need > account.remaining() + TINY:
        yield Reason(
            limit.code,
            {
                "subject": limit.source,
                "budget": limit.budget.gpu_hours,
                "used": account.used / 3600.0,
                "promised": account.promised / 3600.0,
                "need": need / 3600.0,
            },
        )


def _windows(claim: Claim, longer: Claim, snapshot: Snapshot) -> Iterator[Reason]:
    """Reservations that would have fewer GPUs than without the extension, at any moment of it."""
    old, new = max(claim.ends_at or 0.0, snapshot.now), longer.ends_at or 0.0
    claims = [longer if other is claim else other for other in snapshot.claims]
    worse: set[str] = set()
    for at in sorted(moments(snapshot.windows, old, new)):
        before, after = missing(snapshot, at), missing(snapshot, at, claims)
        worse |= {name for name, count in after.items() if count > before.get(name, 0)}
    for window in snapshot.windows:
        if window.reservation in worse and window.start < new and window.end > old:
            yield Reason(
                "extend_reserved",
                {
                    "name": window.name,
                    "subject": window.subject,
                    "start": window.start,
                    "end": window.end,
                },
            )
