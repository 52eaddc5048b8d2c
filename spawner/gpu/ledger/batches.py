"""Requests and moves of the hub's coroutines, in as few transactions as possible.

What arrives while a transaction runs goes into the next one (group commit), so that five
hundred requests of one second are a few transactions (``passes.admit``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from commons.store import Store, StoreError
from commons.work import Periodic
from spawner.gpu.ledger import transitions, usage
from spawner.gpu.ledger.allocation import (
    Ask,
    Outcome,
    Standing,
    admit,
    changes,
    read_standings,
    run_pass,
)

__all__ = ["Admission", "Ask", "Outcome", "Standing", "Watch", "admit", "run_pass"]

T = TypeVar("T")
Move = Callable[[Session], Any]

POLL = 1.0  # seconds between two looks at what other processes have changed
PASS_EVERY = 10.0  # seconds between passes while somebody waits: time alone can let them start
VERDICTS_EVERY = 1.0  # seconds between two writings of all positions in the queue
GROW_EVERY = 60.0  # seconds between two chargings of what runs
BATCH = 200  # moves in one transaction


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
        # An outage that is over has to be noticed at once.
        self._batches = Periodic(
            "GPU ledger", self._batch, POLL, self.log, expected=(StoreError,), longest=POLL
        )
        self._pass = False
        self._version = -1
        self._stamp: object = None  # of the store when it had that version
        self._verdicts_at = self._passed_at = self._grown_at = -1e9
        self._waiting = True
        self._late_verdicts: asyncio.TimerHandle | None = None
        self._watches: dict[str, Watch] = {}
        self._ending: dict[str, str] = {}
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
        return await self.change(lambda session: transitions.end(session, lease_id, reason))

    def end_soon(self, lease_id: str, reason: str) -> None:
        """End a lease as soon as the database lets us; for those who cannot wait."""
        self._ending[lease_id] = reason
        self._batches.wake()

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
        self._batches.wake()

    def watch(self, lease_id: str) -> Watch:
        """News of a lease from now on, until ``unwatch``."""
        return self._watches.setdefault(lease_id, Watch())

    def unwatch(self, lease_id: str) -> None:
        """No more news."""
        self._watches.pop(lease_id, None)

    # -- the work -----------------------------------------------------------------------------

    async def _do(self, job: _Job) -> Any:
        if self._runner is None:
            self._runner = asyncio.create_task(self.run())
        self._jobs.append(job)
        self._batches.wake()
        return await job.done

    async def close(self) -> None:
        """Stop; what is under way is finished."""
        if self._runner is not None:
            self._runner.cancel()
            with suppress(asyncio.CancelledError):
                await self._runner
            self._runner = None
        if self._late_verdicts is not None:
            self._late_verdicts.cancel()

    async def run(self) -> None:
        """Write batches for ever."""
        self._runner = asyncio.current_task()
        await self._batches.run()

    async def _batch(self) -> None:
        jobs, self._jobs = self._jobs[:BATCH], self._jobs[BATCH:]
        if self._jobs:
            self._batches.wake()
        if not jobs and not self._ending:
            await self._look()
        if jobs or self._ending or self._pass:
            await self._write(jobs)

    async def _look(self) -> None:
        """Notice what other processes have changed, and that time has passed."""
        stamp, version = self.store.stamp(), self._version
        if stamp is None or stamp != self._stamp:
            version = await self.store.read(transitions.version)
        if version != self._version:
            self._pass = True
            await self._tell_from_store()
            return
        self._stamp = stamp
        if time.monotonic() - self._passed_at >= PASS_EVERY:
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
            at = transitions.lock(session)
            if grow:
                usage.grow(session, at)
            if ending:
                transitions.end_all(session, ending)
            results = [job.work(session) for job in jobs if job.work is not None]
            outcome = admit(session, asks, all_verdicts=all_verdicts)
            changed = changes(outcome.decision)
            return results, outcome, changed, transitions.version(session)

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
                    self.watch(result.lease).standing = result  # at once: no news is missed
            if not job.done.done():
                job.done.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)
