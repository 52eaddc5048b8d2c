"""Which borrowed leases have to end so that their owner's request can start (Kueue reclaim).

Only for a request within its account's nominal quota that nothing else keeps from starting. Of the
accounts that hold more than their nominal quota the one furthest over it gives first, of its
leases the youngest; never one that is exempt still, inside a reservation, or stopping anyway, and
never so much that the account would fall below its nominal quota.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from spawner.gpu.gates import CohortGate
from spawner.gpu.limits import NO_QUOTA
from spawner.gpu.plan import Placement, Plan, Request, Running
from spawner.gpu.state import Preemption
from spawner.gpu.timeline import Pool


class Waiting(Protocol):
    """A request that was not granted, and when it is planned for."""

    request: Request
    found: Placement
    start: float


def preempt(plan: Plan, queue: Iterable[Waiting]) -> tuple[Preemption, ...]:
    """The leases to end, each once, with the request that each is ended for."""
    quotas = plan.snapshot.quotas
    if not any(quota.cohort and quota.nominal for quota in quotas.values()):
        return ()
    reclaim = _Reclaim(plan)
    for waiting in queue:
        reclaim.consider(waiting)
    return tuple(reclaim.preemptions)


class _Reclaim:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.preemptions: list[Preemption] = []
        self._wanted: dict[str, int] = {}  # by account: for whom GPUs are on their way
        self._given: dict[str, int] = {}  # by account: what it gives back in this decision
        self._ended: set[str] = set()
        self._freed: dict[str, int] = {}  # by cohort: freed and not promised to anybody
        self._open: dict[int, set[str]] = {}  # by pool: devices free, or freed by this decision
        self._in_vain: set[tuple[object, ...]] = set()  # what was looked for, and not found
        self._lenders: dict[str, list[Running]] = {}  # by cohort
        for lease in plan.running:
            cohort = plan.snapshot.quotas.get(lease.claim.account, NO_QUOTA).cohort
            if cohort is not None:
                self._lenders.setdefault(cohort, []).append(lease)

    def consider(self, waiting: Waiting) -> None:
        request, plan = waiting.request, self.plan
        claim = request.claim
        quota = plan.snapshot.quotas.get(claim.account, NO_QUOTA)
        if not quota.cohort or not quota.nominal:
            return
        wanted = self._wanted.get(claim.account, 0) + request.count
        if plan.held(claim.account) + wanted > quota.nominal:
            return
        if any(not isinstance(gate, CohortGate) for gate in waiting.found.gates):
            return
        lenders = self._lenders.get(quota.cohort, [])
        coming = [lease.end for lease in lenders if lease.claim.stops_at is not None]
        if waiting.start <= max(coming, default=0.0):
            self._wanted[claim.account] = wanted
            return
        asked = (claim.account, request.count, request.duration, request.kinds, request.audience)
        if asked in self._in_vain:
            return
        candidates = self._candidates(claim.account, lenders)
        chosen = self._cheapest(request, quota.cohort, candidates) if candidates else None
        if chosen is None:
            self._in_vain.add(asked)
            return
        self._in_vain.clear()
        pool, leases = chosen
        self._wanted[claim.account] = wanted
        for lease in leases:
            self._ended.add(lease.claim.id)
            self._given[lease.claim.account] = (
                self._given.get(lease.claim.account, 0) + lease.claim.gpus
            )
            self.preemptions.append(Preemption(lease.claim.id, claim.id))
        freed = sum(lease.claim.gpus for lease in leases)
        self._freed[quota.cohort] = self._freed.get(quota.cohort, 0) + freed - request.count
        devices = self._devices(pool)
        for lease in leases:
            for other in self.plan.slots.kinds[pool.key]:
                held = {slot.device for slot in lease.claim.slots}
                self._devices(other).update(held & {place.device.id for place in other.places})
        for device in sorted(devices & self._usable(pool, request))[: request.count]:
            devices.discard(device)

    def _over(self, account: str) -> int:
        """How much an account holds beyond its nominal quota, with what it gives taken off."""
        nominal = self.plan.snapshot.quotas.get(account, NO_QUOTA).nominal or 0
        return self.plan.held(account) - self._given.get(account, 0) - nominal

    def _candidates(self, account: str, lenders: Sequence[Running]) -> list[Running]:
        found = [
            lease
            for lease in lenders
            if lease.claim.account != account
            and lease.claim.borrowed > 0
            and lease.claim.exempt_until <= self.plan.now
            and lease.claim.reservation is None
            and lease.claim.stops_at is None
            and lease.claim.id not in self._ended
            and lease.claim.gpus <= self._over(lease.claim.account)
        ]
        found.sort(
            key=lambda lease: (
                -self._over(lease.claim.account),
                -(lease.claim.held_at or 0.0),
                lease.claim.id,
            )
        )
        return found

    def _cheapest(
        self, request: Request, cohort: str, candidates: Sequence[Running]
    ) -> tuple[Pool, list[Running]] | None:
        """The pool in which the fewest leases have to end, and these."""
        best: tuple[tuple[int, int], Pool, list[Running]] | None = None
        for kind in request.kinds:
            for pool in self.plan.slots.kinds[kind]:
                leases = self._enough(request, cohort, candidates, pool)
                if leases:
                    cost = (len(leases), sum(lease.claim.gpus for lease in leases))
                    if best is None or cost < best[0]:
                        best = (cost, pool, leases)
        return best[1:] if best else None

    def _enough(
        self, request: Request, cohort: str, candidates: Sequence[Running], pool: Pool
    ) -> list[Running]:
        """Leases whose end gives a request room in a pool and in its cohort; none: impossible."""
        usable = self._usable(pool, request)
        open_now = self._devices(pool) & usable
        missing = self._missing_of_cohort(request)
        missing -= self._freed.get(cohort, 0)
        here = [
            lease
            for lease in candidates
            if any(slot.device in usable for slot in lease.claim.slots)
        ]
        if len(open_now) + sum(lease.claim.gpus for lease in here) < request.count:
            return []
        elsewhere = [lease for lease in candidates if lease not in here]

        def fits(leases: Sequence[Running]) -> bool:
            devices = set(open_now)
            for lease in leases:
                devices.update(usable & {slot.device for slot in lease.claim.slots})
            freed = sum(lease.claim.gpus for lease in leases)
            return len(devices) >= request.count and freed >= missing

        chosen: list[Running] = []
        given: dict[str, int] = {}
        for lease in (*here, *elsewhere):
            if chosen and fits(chosen):
                break
            account = lease.claim.account
            if given.get(account, 0) + lease.claim.gpus <= self._over(account):
                given[account] = given.get(account, 0) + lease.claim.gpus
                chosen.append(lease)
        if not fits(chosen):
            return []
        for lease in reversed(chosen.copy()):
            without = [other for other in chosen if other is not lease]
            if without and fits(without):
                chosen = without
        return chosen

    def _missing_of_cohort(self, request: Request) -> int:
        missing = 0
        for _, gate in request.gates:
            if isinstance(gate, CohortGate):
                missing = max(missing, gate.missing(request.count))
        return missing

    def _devices(self, pool: Pool) -> set[str]:
        """Devices of a pool with a slot free now, or freed, and not promised here."""
        devices = self._open.get(id(pool))
        if devices is None:
            devices = self._open[id(pool)] = {
                place.device.id
                for place in pool.places
                if any(gaps and gaps[0][0] <= self.plan.now for gaps in place.gaps)
            }
        return devices

    def _usable(self, pool: Pool, request: Request) -> set[str]:
        """Devices of a pool that are not reserved for others while the request would run."""
        now = self.plan.now
        span = [(now, now + request.duration)]
        return {
            place.device.id
            for place in pool.places
            if not place.windows or request.audience.cut(place.windows, span) == span
        }
