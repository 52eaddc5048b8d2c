"""The timeline of everything: what runs, is granted, is planned, and who may start when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spawner.gpu.budgets import Account
from spawner.gpu.door import lendable
from spawner.gpu.gates import BudgetGate, CohortGate, CountGate, Gate, held_first
from spawner.gpu.limits import (
    NO_QUOTA,
    BudgetLimit,
    Limit,
    Scope,
    group_budgets,
    group_counts,
    person_budgets,
    person_counts,
)
from spawner.gpu.state import Claim, Grant, Quota, Slot, Snapshot, Subject, Window
from spawner.gpu.timeline import INF, NOBODY, Audience, Kind, Pool, Profile, Slots

# A lease whose end has come still needs so many seconds to stop.
GRACE = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """A lease that holds slots, as the plan sees it."""

    claim: Claim
    end: float
    model: str


@dataclass(frozen=True, slots=True)
class Request:
    """A waiting lease with all that concerns it."""

    claim: Claim
    count: int
    duration: float
    kinds: tuple[Kind, ...]
    audience: Audience
    gates: tuple[tuple[str, Gate], ...]  # those with a model concern that model alone


@dataclass(slots=True)
class Placement:
    """When a request can start, where, and what keeps it from starting now."""

    start: float
    kind: Kind | None
    pool: Pool | None
    gates: dict[Gate, float]  # that are shut now, and until when
    kinds: list[Kind]  # of which it lacks devices now, not limits of their type
    never: bool = False  # whatever ends, as far as can be known


class Plan:
    """Where every lease is on the timeline. Planning only takes away."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.now = snapshot.now
        models = {device.id: device for device in snapshot.devices}
        self.running: list[Running] = []
        self._of_user: dict[str, list[Running]] = {}
        self._of_account: dict[Subject, list[Running]] = {}
        busy: dict[Slot, float] = {}
        inside: dict[str, set[str]] = {}
        soonest = self.now + GRACE
        for claim in snapshot.claims:
            if claim.waits:
                continue
            end = INF if claim.ends_at is None else max(claim.ends_at, soonest)
            if claim.stops_at is not None:
                end = min(end, max(claim.stops_at, soonest))
            device = models.get(claim.slots[0].device) if claim.slots else None
            lease = Running(claim, end, device.model if device else claim.gpu_type)
            self.running.append(lease)
            self._of_user.setdefault(claim.user, []).append(lease)
            self._of_account.setdefault(claim.account, []).append(lease)
            for slot in claim.slots:
                busy[slot] = end
            if claim.reservation is not None:
                inside.setdefault(claim.reservation, set()).update(s.device for s in claim.slots)
        self.slots = Slots(
            self.now,
            snapshot.devices,
            busy,
            snapshot.windows,
            {name: frozenset(devices) for name, devices in inside.items()},
        )
        self._subjects = frozenset(window.subject for window in snapshot.windows)
        self._counts: dict[Scope, CountGate] = {}
        self._budgets: dict[str, BudgetGate] = {}
        self._shared: dict[str, Profile] = {}
        self._own: dict[Subject, Profile] = {}
        self._common: dict[Subject, tuple[tuple[str, Gate], ...]] = {}
        self._gates: dict[tuple[str, Subject], tuple[tuple[str, Gate], ...]] = {}
        self._kinds: dict[tuple[str, int], tuple[Kind, ...]] = {}
        self._audiences: dict[tuple[str, Subject], Audience] = {}
        self._audience_of = {NOBODY.subjects: NOBODY}
        self._free: dict[tuple[Kind, ...], tuple[int, int, int]] = {}  # while nothing is granted
        self._held: dict[Subject, int] = {
            account: sum(lease.claim.gpus for lease in leases)
            for account, leases in self._of_account.items()
        }

    # -- requests ---------------------------------------------------------------------------

    def request(self, claim: Claim) -> Request:
        """A waiting lease with the kinds, gates and reservations that concern it."""
        who = claim.user, claim.account
        gates = self._gates.get(who)
        if gates is None:
            gates = self._gates[who] = tuple(self._make_gates(*who))
            subjects = self._subjects & {claim.account, f"user:{claim.user}"}
            self._audiences[who] = self._audience_of.setdefault(subjects, Audience(subjects))
        what = claim.gpu_type, claim.gpus
        kinds = self._kinds.get(what)
        if kinds is None:
            kinds = self._kinds[what] = tuple(
                kind
                for kind, pools in self.slots.kinds.items()
                if claim.gpu_type in ("", kind.model)
                and any(len(pool.places) >= claim.gpus for pool in pools)
            )
        duration = INF if claim.time_limit is None else claim.time_limit
        return Request(claim, claim.gpus, duration, kinds, self._audiences[who], gates)

    def held(self, account: Subject) -> int:
        """GPUs that an account holds now, with what was granted."""
        return self._held.get(account, 0)

    def reserved_now(self) -> dict[Subject, int]:
        """GPUs of reservations that have begun, by subject, less what runs inside them."""
        left: dict[Subject, int] = {}
        for window in self.snapshot.windows:
            if window.start <= self.now < window.end:
                inside = sum(
                    lease.claim.gpus
                    for lease in self.running
                    if lease.claim.reservation == window.reservation
                )
                left[window.subject] = left.get(window.subject, 0) + max(0, window.gpus - inside)
        return left

    def _make_gates(self, user: str, account: Subject) -> Iterator[tuple[str, Gate]]:
        quotas = self.snapshot.quotas
        for limit in person_counts(user, account, quotas):
            yield limit.scope.model, self._count_gate(limit)
        for budget in person_budgets(user, account, quotas):
            yield "", self._budget_gate(budget)
        common = self._common.get(account)
        if common is None:
            common = self._common[account] = tuple(self._make_common(account))
        yield from common

    def _make_common(self, account: Subject) -> Iterator[tuple[str, Gate]]:
        """The gates of all people of an account."""
        quotas = self.snapshot.quotas
        for limit in group_counts(account, quotas):
            yield limit.scope.model, self._count_gate(limit)
        for budget in group_budgets(account, quotas):
            yield "", self._budget_gate(budget)
        for gate in self._nominal_gates(account, quotas.get(account, NO_QUOTA)):
            yield "", gate

    def _count_gate(self, limit: Limit) -> CountGate:
        gate = self._counts.get(limit.scope)
        if gate is None:
            profile = Profile(self.now, limit.most, self._counted(limit.scope))
            gate = CountGate(limit.code, limit.source, limit.scope.model, profile)
            self._counts[limit.scope] = gate
        return gate

    def _budget_gate(self, limit: BudgetLimit) -> BudgetGate:
        gate = self._budgets.get(limit.key)
        if gate is None:
            spans = [(lease.end, lease.claim.weight) for lease in self._in_scope(limit.scope)]
            used = self.snapshot.usage.budgets.get(limit.key, 0.0)
            account = Account(self.now, limit.budget, used, spans)
            gate = self._budgets[limit.key] = BudgetGate(limit, account)
        return gate

    def _nominal_gates(self, account: Subject, quota: Quota) -> Iterator[Gate]:
        if quota.cohort is None and quota.nominal is None:
            return
        nominal = quota.nominal or 0
        if quota.cohort is None or quota.borrowing_limit is not None:
            cap = nominal + (quota.borrowing_limit or 0 if quota.cohort is not None else 0)
            code = "nominal" if quota.cohort is None else "borrowing_limit"
            profile = Profile(self.now, cap, self._counted(Scope("", account)))
            yield CountGate(code, account, "", profile)
        if quota.cohort is not None:
            shared = self._shared.get(quota.cohort)
            if shared is None:
                shared = self._shared[quota.cohort] = self._make_cohort(quota.cohort)
            yield CohortGate(quota.cohort, shared, self._own.get(account))

    def _make_cohort(self, cohort: str) -> Profile:
        """The part of a cohort that all its accounts share, and what each keeps for itself."""
        cap, taken = 0, []
        for account, quota in self.snapshot.quotas.items():
            if quota.cohort != cohort:
                continue
            cap += lendable(quota)
            kept = (quota.nominal or 0) - lendable(quota)
            leases = sorted(
                self._of_account.get(account, ()),
                key=lambda lease: (lease.claim.held_at or 0.0, lease.claim.id),
            )
            spans = [(lease.end, lease.claim.gpus) for lease in leases]
            own = held_first(kept, spans)
            if kept:
                self._own[account] = Profile(self.now, kept, own)
            taken += [(end, n - part) for (end, n), (_, part) in zip(spans, own, strict=True)]
        return Profile(self.now, cap, taken)

    def _in_scope(self, scope: Scope) -> list[Running]:
        leases = (
            self._of_user.get(scope.user, [])
            if scope.user
            else self._of_account.get(scope.account, [])
        )
        quotas = self.snapshot.quotas
        return [
            lease
            for lease in leases
            if scope.counts(lease.claim.user, lease.claim.account, lease.model, quotas)
        ]

    def _counted(self, scope: Scope) -> list[tuple[float, int]]:
        return [(lease.end, lease.claim.gpus) for lease in self._in_scope(scope)]

    # -- placing ----------------------------------------------------------------------------

    def place(self, request: Request) -> Placement:
        """The earliest start beside everything that runs and is planned; nothing is taken."""
        best = Placement(INF, None, None, {}, [])
        for kind in request.kinds:
            self._place(request, kind, best)
            if best.start <= self.now:
                break
        best.never = best.start == INF
        return best

    def glance(self, request: Request) -> Placement:
        """Like ``place``, but without a start when that is not now."""
        if self.free_of(request.kinds)[1] >= request.count:
            found = self.place(request)
            if found.start > self.now:
                found.start, found.pool = INF, None
            return found
        best = Placement(INF, request.kinds[0] if request.kinds else None, None, {}, [])
        best.kinds.extend(request.kinds)
        for model, gate in request.gates:
            for kind in request.kinds[:1]:
                if not model or model == kind.model:
                    opens = gate.earliest(request.count, kind.weight, request.duration, self.now)
                    if opens > self.now:
                        best.gates[gate] = opens
        return best

    def _place(self, request: Request, kind: Kind, best: Placement) -> None:
        """Try one kind, and keep in ``best`` what is better, and what is in the way."""
        now, count, duration, weight = self.now, request.count, request.duration, kind.weight
        gates, start, of_type = [], now, False
        for model, gate in request.gates:
            if model and model != kind.model:
                continue
            gates.append(gate)
            opens = gate.earliest(count, weight, duration, now)
            if opens > now:
                best.gates[gate] = opens
                start = max(start, opens)
                of_type = of_type or bool(model)
        slots = self.slots
        at, pool = slots.earliest(kind, count, duration, request.audience, now)
        if at > now and not of_type:
            best.kinds.append(kind)
        if best.kind is None:
            best.kind = kind
        while start < best.start:
            if at < start:
                at, pool = slots.earliest(kind, count, duration, request.audience, start)
            start = at
            if start == INF:
                break
            for gate in gates:
                start = max(start, gate.earliest(count, weight, duration, start))
            if start == at:
                break
        if start < best.start:
            best.start, best.kind, best.pool = start, kind, pool

    def take(self, request: Request, found: Placement) -> list[tuple[Pool, int, int]]:
        """Plan a request where it was placed; gives the places and slots it takes."""
        kind, pool, start = found.kind, found.pool, found.start
        if kind is None or pool is None or start == INF:
            return []
        end = start + request.duration
        for model, gate in request.gates:
            if not model or model == kind.model:
                gate.add(request.count, kind.weight, start, end)
        taken = []
        for index, slot in pool.choose(request.count, request.duration, start, request.audience):
            pool.take(index, slot, start, end, self.now)
            taken.append((pool, index, slot))
        return taken

    def grant(self, request: Request, found: Placement) -> Grant:
        """Take what a request gets now."""
        claim = request.claim
        self._free.clear()
        taken = self.take(request, found)
        places = [pool.places[index] for pool, index, _ in taken]
        windows = {request.audience.reserved(place, self.now) for place in places}
        window: Window | None = windows.pop() if len(windows) == 1 else None
        before = self.held(claim.account)
        self._held[claim.account] = before + claim.gpus
        borrowed, exempt = self._borrowed(claim, before), 0.0
        if borrowed:
            exempt = self.now + self._preempt_exempt(claim.account)
        return Grant(
            claim.id,
            tuple(
                sorted(
                    Slot(p.device.id, slot) for p, (_, _, slot) in zip(places, taken, strict=True)
                )
            ),
            borrowed,
            exempt,
            sum(place.device.weight for place in places),
            window.reservation if window else None,
        )

    def _borrowed(self, claim: Claim, before: int) -> int:
        quota = self.snapshot.quotas.get(claim.account, NO_QUOTA)
        if quota.cohort is None:
            return 0
        return max(0, min(claim.gpus, before + claim.gpus - (quota.nominal or 0)))

    def _preempt_exempt(self, account: Subject) -> float:
        for subject in (account, "default"):
            seconds = self.snapshot.quotas.get(subject, NO_QUOTA).preempt_exempt
            if seconds is not None:
                return seconds
        return 0.0

    def free_of(self, kinds: tuple[Kind, ...]) -> tuple[int, int, int]:
        """Devices free now, the most of them in one pool, and all there are."""
        found = self._free.get(kinds)
        if found is None:
            pools = [pool for kind in kinds for pool in self.slots.kinds[kind]]
            found = self._free[kinds] = (
                sum(pool.free for pool in pools),
                max((pool.free for pool in pools), default=0),
                sum(len(pool.places) for pool in pools),
            )
        return found
