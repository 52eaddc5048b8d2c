"""Who holds which GPU: the moves of a lease, each one transaction on the store.

A lease is written before its container exists and ended after the container is gone. Every
move is harmless to repeat, and all of them take ``lock`` first, so that decisions and moves of
all processes happen one after the other. The unique indexes of the store make a double lease
impossible whatever happens here.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from commons.errors import BadRequest, NotAvailable
from commons.i18n import N_
from commons.leases import LEASE_MOVES, LeaseState
from commons.messages import Text
from commons.store.models import GpuState, Lease, LeaseDevice, utcnow
from spawner.gpu.ledger import usage
from spawner.gpu.ledger.snapshot import LIVE, RECLAIMED, read_devices, read_snapshot
from spawner.gpu.ledger.usage import moment, seconds
from spawner.gpu.policy.extension import RUNS, allowed
from spawner.gpu.policy.placement import Availability, count_types
from spawner.gpu.policy.state import Grant, Reason, Verdict

NOT_WAITING = Text(
    "request_not_waiting", N_("This request does not wait any more: it has its GPUs, or is over.")
)
REASON_WANTED = Text("queue_reason_wanted", N_("Say why: the person whose request it is reads it."))
REASON_LENGTH = 200
WAITING = (LeaseState.REQUESTED, LeaseState.QUEUED)
NOW = "labcommons.gpu.now"  # of a session: the time of its transaction
CHANGE = "labcommons.gpu.change"  # ... the number of the change that it is
REQUESTS = "labcommons.gpu.requests"  # ... how many requests it has written
_STATE = select(GpuState.latest, GpuState.version).where(GpuState.id == 1).with_for_update()
_SEEN = (
    update(GpuState)
    .where(GpuState.id == 1)
    .values(version=GpuState.version + 1, latest=bindparam("now"))
    .execution_options(synchronize_session=False)
)


class LeaseMoveError(Exception):
    """A lease was asked to make a move that the table of moves does not have."""


def lock(session: Session, wall: datetime | None = None) -> datetime:
    """Be the one writer until the transaction ends, and count the change; returns now.

    Time never runs backwards here: a clock behind the latest time that anybody saw stands
    still until it has caught up (``shift`` puts a jump right).
    """
    known = session.info.get(NOW)
    if known is None:
        # The row's lock on PostgreSQL; on SQLite the transaction itself is the lock.
        latest, change = session.execute(_STATE).one_or_none() or (datetime.min, 0)
        known = max(wall or utcnow(), latest)
        session.execute(_SEEN, {"now": known})
        session.info.update({NOW: known, CHANGE: change, REQUESTS: 0})
    assert isinstance(known, datetime)
    return known


def version(session: Session) -> int:
    """The number of the last change by any process."""
    return int(session.scalar(select(GpuState.version).where(GpuState.id == 1)) or 0)


# -- reading ----------------------------------------------------------------------------------


def availability(session: Session) -> Availability:
    """How many GPUs of each model there are and how many are free."""
    taken = session.execute(
        select(LeaseDevice.device_id, LeaseDevice.slot).where(LeaseDevice.released_at.is_(None))
    )
    offered = [device for device in read_devices(session) if device.offered]
    return count_types(offered, [(device, slot) for device, slot in taken])


def live_leases(session: Session) -> list[Lease]:
    """Leases that have not ended, oldest first."""
    query = select(Lease).where(Lease.state.in_(LIVE)).order_by(Lease.requested_at, Lease.id)
    return list(session.scalars(query))


def of_server(session: Session, username: str, server_name: str) -> Lease | None:
    """The lease of a server that has not ended."""
    return session.scalars(
        select(Lease).where(
            Lease.username == username,
            Lease.server_name == server_name,
            Lease.state.in_(LIVE),
        )
    ).one_or_none()


# -- the moves --------------------------------------------------------------------------------


def request(
    session: Session,
    *,
    username: str,
    server_name: str,
    account: str,
    gpus: int,
    gpu_type: str = "",
    time_limit: float | None = None,
    user_options: Mapping[str, Any] | None = None,
    anytime: bool = False,
    now: datetime | None = None,
) -> Lease:
    """Write a request, to be decided on. The server must have no lease that has not ended."""
    now = lock(session, now)
    lease = Lease(
        id=_new_id(session),
        username=username,
        server_name=server_name,
        state=LeaseState.REQUESTED,
        account=account,
        gpus=gpus,
        gpu_type=gpu_type,
        time_limit=None if time_limit is None else int(time_limit),
        user_options=dict(user_options or {}),
        anytime=anytime,
        requested_at=now,
    )
    session.add(lease)
    session.flush()
    return lease


def _new_id(session: Session) -> str:
    """An id for the next request of this transaction; ids sort as requests were written.

    They decide between requests of the same time, which all of one batch have, and all that come
    while a clock that was set back stands still: the first of them is served first.
    """
    session.info[REQUESTS] += 1
    change, request = session.info[CHANGE], session.info[REQUESTS]
    return f"{change:012x}{request:04x}{secrets.token_hex(8)}"


def queue(session: Session, verdicts: Iterable[Verdict]) -> None:
    """Requests wait: write down where they stand and why."""
    lock(session)
    rows = [
        {"id": verdict.lease, "state": LeaseState.QUEUED, "verdict": as_json(verdict)}
        for verdict in verdicts
    ]
    if rows:
        session.execute(update(Lease), rows)


def hold(session: Session, grants: Sequence[Grant], now: datetime | None = None) -> None:
    """Requests get their slots; from now on they are charged, and their time runs."""
    now = lock(session, now)
    if not grants:
        return
    found = session.execute(
        select(Lease.id, Lease.username, Lease.account, Lease.state, Lease.time_limit).where(
            Lease.id.in_([grant.lease for grant in grants])
        )
    )
    leases = {row.id: row for row in found}
    updates, slots, charged = [], [], []
    for grant in grants:
        lease = leases[grant.lease]
        _check_move(lease.id, lease.state, LeaseState.HELD)
        limit = lease.time_limit
        updates.append(
            {
                "id": lease.id,
                "state": LeaseState.HELD,
                "held_at": now,
                "ends_at": None if limit is None else now + timedelta(seconds=limit),
                "borrowed": grant.borrowed,
                "exempt_until": moment(grant.exempt_until) if grant.exempt_until else None,
                "weight": grant.weight,
                "reservation_id": grant.reservation,
                "verdict": None,
            }
        )
        slots += [
            {"lease_id": lease.id, "device_id": slot.device, "slot": slot.index}
            for slot in grant.slots
        ]
        charged.append(
            {
                "id": lease.id,
                "username": lease.username,
                "account": lease.account,
                "weight": grant.weight,
            }
        )
    session.execute(insert(LeaseDevice), slots)
    session.execute(update(Lease), updates)
    usage.open_rows(session, charged, now)


def activate(
    session: Session, lease_id: str, container_id: str, now: datetime | None = None
) -> None:
    """The lease's container runs. Raises LeaseMoveError when the lease has ended meanwhile."""
    now = lock(session, now)
    lease = session.get_one(Lease, lease_id, populate_existing=True)
    if lease.state is LeaseState.ACTIVE and lease.container_id == container_id:
        return
    _check_move(lease_id, lease.state, LeaseState.ACTIVE)
    lease.state, lease.active_at, lease.container_id = LeaseState.ACTIVE, now, container_id
    session.flush()


