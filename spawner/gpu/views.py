"""What stands at this moment: devices, leases and the queue, as plain data ready for JSON.

The commands, the console and the spawn page show the same from here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from commons.i18n import Gettext
from commons.leases import LeaseState, ServerKey
from commons.shared_accounts import MARK
from commons.store.models import GpuDevice, GpuNode, Lease, LeaseDevice, SharedServer
from spawner.gpu.devices import health
from spawner.gpu.policy.reasons import sentence
from spawner.gpu.policy.state import Reason, Verdict

WAITING = (LeaseState.REQUESTED, LeaseState.QUEUED)
HOLDING = (LeaseState.HELD, LeaseState.ACTIVE)

# A reason in somebody's language.
Say = Callable[[Reason], str]


def speaker(gettext: Gettext, timezone: tzinfo | None = None, now: float | None = None) -> Say:
    """``reasons.sentence`` for one reader."""
    return lambda reason: sentence(reason, gettext, timezone, now)


def iso(moment: datetime | float | None) -> str | None:
    """A time of the store (UTC without zone) or seconds since 1970, in ISO 8601, UTC."""
    if moment is None:
        return None
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="seconds") + "Z"


# -- devices ----------------------------------------------------------------------------------


def devices(session: Session) -> list[dict[str, Any]]:
    """Every device that is there or still held, by node and model.

    ``state`` is ``free``, ``shared`` (some slots held), ``leased``, ``drained``, ``failing``,
    ``lost`` or ``gone`` (the inventory does not list it any more).
    """
    held: dict[str, list[str]] = {}
    for device_id, lease_id in session.execute(
        select(LeaseDevice.device_id, LeaseDevice.lease_id).where(LeaseDevice.released_at.is_(None))
    ):
        held.setdefault(device_id, []).append(lease_id)
    nodes = {node.name: node for node in session.scalars(select(GpuNode))}
    rows = session.scalars(
        select(GpuDevice).order_by(GpuDevice.node, GpuDevice.model, GpuDevice.id)
    )
    return [
        _device(row, held.get(row.id, []), nodes.get(row.node))
        for row in rows
        if row.present or row.id in held
    ]


def _device(row: GpuDevice, leases: list[str], node: GpuNode | None) -> dict[str, Any]:
    drain = row if row.drained_at else node if node and node.drained_at else None
    if not row.present:
        state = "gone"
    elif row.health != "ok":
        state = row.health
    elif drain:
        state = "drained"
    else:
        state = "free" if not leases else "leased" if len(leases) >= row.slots else "shared"
    reason = row.health_reason if row.health != "ok" else drain.drain_reason if drain else None
    return {
        "id": row.id,
        "node": row.node,
        "model": row.model,
        "memory_bytes": row.memory,
        "simulated": row.simulated,
        "parent": row.parent or None,
        "sharing": row.sharing,
        "slots": row.slots,
        "slots_held": len(leases),
        "weight": row.weight,
        "health": row.health,
        "drained": drain is not None,
        "drained_by": drain.drained_by if drain else None,
        "drained_node": bool(drain and drain is node),
        "reason": reason,
        "state": state,
        "leases": leases,
    }


# -- leases and the queue ---------------------------------------------------------------------


def live(
    session: Session, states: Collection[LeaseState] = (*HOLDING, *WAITING), user: str = ""
) -> list[Lease]:
    """Leases that have not ended: first who holds, oldest first, then who waits, in order.

    Of these states, and of one person where ``user`` is given.
    """
    query = select(Lease).where(Lease.state.in_(states))
    if user:
        query = query.where(Lease.username == user)
    return sorted(session.scalars(query), key=_order)


def count(session: Session, states: Collection[LeaseState]) -> tuple[int, int]:
    """How many leases in these states there are, and how many GPUs they are about."""
    query = select(func.count(), func.coalesce(func.sum(Lease.gpus), 0))
    leases, gpus = session.execute(query.where(Lease.state.in_(states))).one()
    return int(leases), int(gpus)


def _order(lease: Lease) -> tuple[bool, int, datetime, str, str]:
    waits = lease.state in WAITING
    position = (lease.verdict or {}).get("position") or 10**9 if waits else 0
    return waits, position, lease.held_at or lease.requested_at, lease.username, lease.id


@dataclass(frozen=True)
class Known:
    """What is said of leases beside their rows.

    Attributes:
        devices: all by id, also those that are gone.
        out_of_reach: ids of leases whose server can no longer open its GPUs.
        asked_by: of shared servers, who had them started.
    """

    devices: Mapping[str, GpuDevice]
    out_of_reach: Collection[str]
    asked_by: Mapping[ServerKey, str]


def known(session: Session) -> Known:
    """As it is now."""
    return Known(
        {row.id: row for row in session.scalars(select(GpuDevice))},
        health.out_of_reach(session),
        {
            (f"{MARK}{row.scope}", row.name): row.by
            for row in session.scalars(select(SharedServer))
            if row.by
        },
    )


def lease(row: Lease, known: Known, say: Say) -> dict[str, Any]:
    """One lease."""
    by_id = known.devices
    waits = row.state in WAITING
    return {
        "id": row.id,
        "user": row.username,
        "server": row.server_name,
        "asked_by": known.asked_by.get((row.username, row.server_name)),
        "account": row.account,
        "state": str(row.state),
        "count": row.gpus,
        "gpu_type": row.gpu_type,
        "gpus": [
            {
                "id": held.device_id,
                "model": by_id[held.device_id].model,
                "node": by_id[held.device_id].node,
                "slot": held.slot,
                "simulated": by_id[held.device_id].simulated,
                "shared": by_id[held.device_id].sharing != "exclusive",
            }
            for held in sorted(row.devices, key=lambda held: (held.device_id, held.slot))
            if held.device_id in by_id
        ],
        "requested_at": iso(row.requested_at),
        "since": iso(row.held_at or row.requested_at),
        "time_limit": row.time_limit,
        "ends_at": iso(row.ends_at),
        "keep_until": iso(row.keep_until),
        "borrowed": row.borrowed,
        "out_of_reach": row.id in known.out_of_reach,
        "stop": {"reason": row.stop_reason, "at": iso(row.stop_at)} if row.stop_reason else None,
        "waiting": waiting(row.verdict, say) if waits else None,
        "moved": _moved(row) if waits else None,
    }


def _moved(row: Lease) -> dict[str, Any] | None:
    """What an administrator made of a place in the queue; None for nothing."""
    if not row.queue_rank and not row.queue_paused:
        return None
    where = {1: "front", -1: "back"}.get(row.queue_rank, "usual")
    return {
        "to": where,
        "held": row.queue_paused,
        "by": row.queue_by,
        "reason": row.queue_reason,
    }


def waiting(verdict: Mapping[str, Any] | None, say: Say) -> dict[str, Any]:
    """Place, expected start and reasons, as the last pass saw them (none yet: all empty)."""
    verdict = verdict or {}
    return {
        "position": verdict.get("position"),
        "expected_start": iso(verdict.get("expected_start")),
        "reasons": reasons(map(Reason.from_json, verdict.get("reasons", ())), say),
    }


def verdict(found: Verdict, say: Say) -> dict[str, Any]:
    """``waiting`` of a verdict that is not written down: what would be."""
    return {
        "position": found.position,
        "expected_start": iso(found.expected_start),
        "reasons": reasons(found.reasons, say),
    }


def reasons(found: Iterable[Reason], say: Say) -> list[dict[str, Any]]:
    """``[{code, data, sentence}]``."""
    return [{"code": one.code, "data": dict(one.params), "sentence": say(one)} for one in found]
