"""Which devices may be offered: what the inventory saw, and what administrators drained.

A device that vanished or fails is no longer offered; who holds it is told, and keeps it. Its
lease stays as it is until its server ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import BadRequest
from commons.i18n import N_
from commons.leases import LeaseState
from commons.messages import Text
from commons.store.models import GpuDevice, GpuNode, GpuNotice, Lease, LeaseDevice, utcnow
from spawner.gpu.ledger import reservations, transitions
from spawner.gpu.ledger.usage import seconds
from spawner.gpu.policy.placement import Device

# Who drains a GPU that reported a critical error; an administrator returns it.
WATCH = "labcommons"
MOST_REASON = 255  # characters


GPU_UNKNOWN = Text(
    "gpu_unknown",
    N_("“{target}” is neither a GPU nor a node. Nodes: {known}; for GPUs see “gpu list”."),
)


@dataclass(frozen=True)
class Changes:
    """What one look at the inventory changed, as ids of devices."""

    added: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    recovered: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.lost or self.failing or self.recovered)


def sync_inventory(
    session: Session,
    devices: Iterable[Device],
    *,
    vanished: Literal["lost", "removed"] = "removed",
    now: datetime | None = None,
) -> Changes:
    """Make the devices of the store those that the inventory sees now; tell whom it concerns.

    Drains stay. How a device is shared changes only while nobody holds it. A device that is not
    seen any more stays in its row for the leases that name it: ``lost`` where the driver listed
    it before, unless an administrator has drained it or it became other MIG devices.
    """
    now = now or utcnow()
    seen = {device.id: device for device in devices}
    rows = {row.id: row for row in session.scalars(select(GpuDevice))}
    leased = _leased(session)
    wanted: dict[str, dict[str, object]] = {}
    for device in seen.values():
        known = rows.get(device.id)
        wanted[device.id] = _described(known, device, now, free=device.id not in leased)
    for row in rows.values():
        if row.id not in seen and (row.present or row.health == "lost"):
            wanted[row.id] = {"present": False} | _judged(
                row,
                *_verdict(
                    row,
                    vanished == "lost"
                    and (row.id in leased or not _rearranged(row, seen.values())),
                ),
                now,
            )
    wanted = {
        key: values
        for key, values in wanted.items()
        if key not in rows or any(getattr(rows[key], n) != v for n, v in values.items())
    }
    if not wanted:
        session.execute(update(GpuDevice).where(GpuDevice.id.in_(seen)).values(seen_at=now))
        return Changes()
    transitions.lock(session, now)
    turned: dict[str, list[str]] = {"ok": [], "failing": [], "lost": []}
    for key, values in wanted.items():
        row = rows.get(key) or GpuDevice(id=key, health="ok")
        if values["health"] != row.health:
            turned[str(values["health"])].append(key)
        for name, value in values.items():
            setattr(row, name, value)
        session.add(row)
    session.flush()
    session.execute(update(GpuDevice).where(GpuDevice.id.in_(seen)).values(seen_at=now))
    tell_holders(session, turned["lost"], "gpu_lost", now)
    tell_holders(session, turned["failing"], "gpu_failing", now)
    return Changes(
        added=tuple(key for key in wanted if key not in rows),
        lost=tuple(turned["lost"]),
        failing=tuple(turned["failing"]),
        recovered=tuple(turned["ok"]),
    )


def _described(
    row: GpuDevice | None, device: Device, now: datetime, free: bool
) -> dict[str, object]:
    """What the row of a device that was seen should say."""
    wanted: dict[str, object] = {
        "node": device.node,
        "model": device.model,
        "memory": device.memory,
        "simulated": device.simulated,
        "parent": device.parent,
        "present": True,
    }
    # Who got it alone keeps it alone, and a slot that somebody has does not go away.
    if row is None or free:
        wanted |= {"sharing": device.sharing, "slots": device.slots, "weight": device.weight}
    return wanted | _judged(row, device.health, device.health_reason, now)


def _verdict(row: GpuDevice, gone: bool) -> tuple[str, str]:
    """Of a device that is not listed any more."""
    if gone and not row.simulated and row.drained_at is None:
        return "lost", "the driver no longer lists it"
    return "ok", ""


def _judged(row: GpuDevice | None, health: str, reason: str, now: datetime) -> dict[str, object]:
    same = row is not None and row.health == health
    return {
        "health": health,
        "health_reason": reason[:MOST_REASON] or None,
        "health_since": row.health_since if row is not None and same else now,
    }


def _rearranged(row: GpuDevice, seen: Collection[Device]) -> bool:
    """Whether its GPU is still there, cut into other parts or into none."""
    gpu = row.parent or row.id
    return any(gpu in (device.id, device.parent) for device in seen)


def _leased(session: Session) -> set[str]:
    return set(
        session.scalars(select(LeaseDevice.device_id).where(LeaseDevice.released_at.is_(None)))
    )


def holders(session: Session, devices: Collection[str]) -> list[tuple[Lease, list[GpuDevice]]]:
    """Leases that hold any of these devices, with those of them that they hold."""
    query = (
        select(Lease, GpuDevice)
        .join(LeaseDevice, LeaseDevice.lease_id == Lease.id)
        .join(GpuDevice, GpuDevice.id == LeaseDevice.device_id)
        .where(LeaseDevice.released_at.is_(None), GpuDevice.id.in_(devices))
        .order_by(Lease.id, GpuDevice.id)
    )
    found: dict[str, tuple[Lease, list[GpuDevice]]] = {}
    for lease, device in session.execute(query):
        found.setdefault(lease.id, (lease, []))[1].append(device)
    return list(found.values())


def tell_holders(
    session: Session, devices: Collection[str], code: str, now: datetime | None = None
) -> list[str]:
    """A notice to everybody who holds one of these devices; the ids of their leases."""
    found = holders(session, devices) if devices else []
    for lease, rows in found:
        since = min((row.health_since or utcnow() for row in rows), default=utcnow())
        notices.add(
            session,
            username=lease.username,
            lease_id=lease.id,
            code=code,
            data={
                "devices": ", ".join(row.model for row in rows),
                "reason": "; ".join(sorted({row.health_reason or "" for row in rows})),
            },
            key=f"{code}:{lease.id}:{since.replace(tzinfo=UTC).timestamp():.0f}",
            now=now,
        )
    return [lease.id for lease, _ in found]


_OUT_OF_REACH = "gpus_out_of_reach"


def lost_reach(session: Session, username: str, lease: str) -> bool:
    """Tell a server's owner, once, that its GPUs are out of its reach. True when that is new."""
    return notices.add(
        session,
        username=username,
        lease_id=lease,
        code=_OUT_OF_REACH,
        data={},
        key=f"{_OUT_OF_REACH}:{lease}",
    )