def opened(session: Session, lease_id: str, now: datetime | None = None) -> bool:
    """Somebody has used the server. True when this was the first time."""
    now = lock(session, now)
    lease = session.get(Lease, lease_id, populate_existing=True)
    if lease is None or lease.state is not LeaseState.ACTIVE or lease.opened_at is not None:
        return False
    lease.opened_at = now
    session.flush()
    return True


def plan_stop(session: Session, lease_id: str, reason: str, at: datetime) -> bool:
    """The lease's server is to be stopped at ``at``. True unless that was planned already."""
    lock(session)
    lease = session.get(Lease, lease_id, populate_existing=True)
    if lease is None or lease.state not in RUNS:
        return False
    if lease.stop_at is not None and lease.stop_at <= at:
        return False
    lease.stop_reason, lease.stop_at = reason[:64], at
    session.flush()
    return True


def spare(session: Session, lease_id: str) -> bool:
    """A lease's borrowed GPUs need not go back any more. True unless no such end was planned."""
    lock(session)
    lease = session.get(Lease, lease_id, populate_existing=True)
    if lease is None or lease.state not in RUNS or lease.stop_reason != RECLAIMED:
        return False
    lease.stop_reason = lease.stop_at = None
    session.flush()
    return True


def extend(
    session: Session, lease_id: str, by: float, now: datetime | None = None
) -> tuple[float, tuple[Reason, ...]]:
    """Let a lease run ``by`` seconds longer, or as much of that as is allowed.

    By how many seconds its end was moved (0.0: not at all), and the reasons against all of it.
    """
    now = lock(session, now)
    by, reasons = allowed(lease_id, by, read_snapshot(session, seconds(now)))
    if by:
        lease = session.get_one(Lease, lease_id, populate_existing=True)
        assert lease.ends_at is not None
        assert lease.held_at is not None
        lease.ends_at = max(lease.ends_at, now) + timedelta(seconds=by)
        lease.time_limit = int((lease.ends_at - lease.held_at).total_seconds())
        lease.warned_at = None
        session.flush()
    return by, reasons


