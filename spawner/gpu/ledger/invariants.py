"""What must always hold of leases, by name; looked after in operation, repaired where safe.

The reconciler checks with every pass; ``labcommons gpu check`` does on demand, with ``deep``
over all the past. A finding is a defect of ours, or of somebody who wrote to the database.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import chain

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from commons.leases import LeaseState
from commons.store.models import GpuQuota, GpuUsage, GpuUsageSum, Lease, LeaseDevice, utcnow
from spawner.gpu.ledger import allocation, transitions, usage
from spawner.gpu.ledger.snapshot import LIVE, read_snapshot
from spawner.gpu.ledger.usage import Sums, seconds
from spawner.gpu.policy.budgets import TINY
from spawner.gpu.policy.decision import decide
from spawner.gpu.policy.limits import budget_limits
from spawner.gpu.policy.state import Claim, Slot, Snapshot

RECENT = timedelta(hours=2)  # how far back an ordinary check looks at what has ended
HELD_AT_MOST = timedelta(hours=1)  # a server that has not started by then never will
LATE_AT_MOST = timedelta(hours=1)  # how long after end and warning a stop may take
UNWARNED_AT_MOST = timedelta(days=1)  # a hub that was down first warns
PATIENCE = 60.0  # seconds in which whoever can start must have been granted
ROUNDING = 1.0  # GPU-seconds by which sums of floats may differ

Repair = Callable[[Session], object]


@dataclass(frozen=True)
class Finding:
    """An invariant that does not hold.

    Attributes:
        name: the invariant's, such as ``no_slot_twice``.
        lease: the lease concerned, or "".
        repair: what puts it right; None where only a person can tell.
        repaired: whether that was done.
    """

    name: str
    message: str
    lease: str = ""
    repair: Repair | None = field(default=None, compare=False, repr=False)
    repaired: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" + (" (repaired)" if self.repaired else "")


@dataclass(frozen=True)
class _Row:
    """A lease and its charge."""

    id: str
    state: LeaseState
    gpus: int
    weight: float
    requested_at: datetime
    held_at: datetime | None
    ends_at: datetime | None
    ended_at: datetime | None
    warned_at: datetime | None
    time_limit: int | None
    started_at: datetime | None
    charged_to: datetime | None
    charged_weight: float | None
    gpu_seconds: float | None
    closed: bool | None


@dataclass(frozen=True)
class View:
    """All that is looked at."""

    now: datetime
    rows: tuple[_Row, ...]
    slots: Mapping[str, tuple[Slot, ...]]  # not released, by lease
    containers: Mapping[str, tuple[Slot, ...]]  # by lease
    snapshot: Snapshot


def check(
    session: Session,
    containers: Mapping[str, tuple[Slot, ...]] | None = None,
    *,
    repair: bool = False,
    deep: bool = False,
    now: datetime | None = None,
    patience: float = PATIENCE,
) -> tuple[Finding, ...]:
    """Look at every invariant; with ``repair`` put right what is safe to.

    ``containers`` are the slots that running containers have, by lease; ``deep`` looks at
    everything that has ended, and counts the sums of use anew.
    """
    if repair:
        now = transitions.lock(session, now)
    now = now or max(utcnow(), transitions.latest(session))
    view = _view(session, now, containers or {}, deep)
    found = list(chain(*(invariant(view) for invariant in INVARIANTS)))
    found += nobody_starves(view, patience)
    found += budgets_hold(session, view)
    if deep:
        found += sums_are_true(session, view)
    return tuple(_repaired(session, one) if repair and one.repair else one for one in found)


def _repaired(session: Session, finding: Finding) -> Finding:
    assert finding.repair is not None
    finding.repair(session)
    return Finding(finding.name, finding.message, finding.lease, repaired=True)


_ROWS = select(
    Lease.id,
    Lease.state,
    Lease.gpus,
    Lease.weight,
    Lease.requested_at,
    Lease.held_at,
    Lease.ends_at,
    Lease.ended_at,
    Lease.warned_at,
    Lease.time_limit,
    GpuUsage.started_at,
    GpuUsage.charged_to,
    GpuUsage.weight.label("charged_weight"),
    GpuUsage.gpu_seconds,
    GpuUsage.closed,
).outerjoin(GpuUsage, GpuUsage.lease_id == Lease.id)
_LIVE = _ROWS.where(Lease.state.in_(LIVE))
_ENDED = _ROWS.where(Lease.state == LeaseState.ENDED, Lease.ended_at >= bindparam("since"))
_SLOTS = select(LeaseDevice.lease_id, LeaseDevice.device_id, LeaseDevice.slot).where(
    LeaseDevice.released_at.is_(None)
)


def _view(
    session: Session, now: datetime, containers: Mapping[str, tuple[Slot, ...]], deep: bool
) -> View:
    since = datetime.min if deep else now - RECENT
    slots: dict[str, tuple[Slot, ...]] = defaultdict(tuple)
    for lease, device, index in session.execute(_SLOTS):
        slots[lease] += (Slot(device, index),)
    found = (*session.execute(_LIVE), *session.execute(_ENDED, {"since": since}))
    rows = [_Row(**row._mapping) for row in found]
    return View(now, tuple(rows), slots, containers, read_snapshot(session, seconds(now)))


# -- the invariants ---------------------------------------------------------------------------


def no_slot_twice(view: View) -> Iterator[Finding]:
    """No slot is leased twice or beyond its device's; running leases alone have any."""
    holders: dict[Slot, str] = {}
    many = {device.id: device.slots for device in view.snapshot.devices}
    states = {row.id: row for row in view.rows}
    for lease, slots in view.slots.items():
        row = states.get(lease)
        if row is None or row.state not in (LeaseState.HELD, LeaseState.ACTIVE):
            yield Finding(
                "no_slot_twice",
                f"lease {lease} is over and still has {len(slots)} slots",
                lease,
                lambda session, lease=lease: _release(session, lease, view.now),  # type: ignore[misc]
            )
        for slot in slots:
            if slot in holders:
                yield Finding("no_slot_twice", f"{slot} is leased to {holders[slot]} too", lease)
            holders[slot] = lease
            if slot.index >= many.get(slot.device, slot.index + 1):
                yield Finding("no_slot_twice", f"{slot} is more than its device has", lease)
    for row in view.rows:
        if row.state in (LeaseState.HELD, LeaseState.ACTIVE):
            have = len(view.slots.get(row.id, ()))
            if have != row.gpus:
                yield Finding("no_slot_twice", f"{row.gpus} granted, {have} slots held", row.id)


