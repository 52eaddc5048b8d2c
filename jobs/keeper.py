"""The hub's loop over jobs: begins what waits, sees what has ended, leaves nothing behind.

Each look reads what is not over and acts on it, each job in a task of its own. What it knows is in
the store and on the containers' labels; whoever is killed, the next look goes on from there
(``records``). What the runtime cannot say is unknown, and unknown is not over.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial

from sqlalchemy.orm import Session

from commons.audit import make_event
from commons.errors import BadRequest, LabError, NotAvailable, RuntimeSilent
from commons.i18n import N_
from commons.leases import LeaseState, ServerKey, job_of, job_server
from commons.messages import Message, Text, verbatim
from commons.principal import Principal
from commons.store import StoreError, runs
from commons.store.models import Job, utcnow
from commons.work import Keyed, Log, Periodic
from jobs import attempt, records
from jobs.attempt import NotYet, Plan
from jobs.output import Outputs
from jobs.records import State
from jobs.yielding import victims
from spawner import server_mounts, server_runs
from spawner.gpu import waiting
from spawner.gpu.ledger import recovery, transitions
from spawner.gpu.ledger.batches import Ask
from spawner.gpu.ledger.snapshot import read_snapshot
from spawner.gpu.waiting import NotGranted
from spawner.resources import Resources
from spawner.runtime import labels
from spawner.runtime.protocol import ServerState
from spawner.runtime.spec import Device, Gpus
from spawner.settings.server import ServerSettings
from spawner.starts.room import Need
from spawner.starts.turns import Closed

INTERVAL = 0.25  # seconds between two looks at SQLite's file, which tell whether to ask it
LOOK = 5.0  # seconds between two looks at the rows where nothing seems to have been written
BUSY = 1.0  # the same while anything runs: its time limit
YIELD = 2.0  # seconds between two looks at who makes room
GRACE = 60  # seconds from SIGTERM to SIGKILL: time to save
PATIENCE = 10.0  # seconds for the last of what a job has printed
ENDS_FIRST = 0.5  # seconds at most for which who is new lets a GPU pass to who waits already
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between two tries of one that is held up
TIDY = 3600.0
FRESH = 10.0  # seconds for which it is known who somebody is: an array asks for each task
MORE_REQUESTS = "queued_most"  # of a refusal that is over when others of one's own are granted

NOT_ADMITTED = Text("job_not_admitted", N_("The directory does not admit “{user}” any more."))
HELD_UP = Text("job_held_up", N_("It is kept waiting and tried again: {reason}"))

Identify = Callable[[str], Awaitable[Principal | None]]
SettingsOf = Callable[[str, Principal], Awaitable[ServerSettings]]


class JobKeeper:
    """Of one hub.

    Args:
        identify: who a person is now; None for somebody who may no longer log in.
        settings_of: what the hub's settings say of a person's servers.
    """

    def __init__(
        self, shared: Resources, identify: Identify, settings_of: SettingsOf, log: Log
    ) -> None:
        self.shared, self.store, self.log = shared, shared.store, log
        self.identify, self.settings_of = identify, settings_of
        self.outputs = Outputs(shared.data, log)
        expected = (LabError, StoreError, OSError)
        self._acts = Keyed("jobs: ends", log, expected=expected)
        self._logs = Keyed("jobs: output", log, expected=expected)
        self._starts: dict[int, asyncio.Task[None]] = {}
        self._begun: set[int] = set()  # of those, what is past waiting
        self._ends = 0  # under way
        self._no_end = asyncio.Event()
        self._no_end.set()
        self._holds: dict[int, tuple[float, float]] = {}  # not before; the pause
        self._lines: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._written: dict[int, asyncio.Event] = {}  # of those whose request is on its way
        self._people: dict[str, tuple[float, Principal, ServerSettings]] = {}
        self._known: frozenset[ServerKey] | None = None
        self._seen: object = None
        self._looked = self._yielded = self._tidied = 0.0
        self._busy = False
        self._looks = Periodic(
            "jobs", self.look, INTERVAL if self.store.is_sqlite else BUSY, log, expected=expected
        )

    # -- as the hub's servers are asked ---------------------------------------------------------

    def known(self) -> frozenset[ServerKey]:
        """The places of all jobs that are not over and settled.

        Raises StoreError while that is not known: what is in no such place is taken for lost.
        """
        if self._known is None:
            raise StoreError("jobs have not been read yet")
        return self._known

    def wake(self) -> None:
        """Something may have ended."""
        self._seen = None
        self._looks.wake()

    async def stop(self, server: ServerKey, why: str, by: str = "") -> None:
        """Have a job end; returns when that is written."""
        job = job_of(server[1])
        if job is not None:
            await self.store.run(lambda s: records.stop(s, job, why, by))
            self.wake()

    # -- the loop -------------------------------------------------------------------------------

    async def load(self) -> None:
        """Know what there is, before anybody asks. Raises StoreError."""
        found = await self.store.read(records.due)
        self._known = _places(found.rows)

    async def run(self) -> None:
        """For ever."""
        if self.store.is_sqlite:
            await self._looks.run()
            return

        async def listen() -> None:
            async for _ in self.store.news(records.NEWS):
                self.wake()

        listens = Periodic("jobs: news", listen, LOOK, self.log, expected=(StoreError,))
        async with asyncio.TaskGroup() as both:
            both.create_task(self._looks.run())
            both.create_task(listens.run())

    async def close(self) -> None:
        """Leave what is under way to the next hub."""
        starts = list(self._starts.values())
        for task in starts:
            task.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        await self._acts.close()
        await self._logs.close()

    async def look(self) -> None:
        """See to all that is not over."""
        stamp, now = self.store.stamp(), time.monotonic()
        still = stamp is not None and stamp == self._seen
        if still and now - self._looked < (BUSY if self._busy else LOOK):
            return
        self._seen, self._looked = stamp, now
        found = await self.store.read(records.due)
        self._known = _places(found.rows)
        self._busy = bool(found.rows)
        self._holds = {one: hold for one, hold in self._holds.items() if one in found.rows}
        await self._write_reasons(found)
        begin = set(found.begin)
        for one, row in found.rows.items():
            self._see_to(row, one in begin)
        for row in [row for row in found.rows.values() if row.state == State.RUNNING]:
            await self._watch(row)
        await self._make_room(found, now)
        if now - self._tidied > TIDY:
            self._tidied = now
            await self.store.run(lambda s: records.forget(s, utcnow()))
            await asyncio.to_thread(self.outputs.forget_old)

    async def _write_reasons(self, found: records.Due) -> None:
        new = {
            one: why
            for one, why in found.reasons.items()
            if (found.rows[one].reason or {}).get("code") != why.code
        }
        if new:
            await self.store.run(lambda s: records.wait(s, new))
        for one, first in found.never.items():
            self._acts.start(
                one,
                partial(
                    self._end_waiting,
                    found.rows[one],
                    State.CANCELLED,
                    records.NEVER_AFTER(job=first),
                ),
            )

    def _see_to(self, row: Job, begins: bool) -> None:
        one, state = row.id, State(row.state)
        if state == State.RUNNING or one in self._acts:
            return
        if not row.settled and state != State.STARTING:
            self._acts.start(one, partial(self._settle, row))
        elif row.stop and one not in self._begun:
            self._acts.start(one, partial(self._end_waiting, row, *_stopped(row)))
        elif (begins or state == State.STARTING) and self._may_start(one):
            task = asyncio.create_task(self._start(row), name=f"job {one}")
            self._starts[one] = task
            task.add_done_callback(partial(self._started, one))

    def _may_start(self, one: int) -> bool:
        return one not in self._starts and self._holds.get(one, (0, 0))[0] <= time.monotonic()

    def _started(self, one: int, task: asyncio.Task[None]) -> None:
        self._starts.pop(one, None)
        self._begun.discard(one)
        if not task.cancelled() and (error := task.exception()):
            self.log.error("job %s is not started: %s", one, error, exc_info=error)
            self._hold(one)

    # -- what runs ------------------------------------------------------------------------------

    async def _watch(self, row: Job) -> None:
        """One that runs, as far as is known."""
        try:
            state = await self.shared.watch.look(row.handle)
        except LabError as error:
            self.log.warning("job %s is not looked at: %s", row.id, error)
            return
        if state is None or not state.runs:
            self._acts.start(row.id, partial(self._over, row, state))
            return
        self._follow(row)
        over = row.time_limit is not None and row.started_at is not None
        if over and not row.stop and (utcnow() - row.started_at).total_seconds() >= row.time_limit:  # type: ignore[operator]
            await self.store.run(lambda s: records.stop(s, row.id, "time_limit"))
            row.stop = "time_limit"
        if row.stop:
            self._acts.start(row.id, partial(self.shared.runtime.stop, row.handle, GRACE))

    def _follow(self, row: Job) -> None:
        self._logs.start(
            row.id,
            partial(self.outputs.follow, self.shared.runtime, row.id, row.attempt, row.handle),
        )

    async def _over(self, row: Job, state: ServerState | None) -> None:
        """Its container runs no more."""
        self._ends += 1
        self._no_end.clear()
        try:
            await self._end(row, state)
        finally:
            self._ends -= 1
            if not self._ends:
                self._no_end.set()

    async def _end(self, row: Job, state: ServerState | None) -> None:
        """Keep what is known, then remove the container, then free its GPUs."""
        there = state is not None and state.status != "removed"
        if there:
            self._follow(row)
            await self._logs.over(row.id, PATIENCE)
        peak = await asyncio.to_thread(self.outputs.peak, row.id, row.attempt)
        now = await self.store.read(lambda s: s.get(Job, row.id))
        if now is None:
            return
        outcome, reason = _outcome(now, state if there else None)
        code = state.exit_code if there and state is not None else None

        def end(session: Session) -> Job | None:
            records.note_gpus(session, [now])
            return records.end(session, row.id, outcome, reason, code, peak)

        ended = await self.store.run(end)
        if ended is not None:
            self._record(row, outcome, reason, code)
        await self._settle(row)

    async def _settle(self, row: Job) -> None:
        """Remove what is left of its container, then end its lease: so no GPU is free too soon."""
        server = job_server(row.id)
        if row.handle:
            await self.shared.runtime.remove(row.handle)
        else:
            await self.shared.runtime.remove_server(row.username, server)
        await self._give_back(row, lambda s: records.settle(s, row.id))
        self.wake()

    async def _give_back(self, row: Job, also: Callable[[Session], None]) -> None:
        server = job_server(row.id)

        def work(session: Session) -> None:
            transitions.end_of_server(session, row.username, server, "job over")
            also(session)

        if row.options.get("gpus"):
            await self.shared.admission.change(work)
        else:
            await self.store.run(also)

    async def _end_waiting(self, row: Job, state: State, reason: Message) -> None:
        """One that does not run yet: it leaves the line, and whatever it had is given back."""
        if (task := self._starts.get(row.id)) is not None:
            if row.id in self._begun:
                return  # it runs in a moment, and is stopped then
            task.cancel()
            await asyncio.wait([task])
        if row.state == State.STARTING:
            await self.shared.runtime.remove_server(row.username, job_server(row.id))

        def end(session: Session) -> None:
            if records.end(session, row.id, state, reason) is not None:
                records.settle(session, row.id)

        await self._give_back(row, end)
        self._record(row, state, reason)
        self.wake()

    # -- beginning ------------------------------------------------------------------------------

    async def _start(self, row: Job) -> None:
        """From the queue to a container that runs; or why not."""
        try:
            await self._try(row)
            self._holds.pop(row.id, None)
        except NotYet as error:
            await self._say_held(row, error.reason)
        except (RuntimeSilent, StoreError, OSError) as error:
            known = error.message if isinstance(error, LabError) else verbatim(str(error)[:300])
            await self._say_held(row, HELD_UP(reason=known))
        except LabError as error:
            await self.shared.runtime.remove_server(row.username, job_server(row.id))
            reason = error.reasons[0] if isinstance(error, NotGranted) else error.message

            def end(session: Session) -> None:
                records.end(session, row.id, State.FAILED, reason)
                records.settle(session, row.id)

            await self._give_back(row, end)
            self._record(row, State.FAILED, reason)
        finally:
            self.wake()

    async def _say_held(self, row: Job, reason: Message) -> None:
        self._hold(row.id)
        if (row.reason or {}).get("code") != reason.code:
            await self.store.run(lambda s: records.wait(s, {row.id: reason}))

    def _hold(self, one: int) -> None:
        pause = min(LONGEST_PAUSE, 2 * self._holds.get(one, (0.0, FIRST_PAUSE / 2))[1])
        self._holds[one] = (time.monotonic() + pause, pause)

    async def _try(self, row: Job) -> None:
        # Of one person they ask in the order in which they were asked for.
        async with self._lines[row.username]:
            with suppress(TimeoutError):
                async with asyncio.timeout(ENDS_FIRST):
                    await self._no_end.wait()
            plan = await self._plan(row)
            asking = asyncio.create_task(self._obtain(row, plan)) if plan.choice.gpus else None
            try:
                if asking is not None:
                    await self._asked(row, asking)
            except asyncio.CancelledError:
                await _broken_off(asking)
                raise
        key = (row.username, job_server(row.id))
        try:
            grant = await asking if asking is not None else None
            await self._take_turn(row, plan, grant)
            await self._bring_up(row, plan, grant)
        except asyncio.CancelledError:
            await _broken_off(asking)
            raise
        finally:
            self.shared.turns.give_back(key)
            self.shared.turns.ahead.discard(key)

    async def _plan(self, row: Job) -> Plan:
        """Who its owner is now, and what it stands for. Raises LabError, NotYet."""
        known = self._people.get(row.username)
        if known is None or time.monotonic() - known[0] > FRESH:
            who = await self.identify(row.username)
            if who is None:
                raise BadRequest(NOT_ADMITTED(user=row.username))
            known = (time.monotonic(), who, await self.settings_of(row.username, who))
            self._people = {
                name: one
                for name, one in self._people.items()
                if time.monotonic() - one[0] <= FRESH
            } | {row.username: known}
        _, who, settings = known
        site = self.shared.site
        plan = await self.store.read(lambda s: attempt.resolve(s, row, who, site, settings))
        who.numbers()
        if not row.environment:
            await self.store.run(lambda s: records.pin(s, row.id, plan.pinned))
        return plan

    async def _asked(self, row: Job, asking: asyncio.Task[Gpus]) -> None:
        """Return when its request is written, or will not be."""
        written = self._written[row.id] = asyncio.Event()
        waits = asyncio.create_task(written.wait())
        try:
            await asyncio.wait([asking, waits], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waits.cancel()
            del self._written[row.id]

    async def _obtain(self, row: Job, plan: Plan) -> Gpus:
        """Wait until its GPUs are its own, as a server does."""
        choice = plan.choice
        limit = choice.time_limit if row.time_limit is None else float(row.time_limit)
        ask = Ask(
            row.username,
            job_server(row.id),
            choice.account,
            choice.gpus,
            choice.gpu_type,
            limit,
            {"job": records.name(row)},
        )

        def written(_said: waiting.Said) -> None:
            if (event := self._written.get(row.id)) is not None:
                event.set()

        try:
            standing = await waiting.obtain(self.shared.admission, ask, written)
        except NotAvailable as error:  # somebody has taken it from the queue
            await self.store.run(lambda s: records.stop(s, row.id, "cancelled"))
            raise NotYet(error.message) from error
        except NotGranted as error:
            if any(reason.code == MORE_REQUESTS for reason in error.reasons):
                raise NotYet(error.reasons[0]) from error
            raise
        return Gpus(
            lease=standing.lease,
            devices=tuple(Device(id=slot.device, index=slot.index) for slot in standing.slots),
            account=choice.account,
            time_limit=limit,
        )

    async def _take_turn(self, row: Job, plan: Plan, grant: Gpus | None) -> None:
        """Wait for room, behind all who wait for a server themselves."""
        key, size = (row.username, job_server(row.id)), plan.choice.size
        need, turns = Need(size.guaranteed_bytes, size.cpu), self.shared.turns
        asked = records.seconds(row.submitted_at)
        turns.ahead.add(key)
        try:
            await turns.take(key, need, asked, lambda _: None, leaves=grant is not None)
        except NotAvailable as error:
            await self._give_back(row, lambda _: None)
            raise NotYet(error.message) from error
        except Closed:
            if grant is not None:
                lease = grant.lease
                await self.shared.admission.change(
                    lambda s: recovery.again(s, lease, "maintenance")
                )
            raise NotYet(Message("maintenance_waits")) from None

    async def _bring_up(self, row: Job, plan: Plan, grant: Gpus | None) -> None:
        """Written down first, so that whoever comes after knows which attempt may run."""
        self._begun.add(row.id)
        goes_on = row.state == State.STARTING
        begun = await self.store.run(lambda s: records.begin(s, row.id))
        if begun is None:
            await self._give_back(row, lambda _: None)
            return
        outfit = await server_mounts.prepare(self.shared, plan.account, plan.who)
        spec = attempt.spec(begun, plan, outfit, grant, self.shared.site)
        handle = await self.shared.runtime.start(spec)
        lease = grant.lease if grant else ""
        there = await self.shared.watch.look(handle) if goes_on else None
        if there is not None and there.labels.get(labels.LEASE, "") != lease:
            # Begun by an earlier hub with GPUs that it does not hold any more.
            await self.store.run(lambda s: records.end(s, row.id, State.LOST, records.GONE()))
            return

        def run(session: Session) -> None:
            records.run(session, row.id, handle, lease)
            had = server_runs.of_spec(handle, spec, plan.choice.account, plan.choice.entry.name)
            runs.begin(session, had)

        try:
            await (self.shared.admission.change(run) if grant else self.store.run(run))
        except transitions.LeaseMoveError:
            # Its GPUs were taken back in this very moment.
            await self.store.run(lambda s: records.end(s, row.id, State.LOST, records.GONE()))
            return
        self._record(begun, State.RUNNING, None)
        self._follow(_with(begun, handle))

    # -- who makes room -------------------------------------------------------------------------

    async def _make_room(self, found: records.Due, now: float) -> None:
        """Stop preemptible jobs whose GPUs somebody else waits for."""
        yields = any(
            row.preemptible and row.options.get("gpus") and row.state == State.RUNNING
            for row in found.rows.values()
        )
        if not yields or now - self._yielded < YIELD:
            return
        self._yielded = now
        chosen = await self.store.read(_who_yields)
        if chosen:

            def work(session: Session) -> None:
                for job in chosen:
                    records.stop(session, job, "preempted")

            await self.store.run(work)
            self.wake()

    def _record(
        self, row: Job, state: State, reason: Message | None, code: int | None = None
    ) -> None:
        over = state != State.RUNNING
        details = {
            "job": records.name(row),
            "attempt": row.attempt,
            "state": str(state),
            "environment": row.environment,
            "gpus": row.options.get("gpus"),
            "exit_code": code,
        }
        self.shared.audit.record(
            make_event(
                "job-end" if over else "job-start",
                "failure" if over and state != State.DONE else "success",
                user=row.username,
                reason=str(reason)[:200] if reason else "",
                details={key: value for key, value in details.items() if value not in (None, "")},
            )
        )


async def _broken_off(asking: asyncio.Task[Gpus] | None) -> None:
    if asking is not None:
        asking.cancel()
        await asyncio.wait([asking])


def _with(row: Job, handle: str) -> Job:
    row.handle = handle
    return row


def _places(rows: Mapping[int, Job]) -> frozenset[ServerKey]:
    return frozenset((row.username, job_server(row.id)) for row in rows.values())


def _who_yields(session: Session) -> list[int]:
    """Preemptible jobs that are to end now."""
    places = records.preemptible(session)
    leases = {lease.id: lease for lease in transitions.live_leases(session)}
    of_lease = {
        one: places[lease.username, lease.server_name]
        for one, lease in leases.items()
        if (lease.username, lease.server_name) in places
    }
    if not any(
        lease.state == LeaseState.QUEUED and one not in of_lease for one, lease in leases.items()
    ):
        return []
    ending = {one for one, job in of_lease.items() if (row := session.get(Job, job)) and row.stop}
    snapshot = read_snapshot(session, records.seconds(utcnow()))
    return [of_lease[one] for one in victims(snapshot, of_lease, ending)]


def _stopped(row: Job) -> tuple[State, Message]:
    """What it is that ends for the reason that is written."""
    if row.stop == "preempted":
        return State.PREEMPTED, records.MADE_ROOM()
    if row.stop == "time_limit":
        return State.FAILED, records.TIME_OVER()
    if row.stop == "lost":
        return State.LOST, records.GONE()
    return State.CANCELLED, records.STOPPED(by=row.stopped_by or "LabCommons")


def _outcome(row: Job, state: ServerState | None) -> tuple[State, Message | None]:
    """How a job has ended, by what its container says."""
    if row.stop:
        return _stopped(row)
    if state is None or state.machine_restarted or state.engine_restarted:
        return State.LOST, records.GONE()
    if state.oom_killed and state.exit_code:
        return State.FAILED, records.OUT_OF_MEMORY()
    if state.exit_code == 0:
        return State.DONE, None
    if 128 < state.exit_code < 128 + 65:
        return State.FAILED, records.SIGNALLED(signal=state.exit_code - 128)
    return State.FAILED, records.EXITED(code=state.exit_code)
