"""``decide``: which waiting requests get which slots now, and why the others wait. Pure.

The queue, in this order:

1. inside a reservation, requests of those it is for, as far as its GPUs go;
2. requests that have waited longer than ``Settings.patience``, the oldest first;
3. those within the nominal quota of their account: what it was promised;
4. those of accounts without a nominal quota;
5. those that borrow from their cohort.

An administrator may put a request before all of these, or behind them (``Claim.rank``), or let it
wait until they release it (``Claim.paused``): it is then as if it were not there.
In maintenance what may start all the same (an administrator's) comes before all others.

Within each but the second fair share decides (``fairshare``), then age, then the lease's id. What
runs is charged with all that it may still use (entry penalty), what was taken from the queue as
well, so that several requests of one person do not come in one block.

``backfill`` is conservative: every request, in order, gets the earliest start that its limits,
its budgets and the devices' timeline allow, after all requests before it have got theirs. A
request whose start is now is granted. So no later request moves the expected start of an earlier
one. Limits and budgets are timelines as devices are: nobody is overtaken for ever by smaller
requests of the same person or group.

Nobody starves. Let every time limit be finite and a request R be eligible: by itself within its
limits, of a kind that a node has enough offered devices of, not borrowing, and such that
reservations leave a gap as long as its time limit, and let no administrator move others. (a) After
``patience`` only older requests are before R, finitely many, and none is added; those inside a
reservation take what is reserved.
(b) The first in the queue is planned on what runs alone. All of that ends, so its planned start
is at most the latest end, or the end of the reservations in its way, or the moment from which its
budget has room. (c) What is granted after it leaves that start as it is, so from pass to pass it
only comes closer. (d) At that moment at the latest it is granted; then (a) holds with one request
fewer before R. ``BestEffortFIFO`` plans overdue requests in the same way, so it holds there too;
in ``StrictFIFO`` the first in the queue lets nothing past.
"""

from __future__ import annotations

import gc
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from commons.leases import LeaseState
from spawner.gpu.policy.admission_checks import at_the_door
from spawner.gpu.policy.explanations import Explainer, could_start
from spawner.gpu.policy.fairshare import FairTree
from spawner.gpu.policy.limits import NO_QUOTA
from spawner.gpu.policy.plan import Placement, Plan, WaitingLease
from spawner.gpu.policy.preemption import Reclaim
from spawner.gpu.policy.state import (
    HOUR,
    Claim,
    Decision,
    Grant,
    Preemption,
    Reason,
    Snapshot,
    Verdict,
)

__all__ = ["at_the_door", "decide"]

# How many requests get a planned start (Slurm bf_max_job_test). Those behind start as soon as
# they fit beside the plan; their start is not told before.
DEPTH = 100
# What a lease without an end is charged for fair share when it is admitted.
UNLIMITED = 24 * HOUR


def decide(snapshot: Snapshot) -> Decision:
    """What to grant now, why the others wait, and which borrowed leases have to end.

    The same snapshot gives the same decision; with the grants applied, the next one grants
    nothing more.
    """
    # Thousands of small objects without cycles: looking for garbage among them meanwhile would be
    # a third of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        return _decide(snapshot)
    finally:
        if collects:
            gc.enable()


def _decide(snapshot: Snapshot) -> Decision:
    # What is to be reclaimed is worked out anew, as if nothing were planned: so a plan lives no
    # longer than what it is for. What then starts, and when, knows of it.
    told = {
        claim.id: claim.stops_at
        for claim in snapshot.claims
        if claim.reclaimed and claim.stops_at is not None and claim.stops_at > snapshot.now
    }
    free = _with_stops(snapshot, dict.fromkeys(told, None)) if told else snapshot
    grants, last = _rounds(free, told)
    reclaims = last.reclaims
    if reclaims:
        stops = {reclaim.lease: reclaim.stops_at for reclaim in reclaims}
        grants, last = _rounds(_with_stops(free, stops))
    needed = {reclaim.lease for reclaim in reclaims}
    return Decision(
        tuple(grants),
        (*(verdicts := last.verdicts()), *_paused(snapshot, len(verdicts))),
        tuple(reclaim for reclaim in reclaims if reclaim.lease not in told),
        tuple(sorted(told.keys() - needed)),
    )


def _paused(snapshot: Snapshot, before: int) -> list[Verdict]:
    """What an administrator lets wait, behind all others."""
    paused = [claim for claim in snapshot.claims if claim.paused and claim.waits]
    paused.sort(key=lambda claim: (claim.requested_at, claim.id))
    return [
        Verdict(claim.id, place, (Reason("queue_paused", _by_whom(claim)),))
        for place, claim in enumerate(paused, before + 1)
    ]