def _release(session: Session, lease: str, now: datetime) -> None:
    session.execute(
        update(LeaseDevice)
        .where(LeaseDevice.lease_id == lease, LeaseDevice.released_at.is_(None))
        .values(released_at=now)
    )


def containers_match(view: View) -> Iterator[Finding]:
    """A container's devices are exactly those of its lease."""
    for lease, slots in view.containers.items():
        if lease in view.slots and set(slots) != set(view.slots[lease]):
            yield Finding(
                "containers_match",
                f"the container has {_show(slots)}, the lease {_show(view.slots[lease])}",
                lease,
            )


def _show(slots: tuple[Slot, ...]) -> str:
    return ", ".join(f"{slot.device}#{slot.index}" for slot in sorted(slots)) or "none"


def every_lease_ends(view: View) -> Iterator[Finding]:
    """A lease with a time limit has an end, and none is held or overdue for ever."""
    for row in view.rows:
        if row.state not in (LeaseState.HELD, LeaseState.ACTIVE) or row.held_at is None:
            continue
        if row.time_limit is not None and row.ends_at is None:
            yield Finding("every_lease_ends", "it has a time limit and no end", row.id)
        if row.state is LeaseState.HELD and view.now - row.held_at > HELD_AT_MOST:
            gone = row.id not in view.containers
            yield Finding(
                "every_lease_ends",
                f"held since {row.held_at:%F %T} without a server",
                row.id,
                partial(transitions.end, lease_id=row.id, reason="never started") if gone else None,
            )
        if row.ends_at is None:
            continue
        late = view.now - max(row.ends_at, row.warned_at or row.ends_at)
        if late > (LATE_AT_MOST if row.warned_at else UNWARNED_AT_MOST):
            yield Finding(
                "every_lease_ends", f"was to end at {row.ends_at:%F %T} and still runs", row.id
            )


