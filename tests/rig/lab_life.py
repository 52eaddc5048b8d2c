"""A hub's life with leases, without hub and Docker: the real store, ledger, policy and reconciler.

Containers and the hub's memory are sets; the clock is ours; and a crash can be put between any two
statements, and before or after a commit: what was not written is gone, and so is all memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.orm import Session

from commons.leases import LeaseState, ServerKey
from commons.store import GpuQuota, Lease, Store
from spawner import reconcile
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import batches, invariants, transitions
from spawner.gpu.ledger.batches import Ask, Standing
from spawner.gpu.ledger.snapshot import LIVE
from spawner.gpu.ledger.usage import seconds
from spawner.gpu.policy import lifetime
from spawner.gpu.policy.lifetime import Stop, Warn
from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.state import Slot
from spawner.gpu.watch import lease_controller
from spawner.runtime import labels, spec
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import ServerState

T = TypeVar("T")
BEGINNING = datetime(2026, 3, 27, 9)  # a Friday; clocks change on Sunday

DEVICES = (
    Device("GPU-a0", "A100", 80 * 2**30),
    Device("GPU-a1", "A100", 80 * 2**30),
    Device("GPU-t0", "T4", 16 * 2**30),
    Device("GPU-t1", "T4", 16 * 2**30, sharing="time-slicing", slots=2, weight=0.5),
)
DEFAULTS = {"time_limit": "8h", "default_time_limit": "2h"}


class Crash(BaseException):
    """The process is gone."""


class Faults:
    """Crashes at the n-th statement, or beginning or end of a commit, from now on."""

    def __init__(self, store: Store) -> None:
        self.countdown = 0
        event.listen(store.engine, "before_cursor_execute", self._before)
        event.listen(store.engine, "commit", self._before)

    def _before(self, *_arguments: object) -> None:
        if self.countdown:
            self.countdown -= 1
            if not self.countdown:
                raise Crash

    def after(self) -> None:
        """The moment after a commit counts, too."""
        self._before()


class Clock:
    """Stands in for ``utcnow`` of all modules that ask for the time."""

    modules = (transitions, invariants, lease_controller, reconcile)

    def __init__(self) -> None:
        self.now = BEGINNING
        self._real = [module.utcnow for module in self.modules]  # type: ignore[attr-defined]
        for module in self.modules:
            module.utcnow = lambda: self.now  # type: ignore[attr-defined]

    def close(self) -> None:
        for module, real in zip(self.modules, self._real, strict=True):
            module.utcnow = real  # type: ignore[attr-defined]


class Containers(MemoryRuntime):
    """Containers by name of their server, made and lost at a word."""

    def __init__(self) -> None:
        super().__init__("lab")
        self.number = 0

    @property
    def named(self) -> dict[ServerKey, ServerState]:
        return {(one.user, one.server): one for one in self.servers.values()}

    def make(self, lease: Lease, now: datetime) -> str:
        devices = [spec.Device(id=one.device_id, index=one.slot) for one in lease.devices]
        self.lose((lease.username, lease.server_name))
        marks = {
            labels.LEASE: lease.id,
            labels.GPUS: labels.show_devices(devices),
            labels.ACCOUNT: lease.account,
        }
        if lease.time_limit is not None:
            marks[labels.TIME_LIMIT] = str(lease.time_limit)
        self.number += 1
        self.servers[f"c{self.number}"] = ServerState(
            handle=f"c{self.number}",
            user=lease.username,
            server=lease.server_name,
            status="running",
            labels=marks,
            created=now.replace(tzinfo=UTC).timestamp(),
            devices=tuple(device.id for device in devices),
        )
        return f"c{self.number}"

    def lose(self, server: ServerKey) -> None:
        self._remove_named(*server)


class AtOnce:
    """The store without its threads: for coroutines that are run one at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, work: Callable[[Session], T]) -> T:
        return self._store.transact(work)

    async def read(self, work: Callable[[Session], T]) -> T:
        return self._store.transact(work, read=True)


