"""The sums of days: made from leases and runs, and made again as long as a day may change.

A round makes the days anew from the last one that it made, or from the beginning of whatever was
open then or has ended since (at most ``BACK`` days): in one transaction, with the mark of how far
it came. Whoever is killed has done nothing, and the same round again changes nothing. Where the
clocks of the quotas change, all days are made anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta, tzinfo
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Date, delete, func, insert, literal, or_, select, true
from sqlalchemy.orm import Session

from commons.i18n import choose_timezone
from commons.leases import job_of
from commons.scopes import SETTINGS
from commons.store import Store, StoreError
from commons.store.models import (
    GpuDevice,
    GpuQuota,
    GpuWatch,
    Lease,
    LeaseDevice,
    ServerRun,
    UsageDay,
    UsageMark,
    UsageMonth,
    utcnow,
)
from commons.work import Log, Periodic
from spawner.usage.days import DAY, FIELDS, Figures, cut, day_of, midnight

EVERY = 300.0  # seconds between two rounds
BACK = 31  # days that may still change; leases and servers that are older are counted as they were
AT_ONCE = 31  # days of one transaction
GIB = 2**30
MARK = "days"


@dataclass(frozen=True)
class Key:
    """What one row is about."""

    day: date
    username: str
    account: str
    environment: str
    model: str


Sums = dict[Key, Figures]


def clocks(session: Session) -> str:
    """The time zone by which days begin: that of budgets."""
    row = session.get(GpuQuota, SETTINGS)
    return str((row.spec if row else {}).get("timezone") or "UTC")


def sums(session: Session, first: date, last: date, zone: tzinfo, now: datetime) -> Sums:
    """What was used on each of some days, from the leases and runs themselves."""
    found: Sums = {}

    def count(key: Key, **more: float) -> None:
        found[key] = found.get(key, Figures()).plus(Figures(**more))  # type: ignore[arg-type]

    since, until = midnight(first, zone), min(now, midnight(last + DAY, zone))
    models = _of_leases(session, since, until, count, (first, last), zone)
    query = select(ServerRun).where(
        ServerRun.began_at < until,
        or_(ServerRun.ended_at.is_(None), ServerRun.ended_at > since),
    )
    for run in session.scalars(query):
        model = models.get(run.lease_id or "", "")

        def key(day: date, run: ServerRun = run, model: str = model) -> Key:
            return Key(day, run.username, run.account, run.environment, model)

        for day, seconds in cut(run.began_at, min(run.ended_at or until, until), first, last, zone):
            count(
                key(day), cpu_seconds=seconds * run.cpu, memory_seconds=seconds * run.memory / GIB
            )
        if first <= (began := day_of(run.began_at, zone)) <= last:
            is_job = job_of(run.server_name) is not None
            count(key(began), jobs=int(is_job), servers=int(not is_job))
    return found


def _of_leases(
    session: Session,
    since: datetime,
    until: datetime,
    count: Callable[..., None],
    days: tuple[date, date],
    zone: tzinfo,
) -> dict[str, str]:
    """Count GPUs and waits; the model of each lease that was looked at."""
    wanted = (
        Lease.held_at < until,
        or_(Lease.ended_at.is_(None), Lease.ended_at > since),
    )
    share: defaultdict[str, float] = defaultdict(float)
    models: dict[str, str] = {}
    devices = (
        select(LeaseDevice.lease_id, GpuDevice.model, GpuDevice.weight)
        .join(GpuDevice, GpuDevice.id == LeaseDevice.device_id)
        .join(Lease, Lease.id == LeaseDevice.lease_id)
        .where(*wanted)
    )
    for lease_id, model, weight in session.execute(devices):
        models[lease_id] = model
        share[lease_id] += weight
    columns = (
        Lease.id,
        Lease.username,
        Lease.account,
        Lease.user_options,
        Lease.gpu_type,
        Lease.gpus,
        Lease.weight,
        Lease.requested_at,
        Lease.held_at,
        Lease.ended_at,
        GpuWatch.idle_total,
        GpuWatch.at,
        ServerRun.environment,
    )
    query = (
        select(*columns)
        .outerjoin(GpuWatch, GpuWatch.lease_id == Lease.id)
        .outerjoin(ServerRun, ServerRun.key == Lease.container_id)
        .where(*wanted)
    )
    for row in session.execute(query):
        assert row.held_at is not None
        model = models.setdefault(row.id, row.gpu_type)
        gpus = share.get(row.id) or float(row.gpus)
        end = min(row.ended_at or until, until)
        # Spread evenly over all of its time, as far as that was watched.
        lasted = ((row.ended_at or row.at or until) - row.held_at).total_seconds()
        idle = min(1.0, (row.idle_total or 0.0) / lasted) if lasted > 0 else 0.0
        asked = str((row.user_options or {}).get("environment") or "").partition(":")[0]
        environment = row.environment or asked[:255]

        def key(day: date, row: Any = row, env: str = environment, model: str = model) -> Key:
            return Key(day, row.username, row.account, env, model)

        for day, seconds in cut(row.held_at, end, *days, zone):
            count(
                key(day),
                gpu_seconds=seconds * gpus,
                charged_seconds=seconds * row.weight,
                idle_seconds=seconds * gpus * idle,
            )
        if days[0] <= (granted := day_of(row.held_at, zone)) <= days[1]:
            waited = max(0.0, (row.held_at - row.requested_at).total_seconds())
            count(key(granted), wait_seconds=waited, longest_wait=waited, waits=1)
    return models


@dataclass(frozen=True)
class Plan:
    """Which days are to be made, by which zone's clocks; ``anew``: all that there are."""

    first: date
    last: date
    zone: str
    anew: bool

    @property
    def parts(self) -> Iterator[tuple[date, date]]:
        """So many days at a time as are one transaction."""
        first = self.first
        while first <= self.last:
            yield first, min(self.last, first + timedelta(days=AT_ONCE - 1))
            first += timedelta(days=AT_ONCE)