def usage_equals_time(view: View) -> Iterator[Finding]:
    """What a lease is charged is its weight times the time in which it held its slots."""
    for row in view.rows:
        if row.held_at is None:
            if row.gpu_seconds is not None:
                yield Finding("usage_equals_time", "charged without having held anything", row.id)
            continue
        over = row.state is LeaseState.ENDED
        if row.gpu_seconds is None or row.started_at is None or row.charged_to is None:
            yield Finding(
                "usage_equals_time",
                "not charged",
                row.id,
                lambda session, lease=row.id: usage.charge(session, lease, view.now),  # type: ignore[misc]
            )
            continue
        until = row.ended_at if over else row.charged_to
        assert until is not None
        due = row.weight * max(0.0, (until - row.held_at).total_seconds())
        if row.started_at != row.held_at or row.charged_weight != row.weight:
            yield Finding("usage_equals_time", "charged from another time or weight", row.id)
        elif bool(row.closed) != over or abs(row.gpu_seconds - due) > ROUNDING:
            yield Finding(
                "usage_equals_time",
                f"charged {row.gpu_seconds:.0f} GPU-seconds, held for {due:.0f}",
                row.id,
            )


INVARIANTS: tuple[Callable[[View], Iterator[Finding]], ...] = (
    no_slot_twice,
    containers_match,
    every_lease_ends,
    usage_equals_time,
)


def nobody_starves(view: View, patience: float = PATIENCE) -> Iterator[Finding]:
    """Whoever can start has been granted: a decision now would grant nothing old."""
    asked = {claim.id: claim.requested_at for claim in view.snapshot.claims}
    for grant in decide(view.snapshot).grants:
        if view.snapshot.now - asked[grant.lease] >= patience:
            yield Finding(
                "nobody_starves", "waits, and could start", grant.lease, allocation.run_pass
            )


def budgets_hold(session: Session, view: View) -> Iterator[Finding]:
    """Used and promised GPU-hours of every budget are within it.

    Except where a quota was changed after the last grant (lowering a limit ends nothing), and
    by the time that stops took.
    """
    running = [claim for claim in view.snapshot.claims if claim.held_at is not None]
    limits = {
        limit.key: limit
        for user, account in {(claim.user, claim.account) for claim in running}
        for limit in budget_limits(user, account, view.snapshot.quotas)
    }
    for key, limit in limits.items():
        scope = limit.scope
        mine = [
            claim
            for claim in running
            if scope.counts(claim.user, claim.account, "", view.snapshot.quotas)
        ]
        promised = sum(_remaining(claim, view.snapshot.now) for claim in mine)
        over = (
            view.snapshot.usage.budgets.get(key, 0.0)
            + promised
            - limit.budget.gpu_hours * 3600.0
            - TINY
        )
        if over <= ROUNDING:
            continue
        granted = max(claim.held_at or 0.0 for claim in mine)
        changed = session.scalar(select(func.max(GpuQuota.changed_at)))
        if changed is not None and seconds(changed) >= granted:
            continue
        if over > ROUNDING + _lateness(session, view, scope.user, scope.account):
            yield Finding("budgets_hold", f"{key} is overspent by {over / 3600:.2f} GPU-hours")


def _remaining(claim: Claim, now: float) -> float:
    return claim.weight * max(0.0, (claim.ends_at or now) - now)


def _lateness(session: Session, view: View, user: str, account: str) -> float:
    """Weighted seconds by which leases ended after their time."""
    query = select(Lease.weight, Lease.ends_at, Lease.ended_at).where(
        Lease.ends_at.is_not(None), func.coalesce(Lease.ended_at, view.now) > Lease.ends_at
    )
    if user:
        query = query.where(Lease.username == user)
    if account:
        query = query.where(Lease.account == account)
    late = 0.0
    for weight, ends, ended in session.execute(query):
        if ends is not None:
            late += weight * ((ended or view.now) - ends).total_seconds()
    return late


def sums_are_true(session: Session, view: View) -> Iterator[Finding]:
    """The sums of use are those of the leases' rows."""
    now = view.snapshot.now
    kept = list(session.scalars(select(GpuUsageSum.period).where(GpuUsageSum.account == "")))
    sums = usage.read_sums(session, now, kept)
    for period in kept:
        true = Sums(now)
        true.values[period] = {}
        for stretch in usage.past(session, period, now):
            true.add(period, stretch)
        for who in true.values[period].keys() | sums.values[period].keys():
            have = sums.values[period].get(who, 0.0)
            due = true.values[period].get(who, 0.0)
            if abs(have - due) > ROUNDING + 1e-6 * due:
                yield Finding(
                    "sums_are_true",
                    f"{period} of {who[1]} for {who[0]} is {have:.0f} GPU-seconds, not {due:.0f}",
                    repair=lambda s, p=period: usage.rebuild(s, p, now),  # type: ignore[misc]
                )
