"""What leases have used: a row for each, and sums by person, account and period.

A lease is charged ``weight x seconds`` from ``held_at`` to ``ended_at`` (Slurm's
TRES billing). Its row grows with the passes and is closed by the transaction that ends it;
closing adds it to the sums of every period that is kept. What runs now is added on reading.
Nobody scans the past, except for a period that is new (a budget with another half-life).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select, tuple_, update
from sqlalchemy.orm import Session

from commons.store.models import GpuUsage, GpuUsageSum, Lease
from spawner.gpu.policy import budgets
from spawner.gpu.policy.state import Budget, Subject

# Half-lives after which use no longer counts (less than a millionth).
FORGOTTEN = 20

# A window of budgets ("total", "week@Asia/Shanghai", …), or "decay:SECONDS".
Period = str
Who = tuple[Subject, str]  # account, user


@dataclass(frozen=True)
class Stretch:
    """One lease's use: from ``start`` to ``end`` (seconds since 1970) with a weight."""

    who: Who
    start: float
    end: float
    weight: float


def decay(half_life: float) -> Period:
    """The period of a sum that decays with this half-life (seconds)."""
    return f"decay:{half_life:.0f}"


def period_of(budget: Budget) -> Period:
    """The period in which a budget's use is summed."""
    return budget.window or decay(budget.half_life or 0)


def window_start(period: Period, now: float) -> float:
    """When the window that ``now`` is in began; 0 for ``total``."""
    return max(0.0, budgets.window_start(period, now))


def used(period: Period, stretch: Stretch, now: float) -> float:
    """What a stretch counts in a period at ``now``, in weighted GPU-seconds."""
    if period.startswith("decay:"):
        end = min(stretch.end, now)
        return budgets.decayed_use(stretch.weight, stretch.start, end, now, float(period[6:]))
    begin = max(stretch.start, window_start(period, now))
    return stretch.weight * max(0.0, stretch.end - begin)


