"""What was used over a span, by person, team, course, model, environment: of the sums of days."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from commons.audit.table import as_text
from commons.errors import BadRequest
from commons.i18n import N_, choose_timezone
from commons.messages import Text
from commons.principal import Principal
from commons.rights import Action, Resource, can
from commons.scopes import SITE
from commons.store.models import UsageDay, UsageMark, UsageMonth, utcnow
from spawner.usage.days import DAY, Figures, day_of, total
from spawner.usage.rollup import COLUMNS, MARK, clocks, summed

LONGEST = 3700  # days
TOP = 7  # names that have a colour of their own in a plot
HOUR = 3600.0

DAY_WRONG = Text("usage_day_wrong", N_("“{said}” is no day. Write it as 2026-11-30."))
MONTH_WRONG = Text("usage_month_wrong", N_("“{said}” is no month. Write it as 2026-11."))
SPAN_WRONG = Text(
    "usage_span_wrong", N_("The first day is after the last one, or it is more than ten years.")
)


class By(StrEnum):
    """What a report has a line for."""

    PERSON = "person"
    TEAM = "team"
    COURSE = "course"
    MODEL = "model"
    ENVIRONMENT = "environment"


class Of(StrEnum):
    """What a plot shows."""

    GPU = "gpu"
    CPU = "cpu"
    MEMORY = "memory"

    @property
    def field(self) -> str:
        """Of the figures."""
        return f"{self.value}_seconds"


_COLUMNS = {
    By.PERSON: "username",
    By.TEAM: "account",
    By.COURSE: "account",
    By.MODEL: "model",
    By.ENVIRONMENT: "environment",
}
_PREFIX = {By.TEAM: "group:", By.COURSE: "course:"}


@dataclass(frozen=True)
class Sight:
    """Whose use somebody may see: all of it, or their own and that of accounts."""

    everything: bool
    person: str = ""
    accounts: Collection[str] = ()

    @property
    def clause(self) -> tuple[ColumnElement[bool], ...]:
        """In the sums."""
        if self.everything:
            return ()
        return (or_(UsageDay.username == self.person, UsageDay.account.in_(self.accounts)),)


EVERYTHING = Sight(True)


def sight(viewer: Principal) -> Sight:
    """What the table of rights lets somebody see."""
    if can(viewer, Action.ADMINISTER, SITE):
        return EVERYTHING
    accounts = {scope.account for scope in viewer.scopes if scope.account}
    seen = {
        account
        for account in accounts
        if can(viewer, Action.READ_USAGE, Resource.charged(account, ""))
    }
    return Sight(False, viewer.name, seen)


@dataclass(frozen=True)
class Asked:
    """A question. ``account`` and ``person``: of these alone, where they are said."""

    first: date
    last: date
    by: By = By.PERSON
    account: str = ""
    person: str = ""

    @property
    def days(self) -> int:
        """How many days it is about."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True)
class Plot:
    """One kind of hours by time: ``bars`` are (first day, hours by name); "": the rest."""

    step: str  # day, week, month
    names: tuple[str, ...]
    bars: tuple[tuple[date, Mapping[str, float]], ...]


@dataclass(frozen=True)
class Report:
    """An answer: a line for each name, the most GPU-hours first. ``until``: how far the sums are,
    ``upto`` the day of that.
    """

    asked: Asked
    lines: tuple[tuple[str, Figures], ...]
    all: Figures
    until: datetime | None
    zone: str
    upto: date

    def usual(self) -> Of:
        """What is worth a plot."""
        return Of.GPU if self.all.gpu_seconds else Of.CPU


def day_now(zone: tzinfo) -> date:
    """The day that it is."""
    return day_of(utcnow(), zone)


def today(session: Session) -> date:
    """The day that it is by the clocks of budgets."""
    return day_now(choose_timezone(clocks(session)))


def read_month(said: str) -> tuple[date, date]:
    """Its first and last day; written as 2026-10. Raises BadRequest."""
    try:
        first = date.fromisoformat(f"{said}-01")
    except ValueError as error:
        raise BadRequest(MONTH_WRONG(said=said[:40])) from error
    if not 1990 <= first.year <= 9000:
        raise BadRequest(MONTH_WRONG(said=said[:40]))
    return first, _next_month(first) - DAY


def read_span(first: str, last: str, now: date) -> tuple[date, date]:
    """Days as somebody wrote them; without a word the last thirty. Raises BadRequest."""
    until = _day(last) if last else now
    since = _day(first) if first else until - timedelta(days=29)
    if since > until or (until - since).days >= LONGEST:
        raise BadRequest(SPAN_WRONG())
    return since, until


def _day(said: str) -> date:
    try:
        found = date.fromisoformat(said)
    except ValueError as error:
        raise BadRequest(DAY_WRONG(said=said[:40])) from error
    if not 1990 <= found.year <= 9000:
        raise BadRequest(DAY_WRONG(said=said[:40]))
    return found


