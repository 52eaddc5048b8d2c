"""What the hub does in maintenance: keeps the line closed, warns, stops servers, says who works."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from sqlalchemy.orm import Session

from commons import maintenance
from commons.broadcasts import utc
from commons.leases import ServerKey
from commons.messages import Message
from commons.store import Store
from commons.store.ends import Ending
from commons.store.models import Broadcast, utcnow
from commons.work import Keyed
from spawner.gpu.ledger.batches import Admission
from spawner.gpu.ledger.usage import seconds
from spawner.gpu.policy.reasons import REASONS
from spawner.gpu.watch.server_activity import Jupyter
from spawner.starts.turns import Turns

WAITS = REASONS["maintenance_waits"]
INTERVAL = 2.0  # seconds between two looks
AT_ONCE = 5  # servers that are stopped, or asked what goes on, at a time
NOTE_EVERY = 5  # looks between two writings of who works
ASK_EVERY = 15  # looks between two questions to servers what goes on in them
AHEAD = timedelta(hours=1)  # before the begin it is seen who works


class Servers(Protocol):
    """The hub, as this needs it."""

    def working(self) -> Sequence[tuple[ServerKey, datetime, datetime]]:
        """Servers that run: since when, and when they were last used."""

    def is_admin(self, user: str) -> bool:
        """Whether somebody is an administrator, who may start all the same."""

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        """Stop a server; returns when it is gone."""


class Maintenance:
    """Carries out what the store says.

    Args:
        goes_on: what goes on in a server; unknown where it does not say.
    """

    def __init__(
        self,
        store: Store,
        servers: Servers,
        turns: Turns,
        admission: Admission,
        goes_on: Callable[[ServerKey], Awaitable[Jupyter]],
        log: logging.Logger,
    ) -> None:
        self.store, self.servers, self.turns = store, servers, turns
        self.admission, self._goes_on = admission, goes_on
        self._closed: Message | None = WAITS()  # until the store has said that there is none
        self._looks = 0
        self._told: frozenset[object] | None = None
        self._busy: dict[ServerKey, int | None] = {}
        self._asks = Keyed("kernels in maintenance", log, at_once=AT_ONCE)
        self._stops = Keyed("servers in maintenance", log, at_once=AT_ONCE)
        turns.closed = self._why_not

    def _why_not(self, server: ServerKey) -> Message | None:
        if self._closed is None or self.servers.is_admin(server[0]):
            return None
        return self._closed

    async def look(self) -> None:
        """One round. Raises StoreError."""
        row, now = await self.store.read(maintenance.found), utcnow()
        on = row is not None and row.starts_at <= now
        closed = WAITS(until=row.ends_at and seconds(row.ends_at)) if row and on else None
        if self._closed != closed:
            self._closed = closed
            self.turns.look()
            self.admission.wake()
        if row is None:
            if self._told != frozenset():
                await self.store.run(maintenance.forget)
            self._looks, self._told = 0, frozenset()
            return
        running = sorted(self.servers.working(), key=lambda one: one[2])
        await self._tell(row, [key for key, _, _ in running], now)
        if row.starts_at - AHEAD <= now:
            await self._note(row, running)
        if on and row.stop_at is not None and row.stop_at <= now:
            # The longest unused first. What an administrator has started since then stays.
            for key, started, _ in running:
                if started <= row.stop_at:
                    self._stops.start(key, partial(self.servers.stop, *key, Ending("maintenance")))

    async def _tell(self, row: Broadcast, keys: Sequence[ServerKey], now: datetime) -> None:
        """Warn whose servers are going to be stopped, where there is somebody or a stage new."""
        if row.stop_at is None or row.stop_at <= now:
            return
        told = frozenset((row.id, maintenance.stage(row.stop_at, now), key) for key in keys)
        if self._told is None or not told <= self._told:
            await self.store.run(lambda s: maintenance.warn(s, keys, now))
            self._told = told

    async def _note(
        self, row: Broadcast, running: Sequence[tuple[ServerKey, datetime, datetime]]
    ) -> None:
        """Ask now and then what goes on in each server, and write down who works."""
        if self._looks % ASK_EVERY == 0:
            keys = {key for key, _, _ in running}
            self._busy = {key: busy for key, busy in self._busy.items() if key in keys}
            for key in keys:
                self._asks.start(key, partial(self._ask, key))
        if self._looks % NOTE_EVERY == 0:
            working = [
                {
                    "user": user,
                    "server": server,
                    "started": utc(started),
                    "last_activity": utc(used),
                    "busy_kernels": self._busy.get((user, server)),
                }
                for (user, server), started, used in running
            ]
            # Those whose kernels work, then the last used.
            working.sort(key=lambda one: (one["busy_kernels"] or 0, one["last_activity"]))
            await self.store.run(partial(_write, message=row.id, working=working[::-1]))
        self._looks += 1

    async def _ask(self, server: ServerKey) -> None:
        self._busy[server] = (await self._goes_on(server)).busy_kernels


def _write(session: Session, message: str, working: list[dict[str, Any]]) -> None:
    row = maintenance.found(session)
    if row is not None and row.id == message and row.working != working:
        row.working = working
