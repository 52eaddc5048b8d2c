"""What the console shows, read from the store and made into plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.site import words_in
from hub_ext.store import GpuDevice, Lease
from spawner.environments import catalog
from spawner.gpu import ledger
from spawner.options import show_bytes


@dataclass(frozen=True)
class Viewer:
    """Who looks. An administrator sees everybody's leases, others their own."""

    name: str
    admin: bool
    groups: tuple[str, ...] = ()


def gpus(session: Session) -> dict[str, Any]:
    """Models of GPU with how many there are and how many are free."""
    found = ledger.availability(session)
    return {
        "simulated": found.simulated,
        "total": found.total,
        "free": found.free,
        "types": [
            {
                "model": kind.model,
                "memory": show_bytes(kind.memory),
                "memory_bytes": kind.memory,
                "total": kind.total,
                "free": kind.free,
            }
            for kind in found.types
        ],
    }


def leases(session: Session, viewer: Viewer) -> dict[str, Any]:
    """Leases that have not ended, oldest first, as far as the viewer may see them."""
    live = ledger.live_leases(session)
    devices = {device.id: device for device in session.scalars(select(GpuDevice))}
    return {
        "everyone": viewer.admin,
        # How many leases there are is no secret; whose they are is.
        "total": len(live),
        "leases": [
            _lease(lease, devices)
            for lease in live
            if viewer.admin or lease.username == viewer.name
        ],
    }


def _lease(lease: Lease, devices: dict[str, GpuDevice]) -> dict[str, Any]:
    rows = [devices[held.device_id] for held in lease.devices]
    return {
        "id": lease.id,
        "user": lease.username,
        "server": lease.server_name,
        "state": str(lease.state),
        "since": lease.held_at.isoformat(timespec="seconds") + "Z",
        "gpus": [
            {"id": row.id, "model": row.model, "simulated": row.simulated}
            for row in sorted(rows, key=lambda row: row.id)
        ],
    }


def environments(session: Session, lang: str) -> dict[str, Any]:
    """The environments that can be started, with the newest version's contents."""
    return {
        "environments": [
            {
                "name": versions[0].name,
                "title": words_in(versions[0].words.get("title") or versions[0].name, lang),
                "description": words_in(versions[0].words.get("description") or "", lang),
                "version": versions[0].version,
                "versions": [entry.version for entry in versions],
                "python": versions[0].python,
                "main_packages": list(versions[0].main_packages),
                "package_count": len(versions[0].packages),
            }
            for versions in catalog.newest(session, offered_only=True).values()
        ]
    }
