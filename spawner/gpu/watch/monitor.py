"""The hub's watch over GPUs: how they are, whether they are used, whether servers reach them.

``Monitor.run`` looks again and again. What it sees goes through the pure functions of ``idle``;
what follows is written in one transaction a round: the tally, notices, the end of a lease that
nobody uses. Where something cannot be known, nothing is done.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import LabError, NotAvailable
from commons.i18n import N_
from commons.leases import LeaseState, ServerKey
from commons.messages import Text
from commons.scopes import DEFAULT, SETTINGS, own_account
from commons.site import Gpus
from commons.store import Store, StoreError
from commons.store.models import GpuDevice, GpuWatch, Lease, utcnow
from commons.work import Periodic
from spawner.gpu.devices import health
from spawner.gpu.devices.inventory import Inventory, InventoryError, Reading, read_inventory
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.usage import moment, seconds
from spawner.gpu.quotas import quota_store
from spawner.gpu.watch import idle
from spawner.gpu.watch.idle import IdlePolicy, Part, Step, Tally, Use
from spawner.gpu.watch.server_activity import Jupyter
from spawner.runtime.protocol import Runtime

AT_ONCE = 8  # servers asked at a time
RECENT = 120.0  # seconds; what happened in Jupyter since then is going on
LOST_GRACE = 900.0  # seconds to save one's work, where the site stops servers of lost GPUs
OUT_OF_REACH = 3  # what the probe says where a server cannot open one of its GPUs


SERVER_OVER = Text("server_over", N_("This server does not run any more."))
KEEP_USED_UP = Text(
    "keep_used_up",
    N_("This server has been kept for as long as is allowed ({hours} h). Use its GPUs."),
)


@dataclass(frozen=True)
class Watched:
    """A running lease, as far as the watch needs it."""

    lease: str
    server: ServerKey
    container: str
    parts: tuple[tuple[str, Part], ...]
    simulated: bool
    policy: IdlePolicy


@dataclass(frozen=True)
class Look:
    """What one round saw of a lease."""

    use: Use
    percent: float | None


async def refresh(
    store: Store, gpus: Gpus, runtime: Runtime, looking: float = 0
) -> tuple[Inventory, health.Changes]:
    """Read the inventory and write it down. Raises InventoryError, RuntimeSilent and StoreError."""
    found = await read_inventory(gpus, runtime.read_gpus, looking)

    def work(session: Session) -> health.Changes:
        changes = health.sync_inventory(
            session, found.devices, vanished="lost" if gpus.source == "nvml" else "removed"
        )
        for device, xid in found.errors:
            health.critical_error(session, device, xid)
        return changes

    return found, await store.run(work)


class Monitor:
    """Watches over one site's GPUs, from the hub's process.

    Args:
        jupyter: asks a server what goes on in it; answers ``Jupyter()`` where that fails.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        gpus: Gpus,
        jupyter: Callable[[ServerKey], Awaitable[Jupyter]],
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.runtime, self.gpus = store, runtime, gpus
        self.jupyter, self.log, self.clock = jupyter, log, clock
        self._limit = asyncio.Semaphore(AT_ONCE)
        self._probed: dict[str, float] = {}
        self._said: frozenset[str] = frozenset()

    async def run(self) -> None:
        """Look for ever; at once over where the site has no GPUs."""
        interval = self.gpus.watch.interval

        async def look() -> None:
            try:
                await self.once(interval if self.gpus.source == "nvml" else 0)
            except IntegrityError as error:
                # Somebody pressed "Keep" at this very moment: the next round sees it.
                self.log.warning("GPUs: this round was in another's way: %s", error.orig)

        if self.gpus.source != "none":
            expected = (InventoryError, StoreError, LabError)
            await Periodic(
                "GPU watch", look, interval, self.log, expected=expected, longest=2.0 * interval
            ).run()

    async def once(self, looking: float = 0) -> None:
        """One round; ``looking``: seconds for which the driver measures."""
        try:
            found, changes = await refresh(self.store, self.gpus, self.runtime, looking)
        except InventoryError as error:
            # Without measures nothing is idle, which still has to be written down.
            found, changes = Inventory(()), health.Changes()
            self._say([str(error)])
        else:
            self._say(found.problems)
        if changes:
            self.log.warning("GPUs changed: %s", changes)
        watched = await self.store.read(running)
        if watched:
            await self._judge_use(watched, found.readings)
            await self._probe(watched)
        if self.gpus.watch.stop_lost:
            await self.store.run(stop_lost)

    def _say(self, problems: Iterable[str]) -> None:
        """Each problem once, until it is over."""
        now = frozenset(problems)
        for problem in sorted(now - self._said):
            self.log.error("GPUs: %s", problem)
        self._said = now

    # -- use ------------------------------------------------------------------------------

    async def _judge_use(self, watched: list[Watched], readings: Mapping[str, Reading]) -> None:
        looks = await asyncio.gather(*(self._look(one, readings) for one in watched))
        seen = {one.lease: (one, look) for one, look in zip(watched, looks, strict=True)}
        now = self.clock()
        longest = 3.0 * self.gpus.watch.interval
        for lease, step in await self.store.run(
            partial(judge, seen=seen, now=now, longest=longest)
        ):
            self.log.info("lease %s: %s", lease, step)

    async def _look(self, one: Watched, readings: Mapping[str, Reading]) -> Look:
        found = [(part, readings.get(device)) for device, part in one.parts]
        percents = [r.percent for _, r in found if r is not None and r.percent is not None]
        percent = max(percents, default=None)
        own = None
        if any(part is Part.SLOT for part, _ in found):
            own = await self._processes(one)
        use = idle.combined(idle.gpu_use(part, r, one.policy, own) for part, r in found)
        # A server is asked only where its answer matters.
        if use is Use.IDLE:
            async with self._limit:
                said = await self.jupyter(one.server)
            jupyter = idle.jupyter_use(said.busy_kernels, said.last_activity, self.clock(), RECENT)
            use = idle.work_use(jupyter, await self._cores(one), one.policy)
        return Look(use, percent)

    async def _cores(self, one: Watched) -> float | None:
        try:
            async with self._limit:
                found = (await self.runtime.usage([one.container])).get(one.container)
        except LabError as error:
            self.log.warning("lease %s: use of the CPU not known: %s", one.lease, error)
            return None
        return found.cpu if found else None

    async def _processes(self, one: Watched) -> frozenset[int] | None:
        try:
            async with self._limit:
                return await self.runtime.gpu_processes(one.container)
        except LabError as error:
            self.log.warning("lease %s: processes not known: %s", one.lease, error)
            return None

    # -- reach ----------------------------------------------------------------------------

    async def _probe(self, watched: list[Watched]) -> None:
        """Now and then, whether each server still reaches its GPUs."""
        now = time.monotonic()
        due = [
            one
            for one in watched
            if not one.simulated
            and now - self._probed.get(one.container, -math.inf) >= self.gpus.watch.probe_interval
        ]
        alive = {one.container for one in watched}
        self._probed = {key: at for key, at in self._probed.items() if key in alive}
        self._probed |= {one.container: now for one in due}
        await asyncio.gather(*(self._probe_one(one) for one in due))

    async def _probe_one(self, one: Watched) -> None:
        try:
            async with self._limit:
                code = await self.runtime.probe_gpus(one.container)
        except LabError as error:
            self.log.warning("lease %s: GPUs not probed: %s", one.lease, error)
            return
        tell = partial(health.lost_reach, username=one.server[0], lease=one.lease)
        if code == OUT_OF_REACH and await self.store.run(tell):
            self.log.error("server %s/%s no longer reaches its GPUs", *one.server)


