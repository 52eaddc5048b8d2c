"""What runs against what is recorded: the proof that nothing stays held, lost or doubled.

Labels on containers say what runs, the store says what is owed, the hub says which
servers it knows. ``plan`` compares them; ``Reconciler`` carries the plan out, at start
and every ``interval`` seconds. After a kill at any line, one pass puts things right. A
ledger that lost leases is written again from their containers: running work goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import LabError
from commons.leases import LeaseState, ServerKey
from commons.scopes import own_account
from commons.store import Store, StoreError, ends, runs
from commons.store.ends import Ending
from commons.store.models import EnvironmentVersion, Lease, utcnow
from commons.work import Periodic
from spawner import endings, server_runs
from spawner.gpu.ledger import invariants, recovery, transitions
from spawner.gpu.ledger.usage import moment
from spawner.gpu.policy.state import Slot
from spawner.runtime import labels
from spawner.runtime.protocol import Runtime, ServerState
from spawner.starts import kept as requests

INSPECTED = 50  # containers looked into in one pass; each only once


@dataclass(frozen=True)
class LeaseRecord:
    """A lease that has not ended.

    Attributes:
        resumable: from before the hub's start, and nobody has used its server yet: the
            keeper starts that again.
    """

    id: str
    server: ServerKey
    state: LeaseState
    resumable: bool = False


@dataclass(frozen=True)
class Repairs:
    """What a pass has to do.

    Attributes:
        remove: containers that belong to no server the hub knows.
        end: leases without a container, with the reason.
        activate: leases whose container runs while the ledger says held: (lease, container).
        again: active leases whose server has to be made anew: asked again, with their age.
        restore: containers whose lease the ledger does not have, oldest first.
        gone: servers that the hub takes for running, and that have no container which runs.
    """

    remove: tuple[ServerState, ...] = ()
    end: tuple[tuple[str, str], ...] = ()
    activate: tuple[tuple[str, str], ...] = ()
    again: tuple[str, ...] = ()
    restore: tuple[ServerState, ...] = ()
    gone: tuple[ServerKey, ...] = ()


def plan(
    containers: Iterable[ServerState],
    leases: Iterable[LeaseRecord],
    known: set[ServerKey],
    ended: frozenset[str] = frozenset(),
    running: Mapping[ServerKey, str] | None = None,
) -> Repairs:
    """Compare. ``known`` are the servers that the hub has running or pending.

    ``containers`` must have been listed before ``known`` was read: a server that started
    in between is then known, and left alone. ``ended`` are the leases on containers' labels that
    the ledger knows to be over: these containers are about to go, or the hub's poll sees to them.
    ``running`` are the containers of the servers that the hub takes for running.
    """
    containers = list(containers)
    orphans = [c for c in containers if _server(c) not in known]
    by_lease = {c.labels[labels.LEASE]: c for c in containers if labels.LEASE in c.labels}
    end, activate, again = [], [], []
    live = set()
    for lease in leases:
        live.add(lease.id)
        container = by_lease.get(lease.id)
        if lease.server in known:
            if container and container.runs and lease.state is LeaseState.HELD:
                activate.append((lease.id, container.handle))
        elif not lease.resumable:
            end.append((lease.id, "orphaned" if container else "container gone"))
        elif lease.state is LeaseState.ACTIVE:
            again.append(lease.id)
    lost = [
        container
        for lease_id, container in by_lease.items()
        if lease_id not in live | ended and container.runs and _server(container) in known
    ]
    lost.sort(key=lambda container: (container.created, container.handle))
    alive = {c.handle for c in containers if c.runs}
    gone = [server for server, handle in (running or {}).items() if handle not in alive]
    return Repairs(
        tuple(orphans), tuple(end), tuple(activate), tuple(again), tuple(lost), tuple(gone)
    )


def _withdrawn(session: Session) -> dict[str, str]:
    """Versions that were withdrawn, ``name:version``, and why."""
    rows = session.scalars(
        select(EnvironmentVersion).where(EnvironmentVersion.withdrawn_at.isnot(None))
    )
    return {f"{row.name}:{row.version}": (row.withdrawn_reason or "").rstrip(".") for row in rows}


def _slots(label: str) -> tuple[Slot, ...]:
    return tuple(Slot(device.id, device.index) for device in labels.read_devices(label))


def _server(container: ServerState) -> ServerKey:
    return container.user, container.server


class Reconciler:
    """Carries out plans for one site.

    Args:
        known: the servers that the hub has running or pending, read at that moment.
        stop: asks the hub to stop a server.
        running: the containers of the servers that the hub takes for running.
        look: tells the hub to look at a server that has no container which runs.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        known: Callable[[], set[ServerKey]],
        log: logging.Logger,
        stop: Callable[[ServerKey], None] | None = None,
        running: Callable[[], Mapping[ServerKey, str]] = dict,
        look: Callable[[ServerKey], None] | None = None,
    ) -> None:
        self.runtime, self.store = runtime, store
        self.known, self.log, self.stop = known, log, stop
        self.running, self.look = running, look
        self.findings: tuple[invariants.Finding, ...] = ()
        self._since = utcnow()
        self._slots: dict[str, tuple[Slot, ...]] = {}  # of containers that were looked into
        self._told: Collection[str] = ()  # containers whose environment was withdrawn

    async def once(self) -> Repairs:
        """One pass. Raises LabError or StoreError where runtime or store do not answer."""
        taken_to_run = await self.store.read(runs.open_keys)
        containers = await self.runtime.list()
        labelled = [c.labels[labels.LEASE] for c in containers if labels.LEASE in c.labels]
        leases, ended, kept = await self.store.read(lambda session: self._read(session, labelled))
        todo = plan(containers, leases, self.known(), ended, self.running())
        resumed = {lease.id for lease in leases if lease.resumable}
        for container in todo.remove:
            self.log.warning(
                "reconcile: removing container %s of %s/%s, which the hub does not know",
                container.handle[:12],
                *_server(container),
            )
            if container.labels.get(labels.LEASE) not in resumed and _server(container) not in kept:
                await self._note_loss(container)
            await self.runtime.remove(container.handle)
        await self._write(todo)
        removed = {one.handle for one in todo.remove}
        await server_runs.compare(
            self.store, taken_to_run, [one for one in containers if one.handle not in removed]
        )
        await self._tell_withdrawn(containers)
        for container in todo.restore:
            await self._restore(container)
        for server in todo.gone:
            self.log.warning("reconcile: %s/%s runs no more", *server)
            if self.look:
                self.look(server)
        await self._look_into(containers)
        running = {c.labels[labels.LEASE]: c.handle for c in containers if labels.LEASE in c.labels}
        await self._check({lease: self._slots.get(id_) for lease, id_ in running.items()})
        return todo

    def _read(
        self, session: Session, labelled: list[str]
    ) -> tuple[list[LeaseRecord], frozenset[str], set[ServerKey]]:
        """Leases that have not ended, those of these that have, and what is to be started again."""
        leases = [
            LeaseRecord(
                lease.id,
                (lease.username, lease.server_name),
                lease.state,
                lease.requested_at < self._since and lease.opened_at is None,
            )
            for lease in transitions.live_leases(session)
        ]
        unknown = set(labelled) - {lease.id for lease in leases}
        query = select(Lease.id).where(Lease.id.in_(unknown), Lease.state == LeaseState.ENDED)
        ended = frozenset(session.scalars(query)) if unknown else frozenset()
        return leases, ended, {one.server for one in requests.left(session) if one.again}

    async def _note_loss(self, container: ServerState) -> None:
        """What an earlier hub had begun, or was about to end, and this one does not know."""
        key, (user, server) = container.handle, _server(container)
        lost = moment(container.created) < self._since

        def write(session: Session) -> None:
            if lost:
                lease = container.labels.get(labels.LEASE)
                ends.record(session, key, user, server, Ending("lost_in_restart"), lease)
            endings.tell(session, key)

        await self.store.run(write)

    async def _write(self, todo: Repairs) -> None:
        """Bring the ledger up to date; devices are free only now that their containers are gone."""
        if todo.end:
            over = await self.store.run(lambda s: transitions.end_all(s, dict(todo.end)))
            for lease_id in over:
                self.log.warning("reconcile: ended lease %s", lease_id)
        for lease_id in todo.again:
            new = await self.store.run(
                partial(recovery.again, lease_id=lease_id, reason="restarted")
            )
            self.log.warning("reconcile: lease %s is asked again as %s", lease_id, new.id)
        for lease_id, container_id in todo.activate:
            with suppress(transitions.LeaseMoveError):  # it ended, or became active, meanwhile
                await self.store.run(
                    partial(transitions.activate, lease_id=lease_id, container_id=container_id)
                )
                self.log.warning("reconcile: lease %s is active", lease_id)

    async def _tell_withdrawn(self, containers: Iterable[ServerState]) -> None:
        """Servers go on with a version that was withdrawn: their owners are told, once."""
        reasons = await self.store.read(_withdrawn)
        told = {c.handle: c for c in containers if c.labels.get(labels.ENVIRONMENT) in reasons}

        def tell(session: Session) -> None:
            for handle, container in told.items():
                version = container.labels[labels.ENVIRONMENT]
                notices.add(
                    session,
                    username=container.user,
                    lease_id=container.labels.get(labels.LEASE),
                    server=container.server,
                    code="withdrawn",
                    data={"environment": version, "reason": reasons[version]},
                    key=f"withdrawn:{handle}",
                )

        if set(told).difference(self._told):
            await self.store.run(tell)
        self._told = told

    async def _restore(self, container: ServerState) -> None:
        """A container whose lease the ledger has lost: write it again, where that is possible."""
        lease_id, marks = container.labels[labels.LEASE], container.labels
        slots = _slots(marks.get(labels.GPUS, ""))
        if not slots:
            found = (await self.runtime.inspect([container.handle])).get(container.handle)
            slots = tuple(Slot(device) for device in found.devices) if found else ()
        if not slots:
            return
        user, server = _server(container)
        limit = marks.get(labels.TIME_LIMIT, "")
        done = await self.store.run(
            lambda session: recovery.restore(
                session,
                lease_id,
                username=user,
                server_name=server,
                account=marks.get(labels.ACCOUNT) or own_account(user),
                slots=slots,
                container_id=container.handle,
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
            container.handle[:12],
            user,
            server,
        )
        if self.stop:
            self.stop((user, server))

    async def _look_into(self, containers: Iterable[ServerState]) -> None:
        """See what containers were really given: once each, since it cannot change."""
        there = {c.handle: c for c in containers if labels.LEASE in c.labels}
        self._slots = {id_: slots for id_, slots in self._slots.items() if id_ in there}
        for container in [c for id_, c in there.items() if id_ not in self._slots][:INSPECTED]:
            found = (await self.runtime.inspect([container.handle])).get(container.handle)
            if found is None:
                continue
            said = _slots(container.labels.get(labels.GPUS, ""))
            if {slot.device for slot in said} != set(found.devices):
                said = tuple(Slot(device) for device in found.devices)
            self._slots[container.handle] = said

    async def _check(self, containers: Mapping[str, tuple[Slot, ...] | None]) -> None:
        """Whatever else must always hold; repaired where that is safe."""
        seen = {lease: slots for lease, slots in containers.items() if slots is not None}
        self.findings = await self.store.run(
            lambda session: invariants.check(session, seen, repair=True)
        )
        for finding in self.findings:
            self.log.error("reconcile: %s", finding)

    async def forever(self, interval: float) -> None:
        """A pass every ``interval`` seconds."""

        async def one_pass() -> None:
            await self.once()

        expected = (LabError, StoreError)
        await Periodic(
            "reconcile", one_pass, interval, self.log, expected=expected, first=interval
        ).run()
