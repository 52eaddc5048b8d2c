"""The hub's loop over leases: warn, stop, start again what a restart left waiting.

It decides in ``lifetime.plan``, and acts through the hub's own start and stop, so that hub,
proxy and containers agree. Nothing in it waits for a server: each start and stop is a task of
its own, and one that fails is tried again by a later look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Protocol, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import notices
from commons.leases import LeaseState, ServerKey, job_of
from commons.store import StoreError
from commons.store.ends import CAUSES, Cause, Ending
from commons.store.models import GpuDevice, GpuNotice, GpuWatch, Lease, utcnow
from commons.work import Keyed, Periodic
from spawner import endings, stops
from spawner.gpu.ledger import recovery, transitions
from spawner.gpu.ledger.batches import Admission
from spawner.gpu.ledger.snapshot import read_quotas
from spawner.gpu.ledger.usage import seconds
from spawner.gpu.policy import lifetime
from spawner.gpu.policy.lifetime import Running, Stop, Warn
from spawner.gpu.quotas import quota_store

LOOK = 5.0  # seconds between two looks
WARN_BEFORE = 900.0  # seconds, where the quotas do not say
JUMP = 60.0  # seconds by which wall clock and steady clock may drift apart in one look
AT_ONCE = 20  # servers started again at once
TRIES = 3  # to start a server again after a restart
MAKING = 1.0  # seconds: what was last used within them after it was made was not used


class Servers(Protocol):
    """The hub, as the keeper needs it."""

    def known(self) -> set[ServerKey]:
        """Servers that run or are on their way up or down."""

    async def start(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        """Begin to start a server, as if its owner had asked; returns before it is up."""

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        """Stop a server, or what is left of its start; returns when it is gone."""


class LeaseController:
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
        self._nothing: object = None  # the store's stamp when there was no lease
        self._acts = Keyed("GPU leases: servers", log)
        self._failed: dict[str, int] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._seen: dict[ServerKey, float] = {}

    async def run(self) -> None:
        """Look for ever."""
        await Periodic("GPU leases", self.look, LOOK, self.log, expected=(StoreError,)).run()

    async def look(self) -> None:
        """Notice jumps of the clock, start what was left waiting, warn and stop."""
        await self._mind_the_clock()
        stamp = self.store.stamp()
        if stamp is not None and stamp == self._nothing:
            return
        waiting = await self._start_again()
        now = utcnow()
        hold_time, warn_before, leases = await self.store.read(_read)
        self._nothing = None if waiting or leases else stamp
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
                self._acts.start(server, partial(self._stop, action))

    # -- the clock ----------------------------------------------------------------------------

    async def _mind_the_clock(self) -> None:
        """A jump of the wall clock shifts all leases; at the start only backwards is to be seen."""
        steady, wall = self._clock(), utcnow()
        jump = (wall - self._wall).total_seconds() - (steady - self._steady)
        first = self._wall == self.up_since
        if first:
            latest = await self.store.read(transitions.latest)
            jump = min(0.0, (wall - latest).total_seconds())
        if abs(jump) > JUMP:
            self.log.warning("the clock was set by %+.0f s: all leases are shifted by that", jump)
            await self.store.run(lambda session: recovery.shift(session, jump))
            if not first:
                self.up_since += wall - self._wall
        self._steady, self._wall = steady, wall

    # -- after a restart ----------------------------------------------------------------------

    async def _start_again(self) -> bool:
        """Servers that waited, or had their GPUs, when an earlier hub ended; whether there are."""
        left = await self.store.read(lambda session: _left(session, self.up_since))
        known = self.servers.known()
        for lease_id, server, options in left:
            if server not in known and lease_id not in self.admission.ending:
                self._acts.start(server, partial(self._start, lease_id, server, options))
        return bool(left)

    async def _start(self, lease_id: str, server: ServerKey, options: Mapping[str, Any]) -> None:
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
        due = await self.store.run(partial(_plan_stop, action=action, up_since=self.up_since))
        if due is None:
            return
        lease, reason = due.lease, due.reason
        self.log.info("GPU leases: stopping %s/%s (%s)", lease.user, lease.server, reason)
        try:
            ending = await self.store.read(lambda session: _ending(session, lease, reason))
            await self.servers.stop(lease.user, lease.server, ending)
        except Exception as error:
            self.log.error("GPU leases: %s/%s not stopped: %s", lease.user, lease.server, error)
            return
        await self.store.run(lambda session: _tell_end(session, lease, ending))

    @property
    def busy(self) -> bool:
        """Whether a server is being started or stopped."""
        return bool(self._acts)

    async def close(self) -> None:
        """Leave what is under way."""
        await self._acts.close()

    # -- whether somebody has come --------------------------------------------------------------

    async def note_activity(
        self, use: Mapping[ServerKey, tuple[float | None, float]]
    ) -> set[ServerKey]:
        """What the proxy says of each server: when its route was made, and was last used; those
        that somebody has come to.

        The making is a use too, for the proxy; of a route whose making nobody knows (of an older
        hub), the first word is taken for it.
        """
        used = {
            server
            for server, (made, last) in use.items()
            if last - (made or self._seen.setdefault(server, last)) > MAKING
        }
        self._seen = {server: self._seen.get(server, last) for server, (_, last) in use.items()}
        if not used:
            return used
        unopened = await self.store.read(_unopened)
        for lease_id in [id_ for id_, server in unopened if server in used]:
            await self.store.run(lambda session, id_=lease_id: transitions.opened(session, id_))  # type: ignore[misc]
        return used


def _plan_stop(session: Session, action: Stop, up_since: datetime) -> Stop | None:
    """Write down that a server is stopped now; None where that is not due any more.

    Since it was looked at, somebody may have extended the lease, kept it or opened the server.
    """
    now = transitions.lock(session)
    hold_time, warn_before, leases = _read(session, action.lease.id)
    for due in lifetime.plan(leases, seconds(now), hold_time, warn_before, seconds(up_since)):
        if isinstance(due, Stop):
            transitions.plan_stop(session, due.lease.id, due.reason, now)
            return due
    return None


def _read(session: Session, lease: str = "") -> tuple[float, float, list[Running]]:
    """What ``lifetime.plan`` is asked with; of all leases that hold GPUs, or of one."""
    _, settings = read_quotas(session)
    warn_before = quota_store.warn_before(session)
    query = select(Lease).where(Lease.state.in_((LeaseState.HELD, LeaseState.ACTIVE)))
    rows = session.scalars(query.where(Lease.id == lease) if lease else query)
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
            _maybe(row.keep_until),
        )
        for row in rows
    ]
    return settings.hold_time, WARN_BEFORE if warn_before is None else warn_before, leases


def _maybe(at: datetime | None) -> float | None:
    return None if at is None else seconds(at)


def _warn(session: Session, warnings: list[Warn], now: datetime) -> None:
    transitions.lock(session)
    for warning in warnings:
        lease = warning.lease
        key = f"{warning.code}:{lease.id}"
        if warning.ends:
            row = session.get(Lease, lease.id)
            if row is None or _maybe(row.ends_at) != lease.ends_at:  # it was extended meanwhile
                continue
            row.warned_at = now
            key += f":{lease.ends_at:.0f}"
        if job_of(lease.server) is not None:  # nobody sits before it
            continue
        notices.add(
            session,
            username=lease.user,
            lease_id=lease.id,
            code=warning.code,
            data=dict(warning.data),
            key=key,
        )


def _ending(session: Session, lease: Running, reason: str) -> Ending | None:
    """Why, with its figures; None: somebody else has not asked for it, so its owner has."""
    data: dict[str, Any] = {}
    cause = "gpu_failed" if reason == "gpu_lost" else reason
    if cause not in CAUSES:
        return stops.asked(session, lease.user, lease.server)
    row, now = session.get(Lease, lease.id), seconds(utcnow())
    if cause == "time_limit" and lease.ends_at is not None:
        data["limit_for"] = lease.ends_at - lease.held_at
    elif cause == "not_opened" and lease.active_at is not None:
        data["open_for"] = now - lease.active_at
    elif cause == "idle" and (watch := session.get(GpuWatch, lease.id)) is not None:
        data["idle_for"] = watch.idle_seconds
    elif cause == "preempted":
        told = GpuNotice.lease_id == lease.id, GpuNotice.code == "preempted_soon"
        said = session.scalars(select(GpuNotice).where(*told).order_by(GpuNotice.id.desc())).first()
        data |= {"account": said.data["account"]} if said else {}
    elif cause == "gpu_failed" and row is not None:
        ids = [device.device_id for device in row.devices]
        lost = GpuDevice.id.in_(ids), GpuDevice.health == "lost"
        data["devices"] = ", ".join(session.scalars(select(GpuDevice.model).where(*lost)))
    return Ending(cast(Cause, cause), data=data)


def _tell_end(session: Session, lease: Running, ending: Ending | None) -> None:
    """Tell what the server's own end has not, where there was no server."""
    if job_of(lease.server) is not None:  # its own keeper tells how it ended
        return
    ending = ending or Ending("stopped")
    notices.add(
        session,
        username=lease.user,
        lease_id=lease.id,
        code=ending.cause,
        data=endings.said(ending),
        key=f"stopped:{lease.id}",
    )


def _left(session: Session, before: datetime) -> list[tuple[str, ServerKey, dict[str, Any]]]:
    waiting = (LeaseState.REQUESTED, LeaseState.QUEUED, LeaseState.HELD)
    rows = session.scalars(
        select(Lease)
        .where(Lease.state.in_(waiting), Lease.requested_at < before)
        .order_by(Lease.requested_at, Lease.id)
    )
    return [(row.id, (row.username, row.server_name), row.user_options) for row in rows]


def _unopened(session: Session) -> list[tuple[str, ServerKey]]:
    rows = session.execute(
        select(Lease.id, Lease.username, Lease.server_name).where(
            Lease.state == LeaseState.ACTIVE, Lease.opened_at.is_(None)
        )
    )
    return [(row.id, (row.username, row.server_name)) for row in rows]
