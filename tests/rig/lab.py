"""A laboratory on paper: people ask, ``decide`` decides, leases run to their limit or end sooner.

For the policy's properties and for the simulation of a month. Keeps its own books, so that what
``decide`` says can be checked against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from commons.leases import LeaseState
from spawner.gpu.policy import decision
from spawner.gpu.policy.budgets import decayed_use, window_start
from spawner.gpu.policy.limits import BudgetLimit, budget_limits
from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.state import (
    Budget,
    Claim,
    Decision,
    Quota,
    Settings,
    Snapshot,
    Usage,
    Window,
)

Decide = Callable[[Snapshot], Decision]


@dataclass(frozen=True)
class Past:
    """What a lease has used: ``rate`` weighted GPUs from ``start`` to ``end``."""

    user: str
    account: str
    rate: float
    start: float
    end: float


@dataclass
class Lab:
    """Devices, people's leases and the books."""

    devices: Sequence[Device]
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    now: float = 1_800_000_000.0
    windows: Sequence[Window] = ()
    closed_until: float | None = None
    decide: Decide = decision.decide
    # How long a lease really runs, by its id; without, to its limit.
    lengths: dict[str, float] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    past: list[Past] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)

    def ask(self, claim: Claim) -> None:
        self.claims[claim.id] = claim

    def ends(self, claim: Claim) -> float:
        """When a running lease is going to end."""
        assert claim.held_at is not None
        ends = [float("inf") if claim.ends_at is None else claim.ends_at]
        if claim.id in self.lengths:
            ends.append(claim.held_at + self.lengths[claim.id])
        if claim.stops_at is not None:
            ends.append(claim.stops_at)
        return min(ends)

    def next_end(self) -> float:
        return min(
            (self.ends(c) for c in self.claims.values() if not c.waits), default=float("inf")
        )

    def advance(self, to: float) -> None:
        """Time goes on; what is over ends."""
        self.now = to
        for claim in [*self.claims.values()]:
            if not claim.waits and self.ends(claim) <= to:
                assert claim.held_at is not None
                end = self.ends(claim)
                self.past.append(Past(claim.user, claim.account, claim.weight, claim.held_at, end))
                del self.claims[claim.id]

    def snapshot(self) -> Snapshot:
        price = self.settings.price
        return Snapshot(
            self.now,
            tuple(replace(d, weight=d.weight * price(d.model)) for d in self.devices)
            if self.settings.charge_by_worth
            else tuple(self.devices),
            tuple(self.claims.values()),
            self.quotas,
            self.usage(),
            tuple(w for w in self.windows if w.end > self.now),
            self.settings,
            closed_until=self.closed_until,
        )

    def books(self) -> list[Past]:
        """All use up to now, of what runs as well."""
        return self.past + [
            Past(c.user, c.account, c.weight, c.held_at, self.now)
            for c in self.claims.values()
            if c.held_at is not None
        ]

    def usage(self) -> Usage:
        decayed: dict[tuple[str, str], float] = {}
        half_life = self.settings.half_life
        books = self.books()
        for row in books:
            used = decayed_use(row.rate, row.start, row.end, self.now, half_life)
            for key in ((row.account, ""), (row.account, row.user)):
                decayed[key] = decayed.get(key, 0.0) + used
        limits = {
            limit.key: limit
            for user, account in {(c.user, c.account) for c in self.claims.values()}
            for limit in budget_limits(user, account, self.quotas)
        }
        return Usage(decayed, {key: self.used(limit, books) for key, limit in limits.items()})

    def used(self, limit: BudgetLimit, books: Sequence[Past]) -> float:
        """What counts against a budget now."""
        return sum(
            counted(limit.budget, row, self.now)
            for row in books
            if limit.scope.counts(row.user, row.account, "", self.quotas)
        )

    def pass_(self) -> Decision:
        """One decision, written down."""
        decided = self.decide(self.snapshot())
        for grant in decided.grants:
            self.claims[grant.lease] = decision.held(self.claims[grant.lease], grant, self.now)
            self.started[grant.lease] = self.now
        for preemption in decided.preemptions:
            claim = self.claims[preemption.lease]
            self.claims[claim.id] = replace(claim, stops_at=preemption.stops_at, reclaimed=True)
        for lease in decided.spared:
            self.claims[lease] = replace(self.claims[lease], stops_at=None, reclaimed=False)
        return decided


def counted(budget: Budget, row: Past, now: float) -> float:
    if budget.half_life:
        return decayed_use(row.rate, row.start, row.end, now, budget.half_life)
    start = max(row.start, window_start(budget.window or "total", now))
    return max(0.0, row.end - start) * row.rate


def request(
    name: str,
    user: str,
    at: float,
    gpus: int = 1,
    account: str = "",
    limit: float | None = 3600.0,
    gpu_type: str = "",
) -> Claim:
    return Claim(
        name,
        user,
        account or f"user:{user}",
        LeaseState.QUEUED,
        gpus,
        at,
        gpu_type=gpu_type,
        time_limit=limit,
    )


def machine(
    node: str, count: int, model: str = "A100", memory: int = 80, **more: object
) -> list[Device]:
    return [
        Device(f"{node}-{model}-{n}", model, memory * 2**30, node=node, **more)  # type: ignore[arg-type]
        for n in range(count)
    ]