def cancel(session: Session, lease_id: str, now: datetime | None = None) -> bool:
    """Give up: what waits leaves the queue, what runs is stopped at once. False: was over."""
    now = lock(session, now)
    lease = session.get(Lease, lease_id, populate_existing=True)
    if lease is not None and lease.state in WAITING:
        return end(session, lease_id, "cancelled", now)
    return plan_stop(session, lease_id, "cancelled", now)


class Place(StrEnum):
    """What an administrator makes of a request's place in the queue."""

    FRONT = "front"
    BACK = "back"
    USUAL = "usual"  # where the rules put it
    HOLD = "hold"  # it waits until it is released
    RELEASE = "release"


_RANKS = {Place.FRONT: 1, Place.BACK: -1, Place.USUAL: 0}


def place(session: Session, lease_id: str, to: Place, by: str, reason: str) -> Lease:
    """Move a request in the queue, hold it, or release it; the next decision minds that.

    Raises NotAvailable where it does not wait any more, BadRequest where a reason is wanted.
    """
    lock(session)
    lease = session.get(Lease, lease_id, populate_existing=True)
    if lease is None or lease.state not in WAITING:
        raise NotAvailable(NOT_WAITING())
    said = " ".join(reason.split())[:REASON_LENGTH]
    if to not in (Place.USUAL, Place.RELEASE) and not said:
        raise BadRequest(REASON_WANTED())
    if to in _RANKS:
        lease.queue_rank = _RANKS[to]
    else:
        lease.queue_paused = to is Place.HOLD
    moved = bool(lease.queue_rank or lease.queue_paused)
    lease.queue_by = by[:255] if moved else ""
    lease.queue_reason = (said or lease.queue_reason) if moved else ""
    return lease


def end(session: Session, lease_id: str, reason: str, now: datetime | None = None) -> bool:
    """The lease's container is gone: its slots are free. True when this ended it."""
    return bool(end_all(session, {lease_id: reason}, now))


def end_all(
    session: Session, reasons: Mapping[str, str], now: datetime | None = None
) -> Collection[str]:
    """End leases (id: reason), close their accounts, free their slots; those that it ended."""
    now = lock(session, now)
    rows = session.execute(
        select(Lease.id, Lease.stop_reason, Lease.stop_at).where(
            Lease.id.in_(list(reasons)), Lease.state.in_(LIVE)
        )
    ).all()
    ids = [row.id for row in rows]
    if ids:
        session.execute(
            update(Lease),
            [
                {
                    "id": lease,
                    "state": LeaseState.ENDED,
                    "ended_at": now,
                    # Stopped as it was planned: then that is why.
                    "ended_reason": planned
                    if at and at <= now and planned
                    else reasons[lease][:64],
                    "verdict": None,
                }
                for lease, planned, at in rows
            ],
        )
        session.execute(
            update(LeaseDevice)
            .where(LeaseDevice.lease_id.in_(ids), LeaseDevice.released_at.is_(None))
            .values(released_at=now)
            .execution_options(synchronize_session=False)
        )
        usage.close(session, ids, now)
    return ids


def end_of_server(
    session: Session, username: str, server_name: str, reason: str, now: datetime | None = None
) -> None:
    """End whatever lease a server still has; its container must be gone."""
    lease = of_server(session, username, server_name)
    if lease is not None:
        end(session, lease.id, reason, now)


def latest(session: Session) -> datetime:
    """The latest time that anybody has seen."""
    return session.scalars(select(func.max(GpuState.latest))).one() or datetime.min


# -- small parts ------------------------------------------------------------------------------


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the lease's row keeps it."""
    return {
        "position": verdict.position,
        "expected_start": verdict.expected_start,
        "reasons": [{"code": r.code, "data": dict(r.params)} for r in verdict.reasons],
    }


def verdict_of(lease: str, stored: Mapping[str, Any]) -> Verdict:
    """The other way round."""
    return Verdict(
        lease,
        int(stored["position"]),
        tuple(map(Reason.from_json, stored["reasons"])),
        stored["expected_start"],
    )


def _check_move(lease: str, old: LeaseState, new: LeaseState) -> None:
    if new not in LEASE_MOVES[old]:
        raise LeaseMoveError(f"lease {lease} cannot go from {old} to {new}")
