"""What runs against what is recorded: the proof that nothing stays held, lost or doubled.

Labels on containers say what runs, the store says what is owed, the hub says which
servers it knows. ``plan`` compares them; ``Reconciler`` carries the plan out, at start
and every ``interval`` seconds. After a kill at any line, one pass puts things right.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from hub_ext.store import Store, StoreError
from hub_ext.store.models import LeaseState
from spawner.container import LABEL_LEASE, LABEL_SERVER, LABEL_SITE, LABEL_USER
from spawner.engine import ContainerState, Engine
from spawner.errors import SpawnerError
from spawner.gpu import ledger

Server = tuple[str, str]  # user name, server name


@dataclass(frozen=True)
class LeaseRecord:
    """A lease that has not ended."""

    id: str
    server: Server
    state: LeaseState


@dataclass(frozen=True)
class Plan:
    """What a pass has to do.

    Attributes:
        remove: containers that belong to no server the hub knows.
        end: leases without a container, with the reason.
        activate: leases whose container runs while the ledger says held: (lease, container).
    """

    remove: tuple[ContainerState, ...] = ()
    end: tuple[tuple[str, str], ...] = ()
    activate: tuple[tuple[str, str], ...] = ()


def plan(
    containers: Iterable[ContainerState], leases: Iterable[LeaseRecord], known: set[Server]
) -> Plan:
    """Compare. ``known`` are the servers that the hub has running or pending.

    ``containers`` must have been listed before ``known`` was read: a server that started
    in between is then known, and left alone.
    """
    containers = [c for c in containers if LABEL_USER in c.labels and LABEL_SERVER in c.labels]
    orphans = [c for c in containers if _server(c) not in known]
    by_lease = {c.labels[LABEL_LEASE]: c for c in containers if LABEL_LEASE in c.labels}
    end, activate = [], []
    for lease in leases:
        container = by_lease.get(lease.id)
        if lease.server not in known:
            end.append((lease.id, "orphaned" if container else "container gone"))
        elif container and container.running and lease.state is LeaseState.HELD:
            activate.append((lease.id, container.id))
    return Plan(tuple(orphans), tuple(end), tuple(activate))


def _server(container: ContainerState) -> Server:
    return container.labels[LABEL_USER], container.labels[LABEL_SERVER]


class Reconciler:
    """Carries out plans for one site.

    Args:
        known: the servers that the hub has running or pending, read at that moment.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        site_id: str,
        known: Callable[[], set[Server]],
        log: logging.Logger,
    ) -> None:
        self.engine, self.store, self.site_id = engine, store, site_id
        self.known, self.log = known, log

    async def once(self) -> Plan:
        """One pass. Raises SpawnerError or StoreError where Docker or store do not answer."""
        containers = await self.engine.list(f"{LABEL_SITE}={self.site_id}")
        leases = await self.store.read(
            lambda session: [
                LeaseRecord(lease.id, (lease.username, lease.server_name), lease.state)
                for lease in ledger.live_leases(session)
            ]
        )
        todo = plan(containers, leases, self.known())
        for container in todo.remove:
            self.log.warning(
                "reconcile: removing container %s of %s/%s, which the hub does not know",
                container.id[:12],
                *_server(container),
            )
            await self.engine.remove(container.id)
        # Devices are free only now that their containers are gone.
        for lease_id, reason in todo.end:
            if await self.store.run(partial(ledger.end, lease_id=lease_id, reason=reason)):
                self.log.warning("reconcile: ended lease %s (%s)", lease_id, reason)
        for lease_id, container_id in todo.activate:
            with suppress(ledger.LeaseMoveError):  # it ended, or became active, meanwhile
                await self.store.run(
                    partial(ledger.activate, lease_id=lease_id, container_id=container_id)
                )
                self.log.warning("reconcile: lease %s is active", lease_id)
        return todo

    async def forever(self, interval: float) -> None:
        """A pass every ``interval`` seconds; one that fails is logged, and tried again."""
        while True:
            await asyncio.sleep(interval)
            try:
                await self.once()
            except (SpawnerError, StoreError) as error:
                self.log.error("reconcile: %s", error)