def _by_whom(claim: Claim) -> dict[str, str]:
    return {"by": claim.moved_by, "why": claim.moved_why}


def _rounds(
    snapshot: Snapshot, told: Mapping[str, float] | None = None
) -> tuple[list[Grant], _Round]:
    """Go through the queue until nothing more starts; with ``told``, look what to reclaim."""
    grants: list[Grant] = []
    plan = Plan(snapshot)
    requests = [plan.request(claim) for claim in plan.waiting]
    while True:
        this = _Round(plan, requests, told)
        this.run()
        grants += this.grants
        if this.settled():
            return grants, this
        plan.begin(_apply(plan.snapshot, this.grants))
        if snapshot.windows:  # grants may change which are used
            requests = [plan.request(claim) for claim in plan.waiting]
        else:
            granted = {grant.lease for grant in this.grants}
            requests = [request for request in requests if request.claim.id not in granted]


def _with_stops(snapshot: Snapshot, stops: Mapping[str, float | None]) -> Snapshot:
    return replace(
        snapshot,
        claims=tuple(
            replace(claim, stops_at=stops[claim.id]) if claim.id in stops else claim
            for claim in snapshot.claims
        ),
    )


def _apply(snapshot: Snapshot, grants: list[Grant]) -> Snapshot:
    """The snapshot as it is once the grants are written down."""
    granted = {grant.lease: grant for grant in grants}
    return replace(
        snapshot,
        claims=tuple(
            held(claim, granted[claim.id], snapshot.now) if claim.id in granted else claim
            for claim in snapshot.claims
        ),
    )


def held(claim: Claim, grant: Grant, now: float) -> Claim:
    """A request that has got its grant."""
    return replace(
        claim,
        state=LeaseState.HELD,
        slots=grant.slots,
        held_at=now,
        ends_at=None if claim.time_limit is None else now + claim.time_limit,
        borrowed=grant.borrowed,
        exempt_until=grant.exempt_until,
        weight=grant.weight,
        reservation=grant.reservation,
    )


@dataclass(slots=True)
class _Waiting:
    """A request that was not granted; ``start`` is when it is planned for, if it is."""

    request: WaitingLease
    found: Placement
    start: float = math.inf
    blocked: bool = False  # by the first in the queue, not by itself