class Sums:
    """Closed use of every kept period, at one moment."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.values: dict[Period, dict[Who, float]] = {}

    def load(self, rows: Iterable[Any]) -> Sums:
        """Take rows of the table: account, user, period, start, GPU-seconds."""
        starts: dict[Period, float] = {}
        for account, username, period, start, value in rows:
            table = self.values.setdefault(period, {})
            if not account:
                continue
            if period.startswith("decay:"):
                table[account, username] = value * _decayed(period, start, self.now)
                continue
            if period not in starts:
                starts[period] = window_start(period, self.now)
            if start >= starts[period]:
                table[account, username] = value
        return self

    def add(self, period: Period, stretch: Stretch) -> None:
        """Count one stretch."""
        table = self.values.setdefault(period, {})
        table[stretch.who] = table.get(stretch.who, 0.0) + used(period, stretch, self.now)


def _decayed(period: Period, since: float, now: float) -> float:
    return budgets.decay(max(0.0, now - since), float(period[6:]))


_SUM_COLUMNS = (
    GpuUsageSum.account,
    GpuUsageSum.username,
    GpuUsageSum.period,
    GpuUsageSum.start,
    GpuUsageSum.gpu_seconds,
)
_ALL_SUMS = select(*_SUM_COLUMNS)


def read_sums(session: Session, now: float, periods: Iterable[Period]) -> Sums:
    """The sums at ``now``; a period that is not kept yet is counted from the leases."""
    sums = Sums(now).load(session.execute(_ALL_SUMS))
    for period in set(periods) - set(sums.values):
        sums.values[period] = {}
        for stretch in past(session, period, now):
            sums.add(period, stretch)
    return sums


def keep_periods(session: Session, now: float, periods: Iterable[Period]) -> None:
    """Keep sums of these periods from now on (and of those that were kept already)."""
    kept = set(session.scalars(select(GpuUsageSum.period).where(GpuUsageSum.account == "")))
    for period in set(periods) - kept:
        rebuild(session, period, now)


def rebuild(session: Session, period: Period, now: float) -> None:
    """Make a period's sums anew from the leases' rows."""
    session.query(GpuUsageSum).filter_by(period=period).delete()
    sums = Sums(now)
    sums.values[period] = {}
    for stretch in past(session, period, now):
        sums.add(period, stretch)
    start = _start(period, now)
    rows = {("", ""): 0.0} | sums.values[period]
    session.execute(
        insert(GpuUsageSum),
        [_sum_row(who, period, start, value) for who, value in rows.items()],
    )


def rebuild_all(session: Session, now: float) -> None:
    """Make the sums of every period that is kept anew."""
    for period in list(
        session.scalars(select(GpuUsageSum.period).where(GpuUsageSum.account == ""))
    ):
        rebuild(session, period, now)


def past(session: Session, period: Period, now: float) -> Iterable[Stretch]:
    """Closed leases that may still count in a period."""
    since = (
        now - FORGOTTEN * float(period[6:])
        if period.startswith("decay:")
        else window_start(period, now)
    )
    query = select(
        GpuUsage.account,
        GpuUsage.username,
        GpuUsage.started_at,
        GpuUsage.charged_to,
        GpuUsage.weight,
    ).where(GpuUsage.closed, GpuUsage.charged_to > moment(max(0.0, since)))
    for account, username, start, end, weight in session.execute(query):
        yield Stretch((account, username), seconds(start), seconds(end), weight)


def _start(period: Period, now: float) -> float:
    return now if period.startswith("decay:") else window_start(period, now)


def _sum_row(who: Who, period: Period, start: float, value: float) -> dict[str, Any]:
    return {
        "account": who[0],
        "username": who[1],
        "period": period,
        "start": start,
        "gpu_seconds": value,
    }


# -- the rows of leases -----------------------------------------------------------------------


def open_rows(session: Session, leases: Iterable[Mapping[str, Any]], at: datetime) -> None:
    """Begin to charge leases (mappings with id, username, account, weight) at ``at``."""
    rows = [
        {
            "lease_id": lease["id"],
            "username": lease["username"],
            "account": lease["account"],
            "weight": lease["weight"],
            "started_at": at,
            "charged_to": at,
            "gpu_seconds": 0.0,
            "closed": False,
        }
        for lease in leases
    ]
    if rows:
        session.execute(insert(GpuUsage), rows)


def charge(session: Session, lease_id: str, now: datetime) -> None:
    """Charge a lease that has no row, from when it was granted (one from before we charged)."""
    lease = session.get_one(Lease, lease_id)
    row = {key: getattr(lease, key) for key in ("id", "username", "account", "weight")}
    open_rows(session, [row], lease.held_at or now)
    if lease.ended_at is not None:
        close(session, [lease_id], lease.ended_at)


_OPEN = select(GpuUsage.lease_id, GpuUsage.started_at, GpuUsage.weight).where(~GpuUsage.closed)


def grow(session: Session, now: datetime) -> None:
    """Charge all that runs up to ``now``."""
    rows = [
        {"lease_id": lease, "charged_to": now, "gpu_seconds": _charge(start, now, weight)}
        for lease, start, weight in session.execute(_OPEN)
    ]
    if rows:
        session.execute(update(GpuUsage), rows)


def close(session: Session, lease_ids: Iterable[str], now: datetime) -> None:
    """Charge leases to their end, and add them to the sums of every period that is kept."""
    rows = session.execute(
        select(
            GpuUsage.lease_id,
            GpuUsage.account,
            GpuUsage.username,
            GpuUsage.started_at,
            GpuUsage.weight,
        ).where(GpuUsage.lease_id.in_(list(lease_ids)), ~GpuUsage.closed)
    ).all()
    if not rows:
        return
    stretches: dict[Who, list[Stretch]] = defaultdict(list)
    for _lease, account, username, start, weight in rows:
        who = (account, username)
        stretches[who].append(
            Stretch(who, seconds(start), max(seconds(start), seconds(now)), weight)
        )
    session.execute(
        update(GpuUsage),
        [
            {
                "lease_id": lease,
                "charged_to": max(start, now),
                "gpu_seconds": _charge(start, now, weight),
                "closed": True,
            }
            for lease, _account, _username, start, weight in rows
        ],
    )
    _add_to_sums(session, stretches, seconds(now))


def _add_to_sums(session: Session, stretches: Mapping[Who, list[Stretch]], now: float) -> None:
    found = session.execute(
        select(*_SUM_COLUMNS).where(
            tuple_(GpuUsageSum.account, GpuUsageSum.username).in_([("", ""), *stretches])
        )
    ).all()
    periods = [row.period for row in found if not row.account]
    there = {(row.account, row.username, row.period) for row in found}
    sums = Sums(now).load(found)
    old: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    for who, parts in stretches.items():
        for period in periods:
            for part in parts:
                sums.add(period, part)
            row = _sum_row(who, period, _start(period, now), sums.values[period][who])
            (old if (*who, period) in there else new).append(row)
    if old:
        session.execute(update(GpuUsageSum), old)
    if new:
        session.execute(insert(GpuUsageSum), new)


def _charge(start: datetime, end: datetime, weight: float) -> float:
    return weight * max(0.0, (end - start).total_seconds())


# -- times ------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1)


def seconds(at: datetime) -> float:
    """A time of the tables as seconds since 1970."""
    return (at - _EPOCH).total_seconds()


def moment(at: float) -> datetime:
    """Seconds since 1970 as the tables keep a time."""
    return _EPOCH + timedelta(seconds=at)