class Lab:
    """One hub, its store, its containers, and everybody's doings."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.faults = Faults(store)
        self.clock = Clock()
        self.engine = Containers()
        self.remembered: set[ServerKey] = set()  # in the hub's own database
        self.pending: set[ServerKey] = set()  # in the hub's memory
        self.loop = asyncio.new_event_loop()
        self.drift = timedelta()  # by which the wall clock was set, for our own accounts
        self.store.transact(self._furnish)
        self._begin()

    def _furnish(self, session: Session) -> None:
        sync_inventory(session, DEVICES, now=self.clock.now)
        session.add(GpuQuota(subject="default", spec=dict(DEFAULTS), changed_at=self.clock.now))

    def close(self) -> None:
        self.clock.close()
        self.loop.close()

    # -- the hub --------------------------------------------------

    def _begin(self) -> None:
        log = logging.getLogger("lab_life")
        log.disabled = True
        self.pending = set()
        self.up_since = self.clock.now
        self.reconciler = reconcile.Reconciler(
            self.engine,
            AtOnce(self.store),  # type: ignore[arg-type]
            lambda: self.remembered | self.pending,
            log,
            self.remembered.discard,
        )

    def restart(self) -> None:
        """The hub was killed; the next one takes over."""
        self.faults.countdown = 0
        self.tick(1)
        self._begin()
        self.reconcile()
        for lease in self.live():
            server = (lease.username, lease.server_name)
            if lease.state is not LeaseState.ACTIVE and server not in self.remembered:
                self.pending.add(server)
                options = lease.user_options
                self.admit(Ask(*server, lease.account, lease.gpus, lease.gpu_type, **options))
        self.look()

    def reconcile(self) -> None:
        self.loop.run_until_complete(self.reconciler.once())
        # What the hub would see at its next poll.
        self.remembered &= set(self.engine.named)
        self.run_pass()

    def transact(self, work: Callable[[Session], T]) -> T:
        """One transaction; a crash in or right after it is the end of this hub."""
        result = self.store.transact(work)
        self.faults.after()
        return result

    def run_pass(self) -> None:
        self.transact(batches.run_pass)

    def live(self) -> list[Lease]:
        return self.store.transact(transitions.live_leases, read=True)

    def move(self, work: Callable[[Session], Any]) -> None:
        """A move and a pass, as one batch of the hub."""

        def both(session: Session) -> None:
            work(session)
            batches.run_pass(session)

        self.transact(both)

    # -- servers --------------------------------------------------

    def admit(self, ask: Ask) -> Standing:
        outcome = self.transact(lambda session: batches.admit(session, [ask]))
        [standing] = outcome.standings
        if not standing.lease:
            self.pending.discard((ask.username, ask.server_name))
        return standing

    def ask(self, ask: Ask) -> None:
        """As the spawner does: an old container goes first."""
        server = (ask.username, ask.server_name)
        self.remembered.discard(server)
        self.pending.add(server)
        self.engine.lose(server)
        self.admit(ask)

    def start(self, lease: Lease) -> None:
        """From the grant to the moment in which the hub remembers the server."""
        server = (lease.username, lease.server_name)
        container = self.engine.make(lease, self.clock.now)
        self.faults.after()
        self.transact(lambda session: transitions.activate(session, lease.id, container))
        self.remembered.add(server)
        self.pending.discard(server)

    def stop(self, lease: Lease, reason: str = "stopped") -> None:
        """The container goes, then the lease ends, then the hub forgets the server."""
        server = (lease.username, lease.server_name)
        self.engine.lose(server)
        self.faults.after()
        self.move(lambda session: transitions.end(session, lease.id, reason))
        self.remembered.discard(server)
        self.pending.discard(server)

    # -- time ---------------------------------------------------------------------------------

    def tick(self, minutes: float) -> None:
        self.clock.now += timedelta(minutes=minutes)

    def look(self) -> None:
        """What the keeper does at every look."""
        now = self.clock.now
        hold_time, warn_before, leases = self.store.transact(lease_controller._read, read=True)
        actions = lifetime.plan(
            leases, seconds(now), hold_time, warn_before, seconds(self.up_since)
        )
        warnings = [action for action in actions if isinstance(action, Warn) and action.ends]
        if warnings:
            self.transact(lambda session: lease_controller._warn(session, warnings, now))
        for action in actions:
            if isinstance(action, Stop):
                self._carry_out(action)
        self.run_pass()

    def _carry_out(self, action: Stop) -> None:
        id_, now = action.lease.id, self.clock.now
        self.transact(lambda session: transitions.plan_stop(session, id_, action.reason, now))
        self.stop(self.store.transact(lambda session: session.get_one(Lease, id_), read=True))

    # -- what must hold -----------------------------------------------------------------------

    def check(self) -> None:
        containers = {
            container.labels[labels.LEASE]: tuple(
                Slot(device.id, device.index)
                for device in labels.read_devices(container.labels[labels.GPUS])
            )
            for container in self.engine.servers.values()
        }
        everything = [slot for slots in containers.values() for slot in slots]
        assert len(everything) == len(set(everything)), f"a slot twice: {containers}"
        found = self.store.transact(
            lambda s: invariants.check(s, containers, patience=0, now=self.clock.now), read=True
        )
        assert found == (), found

    def servers(self) -> dict[ServerKey, LeaseState]:
        return {
            (lease.username, lease.server_name): lease.state
            for lease in self.live()
            if lease.state in LIVE
        }
