"""The hub's loop over leases: warn, stop, start again what a restart left waiting.

It decides in ``lifetime.plan``, and acts through the hub's own start and stop, so that hub,
proxy and containers agree. Nothing in it waits for a server: each start and stop is a task of
its own, and one that fails is tried again by a later look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.store import StoreError
from hub_ext.store.models import Lease, LeaseState, utcnow
from spawner.gpu import ledger, lifetime, notices, quotas, recovery
from spawner.gpu.admission import Admission
from spawner.gpu.lifetime import Running, Stop, Warn
from spawner.gpu.snapshot import read_quotas
from spawner.gpu.usage import seconds

Server = tuple[str, str]  # user name, server name

LOOK = 5.0  # seconds between two looks
WARN_BEFORE = 900.0  # seconds, where the quotas do not say
JUMP = 60.0  # seconds by which wall clock and steady clock may drift apart in one look
AT_ONCE = 20  # servers started again at once
TRIES = 3  # to start a server again after a restart


class Servers(Protocol):
    """The hub, as the keeper needs it."""

    def known(self) -> set[Server]:
        """Servers that run or are on their way up or down."""

    async def start(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        """Begin to start a server, as if its owner had asked; returns before it is up."""

    async def stop(self, user: str, server: str) -> None:
        """Stop a server, or what is left of its start; returns when it is gone."""


class Keeper:
    """Looks after all leases of one hub."""

    def __init__(
        self,
        admission: Admission,
        servers: Servers,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.admission, self.servers, self.log = admission, servers, log
        self.store = admission.store
        self.up_since = utcnow()
        self._clock = clock
        self._steady = clock()
        self._wall = utcnow()
        self._told: set[tuple[str, str]] = set()
        self._busy: dict[Server, asyncio.Task[None]] = {}
        self._failed: dict[str, int] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._seen: dict[Server, str] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except StoreError as error:
                self.log.error("GPU leases: %s", error)
            except Exception:
                self.log.exception("GPU leases: a look failed")
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Notice jumps of the clock, start what was left waiting, warn and stop."""
        await self._mind_the_clock()
        await self._start_again()
        now = utcnow()
        hold_time, warn_before, leases = await self.store.read(_read)
        actions = lifetime.plan(
            leases, seconds(now), hold_time, warn_before, seconds(self.up_since)
        )
        warnings = [
            action
            for action in actions
            if isinstance(action, Warn)
            if action.ends or (action.lease.id, action.code) not in self._told
        ]
        if warnings:
            await self.store.run(lambda session: _warn(session, warnings, now))
            self._told |= {(warning.lease.id, warning.code) for warning in warnings}
        there = {lease.id for lease in leases}
        self._told = {told for told in self._told if told[0] in there}
        for action in actions:
            if isinstance(action, Stop):
                server = (action.lease.user, action.lease.server)
                self._act(server, self._stop(action))

    # -- the clock ----------------------------------------------------------------------------

    async def _mind_the_clock(self) -> None:
        """A jump of the wall clock shifts all leases; at the start only backwards is to be seen."""
        steady, wall = self._clock(), utcnow()
        jump = (wall - self._wall).total_seconds() - (steady - self._steady)
        first = self._wall == self.up_since
        if first:
            latest = await self.store.read(ledger.latest)
            jump = min(0.0, (wall - latest).total_seconds())
        if abs(jump) > JUMP:
            self.log.warning("the clock was set by %+.0f s: all leases are shifted by that", jump)
            await self.store.run(lambda session: recovery.shift(session, jump))
            if not first:
                self.up_since += wall - self._wall
        self._steady, self._wall = steady, wall

    # -- after a restart ----------------------------------------------------------------------

    async def _start_again(self) -> None:
        """Servers that waited, or had their GPUs, when an earlier hub ended."""
        left = await self.store.read(lambda session: _left(session, self.up_since))
        known = self.servers.known()
        for lease_id, server, options in left:
            if server not in known and lease_id not in self.admission.ending:
                self._act(server, self._start(lease_id, server, options))

    async def _start(self, lease_id: str, server: Server, options: Mapping[str, Any]) -> None:
        async with self._at_once:
            try:
                await self.servers.start(*server, options)
                self.log.info("GPU leases: %s/%s waits again", *server)
            except Exception as error:
                self._failed[lease_id] = self._failed.get(lease_id, 0) + 1
                self.log.error("GPU leases: %s/%s not started again: %s", *server, error)
                if self._failed[lease_id] >= TRIES:
                    self.admission.end_soon(lease_id, "not started again")

    # -- ends ---------------------------------------------------------------------------------

    async def _stop(self, action: Stop) -> None:
        lease, reason = action.lease, action.reason
        await self.store.run(lambda s: ledger.plan_stop(s, lease.id, reason, utcnow()))
        self.log.info("GPU leases: stopping %s/%s (%s)", lease.user, lease.server, reason)
        try:
            await self.servers.stop(lease.user, lease.server)
        except Exception as error:
            self.log.error("GPU leases: %s/%s not stopped: %s", lease.user, lease.server, error)
            return
        await self.store.run(lambda session: _tell_end(session, lease, reason))

    def _act(self, server: Server, work: Coroutine[Any, Any, None]) -> None:
        """One thing at a time for each server."""
        if server in self._busy:
            work.close()
            return
        task = asyncio.create_task(self._guarded(server, work))
        self._busy[server] = task
        task.add_done_callback(lambda _task: self._busy.pop(server, None))

    async def _guarded(self, server: Server, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:
            self.log.exception("GPU leases: %s/%s", *server)

    async def close(self) -> None:
        """Leave what is under way."""
        for task in list(self._busy.values()):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    # -- whether somebody has come --------------------------------------------------------------

    async def note_activity(self, last_activity: Mapping[Server, str]) -> None:
        """What the proxy says of servers' last use; its first word is the route's own beginning."""
        used = {
            server
            for server, at in last_activity.items()
            if self._seen.setdefault(server, at) != at
        }
        self._seen = {server: self._seen[server] for server in last_activity}
        if not used:
            return
        unopened = await self.store.read(_unopened)
        for lease_id in [id_ for id_, server in unopened if server in used]:
            await self.store.run(lambda session, id_=lease_id: ledger.opened(session, id_))  # type: ignore[misc]


def _read(session: Session) -> tuple[float, float, list[Running]]:
    _, settings = read_quotas(session)
    warn_before = quotas.warn_before(session)
    rows = session.scalars(
        select(Lease).where(Lease.state.in_((LeaseState.HELD, LeaseState.ACTIVE)))
    )
    leases = [
        Running(
            row.id,
            row.username,
            row.server_name,
            row.state,
            seconds(row.requested_at),
            seconds(row.held_at or row.requested_at),
            _maybe(row.active_at),
            _maybe(row.opened_at),
            _maybe(row.ends_at),
            _maybe(row.warned_at),
            _maybe(row.stop_at),
            row.stop_reason or "",
        )
        for row in rows
    ]
    return settings.hold_time, WARN_BEFORE if warn_before is None else warn_before, leases


def _maybe(at: datetime | None) -> float | None:
    return None if at is None else seconds(at)


def _warn(session: Session, warnings: list[Warn], now: datetime) -> None:
    ledger.lock(session)
    for warning in warnings:
        lease = warning.lease
        key = f"{warning.code}:{lease.id}"
        if warning.ends:
            row = session.get(Lease, lease.id)
            if row is not None:
                row.warned_at = now
            key += f":{lease.ends_at:.0f}"
        notices.add(
            session,
            username=lease.user,
            lease_id=lease.id,
            code=warning.code,
            data=dict(warning.data),
            key=key,
        )


def _tell_end(session: Session, lease: Running, reason: str) -> None:
    code = reason if reason in notices.KINDS else "stopped"
    notices.add(
        session,
        username=lease.user,
        lease_id=lease.id,
        code=code,
        data={},
        key=f"stopped:{lease.id}",
    )


def _left(session: Session, before: datetime) -> list[tuple[str, Server, dict[str, Any]]]:
    waiting = (LeaseState.REQUESTED, LeaseState.QUEUED, LeaseState.HELD)
    rows = session.scalars(
        select(Lease)
        .where(Lease.state.in_(waiting), Lease.requested_at < before)
        .order_by(Lease.requested_at, Lease.id)
    )
    return [(row.id, (row.username, row.server_name), row.user_options) for row in rows]


def _unopened(session: Session) -> list[tuple[str, Server]]:
    rows = session.execute(
        select(Lease.id, Lease.username, Lease.server_name).where(
            Lease.state == LeaseState.ACTIVE, Lease.opened_at.is_(None)
        )
    )
    return [(row.id, (row.username, row.server_name)) for row in rows]
