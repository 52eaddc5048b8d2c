"""The ledger after what it cannot foresee: a hub that was killed, a clock that was set, a loss."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from commons.leases import LeaseState
from commons.store.models import GpuDevice, GpuState, GpuUsage, Lease, LeaseDevice
from spawner.gpu.ledger import transitions, usage
from spawner.gpu.ledger.snapshot import read_quotas
from spawner.gpu.ledger.usage import seconds
from spawner.gpu.policy.state import Slot


def again(session: Session, lease_id: str, reason: str, now: datetime | None = None) -> Lease:
    """End a lease whose server has to be made anew, and ask again with its age."""
    now = transitions.lock(session, now)
    old = session.get_one(Lease, lease_id, populate_existing=True)
    transitions.end(session, lease_id, reason, now)
    new = transitions.request(
        session,
        username=old.username,
        server_name=old.server_name,
        account=old.account,
        gpus=old.gpus,
        gpu_type=old.gpu_type,
        time_limit=old.time_limit,
        user_options=old.user_options,
        anytime=old.anytime,
        now=now,
    )
    new.requested_at = old.requested_at
    session.flush()
    return new


def restore(
    session: Session,
    lease_id: str,
    *,
    username: str,
    server_name: str,
    account: str,
    slots: Sequence[Slot],
    container_id: str,
    held_at: datetime,
    time_limit: float | None,
    now: datetime | None = None,
) -> bool:
    """Write the row of a lease again that the store has lost, from what its container says.

    Charged from ``held_at``. False where its slots or its server have another lease by now.
    """
    now = transitions.lock(session, now)
    held_at = min(held_at, now)
    taken = session.execute(
        select(LeaseDevice.device_id, LeaseDevice.slot).where(
            LeaseDevice.released_at.is_(None),
            LeaseDevice.device_id.in_([slot.device for slot in slots]),
        )
    )
    if {Slot(*row) for row in taken} & set(slots) or transitions.of_server(
        session, username, server_name
    ):
        return False
    if session.get(Lease, lease_id) is not None:
        return False
    settings = read_quotas(session)[1]
    weight, model = 0.0, ""
    for slot in slots:
        device = session.get(GpuDevice, slot.device)
        if device is None:  # it left while nobody remembered its lease
            device = GpuDevice(id=slot.device, model="", memory=0, present=False)
            session.add(device)
            session.flush()
        weight += device.weight * settings.price(device.model)
        model = device.model
    session.add(
        Lease(
            id=lease_id,
            username=username,
            server_name=server_name,
            state=LeaseState.ACTIVE,
            account=account,
            gpus=len(slots),
            gpu_type=model,
            weight=weight,
            requested_at=held_at,
            held_at=held_at,
            active_at=now,
            opened_at=now,
            time_limit=None if time_limit is None else int(time_limit),
            ends_at=None if time_limit is None else held_at + timedelta(seconds=time_limit),
            container_id=container_id,
        )
    )
    session.flush()
    session.execute(
        insert(LeaseDevice),
        [{"lease_id": lease_id, "device_id": s.device, "slot": s.index} for s in slots],
    )
    row = {"id": lease_id, "username": username, "account": account, "weight": weight}
    usage.open_rows(session, [row], held_at)
    return True


_SHIFTED = (
    *("requested_at", "held_at", "active_at", "opened_at", "ends_at", "exempt_until"),
    *("stop_at", "warned_at", "keep_until", "ended_at"),
)


def shift(session: Session, by: float) -> None:
    """The clock was set ``by`` seconds forwards (or, negative, backwards): so are all leases.

    What runs has then as much time left as before and is charged for no more than that; what
    waits keeps its age. So is what ended in a time that is yet to come again. Reservations are
    wall time and stay.
    """
    delta = timedelta(seconds=by)
    state = session.get_one(GpuState, 1, with_for_update=True)
    state.latest += delta
    state.version += 1
    session.info[transitions.NOW] = state.latest
    ahead = session.scalars(select(Lease).where(Lease.ended_at > state.latest))
    for lease in [*transitions.live_leases(session), *ahead]:
        for name in _SHIFTED:
            at = getattr(lease, name)
            if at is not None:
                setattr(lease, name, at + delta)
        row = session.get(GpuUsage, lease.id)
        if row is not None:
            row.started_at += delta
            row.charged_to += delta
    session.flush()
    if by < 0:
        usage.rebuild_all(session, seconds(state.latest))