def out_of_reach(session: Session) -> frozenset[str]:
    """Ids of the leases that go on, and whose servers can no longer open their GPUs."""
    going = select(f"{_OUT_OF_REACH}:" + Lease.id).where(Lease.state == LeaseState.ACTIVE)
    found = session.scalars(select(GpuNotice.lease_id).where(GpuNotice.key.in_(going)))
    return frozenset(one for one in found if one)


@dataclass(frozen=True)
class Drained:
    """What a drain or return did: to which devices, how many servers still run there, and the
    reservations of the next two weeks that cannot be kept now, by name.
    """

    kind: Literal["device", "node"]
    target: str
    devices: tuple[str, ...]
    running: int
    unkept: tuple[str, ...] = ()


def drain(
    session: Session, target: str, by: str, reason: str = "", now: datetime | None = None
) -> Drained:
    """Offer a device, or all of a node, no longer; what runs there goes on.

    Raises BadRequest for what is neither a device nor a node.
    """
    now = now or utcnow()
    transitions.lock(session)
    kind, row, devices = _target(session, target)
    if row.drained_at is None:
        row.drained_at = now
    row.drained_by, row.drain_reason = by[:255], reason.strip()[:MOST_REASON] or None
    session.flush()
    found = reservations.unkept_soon(session, seconds(now), reservations.WATCHED)
    unkept = tuple(dict.fromkeys(one.window.name for one in found))
    return Drained(kind, target, devices, len(holders(session, devices)), unkept)


def undrain(session: Session, target: str) -> Drained:
    """Offer a device or node again; a device that is lost or failing is not, all the same.

    Raises BadRequest for what is neither a device nor a node.
    """
    transitions.lock(session)
    kind, row, devices = _target(session, target)
    row.drained_at = row.drained_by = row.drain_reason = None
    return Drained(kind, target, devices, len(holders(session, devices)))


def _target(
    session: Session, target: str
) -> tuple[Literal["device", "node"], GpuDevice | GpuNode, tuple[str, ...]]:
    device = session.get(GpuDevice, target)
    if device is not None:
        return "device", device, (device.id,)
    query = select(GpuDevice.id).where(GpuDevice.node == target).order_by(GpuDevice.id)
    if devices := tuple(session.scalars(query)):
        node = session.get(GpuNode, target)
        if node is None:
            node = GpuNode(name=target)
            session.add(node)
        return "node", node, devices
    known = sorted(set(session.scalars(select(GpuDevice.node).where(GpuDevice.present))))
    raise BadRequest(GPU_UNKNOWN(target=target[:96], known=", ".join(known) or "–"))


def critical_error(session: Session, device: str, xid: int, now: datetime | None = None) -> bool:
    """The driver reported a critical error of a GPU: drain it until an administrator returns it.

    Its MIG devices with it; who holds one is told. True where something new was drained.
    """
    now = now or utcnow()
    transitions.lock(session)
    rows = session.scalars(
        select(GpuDevice).where(
            (GpuDevice.id == device) | (GpuDevice.parent == device),
            GpuDevice.drained_at.is_(None),
        )
    ).all()
    for row in rows:
        row.drained_at, row.drained_by = now, WATCH
        row.drain_reason = f"the driver reported Xid {xid}: see dmesg, reset it, then return it"
        for lease, _ in holders(session, [row.id]):
            notices.add(
                session,
                username=lease.username,
                lease_id=lease.id,
                code="gpu_failing",
                data={"devices": row.model, "reason": f"Xid {xid}"},
                key=f"xid:{lease.id}:{row.id}:{now.replace(tzinfo=UTC).timestamp():.0f}",
                now=now,
            )
    return bool(rows)
