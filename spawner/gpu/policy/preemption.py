"""Which borrowed leases have to end so that their owner's request can start (Kueue reclaim).

Also which leases on GPUs of a reservation that nobody used have to end once its people come.
Else only for a request within its account's nominal quota that nothing else keeps from starting,
and that would not start by itself before the reclaimed GPUs were free. What an account owes is
judged by the quotas of now. Leases that are told already come before others; then those that are
borrowed as a whole; of the accounts that hold more than their nominal quota the one furthest over
it gives first, of its leases the youngest. Never one of an account that holds no more than its
nominal quota; never one that is exempt still, inside a reservation, or ending as soon anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spawner.gpu.policy.gates import CohortGate
from spawner.gpu.policy.limits import NO_QUOTA
from spawner.gpu.policy.plan import Placement, Plan, Running, WaitingLease
from spawner.gpu.policy.promises import serves
from spawner.gpu.policy.state import RECLAIM_NOTICE, SHORT, Preemption
from spawner.gpu.policy.timeline import INF, Pool


class Reclaim:
    """What is reclaimed in one way through the queue; ``preemptions`` has it, each lease once.

    Asked in the order of the queue, before those behind are planned: what a request is to get is
    kept from them. The plan knows of no reclaim; ``told`` are leases whose end was announced
    before, and when it is.
    """

    def __init__(self, plan: Plan, told: Mapping[str, float]) -> None:
        self.plan = plan
        self._told = told
        self._soon = plan.now + RECLAIM_NOTICE  # what ends by then ends as soon as a reclaim
        self.preemptions: list[Preemption] = []
        self._wanted: dict[str, int] = {}  # by account: for whom GPUs are on their way
        self._given: dict[str, int] = {}  # by account: what it gives back in this decision
        self._ended: set[str] = set()
        self._freed: dict[str, int] = {}  # by cohort: freed and not promised to anybody
        self._loose: set[str] = set()  # devices that this decision frees and has not promised
        self._in_vain: set[tuple[object, ...]] = set()  # what was looked for, and not found
        self._lenders: dict[str, dict[str, list[Running]]] = {}  # by cohort, by account
        self._nominal: dict[str, int] = {}
        for account, leases in plan.of_account.items():
            quota = plan.snapshot.quotas.get(account, NO_QUOTA)
            self._nominal[account] = quota.nominal or 0
            if (cohort := quota.cohort) is not None:
                self._lenders.setdefault(cohort, {})[account] = leases

    def consider(self, request: WaitingLease, found: Placement) -> None:
        """A request cannot start now."""
        if not (request.audience.subjects and self._take_back(request, found)):
            self._borrowed(request, found)

    def _borrowed(self, request: WaitingLease, found: Placement) -> None:
        claim, plan = request.claim, self.plan
        quota = plan.snapshot.quotas.get(claim.account, NO_QUOTA)
        if not quota.cohort or not quota.nominal:
            return
        wanted = self._wanted.get(claim.account, 0) + request.count
        if plan.held(claim.account) + wanted > quota.nominal:
            return
        if any(not isinstance(gate, CohortGate) for gate in found.gates):
            return
        asked = (claim.account, request.count, request.duration, request.kinds, request.audience)
        if asked in self._in_vain:
            return
        candidates = self._candidates(claim.account, quota.cohort)
        chosen = self._cheapest(request, quota.cohort, candidates) if candidates else None
        if chosen is None:
            self._in_vain.add(asked)
            return
        self._in_vain.clear()
        pool, leases = chosen
        self._wanted[claim.account] = wanted
        if found.start <= max(map(self._stop, leases)):
            return  # as soon by itself
        freed = sum(lease.claim.gpus for lease in leases)
        self._freed[quota.cohort] = self._freed.get(quota.cohort, 0) + freed - request.count
        self._end(request, pool, leases)

    def _end(self, request: WaitingLease, pool: Pool, leases: Sequence[Running]) -> None:
        """Leases end for a request, which gets what is open in the pool then."""
        for lease in leases:
            self._ended.add(lease.claim.id)
            self._given[lease.claim.account] = (
                self._given.get(lease.claim.account, 0) + lease.claim.gpus
            )
            self.preemptions.append(Preemption(lease.claim.id, request.claim.id, self._stop(lease)))
        self._loose.update(slot.device for lease in leases for slot in lease.claim.slots)
        mine = set(sorted(self._open(pool) & self._usable(pool, request))[: request.count])
        self._loose -= mine
        for index, place in enumerate(pool.places):
            if place.device.id in mine:
                self._keep(pool, index)

    def _take_back(self, request: WaitingLease, found: Placement) -> bool:
        """For whom a reservation is: what others got of it while nobody used it.

        False: it is no such request, or there is nothing of that kind.
        """
        if found.gates:
            return False
        now, after = self.plan.now, self.plan.snapshot.settings.release_after
        mine = [
            window
            for window in self.plan.snapshot.windows
            if window.start + after <= now < window.end
            and window.subject in request.audience.subjects
        ]
        got = [
            lease
            for lease in self.plan.running
            if lease.claim.reservation is None
            and (lease.claim.time_limit or INF) <= SHORT  # no longer one got any of it
            and lease.claim.id not in self._ended
            and lease.end > self._stop(lease)
            and any(
                (lease.claim.held_at or 0.0) >= window.start + after
                and not serves(lease.claim, window)
                for window in mine
            )
        ]
        got.sort(key=lambda one: (one.claim.id not in self._told, -(one.claim.held_at or 0.0)))
        best: tuple[Pool, list[Running]] | None = None
        for kind in request.kinds if got else ():
            for pool in self.plan.slots.kinds[kind]:
                usable = self._usable(pool, request)
                devices, leases = self._open(pool) & usable, []
                for lease in got:
                    held = {slot.device for slot in lease.claim.slots} & usable
                    if len(devices) < request.count and held - devices:
                        devices |= held
                        leases.append(lease)
                if len(devices) >= request.count and (not best or len(leases) < len(best[1])):
                    best = pool, leases
        if best is None:
            return False
        pool, leases = best
        if leases and found.start > max(map(self._stop, leases)):
            self._end(request, pool, leases)
        return True

    def _keep(self, pool: Pool, index: int) -> None:
        """No request behind gets what is free of a device soon."""
        for slot, gaps in enumerate(pool.places[index].gaps):
            if gaps and gaps[0][0] <= self._soon:
                pool.take(index, slot, *gaps[0], self.plan.now)

    def _stop(self, lease: Running) -> float:
        """When a lease would end, if it is reclaimed."""
        return self._told.get(lease.claim.id) or self._soon

    def _exempt(self, lease: Running) -> bool:
        claim = lease.claim
        until = claim.exempt_until
        if not claim.borrowed:  # by the quotas of now it is
            until = (claim.held_at or 0.0) + self.plan.preempt_exempt(claim.account)
        return until > self.plan.now

    def _over(self, account: str) -> int:
        """How much an account holds beyond its nominal quota, with what it gives taken off."""
        given = self._given.get(account, 0)
        return self.plan.held(account) - given - self._nominal[account]

    def _candidates(self, account: str, cohort: str) -> list[Running]:
        lenders = self._lenders.get(cohort, {})
        over = {name: self._over(name) for name in lenders if name != account}
        found = [
            lease
            for name, more in over.items()
            if more > 0
            for lease in lenders[name]
            if lease.claim.reservation is None
            and lease.end > self._stop(lease)
            and lease.claim.id not in self._ended
            and not self._exempt(lease)
        ]
        found.sort(
            key=lambda lease: (
                lease.claim.id not in self._told,
                lease.claim.gpus > over[lease.claim.account],
                -over[lease.claim.account],
                -(lease.claim.held_at or 0.0),
                lease.claim.id,
            )
        )
        return found

    def _cheapest(
        self, request: WaitingLease, cohort: str, candidates: Sequence[Running]
    ) -> tuple[Pool, list[Running]] | None:
        """The pool in which the fewest leases have to end, and these."""
        best: tuple[tuple[int, int, int, int], Pool, list[Running]] | None = None
        for kind in request.kinds:
            for pool in self.plan.slots.kinds[kind]:
                leases = self._enough(request, cohort, candidates, pool)
                if leases:
                    new = sum(lease.claim.id not in self._told for lease in leases)
                    part = sum(
                        lease.claim.gpus > self._over(lease.claim.account) for lease in leases
                    )
                    cost = (part, new, len(leases), sum(lease.claim.gpus for lease in leases))
                    if best is None or cost < best[0]:
                        best = (cost, pool, leases)
        return best[1:] if best else None

    def _enough(
        self, request: WaitingLease, cohort: str, candidates: Sequence[Running], pool: Pool
    ) -> list[Running]:
        """Leases whose end gives a request room in a pool and in its cohort; none: impossible."""
        usable = self._usable(pool, request)
        open_now = self._open(pool) & usable
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
            if given.get(account, 0) < self._over(account):
                given[account] = given.get(account, 0) + lease.claim.gpus
                chosen.append(lease)
        if not fits(chosen):
            return []
        for lease in reversed(chosen.copy()):
            without = [other for other in chosen if other is not lease]
            if without and fits(without):
                chosen = without
        return chosen

    def _missing_of_cohort(self, request: WaitingLease) -> int:
        missing = 0
        for _, gate in request.gates:
            if isinstance(gate, CohortGate):
                missing = max(missing, gate.missing(request.count, self._soon))
        return missing

    def _open(self, pool: Pool) -> set[str]:
        """Devices of a pool with a slot free soon, or freed, and not promised."""
        return {
            place.device.id
            for place in pool.places
            if place.device.id in self._loose
            or any(gaps and gaps[0][0] <= self._soon for gaps in place.gaps)
        }

    def _usable(self, pool: Pool, request: WaitingLease) -> set[str]:
        """Devices of a pool that are not reserved for others while the request would run."""
        now = self.plan.now
        span = [(now, now + request.duration)]
        return {
            place.device.id
            for place in pool.places
            if not place.windows or request.audience.cut(place.windows, span) == span
        }
