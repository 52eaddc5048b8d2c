"""The timeline of everything: what runs, is granted, is planned, and who may start when."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter

from commons.scopes import own_account
from spawner.gpu.policy.admission_checks import lendable
from spawner.gpu.policy.budgets import Account
from spawner.gpu.policy.gates import (
    BudgetGate,
    CohortGate,
    CountGate,
    Gate,
    MaintenanceGate,
    held_first,
)
from spawner.gpu.policy.limits import (
    NO_QUOTA,
    BudgetLimit,
    Limit,
    LimitScope,
    group_budgets,
    group_counts,
    person_budgets,
    person_ceiling,
    person_counts,
    person_limit,
)
from spawner.gpu.policy.promises import released
from spawner.gpu.policy.state import (
    SHORT,
    Claim,
    Grant,
    Quota,
    Reason,
    Slot,
    Snapshot,
    Subject,
    Window,
)
from spawner.gpu.policy.timeline import INF, NOBODY, Audience, DeviceKind, Pool, Profile, Slots

ANYBODY = ""  # a name that no quota has
# A lease whose end has come still needs so many seconds to stop.
GRACE = 60.0


@dataclass(slots=True, eq=False)
class Running:
    """A lease that holds slots, as the plan sees it."""

    claim: Claim
    end: float
    model: str
    position: int  # among the claims of the snapshot


@dataclass(slots=True, eq=False)
class WaitingLease:
    """A waiting lease with all that concerns it."""

    claim: Claim
    count: int
    duration: float
    kinds: tuple[DeviceKind, ...]
    audience: Audience
    gates: tuple[tuple[str, Gate], ...]  # those with a model concern that model alone
    too_long: bool = False  # by the limits of today: it starts when they allow it again


@dataclass(slots=True)
class Placement:
    """When a request can start, where, and what keeps it from starting now."""

    start: float
    kind: DeviceKind | None
    pool: Pool | None
    gates: dict[Gate, float]  # that are shut now, and until when: of types, and of that kind
    kinds: list[DeviceKind]  # of which it lacks devices now, not limits of their type
    never: bool = False  # whatever ends, as far as can be known
    general: dict[Gate, float] = field(default_factory=dict)  # of that kind, not of its type


@dataclass(frozen=True, slots=True)
class _Rules:
    """What the quotas say of a person who charges an account."""

    counts: tuple[Limit, ...]
    budgets: tuple[BudgetLimit, ...]
    longest: float

    @classmethod
    def of(cls, user: str, account: Subject, quotas: Mapping[Subject, Quota]) -> _Rules:
        found = person_limit("time_limit", user, account, quotas)
        return cls(
            tuple(person_counts(user, account, quotas)),
            tuple(person_budgets(user, account, quotas)),
            float(found[0]) if found else INF,
        )


# What concerns a person who charges an account: gates, the longest time limit, reservations.
_Person = tuple[tuple[tuple[str, Gate], ...], float, Audience]


class Plan:
    """Where every lease is on the timeline. Planning only takes away."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.now = snapshot.now
        self._models = {device.id: device.model for device in snapshot.devices}
        self.running: list[Running] = []  # in the order of the claims, as the two below
        self.waiting: list[Claim] = []
        self._of_user: defaultdict[str, list[Running]] = defaultdict(list)
        self.of_account: defaultdict[Subject, list[Running]] = defaultdict(list)
        self._busy: dict[tuple[str, int], float] = {}
        self._inside: dict[str, set[str]] = {}  # by reservation: devices held there
        # By person and by account: GPUs of all that runs and waits.
        self._wanted_by: defaultdict[str, int] = defaultdict(int)
        self._wanted_for: defaultdict[Subject, int] = defaultdict(int)
        for position, claim in enumerate(snapshot.claims):
            waits = claim.waits
            if waits and claim.paused:
                continue  # as if it were not there
            self._wanted_by[claim.user] += claim.gpus
            self._wanted_for[claim.account] += claim.gpus
            if waits:
                self.waiting.append(claim)
                continue
            lease = self._running(claim, position)
            self.running.append(lease)
            self._of_user[claim.user].append(lease)
            self.of_account[claim.account].append(lease)
        self.slots = Slots(
            self.now,
            snapshot.devices,
            self._busy,
            snapshot.windows,
            self._inside,
            snapshot.settings,
        )
        self._subjects = frozenset(window.subject for window in snapshot.windows)
        self._counts: dict[tuple[str, LimitScope], CountGate] = {}
        self._budgets: dict[str, BudgetGate] = {}
        self._shared: dict[str, Profile] = {}
        self._own: dict[Subject, Profile] = {}
        self._common: dict[Subject, tuple[tuple[str, Gate], ...]] = {}
        self._rules: dict[Subject, _Rules] = {}
        self._people: dict[tuple[str, Subject], _Person] = {}
        self._kinds: dict[tuple[str, int], tuple[DeviceKind, ...]] = {}
        self._audience_of = {(NOBODY.subjects, NOBODY.released): NOBODY}
        self._released = released(snapshot)
        until = snapshot.closed_until
        self._closed = None if until is None else MaintenanceGate(until)
        self._changed: set[Gate] = set()  # by what is granted or planned
        self._free: dict[tuple[DeviceKind, ...], int] = {}  # while nothing is granted
        self._held: dict[Subject, int] = {
            account: sum([lease.claim.gpus for lease in leases])
            for account, leases in self.of_account.items()
        }

    def _running(self, claim: Claim, position: int) -> Running:
        end, stops = claim.ends_at, claim.stops_at
        if end is None or (stops is not None and stops < end):
            end = INF if stops is None else stops
        end = max(end, self.now + GRACE)
        model = claim.gpu_type
        for slot in claim.slots:
            self._busy[slot.device, slot.index] = end
            model = self._models.get(slot.device, model)
        if claim.reservation is not None:
            devices = self._inside.setdefault(claim.reservation, set())
            devices.update([slot.device for slot in claim.slots])
        return Running(claim, end, model, position)

    def begin(self, snapshot: Snapshot) -> None:
        """Plan anew once grants are written down in the snapshot, and nothing else has changed.

        The plan is the one that the snapshot itself would give: what something was granted or
        planned in is made again from what runs, the rest is as it was.
        """
        before = {claim.id for claim in self.waiting}
        self.snapshot, self.waiting = snapshot, []
        for position, claim in enumerate(snapshot.claims):
            if claim.waits:
                if not claim.paused:
                    self.waiting.append(claim)
            elif claim.id in before:
                lease = self._running(claim, position)
                for leases in (
                    self.running,
                    self._of_user[claim.user],
                    self.of_account[claim.account],
                ):
                    insort(leases, lease, key=attrgetter("position"))
        self.slots.begin(self._inside)
        self._released = released(snapshot)
        self._free.clear()
        cohorts = set()
        for gate in self._changed:
            if isinstance(gate, CountGate):
                gate.profile.begin(self.now, self._counted(gate.scope))
            elif isinstance(gate, BudgetGate):
                gate.account = self._budget_account(gate.limit)
            elif isinstance(gate, CohortGate):
                cohorts.add(gate.cohort)
        for cohort in cohorts:
            self._shared[cohort].begin(self.now, self._make_cohort(cohort)[1])
        self._changed.clear()

    # -- requests ---------------------------------------------------------------------------

    def request(self, claim: Claim) -> WaitingLease:
        """A waiting lease with the kinds, gates and reservations that concern it."""
        who = claim.user, claim.account
        gates, longest, audience = self._people.get(who) or self._person(*who)
        what = claim.gpu_type, claim.gpus
        kinds = self._kinds.get(what)
        if kinds is None:
            kinds = self._kinds[what] = tuple(
                kind
                for kind, pools in self.slots.kinds.items()
                if claim.gpu_type in ("", kind.model)
                and any(len(pool.devices) >= claim.gpus for pool in pools)
            )
        if self._closed is not None and not claim.anytime:
            gates = (("", self._closed), *gates)
        duration = INF if claim.time_limit is None else claim.time_limit
        if self._released and duration <= SHORT:
            audience = self._audience(audience.subjects, self._released)
        too_long = duration > longest
        return WaitingLease(claim, claim.gpus, duration, kinds, audience, gates, too_long)

    def _person(self, user: str, account: Subject) -> _Person:
        rules = self._rules_of(user, account)
        gates = tuple(self._make_gates(user, account, rules))
        subjects = self._subjects & {account, own_account(user)} if self._subjects else frozenset()
        audience = self._audience(subjects, frozenset())
        person = self._people[user, account] = gates, rules.longest, audience
        return person

    def _rules_of(self, user: str, account: Subject) -> _Rules:
        """What concerns a person; all whom no quota names share it, but for their name."""
        own, quotas = own_account(user), self.snapshot.quotas
        if own in quotas or account == own:
            return _Rules.of(user, account, quotas)
        rules = self._rules.get(account)
        if rules is None:
            rules = self._rules[account] = _Rules.of(ANYBODY, account, quotas)
        return rules

    def _audience(self, subjects: frozenset[Subject], released: frozenset[Window]) -> Audience:
        key = subjects, released
        return self._audience_of.setdefault(key, Audience(*key))

    def closed_for(self, claim: Claim) -> Reason | None:
        """Why maintenance keeps a request from starting; None where it does not."""
        if self._closed is None or claim.anytime:
            return None
        return self._closed.reason(0, 0.0, 0.0, self._closed.until)

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

    def _make_gates(self, user: str, account: Subject, rules: _Rules) -> Iterator[tuple[str, Gate]]:
        for code, source, (_, of_account, model, unless), most in rules.counts:
            scope = LimitScope(user, of_account, model, unless)
            if self._binds(scope, most):
                yield model, self._count_gate(code, source, scope, most)
        ceiling = person_ceiling(user, self._accounts_of.get(user, ()), self.snapshot.quotas)
        if ceiling and self._binds(ceiling.scope, ceiling.most):
            yield "", self._count_gate(*ceiling)
        for budget in rules.budgets:
            yield "", self._budget_gate(budget.of(user))
        common = self._common.get(account)
        if common is None:
            common = self._common[account] = tuple(self._make_common(account))
        yield from common

    @cached_property
    def _accounts_of(self) -> dict[str, set[Subject]]:
        """The accounts that each person uses."""
        found: defaultdict[str, set[Subject]] = defaultdict(set)
        for user, account in {(claim.user, claim.account) for claim in self.snapshot.claims}:
            found[user].add(account)
        return found

    def _make_common(self, account: Subject) -> Iterator[tuple[str, Gate]]:
        """The gates of all people of an account."""
        quotas = self.snapshot.quotas
        for limit in group_counts(account, quotas):
            if self._binds(limit.scope, limit.most):
                yield limit.scope.model, self._count_gate(*limit)
        for budget in group_budgets(account, quotas):
            yield "", self._budget_gate(budget)
        for gate in self._nominal_gates(account, quotas.get(account, NO_QUOTA)):
            yield "", gate

    def _binds(self, scope: LimitScope, most: int) -> bool:
        """Whether a limit can ever be in the way: all that runs and waits there is more."""
        wanted = self._wanted_by[scope.user] if scope.user else self._wanted_for[scope.account]
        return wanted > most

    def _count_gate(self, code: str, source: Subject, scope: LimitScope, most: int) -> CountGate:
        gate = self._counts.get((code, scope))
        if gate is None:
            gate = CountGate(code, source, scope, Profile(self.now, most, self._counted(scope)))
            self._counts[code, scope] = gate
        return gate

    def _budget_gate(self, limit: BudgetLimit) -> BudgetGate:
        gate = self._budgets.get(limit.key)
        if gate is None:
            gate = self._budgets[limit.key] = BudgetGate(limit, self._budget_account(limit))
        return gate

    def _budget_account(self, limit: BudgetLimit) -> Account:
        spans = [(lease.end, lease.claim.weight) for lease in self._in_scope(limit.scope)]
        used = self.snapshot.usage.budgets.get(limit.key, 0.0)
        return Account(self.now, limit.budget, used, spans)

    def _nominal_gates(self, account: Subject, quota: Quota) -> Iterator[Gate]:
        if quota.cohort is None and quota.nominal is None:
            return
        nominal = quota.nominal or 0
        if quota.cohort is None or quota.borrowing_limit is not None:
            cap = nominal + (quota.borrowing_limit or 0 if quota.cohort is not None else 0)
            code = "nominal" if quota.cohort is None else "borrowing_limit"
            scope = LimitScope("", account)
            if self._binds(scope, cap):
                yield CountGate(code, account, scope, Profile(self.now, cap, self._counted(scope)))
        if quota.cohort is not None:
            shared = self._shared.get(quota.cohort)
            if shared is None:
                shared = Profile(self.now, *self._make_cohort(quota.cohort))
                self._shared[quota.cohort] = shared
            yield CohortGate(quota.cohort, shared, self._own.get(account))

    def _make_cohort(self, cohort: str) -> tuple[int, list[tuple[float, int]]]:
        """How much all accounts of a cohort share, and what runs there; makes the profiles of
        what each keeps for itself."""
        cap, taken = 0, list[tuple[float, int]]()
        for account, quota in self.snapshot.quotas.items():
            if quota.cohort != cohort:
                continue
            cap += lendable(quota)
            kept = (quota.nominal or 0) - lendable(quota)
            leases = sorted(
                self.of_account.get(account, ()),
                key=lambda lease: (lease.claim.held_at or 0.0, lease.claim.id),
            )
            spans = [(lease.end, lease.claim.gpus) for lease in leases]
            own = held_first(kept, spans)
            if account in self._own:
                self._own[account].begin(self.now, own)
            elif kept:
                self._own[account] = Profile(self.now, kept, own)
            taken += [(end, n - part) for (end, n), (_, part) in zip(spans, own, strict=True)]
        return cap, taken

    def _in_scope(self, scope: LimitScope) -> Sequence[Running]:
        if scope.user:
            leases = self._of_user.get(scope.user, ())
        else:
            leases = self.of_account.get(scope.account, ())
        if not (scope.model or scope.unless or (scope.user and scope.account)):
            return leases
        quotas = self.snapshot.quotas
        return [
            lease
            for lease in leases
            if scope.counts(lease.claim.user, lease.claim.account, lease.model, quotas)
        ]

    def _counted(self, scope: LimitScope) -> list[tuple[float, int]]:
        return [(lease.end, lease.claim.gpus) for lease in self._in_scope(scope)]

    # -- placing ----------------------------------------------------------------------------

    def place(self, request: WaitingLease, look_ahead: bool = True) -> Placement:
        """The earliest start beside everything that runs and is planned; nothing is taken.

        Without ``look_ahead`` a start that is not now is a lower bound, and has no pool.
        """
        best = Placement(INF, None, None, {}, [], never=request.too_long)
        if request.too_long:
            return best
        for kind in request.kinds:
            self._place(request, kind, best, look_ahead)
            if best.start <= self.now:
                break
        best.gates.update(best.general)
        best.never = best.start == INF
        return best

    def glance(self, request: WaitingLease) -> Placement:
        """Like ``place``, but without a start when that is not now."""
        if request.too_long or self.most_free(request.kinds) >= request.count:
            found = self.place(request, look_ahead=len(request.kinds) > 1)
            if found.start > self.now:
                found.start, found.pool = INF, None
            return found
        if not request.kinds:
            return Placement(INF, None, None, {}, [])
        now, count, duration, kind = self.now, request.count, request.duration, request.kinds[0]
        gates = {}
        for model, gate in request.gates:
            if not model or model == kind.model:
                opens = gate.earliest(count, kind.weight, duration, now)
                if opens > now:
                    gates[gate] = opens
        return Placement(INF, kind, None, gates, [*request.kinds])

    def _place(
        self, request: WaitingLease, kind: DeviceKind, best: Placement, look_ahead: bool
    ) -> None:
        """Try one kind, and keep in ``best`` what is better, and what is in the way."""
        now, count, duration, weight = self.now, request.count, request.duration, kind.weight
        gates, start, of_type = [], now, False
        general: dict[Gate, float] = {}
        for model, gate in request.gates:
            if model and model != kind.model:
                continue
            gates.append(gate)
            opens = gate.earliest(count, weight, duration, now)
            if opens > now:
                (best.gates if model else general)[gate] = opens
                start = max(start, opens)
                of_type = of_type or bool(model)
        slots = self.slots
        at, pool = slots.earliest(kind, count, duration, request.audience, now)
        if at > now and not of_type:
            best.kinds.append(kind)
        if best.kind is None:
            best.kind, best.general = kind, general
        if not look_ahead and (start > now or at > now):
            best.start = max(start, at)
            return
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
            best.start, best.kind, best.pool, best.general = start, kind, pool, general

    def take(self, request: WaitingLease, found: Placement) -> list[tuple[Pool, int, int]]:
        """Plan a request where it was placed; gives the places and slots it takes."""
        kind, pool, start = found.kind, found.pool, found.start
        if kind is None or pool is None or start == INF:
            return []
        end = start + request.duration
        for model, gate in request.gates:
            if not model or model == kind.model:
                gate.add(request.count, kind.weight, start, end)
                self._changed.add(gate)
        taken = []
        for index, slot in pool.choose(request.count, request.duration, start, request.audience):
            pool.take(index, slot, start, end, self.now)
            taken.append((pool, index, slot))
        return taken

    def grant(self, request: WaitingLease, found: Placement) -> Grant:
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
            exempt = self.now + self.preempt_exempt(claim.account)
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

    def preempt_exempt(self, account: Subject) -> float:
        """For how many seconds what an account borrows is safe."""
        for subject in (account, "default"):
            seconds = self.snapshot.quotas.get(subject, NO_QUOTA).preempt_exempt
            if seconds is not None:
                return seconds
        return 0.0

    def most_free(self, kinds: tuple[DeviceKind, ...]) -> int:
        """The most devices with a slot free now in one pool."""
        found = self._free.get(kinds)
        if found is None:
            pools = (pool for kind in kinds for pool in self.slots.kinds[kind])
            found = self._free[kinds] = max((pool.free for pool in pools), default=0)
        return found

    def counted(self, kinds: tuple[DeviceKind, ...]) -> tuple[int, int]:
        """Slots free now, and all slots, as every page counts them."""
        pools = [pool for kind in kinds for pool in self.slots.kinds[kind]]
        return sum(pool.slots_free for pool in pools), sum(pool.slots for pool in pools)
