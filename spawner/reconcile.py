"""What runs against what is recorded: the proof that nothing stays held, lost or doubled.

Labels on containers say what runs, the store says what is owed, the hub says which
servers it knows. ``plan`` compares them; ``Reconciler`` carries the plan out, at start
and every ``interval`` seconds. After a kill at any line, one pass puts things right. A
ledger that lost leases is written again from their containers: running work goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.store import Store, StoreError
from hub_ext.store.models import Lease, LeaseState, utcnow
from spawner.container import (
    LABEL_ACCOUNT,
    LABEL_GPUS,
    LABEL_LEASE,
    LABEL_SERVER,
    LABEL_SITE,
    LABEL_TIME_LIMIT,
    LABEL_USER,
    read_slots,
)
from spawner.engine import ContainerState, Engine
from spawner.errors import SpawnerError
from spawner.gpu import invariants, ledger, recovery
from spawner.gpu.state import Slot
from spawner.gpu.usage import moment

Server = tuple[str, str]  # user name, server name
INSPECTED = 50  # containers looked into in one pass; each only once


@dataclass(frozen=True)
class LeaseRecord:
    """A lease that has not ended.

    Attributes:
        resumable: from before the hub's start, and nobody has used its server yet: the
            keeper starts that again.
    """

    id: str
    server: Server
    state: LeaseState
    resumable: bool = False


@dataclass(frozen=True)
class Plan:
    """What a pass has to do.

    Attributes:
        remove: containers that belong to no server the hub knows.
        end: leases without a container, with the reason.
        activate: leases whose container runs while the ledger says held: (lease, container).
        again: active leases whose server has to be made anew: asked again, with their age.
        restore: containers whose lease the ledger does not have, oldest first.
    """

    remove: tuple[ContainerState, ...] = ()
    end: tuple[tuple[str, str], ...] = ()
    activate: tuple[tuple[str, str], ...] = ()
    again: tuple[str, ...] = ()
    restore: tuple[ContainerState, ...] = ()


def plan(
    containers: Iterable[ContainerState],
    leases: Iterable[LeaseRecord],
    known: set[Server],
    ended: frozenset[str] = frozenset(),
) -> Plan:
    """Compare. ``known`` are the servers that the hub has running or pending.

    ``containers`` must have been listed before ``known`` was read: a server that started
    in between is then known, and left alone. ``ended`` are the leases on containers' labels that
    the ledger knows to be over: these containers are about to go, or the hub's poll sees to them.
    """
    containers = [c for c in containers if LABEL_USER in c.labels and LABEL_SERVER in c.labels]
    orphans = [c for c in containers if _server(c) not in known]
    by_lease = {c.labels[LABEL_LEASE]: c for c in containers if LABEL_LEASE in c.labels}
    end, activate, again = [], [], []
    live = set()
    for lease in leases:
        live.add(lease.id)
        container = by_lease.get(lease.id)
        if lease.server in known:
            if container and container.running and lease.state is LeaseState.HELD:
                activate.append((lease.id, container.id))
        elif not lease.resumable:
            end.append((lease.id, "orphaned" if container else "container gone"))
        elif lease.state is LeaseState.ACTIVE:
            again.append(lease.id)
    lost = [
        container
        for lease_id, container in by_lease.items()
        if lease_id not in live | ended and container.running and _server(container) in known
    ]
    lost.sort(key=lambda container: (container.created, container.id))
    return Plan(tuple(orphans), tuple(end), tuple(activate), tuple(again), tuple(lost))


def _server(container: ContainerState) -> Server:
    return container.labels[LABEL_USER], container.labels[LABEL_SERVER]


class Reconciler:
    """Carries out plans for one site.

    Args:
        known: the servers that the hub has running or pending, read at that moment.
        stop: asks the hub to stop a server.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        site_id: str,
        known: Callable[[], set[Server]],
        log: logging.Logger,
        stop: Callable[[Server], None] | None = None,
    ) -> None:
        self.engine, self.store, self.site_id = engine, store, site_id
        self.known, self.log, self.stop = known, log, stop
        self.findings: tuple[invariants.Finding, ...] = ()
        self._since = utcnow()
        self._slots: dict[str, tuple[Slot, ...]] = {}  # of containers that were looked into

    async def once(self) -> Plan:
        """One pass. Raises SpawnerError or StoreError where Docker or store do not answer."""
        containers = await self.engine.list(f"{LABEL_SITE}={self.site_id}")
        labelled = [c.labels[LABEL_LEASE] for c in containers if LABEL_LEASE in c.labels]
        leases, ended = await self.store.read(lambda session: self._read(session, labelled))
        todo = plan(containers, leases, self.known(), ended)
        for container in todo.remove:
            self.log.warning(
                "reconcile: removing container %s of %s/%s, which the hub does not know",
                container.id[:12],
                *_server(container),
            )
            await self.engine.remove(container.id)
        await self._write(todo)
        for container in todo.restore:
            await self._restore(container)
        await self._look_into(containers)
        running = {c.labels[LABEL_LEASE]: c.id for c in containers if LABEL_LEASE in c.labels}
        await self._check({lease: self._slots.get(id_) for lease, id_ in running.items()})
        return todo

    def _read(
        self, session: Session, labelled: list[str]
    ) -> tuple[list[LeaseRecord], frozenset[str]]:
        leases = [
            LeaseRecord(
                lease.id,
                (lease.username, lease.server_name),
                lease.state,
                lease.requested_at < self._since and lease.opened_at is None,
            )
            for lease in ledger.live_leases(session)
        ]
        unknown = set(labelled) - {lease.id for lease in leases}
        query = select(Lease.id).where(Lease.id.in_(unknown), Lease.state == LeaseState.ENDED)
        return leases, frozenset(session.scalars(query)) if unknown else frozenset()

    async def _write(self, todo: Plan) -> None:
        """Bring the ledger up to date; devices are free only now that their containers are gone."""
        if todo.end:
            over = await self.store.run(lambda s: ledger.end_all(s, dict(todo.end)))
            for lease_id in over:
                self.log.warning("reconcile: ended lease %s", lease_id)
        for lease_id in todo.again:
            new = await self.store.run(
                partial(recovery.again, lease_id=lease_id, reason="restarted")
            )
            self.log.warning("reconcile: lease %s is asked again as %s", lease_id, new.id)
        for lease_id, container_id in todo.activate:
            with suppress(ledger.LeaseMoveError):  # it ended, or became active, meanwhile
                await self.store.run(
                    partial(ledger.activate, lease_id=lease_id, container_id=container_id)
                )
                self.log.warning("reconcile: lease %s is active", lease_id)

    async def _restore(self, container: ContainerState) -> None:
        """A container whose lease the ledger has lost: write it again, where that is possible."""
        lease_id, labels = container.labels[LABEL_LEASE], container.labels
        slots = read_slots(labels.get(LABEL_GPUS, ""))
        if not slots:
            found = await self.engine.inspect(container.id)
            slots = tuple(Slot(device) for device in found.devices) if found else ()
        if not slots:
            return
        user, server = _server(container)
        limit = labels.get(LABEL_TIME_LIMIT, "")
        done = await self.store.run(
            lambda session: recovery.restore(
                session,
                lease_id,
                username=user,
                server_name=server,
                account=labels.get(LABEL_ACCOUNT) or f"user:{user}",
                slots=slots,
                container_id=container.id,
                held_at=moment(container.created),
                time_limit=float(limit) if limit.isdigit() else None,
            )
        )
        if done:
            self.log.warning("reconcile: lease %s of %s/%s written again", lease_id, user, server)
            return
        # Its devices are another's by now. The ledger decides: this one is stopped, as a person
        # would stop it, and the other goes on.
        self.log.error(
            "reconcile: stopping container %s of %s/%s, whose GPUs are another's in the ledger",
            container.id[:12],
            user,
            server,
        )
        if self.stop:
            self.stop((user, server))

    async def _look_into(self, containers: Iterable[ContainerState]) -> None:
        """See what containers were really given: once each, since it cannot change."""
        there = {c.id: c for c in containers if LABEL_LEASE in c.labels}
        self._slots = {id_: slots for id_, slots in self._slots.items() if id_ in there}
        for container in [c for id_, c in there.items() if id_ not in self._slots][:INSPECTED]:
            found = await self.engine.inspect(container.id)
            if found is None:
                continue
            said = read_slots(container.labels.get(LABEL_GPUS, ""))
            if {slot.device for slot in said} != set(found.devices):
                said = tuple(Slot(device) for device in found.devices)
            self._slots[container.id] = said

    async def _check(self, containers: Mapping[str, tuple[Slot, ...] | None]) -> None:
        """Whatever else must always hold; repaired where that is safe."""
        seen = {lease: slots for lease, slots in containers.items() if slots is not None}
        self.findings = await self.store.run(
            lambda session: invariants.check(session, seen, repair=True)
        )
        for finding in self.findings:
            self.log.error("reconcile: %s", finding)

    async def forever(self, interval: float) -> None:
        """A pass every ``interval`` seconds; one that fails is logged, and tried again."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.once()
            except (SpawnerError, StoreError) as error:
                self.log.error("reconcile: %s", error)
