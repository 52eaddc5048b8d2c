"""What the allocation decides on, read from the store in a handful of queries."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import Pool

from commons import maintenance
from commons.leases import LeaseState
from commons.store.models import GpuDevice, GpuNode, GpuQuota, GpuReservation, Lease, LeaseDevice
from spawner.gpu.ledger.usage import (
    Period,
    Stretch,
    Sums,
    decay,
    moment,
    period_of,
    read_sums,
    seconds,
)
from spawner.gpu.policy.limits import BudgetLimit, budget_limits
from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.reservations import Reservation, occurrences
from spawner.gpu.policy.state import (
    HOUR,
    Claim,
    Quota,
    Settings,
    Slot,
    Snapshot,
    Subject,
    Usage,
    Window,
)
from spawner.gpu.quotas import quota_store as quotas_store

# Why the stop of a lease is planned whose borrowed GPUs go back.
RECLAIMED = "preempted"
HORIZON = 14 * 24 * HOUR
# Named one by one: "not ended" would read the whole past.
LIVE = (LeaseState.REQUESTED, LeaseState.QUEUED, LeaseState.HELD, LeaseState.ACTIVE)

Quotas = tuple[Mapping[Subject, Quota], Settings]

_LEASES = select(
    Lease.id,
    Lease.username,
    Lease.account,
    Lease.state,
    Lease.gpus,
    Lease.requested_at,
    Lease.gpu_type,
    Lease.time_limit,
    Lease.held_at,
    Lease.ends_at,
    Lease.stop_at,
    Lease.stop_reason,
    Lease.borrowed,
    Lease.exempt_until,
    Lease.weight,
    Lease.reservation_id,
    Lease.anytime,
    Lease.queue_rank,
    Lease.queue_paused,
    Lease.queue_by,
    Lease.queue_reason,
).where(Lease.state.in_(LIVE))
_SLOTS = select(LeaseDevice.lease_id, LeaseDevice.device_id, LeaseDevice.slot).where(
    LeaseDevice.released_at.is_(None)
)
_NODES = select(GpuNode.name).where(GpuNode.drained_at.is_not(None))
_DEVICES = select(
    GpuDevice.id,
    GpuDevice.model,
    GpuDevice.memory,
    GpuDevice.simulated,
    GpuDevice.node,
    GpuDevice.parent,
    GpuDevice.sharing,
    GpuDevice.slots,
    GpuDevice.weight,
    GpuDevice.health,
    GpuDevice.health_reason,
    GpuDevice.drained_at,
    GpuDevice.present,
).order_by(GpuDevice.id)
_HERE = _DEVICES.where(
    or_(
        GpuDevice.present,
        select(LeaseDevice.device_id)
        .where(LeaseDevice.device_id == GpuDevice.id, LeaseDevice.released_at.is_(None))
        .exists(),
    )
)
_RESERVATIONS = (
    select(GpuReservation).where(GpuReservation.cancelled_at.is_(None)).order_by(GpuReservation.id)
)
_QUOTA_MARKS = select(GpuQuota.subject, GpuQuota.changed_at).order_by(GpuQuota.subject)


def read_snapshot(
    session: Session,
    now: float,
    horizon: float = HORIZON,
    probes: tuple[Claim, ...] = (),
    rules: Quotas | None = None,
) -> Snapshot:
    """All that a decision at ``now`` (seconds since 1970) rests on.

    Reservations are looked at as far as ``horizon`` seconds ahead. ``probes`` are claims that
    are not in the store ("what if"): they come last among the claims; ``rules`` stand in place of
    what is set.
    """
    claims = (*read_claims(session), *probes)
    quotas, settings = rules or read_quotas(session)
    windows = _windows(session, now, now + horizon)
    open_now = [window.reservation for window in windows if window.start <= now]
    return Snapshot(
        now=now,
        devices=_charged(read_devices(session), settings),
        claims=claims,
        quotas=quotas,
        usage=_usage(session, now, claims, quotas, settings),
        windows=windows,
        settings=settings,
        left=_left(session, open_now) if open_now else {},
        closed_until=_closed_until(session, now),
    )


def _closed_until(session: Session, now: float) -> float | None:
    """When the maintenance ends that goes on, ``inf`` where nobody knows; None without one."""
    row = maintenance.current(session, moment(now))
    if row is None:
        return None
    return math.inf if row.ends_at is None else seconds(row.ends_at)


def _left(session: Session, reservations: Sequence[str]) -> dict[str, float]:
    """By reservation: when its last lease ended."""
    query = (
        select(Lease.reservation_id, func.max(Lease.ended_at))
        .where(Lease.ended_at.is_not(None), Lease.reservation_id.in_(reservations))
        .group_by(Lease.reservation_id)
    )
    return {name: seconds(at) for name, at in session.execute(query) if name and at}


def _charged(devices: tuple[Device, ...], settings: Settings) -> tuple[Device, ...]:
    """The devices with the billing weights that the site's settings make of theirs."""
    if not settings.charge_by_worth:
        return devices
    return tuple(replace(d, weight=d.weight * settings.price(d.model)) for d in devices)


