"""What has to happen to leases as time goes by: warnings and ends. Pure.

A lease ends ``ends_at``, but never sooner than it was warned, by ``warn_before`` (half of
its time limit where that is shorter): a clock that jumps, or a hub that was down, costs nobody
work without a warning. A granted server that nobody opens within ``hold_time`` goes to the next,
but not before ``keep_until``, until which a server is held that was started ahead of time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from commons.leases import LeaseState

WAITED = 60.0  # seconds in the queue after which somebody is told that it is over


@dataclass(frozen=True)
class Running:
    """A held or active lease; times are seconds since 1970."""

    id: str
    user: str
    server: str
    state: LeaseState
    requested_at: float
    held_at: float
    active_at: float | None = None
    opened_at: float | None = None
    ends_at: float | None = None
    warned_at: float | None = None
    stop_at: float | None = None
    stop_reason: str = ""
    keep_until: float | None = None


@dataclass(frozen=True)
class Warn:
    """Tell the holder; ``code`` is a notice's. ``ends`` marks the lease as warned of its end."""

    lease: Running
    code: str
    data: Mapping[str, Any] = field(default_factory=dict)
    ends: bool = False


@dataclass(frozen=True)
class Stop:
    """Stop the server now, and say why."""

    lease: Running
    reason: str


def plan(
    leases: Iterable[Running], now: float, hold_time: float, warn_before: float, up_since: float
) -> tuple[Warn | Stop, ...]:
    """What to do at ``now``; before ``up_since``, the hub's start, nobody could open anything."""
    return tuple(
        action for lease in leases for action in _plan(lease, now, hold_time, warn_before, up_since)
    )


def _plan(
    lease: Running, now: float, hold_time: float, warn_before: float, up_since: float
) -> Iterable[Warn | Stop]:
    if lease.stop_at is not None and lease.stop_at <= now:
        yield Stop(lease, lease.stop_reason or "stopped")
        return
    if lease.ends_at is not None:
        notice = min(warn_before, (lease.ends_at - lease.held_at) / 2)
        if lease.warned_at is None:
            if now >= lease.ends_at - notice:
                ends = max(lease.ends_at, now + notice)
                yield Warn(lease, "ends_soon", {"ends_at": ends}, ends=True)
        elif now >= max(lease.ends_at, lease.warned_at + notice):
            yield Stop(lease, "time_limit")
            return
    if lease.active_at is not None and lease.opened_at is None:
        open_by = max(max(lease.active_at, up_since) + hold_time, lease.keep_until or 0.0)
        if now >= open_by:
            yield Stop(lease, "not_opened")
        elif lease.held_at - lease.requested_at >= WAITED:
            yield Warn(lease, "granted", {"open_by_at": open_by})
