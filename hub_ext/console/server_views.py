"""All servers of the site, with and without GPUs, as far as somebody may see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.leases import ServerKey
from commons.principal import Principal
from commons.rights import Action, can
from commons.store.models import AnnouncedStop, GpuWatch, Lease, ServerWatch
from hub_ext.console.live import Now, Running
from spawner.gpu.views import HOLDING, WAITING, iso

SHOWN = 100  # servers of a page
LONGEST = 100  # characters of a filter
STATES = ("running", "idle", "starting", "stopping", "waiting")
SORTS = ("user", "memory", "cpu", "active", "started", "ends")


@dataclass(frozen=True)
class Asked:
    """Which servers, and in which order; what is empty lets all pass.

    Attributes:
        q: a part of the person's, the server's or the environment's name.
        gpus: "with" or "without".
    """

    q: str = ""
    state: str = ""
    gpus: str = ""
    account: str = ""
    sort: str = "user"

    @classmethod
    def read(cls, given: Callable[[str], str]) -> Asked:
        """From an address; what is none of the choices is as if it were not there."""
        choices = {"state": STATES, "gpus": ("with", "without"), "sort": SORTS}
        found = {name: given(name).strip()[:LONGEST] for name in cls.__dataclass_fields__}
        return cls(
            **{
                name: value if value in choices.get(name, (value,)) else choices[name][0]
                if name == "sort" else ""
                for name, value in found.items()
            }
        )  # fmt: skip

    def fits(self, one: Server) -> bool:
        """Whether it is one of these."""
        words = f"{one.run.key} {one.run.environment}".lower()
        return (
            self.q.lower() in words
            and self.state in ("", one.state, "running" if one.run.state == "running" else "")
            and self.gpus in ("", "with" if one.run.gpus else "without")
            and self.account in ("", one.run.account)
        )

    def in_order(self, found: Iterable[Server]) -> list[Server]:
        """By name, or the largest, the longest silent, the oldest, the first to end first."""
        by: Mapping[str, Callable[[Server], float]] = {
            "memory": lambda one: -(one.run.memory or 0),
            "cpu": lambda one: -(one.run.cpu or 0),
            "active": lambda one: one.run.active or one.run.started or 0,
            "started": lambda one: one.run.started or 0,
            "ends": lambda one: one.ends or float("inf"),
        }
        named = sorted(found, key=lambda one: one.run.key)
        return sorted(named, key=by[self.sort]) if self.sort in by else named


@dataclass(frozen=True)
class Server:
    """One, with what our store says of it; times in seconds since 1970.

    Attributes:
        state: of ``STATES``; waiting: in the queue of GPUs.
        ends, why: when it ends as things stand, and by what: ``time_limit``, ``idle``, ``culled``,
            ``announced``, …
    """

    run: Running
    state: str
    lease: str = ""
    gpu_percent: float | None = None
    limited: bool = False
    ends: float | None = None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """For JSON; times in UTC."""
        run = {name: getattr(self.run, name) for name in Running.__dataclass_fields__}
        return {
            "who": self.run.key,
            **run,
            "state": self.state,
            "started": iso(self.run.started),
            "active": iso(self.run.active),
            "lease": self.lease or None,
            "gpu_percent": self.gpu_percent,
            "ends": iso(self.ends),
            "why": self.why or None,
        }


def servers(session: Session, viewer: Principal, now: Now, at: float) -> list[Server]:
    """Those that the viewer may see; ``at`` is this moment, in seconds since 1970."""
    leases = _leases(session)
    seen = [_charged(one, leases) for one in now.servers]
    seen = [one for one in seen if can(viewer, Action.SEE_SERVER, one.resource)]
    if not seen:
        return []
    culled = {(row[0], row[1]): row[2:] for row in session.execute(_CULLED)}
    told = {(row[0], row[1]): row[2] for row in session.execute(_ANNOUNCED)}
    return [_server(one, leases, culled, told, at) for one in seen]


_LEASES = (
    select(
        Lease.username, Lease.server_name, Lease.id, Lease.account, Lease.state, Lease.ends_at,
        Lease.stop_reason, Lease.stop_at, GpuWatch.gpu_percent,
    )
    .outerjoin(GpuWatch, GpuWatch.lease_id == Lease.id)
    .where(Lease.state.in_((*HOLDING, *WAITING)))
)  # fmt: skip
_CULLED = select(
    ServerWatch.username, ServerWatch.server_name, ServerWatch.stop_at, ServerWatch.old_at
)
_ANNOUNCED = select(AnnouncedStop.username, AnnouncedStop.server_name, AnnouncedStop.stop_at)


def _leases(session: Session) -> dict[ServerKey, Any]:
    return {(row.username, row.server_name): row for row in session.execute(_LEASES)}


def _charged(one: Running, leases: Mapping[ServerKey, Any]) -> Running:
    """With whom its lease is charged to, which is what was decided."""
    lease = leases.get((one.user, one.server))
    return replace(one, account=lease.account) if lease is not None and lease.account else one


def _server(
    run: Running,
    leases: Mapping[ServerKey, Any],
    culled: Mapping[ServerKey, Sequence[Any]],
    told: Mapping[ServerKey, datetime],
    at: float,
) -> Server:
    key = (run.user, run.server)
    lease = leases.get(key)
    waits = lease is not None and lease.state in WAITING
    stop_at, old_at = culled.get(key, (None, None))
    ends = [(stop_at, "culled"), (old_at, "max_age"), (_seconds(told.get(key)), "announced")]
    if lease is not None and not waits:
        ends.append((_seconds(lease.ends_at), "time_limit"))
        ends.append((_seconds(lease.stop_at), lease.stop_reason or ""))
    known = [(when, why) for when, why in ends if when is not None]
    when, why = min(known) if known else (None, "")
    return Server(
        run,
        "waiting" if waits else "idle" if run.idle(at) else run.state,
        lease.id if lease is not None else "",
        lease.gpu_percent if lease is not None else None,
        bool(lease is not None and not waits and lease.ends_at),
        when,
        why,
    )


def _seconds(at: datetime | None) -> float | None:
    return at.replace(tzinfo=UTC).timestamp() if at is not None else None