# -- transactions -------------------------------------------------------------------------


def running(session: Session) -> list[Watched]:
    """The leases whose containers run, with the policy of idleness for each."""
    devices = {row.id: row for row in session.scalars(select(GpuDevice))}
    specs = quota_store.idle_specs(session)
    return [
        Watched(
            lease.id,
            (lease.username, lease.server_name),
            lease.container_id or "",
            tuple((d.device_id, _part(devices[d.device_id])) for d in lease.devices),
            any(devices[d.device_id].simulated for d in lease.devices),
            policy_of(specs, lease),
        )
        for lease in session.scalars(select(Lease).where(Lease.state == LeaseState.ACTIVE))
    ]


def policy_of(specs: Mapping[str, Mapping[str, object]], lease: Lease) -> IdlePolicy:
    """The policy of a lease: each key of the person's, else the account's, else ``default``'s."""
    subjects = (own_account(lease.username), lease.account, DEFAULT, SETTINGS)
    return IdlePolicy.of(*(specs.get(subject) for subject in subjects))


def _part(device: GpuDevice) -> Part:
    if device.slots > 1:
        return Part.SLOT
    return Part.MIG if device.parent else Part.WHOLE


def judge(
    session: Session, seen: Mapping[str, tuple[Watched, Look]], now: float, longest: float
) -> list[tuple[str, Step]]:
    """Write down how leases were used, and what follows; what was done, by lease."""
    others_wait = session.scalar(
        select(Lease.id).where(Lease.state.in_((LeaseState.REQUESTED, LeaseState.QUEUED))).limit(1)
    )
    leases = {
        lease.id: lease
        for lease in session.scalars(
            select(Lease).where(Lease.id.in_(seen), Lease.state == LeaseState.ACTIVE)
        )
    }
    rows = {
        r.lease_id: r
        for r in session.scalars(select(GpuWatch).where(GpuWatch.lease_id.in_(leases)))
    }
    done: list[tuple[str, Step]] = []
    for key, lease in leases.items():
        one, look = seen[key]
        row = rows.get(key) or GpuWatch(
            lease_id=key, warnings=0, kept_seconds=0.0, prepared_seconds=0.0, idle_total=0.0
        )
        tally = idle.advance(_tally(row, now), now, look.use, longest, one.policy.preparation)
        step, tally = idle.decide(
            tally,
            one.policy,
            started=seconds(lease.held_at or lease.requested_at),
            keep_until=seconds(lease.keep_until) if lease.keep_until else None,
            others_wait=others_wait is not None,
        )
        if step is not Step.NOTHING and _act(session, lease, step, tally):
            done.append((key, step))
        _write(row, tally, look)
        session.add(row)
    return done