def plan(session: Session, now: datetime, anew: bool = False) -> Plan:
    """What a round has to do."""
    name, done = clocks(session), session.get(UsageMark, MARK)
    zone = choose_timezone(name)
    today = day_of(now, zone)
    anew = anew or done is None or done.value != name
    begun = [
        select(func.min(Lease.held_at)).where(_changed(Lease.ended_at, done, anew)),
        select(func.min(ServerRun.began_at)).where(_changed(ServerRun.ended_at, done, anew)),
    ]
    days = [day_of(at, zone) for at in map(session.scalar, begun) if at is not None]
    if not anew:
        assert done is not None
        oldest = today - timedelta(days=BACK)
        days = [day_of(done.at, zone), *(max(day, oldest) for day in days)]
    return Plan(min((*days, today)), today, name, anew)


def _changed(ended_at: Any, done: UsageMark | None, anew: bool) -> Any:
    if anew or done is None:
        return true()
    return or_(ended_at.is_(None), ended_at > done.at)


def make(session: Session, part: tuple[date, date], of: Plan, now: datetime) -> None:
    """One part of a plan; the last one says how far all is."""
    first, last = part
    found = sums(session, first, last, choose_timezone(of.zone), now)
    over = delete(UsageDay)
    if not (of.anew and first == of.first):
        over = over.where(UsageDay.day >= first)
    if last < of.last:
        over = over.where(UsageDay.day <= last)
    session.execute(over)
    if found:
        rows = [{**asdict(key), **figures._asdict()} for key, figures in found.items()]
        session.execute(insert(UsageDay), rows)
    sum_months(session, first, last, of.anew and first == of.first)
    if last == of.last:
        session.merge(UsageMark(name=MARK, value=of.zone, at=now))


def sum_months(session: Session, first: date, last: date, anew: bool) -> None:
    """The months that these days are in, from all their days; ``anew``: those before are gone."""
    months = {day.replace(day=1) for day in (first, last)}
    begin, after = min(months), (last.replace(day=28) + timedelta(days=4)).replace(day=1)
    over = delete(UsageMonth)
    session.execute(over if anew else over.where(UsageMonth.month >= begin))
    month = begin
    while month < after:
        following = (month.replace(day=28) + timedelta(days=4)).replace(day=1)
        for name, column in COLUMNS.items():
            query = (
                select(literal(name), literal(month, Date()), column, *summed())
                .where(UsageDay.day >= month, UsageDay.day < following)
                .group_by(column)
            )
            session.execute(insert(UsageMonth).from_select(_MONTH, query))
        month = following


def summed(table: type[UsageDay] | type[UsageMonth] = UsageDay) -> list[ColumnElement[Any]]:
    """The figures of many rows together, as ``Figures`` has them."""
    return [
        (func.max if name == "longest_wait" else func.sum)(getattr(table, name)) for name in FIELDS
    ]


COLUMNS = {
    "username": UsageDay.username,
    "account": UsageDay.account,
    "environment": UsageDay.environment,
    "model": UsageDay.model,
}
_MONTH = ["column", "month", "value", *FIELDS]


class UsageKeeper:
    """Makes the sums, from the hub's process."""

    def __init__(self, store: Store, log: Log) -> None:
        self.store, self.log = store, log

    async def run(self) -> None:
        """For ever."""
        await Periodic(
            "sums of usage", self.once, EVERY, self.log, expected=(StoreError,), first=20
        ).run()

    async def once(self, anew: bool = False) -> None:
        """One round."""
        now = utcnow()
        todo = await self.store.read(partial(plan, now=now, anew=anew))
        for part in todo.parts:
            await self.store.run(partial(make, part=part, of=todo, now=now))


def make_all(store: Store, anew: bool = False, now: datetime | None = None) -> Plan:
    """A round where there is no event loop."""
    at = now or utcnow()
    todo = store.transact(lambda s: plan(s, at, anew), read=True)
    for part in todo.parts:
        store.transact(partial(make, part=part, of=todo, now=at))
    return todo