def read_claims(session: Session) -> tuple[Claim, ...]:
    """All leases that have not ended."""
    slots: dict[str, list[Slot]] = defaultdict(list)
    for lease, device, slot in session.execute(_SLOTS):
        slots[lease].append(Slot(device, slot))
    return tuple(
        Claim(
            id=row.id,
            user=row.username,
            account=row.account,
            state=row.state,
            gpus=row.gpus,
            requested_at=seconds(row.requested_at),
            gpu_type=row.gpu_type,
            time_limit=row.time_limit,
            slots=tuple(slots.get(row.id, ())),
            held_at=_maybe(row.held_at),
            ends_at=_maybe(row.ends_at),
            stops_at=_maybe(row.stop_at),
            reclaimed=row.stop_reason == RECLAIMED,
            borrowed=row.borrowed,
            exempt_until=_maybe(row.exempt_until) or 0.0,
            weight=row.weight,
            reservation=row.reservation_id,
            anytime=row.anytime,
            rank=row.queue_rank,
            paused=row.queue_paused,
            moved_by=row.queue_by,
            moved_why=row.queue_reason,
        )
        for row in session.execute(_LEASES)
    )


def read_devices(session: Session) -> tuple[Device, ...]:
    """All devices that are there, and those that are gone while somebody still leases them."""
    drained = set(session.scalars(_NODES))
    return tuple(
        Device(
            id=row.id,
            model=row.model,
            memory=row.memory,
            simulated=row.simulated,
            node=row.node,
            parent=row.parent,
            sharing=row.sharing,
            slots=row.slots,
            weight=row.weight,
            health=row.health if row.present else "lost",
            health_reason=row.health_reason or "",
            drained=row.drained_at is not None or row.node in drained,
        )
        for row in session.execute(_HERE)
    )


class _LastQuotas:
    """The quotas as last read: checking hundreds of specs takes longer than all the rest."""

    marks: tuple[tuple[str, datetime], ...] | None = None
    pool: Pool | None = None
    quotas: Quotas = ({}, Settings())


def read_quotas(session: Session) -> Quotas:
    """Quotas and settings; read again only when one has changed."""
    marks = tuple((row.subject, row.changed_at) for row in session.execute(_QUOTA_MARKS))
    engine = session.get_bind().engine
    if marks != _LastQuotas.marks or engine.pool is not _LastQuotas.pool:
        _LastQuotas.quotas = quotas_store.load(session)
        _LastQuotas.marks, _LastQuotas.pool = marks, engine.pool
    return _LastQuotas.quotas


def periods(quotas: Mapping[Subject, Quota], settings: Settings) -> set[Period]:
    """The periods whose sums fair share and budgets need."""
    budgets = [q.budget for q in quotas.values()] + [q.grp_budget for q in quotas.values()]
    return {decay(settings.half_life)} | {period_of(budget) for budget in budgets if budget}


def _usage(
    session: Session,
    now: float,
    claims: tuple[Claim, ...],
    quotas: Mapping[Subject, Quota],
    settings: Settings,
) -> Usage:
    needed = periods(quotas, settings)
    sums = read_sums(session, now, needed)
    for claim in claims:
        if claim.held_at is not None:
            stretch = Stretch(
                (claim.account, claim.user), claim.held_at, max(claim.held_at, now), claim.weight
            )
            for period in needed:
                sums.add(period, stretch)
    decayed: dict[tuple[Subject, str], float] = {}
    for (account, user), value in sums.values[decay(settings.half_life)].items():
        decayed[account, user] = value
        decayed[account, ""] = decayed.get((account, ""), 0.0) + value
    who = {(claim.user, claim.account) for claim in claims}
    return Usage(decayed, budget_use(sums, who, quotas))


def budget_use(
    sums: Sums, who: Iterable[tuple[str, Subject]], quotas: Mapping[Subject, Quota]
) -> dict[str, float]:
    """What counts against each budget of people charging accounts, by the budget's key."""
    limits: dict[str, BudgetLimit] = {}
    for user, account in who:
        limits |= {limit.key: limit for limit in budget_limits(user, account, quotas)}
    # By person and by account, so that no limit has to look at everybody.
    found: dict[tuple[Period, str, str], list[tuple[Subject, str, float]]] = defaultdict(list)
    for period in {period_of(limit.budget) for limit in limits.values()}:
        for (account, user), value in sums.values.get(period, {}).items():
            found[period, "", user].append((account, user, value))
            found[period, account, ""].append((account, user, value))
    used = {}
    for key, limit in limits.items():
        scope = limit.scope
        whose = ("", scope.user) if scope.user else (scope.account, "")
        used[key] = sum(
            value
            for account, user, value in found[period_of(limit.budget), *whose]
            if scope.counts(user, account, "", quotas)
        )
    return used


def _windows(session: Session, start: float, end: float) -> tuple[Window, ...]:
    rows = session.scalars(_RESERVATIONS)
    return tuple(window for row in rows for window in occurrences(reservation_of(row), start, end))


def reservation_of(row: GpuReservation) -> Reservation:
    """A reservation's row as the pure functions take it."""
    values: dict[str, Any] = {}
    for field in fields(Reservation):
        value = getattr(row, field.name)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return Reservation(**values)


def _maybe(at: datetime | None) -> float | None:
    return None if at is None else seconds(at)
