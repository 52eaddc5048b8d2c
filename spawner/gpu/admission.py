"""Requests and passes: the one place where a decision becomes leases.

``admit`` is one transaction: take the lock, write what is asked, decide on all that waits,
write the decision down. Any process may do it (``run_pass``). In the hub, ``Admission`` does it
for many coroutines at once: what arrives while a transaction runs goes into the next one
(group commit), so that five hundred requests of one second are a few transactions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.store import Store, StoreError
from hub_ext.store.models import Lease, LeaseState
from spawner.gpu import ledger, notices, usage
from spawner.gpu.limits import person_limit
from spawner.gpu.policy import at_the_door, decide
from spawner.gpu.snapshot import LIVE, periods, read_quotas, read_snapshot
from spawner.gpu.state import Claim, Decision, Quota, Reason, Slot, Snapshot, Subject, Verdict
from spawner.gpu.usage import moment, seconds

T = TypeVar("T")
Move = Callable[[Session], Any]

PREEMPTION_NOTICE = 300.0  # seconds between being told and being stopped for a lender
POLL = 1.0  # seconds between two looks at what other processes have changed
PASS_EVERY = 10.0  # seconds between passes while somebody waits: time alone can let them start
VERDICTS_EVERY = 1.0  # seconds between two writings of all positions in the queue
GROW_EVERY = 60.0  # seconds between two chargings of what runs
BATCH = 200  # moves in one transaction


@dataclass(frozen=True)
class Ask:
    """A server asks for GPUs.

    Attributes:
        time_limit: seconds; None takes what the quotas say for those who ask for none.
        wait: False: be refused where it cannot start now.
    """

    username: str
    server_name: str
    account: Subject
    gpus: int
    gpu_type: str = ""
    time_limit: float | None = None
    user_options: Mapping[str, Any] = field(default_factory=dict)
    wait: bool = True


@dataclass(frozen=True)
class Standing:
    """Where a lease stands.

    Attributes:
        lease: its id; "" where it was refused and none was written.
        reasons: why it was refused, or why it waits.
    """

    lease: str
    state: LeaseState
    slots: tuple[Slot, ...] = ()
    reasons: tuple[Reason, ...] = ()
    verdict: Verdict | None = None
    ended_reason: str = ""

    @property
    def held(self) -> bool:
        """Whether its slots are its own."""
        return self.state in (LeaseState.HELD, LeaseState.ACTIVE)


@dataclass(frozen=True)
class Outcome:
    """What a transaction did: the decision, and where those who asked stand, in their order."""

    decision: Decision
    standings: tuple[Standing, ...] = ()


# -- one transaction --------------------------------------------------------------------------


def run_pass(session: Session, now: datetime | None = None) -> Decision:
    """Decide on all that waits, and write it down. Any process may call it at any time."""
    return admit(session, (), now).decision


def admit(
    session: Session,
    asks: Sequence[Ask],
    now: datetime | None = None,
    all_verdicts: bool = True,
) -> Outcome:
    """Write requests, decide on all that waits, write that down.

    A server that waits, or holds what it now asks for again, keeps its lease and its age. Without
    ``all_verdicts`` only those who ask get theirs written.
    """
    now = ledger.lock(session, now)
    quotas, settings = read_quotas(session)
    usage.keep_periods(session, seconds(now), periods(quotas, settings))
    standings: list[Standing | None] = [None] * len(asks)
    new: dict[int, Claim] = {}
    kept = _take_up(session, asks, now)
    probes = [_claim(ask, quotas, now) for ask in asks]
    snapshot = read_snapshot(session, seconds(now), probes=tuple(probes))
    snapshot = replace(snapshot, claims=tuple(claim for claim in snapshot.claims if claim.id))
    for number, (ask, claim) in enumerate(zip(asks, probes, strict=True)):
        if number in kept:
            continue
        reasons = at_the_door(claim, snapshot)
        if reasons:
            standings[number] = Standing("", LeaseState.ENDED, reasons=reasons)
            continue
        new[number] = _write(session, ask, claim, now)
        snapshot = replace(snapshot, claims=(*snapshot.claims, new[number]))
    decision = decide(snapshot)
    _write_decision(session, snapshot, decision, now, all_verdicts)
    found = _standings(snapshot, decision)
    refused = {}
    for number, ask in enumerate(asks):
        if standings[number] is None:
            lease = kept.get(number) or new[number].id
            standing = found[lease]
            if not ask.wait and not standing.held:
                refused[lease] = "not_available"
                standing = Standing("", LeaseState.ENDED, reasons=standing.reasons)
            standings[number] = standing
    if refused:
        ledger.end_all(session, refused, now)
    return Outcome(decision, tuple(s for s in standings if s is not None))


def _take_up(session: Session, asks: Sequence[Ask], now: datetime) -> dict[int, str]:
    """Leases that servers have already: kept where they fit what is asked, else ended."""
    if not asks:
        return {}
    rows = session.scalars(
        select(Lease).where(
            Lease.username.in_({ask.username for ask in asks}), Lease.state.in_(LIVE)
        )
    )
    live = {(row.username, row.server_name): row for row in rows}
    kept, over = {}, {}
    for number, ask in enumerate(asks):
        lease = live.get((ask.username, ask.server_name))
        if lease is None:
            continue
        same = (lease.gpus, lease.gpu_type, lease.account) == (ask.gpus, ask.gpu_type, ask.account)
        same = same and ask.time_limit in (None, lease.time_limit)
        if same and lease.state is not LeaseState.ACTIVE and lease.stop_at is None:
            kept[number] = lease.id
            lease.user_options = dict(ask.user_options)
        else:
            over[lease.id] = "replaced"
    session.flush()
    if over:
        ledger.end_all(session, over, now)
    return kept


def _claim(ask: Ask, quotas: Mapping[Subject, Quota], now: datetime) -> Claim:
    limit = ask.time_limit
    for name in ("default_time_limit", "time_limit"):
        if limit is None:
            found = person_limit(name, ask.username, ask.account, quotas)
            limit = float(found[0]) if found else None
    return Claim(
        id="",
        user=ask.username,
        account=ask.account,
        state=LeaseState.REQUESTED,
        gpus=ask.gpus,
        requested_at=seconds(now),
        gpu_type=ask.gpu_type,
        time_limit=limit,
    )


def _write(session: Session, ask: Ask, claim: Claim, now: datetime) -> Claim:
    lease = ledger.request(
        session,
        username=ask.username,
        server_name=ask.server_name,
        account=ask.account,
        gpus=ask.gpus,
        gpu_type=ask.gpu_type,
        time_limit=claim.time_limit,
        user_options=ask.user_options,
        now=now,
    )
    return replace(claim, id=lease.id, time_limit=lease.time_limit)


def _write_decision(
    session: Session, snapshot: Snapshot, decision: Decision, now: datetime, all_verdicts: bool
) -> None:
    ledger.hold(session, decision.grants, now)
    fresh = {claim.id for claim in snapshot.claims if claim.state is LeaseState.REQUESTED}
    verdicts = [v for v in decision.verdicts if v.lease in fresh]
    if all_verdicts and len(verdicts) < len(decision.verdicts):
        stored = {
            row.id: row.verdict
            for row in session.execute(
                select(Lease.id, Lease.verdict).where(Lease.state == LeaseState.QUEUED)
            )
        }
        verdicts += [
            verdict
            for verdict in decision.verdicts
            if verdict.lease not in fresh and ledger.as_json(verdict) != stored.get(verdict.lease)
        ]
    ledger.queue(session, verdicts)
    claims = {claim.id: claim for claim in snapshot.claims}
    for preemption in decision.preemptions:
        at = moment(snapshot.now + PREEMPTION_NOTICE)
        if ledger.plan_stop(session, preemption.lease, "preempted", at):
            lender = claims[preemption.wanted_by].account
            notices.add(
                session,
                username=claims[preemption.lease].user,
                lease_id=preemption.lease,
                code="preempted_soon",
                data={"account": lender, "stop_at": seconds(at)},
                key=f"preempted_soon:{preemption.lease}",
            )


def _standings(snapshot: Snapshot, decision: Decision) -> dict[str, Standing]:
    found = {
        claim.id: Standing(claim.id, claim.state, slots=claim.slots) for claim in snapshot.claims
    }
    for grant in decision.grants:
        found[grant.lease] = Standing(grant.lease, LeaseState.HELD, slots=grant.slots)
    for verdict in decision.verdicts:
        found[verdict.lease] = Standing(
            verdict.lease, LeaseState.QUEUED, reasons=verdict.reasons, verdict=verdict
        )
    return found


def read_standings(session: Session, leases: Iterable[str]) -> dict[str, Standing]:
    """Where leases stand, as the store has it."""
    rows = session.scalars(select(Lease).where(Lease.id.in_(list(leases))))
    found = {}
    for row in rows:
        verdict = ledger.verdict_of(row.id, row.verdict) if row.verdict else None
        found[row.id] = Standing(
            row.id,
            row.state,
            tuple(Slot(device.device_id, device.slot) for device in row.devices),
            verdict.reasons if verdict else (),
            verdict,
            row.ended_reason or "",
        )
    return found


# -- many at once, in the hub -----------------------------------------------------------------


@dataclass
class _Job:
    """Something to do in the next transaction; ``work`` or ``ask``."""

    done: asyncio.Future[Any]
    work: Move | None = None
    ask: Ask | None = None


class Watch:
    """News of one waiting lease; the newest standing counts, older ones are dropped."""

    def __init__(self) -> None:
        self.standing: Standing | None = None
        self._news = asyncio.Event()

    def put(self, standing: Standing) -> None:
        """There is news."""
        if standing != self.standing:
            self.standing = standing
            self._news.set()

    async def next(self) -> Standing:
        """The next standing that differs from the last one."""
        await self._news.wait()
        self._news.clear()
        assert self.standing is not None
        return self.standing


class Admission:
    """Requests and moves of the hub's coroutines, in as few transactions as possible.

    ``run`` (begun by the first call, where nobody runs it) writes the batches, notices what
    other processes changed (by ``gpu_state.version``), and decides again when time alone may
    have let somebody start.
    """

    def __init__(self, store: Store, log: logging.Logger | None = None) -> None:
        self.store = store
        self.log = log or logging.getLogger(__name__)
        self.stopping = False
        self._jobs: list[_Job] = []
        self._wanted = asyncio.Event()
        self._pass = False
        self._version = -1
        self._verdicts_at = self._passed_at = self._grown_at = -1e9
        self._waiting = True
        self._late_verdicts: asyncio.TimerHandle | None = None
        self._watches: dict[str, Watch] = {}
        self._ending: dict[str, str] = {}
        self._running = False
        self._runner: asyncio.Task[None] | None = None

    # -- what others call ---------------------------------------------------------------------

    async def submit(self, ask: Ask) -> Standing:
        """Ask for GPUs: held, queued or refused; what is queued is watched. Raises StoreError."""
        job = _Job(asyncio.get_running_loop().create_future(), ask=ask)
        try:
            standing: Standing = await self._do(job)
        except asyncio.CancelledError:
            # The answer may have come in the very moment in which nobody wanted it any more.
            if job.done.done() and not job.done.cancelled() and job.done.exception() is None:
                self.give_up(job.done.result().lease)
            raise
        return standing

    async def change(self, work: Callable[[Session], T]) -> T:
        """Make moves of the ledger, and decide again. Raises StoreError and what ``work`` raises.

        ``work`` may be run more than once and must have no effects outside the session.
        """
        result: T = await self._do(_Job(asyncio.get_running_loop().create_future(), work=work))
        return result

    async def end(self, lease_id: str, reason: str) -> bool:
        """End a lease whose container is gone."""
        return await self.change(lambda session: ledger.end(session, lease_id, reason))

    def end_soon(self, lease_id: str, reason: str) -> None:
        """End a lease as soon as the database lets us; for those who cannot wait."""
        self._ending[lease_id] = reason
        self._wanted.set()

    def give_up(self, lease_id: str) -> None:
        """Whoever waited does so no longer; a hub that stops keeps places for the next one."""
        self.unwatch(lease_id)
        if lease_id and not self.stopping:
            self.end_soon(lease_id, "cancelled")

    @property
    def ending(self) -> Mapping[str, str]:
        """Leases that are still to be ended."""
        return self._ending

    def wake(self) -> None:
        """Decide again soon."""
        self._pass = True
        self._wanted.set()

    def watch(self, lease_id: str) -> Watch:
        """News of a lease from now on, until ``unwatch``."""
        return self._watches.setdefault(lease_id, Watch())

    def unwatch(self, lease_id: str) -> None:
        """No more news."""
        self._watches.pop(lease_id, None)

    # -- the work -----------------------------------------------------------------------------

    async def _do(self, job: _Job) -> Any:
        if not self._running:
            self._running = True
            self._runner = asyncio.create_task(self.run())
        self._jobs.append(job)
        self._wanted.set()
        return await job.done

    async def close(self) -> None:
        """Stop; what is under way is finished."""
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
            self._runner, self._running = None, False
        if self._late_verdicts is not None:
            self._late_verdicts.cancel()

    async def run(self) -> None:
        """Write batches for ever."""
        self._running = True
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), POLL)
            self._wanted.clear()
            jobs, self._jobs = self._jobs[:BATCH], self._jobs[BATCH:]
            if self._jobs:
                self._wanted.set()
            try:
                if not jobs and not self._ending:
                    await self._look()
                if jobs or self._ending or self._pass:
                    await self._write(jobs)
            except StoreError as error:
                self.log.error("GPU leases: %s", error)
                await asyncio.sleep(POLL)
            except Exception:
                self.log.exception("GPU leases: a pass failed")
                await asyncio.sleep(POLL)

    async def _look(self) -> None:
        """Notice what other processes have changed, and that time has passed."""
        version = await self.store.read(ledger.version)
        if version != self._version:
            self._pass = True
            await self._tell_from_store()
        elif time.monotonic() - self._passed_at >= PASS_EVERY:
            self._pass = self._waiting
            self._passed_at = time.monotonic()
            await self._tell_from_store()

    async def _tell_from_store(self) -> None:
        watched = list(self._watches)
        if watched:
            found = await self.store.read(lambda session: read_standings(session, watched))
            self._tell(found)

    def _tell(self, standings: Mapping[str, Standing]) -> None:
        for lease, watch in self._watches.items():
            if lease in standings:
                watch.put(standings[lease])

    async def _write(self, jobs: Sequence[_Job]) -> None:
        self._pass = False
        # Who has left meanwhile asks for nothing; a move is made for its own sake.
        jobs = [job for job in jobs if job.ask is None or not job.done.cancelled()]
        try:
            await self._transact(jobs)
        except Exception as error:
            if isinstance(error, StoreError) or not jobs:
                for job in jobs:
                    _fail(job, error)
                raise
            if len(jobs) > 1:
                # One of them is at fault: each alone, so that the others do not suffer.
                for job in jobs:
                    await self._write([job])
            else:
                await self._alone(jobs[0], error)

    async def _alone(self, job: _Job, error: Exception) -> None:
        """The transaction of a single job failed: a move is made without deciding."""
        if job.work is None:
            return _fail(job, error)
        try:
            result = await self.store.run(job.work)
        except Exception as reason:
            return _fail(job, reason)
        self.log.error("GPU leases: no decision after a move", exc_info=error)
        if not job.done.done():
            job.done.set_result(result)

    async def _transact(self, jobs: Sequence[_Job]) -> None:
        now, ending = time.monotonic(), dict(self._ending)
        all_verdicts = now - self._verdicts_at >= VERDICTS_EVERY
        grow = now - self._grown_at >= GROW_EVERY
        asks = [job.ask for job in jobs if job.ask is not None]

        def work(session: Session) -> tuple[list[Any], Outcome, dict[str, Standing], int]:
            at = ledger.lock(session)
            if grow:
                usage.grow(session, at)
            if ending:
                ledger.end_all(session, ending)
            results = [job.work(session) for job in jobs if job.work is not None]
            outcome = admit(session, asks, all_verdicts=all_verdicts)
            changed = _standings_of(outcome.decision)
            return results, outcome, changed, ledger.version(session)

        results, outcome, changed, version = await self.store.run(work)
        others_wrote = self._version not in (-1, version - 1)
        self._version, self._passed_at = version, now
        self._waiting = bool(outcome.decision.verdicts)
        if all_verdicts:
            self._verdicts_at = now
        elif self._waiting and self._late_verdicts is None:
            self._late_verdicts = asyncio.get_running_loop().call_later(VERDICTS_EVERY, self._late)
        if grow:
            self._grown_at = now
        for lease in ending:
            self._ending.pop(lease, None)
        self._answer(jobs, results, outcome)
        self._tell(changed)
        if others_wrote or results:
            # A move may have ended or cancelled somebody who waits here.
            await self._tell_from_store()

    def _late(self) -> None:
        """Positions that were not written at once are written now."""
        self._late_verdicts = None
        self.wake()

    def _answer(self, jobs: Sequence[_Job], results: Sequence[Any], outcome: Outcome) -> None:
        work_results, ask_results = iter(results), iter(outcome.standings)
        for job in jobs:
            if job.ask is None:
                result = next(work_results)
            else:
                result = next(ask_results)
                if job.done.cancelled():
                    self.give_up(result.lease)
                elif result.lease:
                    self.watch(result.lease)  # at once, or news could be missed
            if not job.done.done():
                job.done.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)


def _standings_of(decision: Decision) -> dict[str, Standing]:
    found = {
        grant.lease: Standing(grant.lease, LeaseState.HELD, slots=grant.slots)
        for grant in decision.grants
    }
    for verdict in decision.verdicts:
        found[verdict.lease] = Standing(
            verdict.lease, LeaseState.QUEUED, reasons=verdict.reasons, verdict=verdict
        )
    return found
