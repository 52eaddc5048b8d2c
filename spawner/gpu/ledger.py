"""Who holds which GPU: every change is one transaction on the store.

A lease is written before its container exists and ended after the container is gone.
The unique indexes of the store make a double lease impossible whatever happens here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.store.models import (
    LEASE_MOVES,
    GpuDevice,
    Lease,
    LeaseDevice,
    LeaseState,
    utcnow,
)
from spawner.gpu.devices import Availability, Device, choose_devices, count_types


class LeaseMoveError(Exception):
    """A lease was asked to make a move that the table of moves does not have."""


def sync_inventory(session: Session, devices: Iterable[Device]) -> None:
    """Make the devices of the store those that the inventory sees now.

    A device that is gone stays in its row, not present, for the leases that name it.
    """
    seen = {device.id: device for device in devices}
    rows = {row.id: row for row in session.scalars(select(GpuDevice))}
    for row in rows.values():
        row.present = row.id in seen
    for device in seen.values():
        row = rows.get(device.id) or GpuDevice(id=device.id)
        row.model, row.memory = device.model, device.memory
        row.simulated, row.present, row.seen_at = device.simulated, True, utcnow()
        session.add(row)


def availability(session: Session) -> Availability:
    """How many GPUs of each model there are and how many are free."""
    return count_types(_devices(session), _leased(session))


def live_leases(session: Session) -> list[Lease]:
    """Leases that have not ended, oldest first."""
    query = select(Lease).where(Lease.state != LeaseState.ENDED).order_by(Lease.held_at, Lease.id)
    return list(session.scalars(query))


def hold(
    session: Session, username: str, server_name: str, count: int, model: str = ""
) -> tuple[Lease, list[Device]]:
    """Lease ``count`` devices to a server that is about to start.

    The caller has made sure that no container of this server is left; a lease that it
    may have had is over and ended here. Raises BadRequest and NotAvailable as
    ``choose_devices`` does, and then leases nothing.
    """
    end_of_server(session, username, server_name, "replaced")
    # Locking the devices' rows makes concurrent writers of PostgreSQL choose one after
    # the other; on SQLite the transaction itself is the lock.
    devices = _devices(session, lock=True)
    chosen = choose_devices(devices, _leased(session), count, model)
    lease = Lease(
        id=uuid.uuid4().hex,
        username=username,
        server_name=server_name,
        state=LeaseState.HELD,
        account=f"user:{username}",
        gpus=count,
        gpu_type=model,
        weight=float(count),
        held_at=utcnow(),
        devices=[LeaseDevice(device_id=device.id) for device in chosen],
    )
    session.add(lease)
    session.flush()
    return lease, chosen


def activate(session: Session, lease_id: str, container_id: str) -> None:
    """The lease's container runs. Raises LeaseMoveError when the lease has ended meanwhile."""
    lease = session.get_one(Lease, lease_id, with_for_update=True)
    _move(lease, LeaseState.ACTIVE)
    lease.active_at, lease.container_id = utcnow(), container_id


def end(session: Session, lease_id: str, reason: str) -> bool:
    """The lease's container is gone: its devices are free. True when this ended it."""
    lease = session.get(Lease, lease_id, with_for_update=True)
    if lease is None or lease.state is LeaseState.ENDED:
        return False
    _end(lease, reason)
    return True


def end_of_server(session: Session, username: str, server_name: str, reason: str) -> None:
    """End whatever lease a server still has; its container must be gone."""
    for lease in session.scalars(
        select(Lease).where(
            Lease.username == username,
            Lease.server_name == server_name,
            Lease.state != LeaseState.ENDED,
        )
    ):
        _end(lease, reason)
    session.flush()


def _end(lease: Lease, reason: str, now: datetime | None = None) -> None:
    now = now or utcnow()
    _move(lease, LeaseState.ENDED)
    lease.ended_at, lease.ended_reason = now, reason[:64]
    for device in lease.devices:
        device.released_at = device.released_at or now


def _move(lease: Lease, state: LeaseState) -> None:
    if state not in LEASE_MOVES[lease.state]:
        raise LeaseMoveError(f"lease {lease.id} cannot go from {lease.state} to {state}")
    lease.state = state


def _devices(session: Session, lock: bool = False) -> list[Device]:
    query = select(GpuDevice).where(GpuDevice.present).order_by(GpuDevice.id)
    if lock:
        query = query.with_for_update()
    return [Device(row.id, row.model, row.memory, row.simulated) for row in session.scalars(query)]


def _leased(session: Session) -> set[str]:
    return set(
        session.scalars(select(LeaseDevice.device_id).where(LeaseDevice.released_at.is_(None)))
    )
