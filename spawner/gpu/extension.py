"""Whether a running lease may be extended: within every limit, and at nobody's cost. Pure.

The rule: the whole time stays within the person's time limit, the additional GPU-hours within
every budget, no reservation that begins before the new end loses a GPU it needs, and nobody who
waits is expected to start later than without the extension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hub_ext.store.models import LeaseState
from spawner.gpu.budgets import TINY, Account
from spawner.gpu.limits import BudgetLimit, budget_limits
from spawner.gpu.policy import at_the_door, decide
from spawner.gpu.state import Claim, Reason, Snapshot, Window

RUNS = (LeaseState.HELD, LeaseState.ACTIVE)


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
    for limit in budget_limits(claim.user, claim.account, snapshot.quotas):
        yield from _budget(limit, claim.weight * by, snapshot)
    for window in snapshot.windows:
        if (claim.ends_at or 0.0) <= window.start < (longer.ends_at or 0.0):
            yield from _window(window, longer, snapshot)
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


def _window(window: Window, claim: Claim, snapshot: Snapshot) -> Iterator[Reason]:
    """A reservation that begins while the lease would still run needs its GPUs."""
    mine = {slot.device for slot in claim.slots}
    wanted = set(window.devices) or {
        device.id
        for device in snapshot.devices
        if device.offered and window.gpu_type in ("", device.model)
    }
    if not mine & wanted or claim.reservation == window.reservation:
        return
    busy = {
        slot.device
        for other in snapshot.claims
        if other.ends_at is None or other.ends_at > window.start
        for slot in other.slots
        if other.id != claim.id
    }
    left = len(wanted - busy - mine)
    if window.devices or left < window.gpus:
        yield Reason(
            "reserved",
            {
                "name": window.name,
                "subject": window.subject,
                "start": window.start,
                "end": window.end,
            },
        )