class _Round:
    """One way through the queue."""

    def __init__(
        self, plan: Plan, requests: Sequence[WaitingLease], told: Mapping[str, float] | None
    ) -> None:
        self.snapshot = snapshot = plan.snapshot
        self.plan, self._requests = plan, requests
        lent = any(quota.cohort and quota.nominal for quota in snapshot.quotas.values())
        lent = lent or any(window.start <= snapshot.now for window in snapshot.windows)
        self._reclaim = Reclaim(self.plan, told) if lent and told is not None else None
        self.grants: list[Grant] = []
        self.waiting: list[_Waiting] = []
        # By account and person: what runs may still use, in weighted GPU-seconds.
        self._ahead: defaultdict[tuple[str, str], float] = defaultdict(float)
        ahead, now = self._ahead, snapshot.now
        for lease in plan.running:
            claim, end = lease.claim, lease.end
            length = UNLIMITED if end == math.inf else end - now
            ahead[claim.account, claim.user] += length * claim.weight

    def _charge(self, claim: Claim, length: float, weight: float) -> None:
        length = UNLIMITED if length == math.inf else length
        self._ahead[claim.account, claim.user] += length * weight

    def run(self) -> None:
        """Grant what starts now, and plan the rest."""
        now, strategy = self.snapshot.now, self.snapshot.settings.strategy
        plan, blocked, strict = self.plan, False, strategy == "StrictFIFO"
        blocked_accounts: set[str] = set()
        for request in self._queue(self._requests):
            planned = len(self.waiting) < DEPTH
            found = plan.place(request) if planned else plan.glance(request)
            if blocked or request.claim.account in blocked_accounts:
                self.waiting.append(_Waiting(request, found, blocked=True))
            elif found.start <= now:
                grant = plan.grant(request, found)
                self.grants.append(grant)
                self._charge(request.claim, request.duration, grant.weight)
            else:
                waiting = _Waiting(request, found)
                self.waiting.append(waiting)
                if request.too_long:
                    continue
                if self._reclaim is not None:
                    self._reclaim.consider(request, found)
                if strict and found.gates:
                    blocked_accounts.add(request.claim.account)
                elif strict:
                    blocked = True
                elif planned and (strategy == "backfill" or self._overdue(request.claim)):
                    waiting.start = found.start
                    plan.take(request, found)

    @property
    def reclaims(self) -> list[Preemption]:
        """The borrowed leases that have to end."""
        return self._reclaim.preemptions if self._reclaim is not None else []

    def _estimate(self) -> None:
        """Expected starts where nothing was planned: in order, once all grants are made."""
        for waiting in self.waiting[:DEPTH]:
            if waiting.start == math.inf:
                found = self.plan.place(waiting.request)
                self.plan.take(waiting.request, found)
                waiting.start = found.start

    def settled(self) -> bool:
        """Whether going through the queue again would grant nothing more.

        So it is where nothing was granted, where all the rest lacks devices or is at a limit, and
        where the rest keeps its order: each was planned beside those before it, and what was
        granted to those behind left that as it was. Reservations move with what is granted.
        """
        if not self.grants or not any(
            could_start(self.plan, waiting.request, waiting.found) for waiting in self.waiting
        ):
            return True
        rest = [waiting.request for waiting in self.waiting]
        return not self.snapshot.windows and self._queue(rest) == rest

    def verdicts(self) -> list[Verdict]:
        """Place, expected start and reasons of all that wait."""
        # Before what is only estimated, so that the reasons count what is held, and no more.
        explainer = Explainer(self.plan)
        all_reasons = [
            explainer.reasons(waiting.request, waiting.found, position)
            for position, waiting in enumerate(self.waiting, 1)
        ]
        if self.snapshot.settings.strategy != "backfill":
            self._estimate()
        verdicts = []
        for position, waiting in enumerate(self.waiting, 1):
            reasons = all_reasons[position - 1]
            if waiting.blocked and not any(reason.code == "behind" for reason in reasons):
                reasons = (*reasons, Reason("behind", {"count": position - 1}))
            if waiting.request.claim.rank < 0:
                reasons = (*reasons, Reason("queue_behind_all", _by_whom(waiting.request.claim)))
            if waiting.found.never:
                reasons = at_the_door(waiting.request.claim, self.snapshot) or reasons
            start = None if waiting.start == math.inf else waiting.start
            verdicts.append(Verdict(waiting.request.claim.id, position, reasons, start))
        return verdicts

    def _overdue(self, claim: Claim) -> bool:
        return self.snapshot.now - claim.requested_at > self.snapshot.settings.patience

    def _queue(self, requests: Sequence[WaitingLease]) -> list[WaitingLease]:
        """Waiting requests in the order in which they may start, beside what is granted."""
        snapshot, plan = self.snapshot, self.plan
        tree: FairTree[WaitingLease] = FairTree(snapshot.usage.decayed, snapshot.quotas)
        penalty = snapshot.settings.entry_penalty
        if penalty:
            for (account, user), seconds in self._ahead.items():
                tree.charge(account, user, seconds)
        overdue: list[WaitingLease] = []
        patient = snapshot.now - snapshot.settings.patience  # who has asked since then
        for request in requests:
            claim = request.claim
            if claim.requested_at < patient:
                overdue.append(request)
            else:
                tree.add(claim.account, claim.user, claim.requested_at, claim.id, request)
        overdue.sort(key=lambda request: (request.claim.requested_at, request.claim.id))
        fair = tree.drain(_penalty if penalty else lambda request: 0.0)
        # In the order of fair share, what each account would hold after it tells who borrows.
        queues: tuple[list[WaitingLease], ...] = ([], [], [], [], [])
        held: dict[str, int] = {}
        reserved = plan.reserved_now()
        for request in (*overdue, *fair):
            account = request.claim.account
            quota = snapshot.quotas.get(account, NO_QUOTA)
            held[account] = held.get(account, plan.held(account)) + request.count
            subjects = request.audience.subjects
            inside = (
                [s for s in subjects if reserved.get(s, 0) >= request.count] if subjects else ()
            )
            if inside:
                reserved[min(inside)] -= request.count
                queues[0].append(request)
            elif quota.cohort is not None and held[account] > (quota.nominal or 0):
                queues[4].append(request)
            elif request.claim.requested_at < patient:
                queues[1].append(request)
            else:
                queues[2 if quota.nominal is not None else 3].append(request)
        ordered = [request for queue in queues for request in queue]
        if any(request.claim.rank for request in ordered):
            ordered.sort(key=lambda request: -request.claim.rank)
        if snapshot.closed_until is not None:
            ordered.sort(key=lambda request: snapshot.closed(request.claim))
        return ordered


def _penalty(request: WaitingLease) -> float:
    """What a request is charged for fair share when it is admitted, in weighted GPU-seconds;
    nothing where no GPU is there that it could take."""
    weight = request.kinds[0].weight if request.kinds else 0.0
    length = UNLIMITED if request.duration == math.inf else request.duration
    return request.count * weight * length
