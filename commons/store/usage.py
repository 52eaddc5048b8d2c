"""How often kernels are started, by day, kernel and person; and when an environment last was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from commons.store.models import KernelUsage

# What is older is forgotten: a year, and the month to look back at it.
KEPT = timedelta(days=396)
# What counts as lately where starts are shown.
LATELY = timedelta(days=30)


@dataclass(frozen=True)
class Started:
    """Which kernel of which environment was started, and how often since the last report."""

    kernel: str
    source: str
    environment: str
    version: str
    starts: int


@dataclass(frozen=True)
class Use:
    """The use of one kernel over some days."""

    kernel: str
    source: str
    environment: str
    version: str
    starts: int
    people: int
    last_used: datetime


def add_starts(session: Session, username: str, starts: Iterable[Started], now: datetime) -> None:
    """Count starts of a person, today. ``now`` is UTC; one that was set back loses nothing."""
    for item in starts:
        where = {
            "day": now.date(),
            "username": username,
            "kernel": item.kernel,
            "source": item.source,
            "environment": item.environment,
            "version": item.version,
        }
        row = session.scalars(select(KernelUsage).filter_by(**where)).one_or_none()
        if row is None:
            row = KernelUsage(**where, starts=0, last_start=now)
            session.add(row)
        row.starts += item.starts
        row.last_start = max(row.last_start, now)


def uses(session: Session, since: date, username: str | None = None) -> list[Use]:
    """The use of each kernel since a day, most used first; of one person, or of everybody."""
    columns = (
        KernelUsage.kernel,
        KernelUsage.source,
        KernelUsage.environment,
        KernelUsage.version,
    )
    starts = func.sum(KernelUsage.starts)
    query = (
        select(
            *columns,
            starts,
            func.count(func.distinct(KernelUsage.username)),
            func.max(KernelUsage.last_start),
        )
        .where(KernelUsage.day >= since)
        .group_by(*columns)
        .order_by(starts.desc(), *columns)
    )
    if username is not None:
        query = query.where(KernelUsage.username == username)
    return [Use(*row) for row in session.execute(query)]


def last_used(session: Session, source: str | None = None) -> dict[tuple[str, str, str], datetime]:
    """When a kernel of each environment was last started (UTC), by source, name and version.

    What nobody has started within ``KEPT`` is not in it.
    """
    columns = (KernelUsage.source, KernelUsage.environment, KernelUsage.version)
    query = select(*columns, func.max(KernelUsage.last_start)).group_by(*columns)
    if source is not None:
        query = query.where(KernelUsage.source == source)
    return {(row[0], row[1], row[2]): row[3] for row in session.execute(query)}


def forget(session: Session, now: datetime) -> None:
    """Delete what is older than ``KEPT``."""
    session.execute(delete(KernelUsage).where(KernelUsage.day < (now - KEPT).date()))