def _act(session: Session, lease: Lease, step: Step, tally: Tally) -> bool:
    """Carry a step out. True unless that was done before."""
    at = moment(tally.at)
    if step is Step.STOP and not transitions.plan_stop(session, lease.id, "idle", at):
        return False
    code, key = {
        Step.WARN: ("idle_warning", f"idle_warning:{lease.id}:{tally.warnings}"),
        Step.RESUME: ("idle_resumed", f"idle_resumed:{lease.id}:{tally.warnings}"),
        Step.STOP: ("idle", f"stopped:{lease.id}"),
    }[step]
    return notices.add(
        session,
        username=lease.username,
        lease_id=lease.id,
        code=code,
        data={"idle_for": tally.idle, "stop_at": tally.stop_at},
        key=key,
        now=at,
    )


def _tally(row: GpuWatch, now: float) -> Tally:
    if row.at is None:
        return Tally(now)
    return Tally(
        seconds(row.at),
        Use(row.use),
        row.idle_seconds,
        seconds(row.warned_at) if row.warned_at else None,
        seconds(row.stop_at) if row.stop_at else None,
        row.warnings,
        row.prepared_seconds,
    )


def _write(row: GpuWatch, tally: Tally, look: Look) -> None:
    row.at, row.use, row.gpu_percent = moment(tally.at), tally.use.value, look.percent
    row.idle_total += max(0.0, tally.idle - (row.idle_seconds or 0.0))
    row.idle_seconds, row.warnings = tally.idle, tally.warnings
    row.prepared_seconds = tally.prepared
    row.warned_at = moment(tally.warned_at) if tally.warned_at is not None else None
    row.stop_at = moment(tally.stop_at) if tally.stop_at is not None else None


def stop_lost(session: Session) -> None:
    """Plan the end of servers whose GPU is lost, where the site wants that."""
    lost = list(session.scalars(select(GpuDevice.id).where(GpuDevice.health == "lost")))
    for lease, _ in health.holders(session, lost) if lost else []:
        if lease.stop_at is None:
            transitions.plan_stop(
                session, lease.id, "gpu_lost", utcnow() + timedelta(seconds=LOST_GRACE)
            )


def keep(session: Session, lease_id: str, now: float) -> float:
    """The person wants to keep a server whose GPUs are idle: put its reclaim off.

    Returns the seconds it is put off. Raises NotAvailable where there is nothing to keep, or the
    cap of the policy is used up.
    """
    transitions.lock(session)
    lease = session.get(Lease, lease_id)
    if lease is None or lease.state is not LeaseState.ACTIVE:
        raise NotAvailable(SERVER_OVER())
    policy = policy_of(quota_store.idle_specs(session), lease)
    row = session.get(GpuWatch, lease_id)
    if row is None:
        row = GpuWatch(
            lease_id=lease_id, at=moment(now), use="unknown", idle_seconds=0.0, kept_seconds=0.0
        )
        row.warnings, row.prepared_seconds, row.idle_total = 0, 0.0, 0.0
        session.add(row)
    # What an earlier press still gives is not counted twice.
    left = max(0.0, seconds(lease.keep_until) - now) if lease.keep_until else 0.0
    before = row.kept_seconds - left
    more = idle.keep_seconds(policy, before)
    if more <= left:
        raise NotAvailable(KEEP_USED_UP(hours=f"{policy.keep_alive_cap / 3600:g}"))
    lease.keep_until, row.kept_seconds = moment(now + more), before + more
    row.warned_at = row.stop_at = None
    if lease.stop_reason == "idle":  # planned this moment, and not yet carried out
        lease.stop_reason = lease.stop_at = None
    notices.add(
        session,
        username=lease.username,
        lease_id=lease_id,
        code="kept",
        data={"keep_until_at": now + more},
        key=f"kept:{lease_id}:{now:.0f}",
        now=moment(now),
    )
    return more