class _Source:
    """Where the figures of a question are: whole months of everybody in the sums of months, the
    rest in those of days. ``upto``: the last day of which there are any.
    """

    def __init__(self, asked: Asked, seen: Sight, upto: date, months: bool = True) -> None:
        column = _COLUMNS[asked.by]
        self.values: list[tuple[Any, Any, Any, tuple[ColumnElement[bool], ...]]] = []
        days = [UsageDay.day >= asked.first, UsageDay.day <= asked.last, *seen.clause]
        if asked.account:
            days.append(UsageDay.account == asked.account)
        if asked.person:
            days.append(UsageDay.username == asked.person)
        if months and seen.everything and not asked.account and not asked.person:
            begin = asked.first if asked.first.day == 1 else _next_month(asked.first)
            after = _next_month(asked.last)
            if asked.last < upto and asked.last + DAY < after:
                after = asked.last.replace(day=1)
            if begin < after:
                whole = (
                    UsageMonth.column == column,
                    UsageMonth.month >= begin,
                    UsageMonth.month < after,
                )
                self.values.append((UsageMonth, UsageMonth.month, UsageMonth.value, whole))
                days.append(or_(UsageDay.day < begin, UsageDay.day >= after))
        self.values.append((UsageDay, UsageDay.day, COLUMNS[column], tuple(days)))


def _next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def _name(by: By, value: str) -> str:
    """What a line is called; "" for what belongs to none."""
    prefix = _PREFIX.get(by, "")
    return value.removeprefix(prefix) if value.startswith(prefix) else ""


def make(session: Session, asked: Asked, seen: Sight) -> Report:
    """The lines of a report."""
    done = session.get(UsageMark, MARK)
    zone = choose_timezone(done.value if done else clocks(session))
    upto = day_of(done.at, zone) if done else asked.last
    lines: defaultdict[str, Figures] = defaultdict(Figures)
    for table, _at, column, where in _Source(asked, seen, upto).values:
        query = select(column, *summed(table)).where(*where).group_by(column)
        for value, *found in session.execute(query):
            name = _name(asked.by, value)
            lines[name] = lines[name].plus(Figures(*found))
    ordered = sorted(
        lines.items(), key=lambda line: (-line[1].gpu_seconds, -line[1].cpu_seconds, line[0])
    )
    return Report(
        asked, tuple(ordered), total(lines.values()), done.at if done else None, str(zone), upto
    )


def plot(session: Session, report: Report, of: Of, seen: Sight) -> Plot:
    """Its hours by time, of the names that used most; the rest of them together."""
    asked = report.asked
    ranked = sorted(report.lines, key=lambda line: -getattr(line[1], of.field))
    named = [name for name, found in ranked if name and getattr(found, of.field)][:TOP]
    step = "day" if asked.days <= 45 else "week" if asked.days <= 92 else "month"
    bars: dict[date, defaultdict[str, float]] = {}
    day = asked.first
    while day <= asked.last:
        bars.setdefault(_begin(day, step, asked.first), defaultdict(float))
        day += DAY
    values = [_PREFIX.get(asked.by, "") + name for name in named]
    source = _Source(asked, seen, report.upto, months=step == "month")
    for table, at, column, where in source.values:
        hours = func.sum(getattr(table, of.field)) / HOUR
        for when, found in session.execute(select(at, hours).where(*where).group_by(at)):
            bars[_begin(when, step, asked.first)][""] += found
        query = select(at, column, hours).where(*where, column.in_(values)).group_by(at, column)
        for when, value, found in session.execute(query):
            bar = bars[_begin(when, step, asked.first)]
            bar[_name(asked.by, value)] += found
            bar[""] -= found
    least = 1e-6
    rest = any(bar[""] > least for bar in bars.values())
    shown = tuple(
        (at, {name: hours for name, hours in bar.items() if hours > least})
        for at, bar in sorted(bars.items())
    )
    return Plot(step, (*named, *([""] if rest else [])), shown)


def _begin(day: date, step: str, first: date) -> date:
    """The first day of the bar that a day is in."""
    if step == "week":
        return max(first, day - timedelta(days=day.weekday()))
    return max(first, day.replace(day=1)) if step == "month" else day


def as_json(name: str, found: Figures) -> dict[str, Any]:
    """A line in hours."""
    share = found.idle_share
    return {
        "name": name,
        "gpu_hours": round(found.gpu_seconds / HOUR, 3),
        "charged_gpu_hours": round(found.charged_seconds / HOUR, 3),
        "idle_share": None if share is None else round(share, 4),
        "cpu_hours": round(found.cpu_seconds / HOUR, 3),
        "memory_gib_hours": round(found.memory_seconds / HOUR, 3),
        "waits": found.waits,
        "mean_wait_seconds": round(found.mean_wait, 1),
        "longest_wait_seconds": round(found.longest_wait, 1),
        "servers": found.servers,
        "jobs": found.jobs,
    }


def document(report: Report) -> dict[str, Any]:
    """A report in JSON."""
    asked = report.asked
    return {
        "first": asked.first.isoformat(),
        "last": asked.last.isoformat(),
        "timezone": report.zone,
        "by": asked.by.value,
        "until": f"{report.until.isoformat(timespec='seconds')}Z" if report.until else None,
        "lines": [as_json(*line) for line in report.lines],
        "all": as_json("", report.all),
    }


OF_TABLE = (
    "gpu_hours",
    "charged_gpu_hours",
    "idle_share",
    "cpu_hours",
    "memory_gib_hours",
    "waits",
    "mean_wait_seconds",
    "longest_wait_seconds",
    "servers",
    "jobs",
)


def table(found: Report) -> bytes:
    """A report as CSV; with the mark by which a spreadsheet knows UTF-8."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow([found.asked.by.value, *OF_TABLE])
    for line in found.lines:
        row = as_json(*line)
        figures = ("" if row[name] is None else row[name] for name in OF_TABLE)
        lines.writerow([as_text(row["name"]), *figures])
    return b"\xef\xbb\xbf" + text.getvalue().encode()
