"""The page Usage, its table as CSV, the printable report of a month, and the same by REST."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import Field
from sqlalchemy.orm import Session

from commons.errors import BadRequest
from commons.i18n import N_, NP_, Gettext, choose_timezone, in_context
from commons.web.operations import Count, Query, Route, Told, operation
from commons.web.refused import Refused
from hub_ext.console import plots
from hub_ext.console.handlers import Api, Base, Page
from spawner.usage import report
from spawner.usage.days import Figures
from spawner.usage.report import Asked, By, Of, Report

SHOWN = 100  # lines of a page; all are in the CSV
OF_REPORT = 15  # lines of each table of a printed report
LONGEST = 255

BY_WORDS: Mapping[By, str] = {
    By.PERSON: N_("Person"),
    By.TEAM: N_("Team"),
    By.COURSE: N_("Course"),
    By.MODEL: N_("GPU model"),
    By.ENVIRONMENT: N_("Environment"),
}
NONE_WORDS: Mapping[By, str] = {
    By.PERSON: N_("Nobody"),
    By.TEAM: N_("Charged to no team"),
    By.COURSE: N_("Charged to no course"),
    By.MODEL: N_("Without a GPU"),
    By.ENVIRONMENT: N_("Not known"),
}
OF_WORDS: Mapping[Of, str] = {
    Of.GPU: N_("GPU-hours"),
    Of.CPU: N_("CPU-hours"),
    Of.MEMORY: N_("Memory, GiB-hours"),
}


class _Usage(Base):
    """What page, file and REST have in common: the question, and its answer."""

    async def ask(
        self, by: str, first: str, last: str, account: str = "", person: str = ""
    ) -> Report:
        """The report. Raises Refused for what is no question."""
        seen = report.sight(self.viewer)
        kind = By(by) if by in set(By) else By.PERSON

        def work(session: Session) -> Report:
            span = report.read_span(first, last, report.today(session))
            return report.make(session, Asked(*span, kind, account, person), seen)

        return await self.read(work)

    def said(self, name: str) -> str:
        """A parameter of the address."""
        return self.get_query_argument(name, "").strip()[:LONGEST]

    async def ask_address(self) -> Report:
        """As the address says it."""
        only = {key: self.said(key) for key in ("account", "person")}
        return await self.ask(self.said("by"), self.said("from"), self.said("to"), **only)


class Usage(_Usage, Page):
    """``GET usage``."""

    async def get(self) -> None:
        """Figures, a plot, a table."""
        problem = ""
        try:
            found = await self.ask_address()
        except Refused as error:
            if error.status_code != BadRequest.status:
                raise
            problem = error.sentence
            self.set_status(error.status_code)
            found = await self.ask(self.said("by"), "", "")
        chosen = self.said("of")
        of = Of(chosen) if chosen in set(Of) else found.usual()
        seen = report.sight(self.viewer)
        drawn = await self.read(lambda session: report.plot(session, found, of, seen))
        asked, _ = found.asked, self._
        address = address_of(asked)
        self.render_page(
            "usage.html",
            problem=problem,
            report=found,
            asked=asked,
            of=of,
            kinds={one.value: _(words) for one, words in BY_WORDS.items()},
            measures={one.value: _(words) for one, words in OF_WORDS.items()},
            everything=seen.everything,
            lines=[line_of(*line) for line in found.lines[:SHOWN]],
            left_out=max(0, len(found.lines) - SHOWN),
            all=line_of("", found.all),
            name_of=names(asked.by, _),
            plot=drawn,
            drawing=draw(drawn, asked.by, of, _),
            rest=rest_of(drawn, asked.by, _),
            colour_of=plots.colour_of,
            query=urlencode({**address, "by": asked.by.value}),
            spans=spans(report_today(found), _),
            with_span=lambda span: urlencode(
                {**address, "by": asked.by.value, "of": of.value} | span
            ),
            drill=lambda name: drill(asked, name),
            until=f"{found.until.isoformat()}+00:00" if found.until else None,
            last_month=month_before(report_today(found)),
        )


def report_today(found: Report) -> date:
    """The day it is by the clocks of the report."""
    return report.day_now(choose_timezone(found.zone))


def address_of(asked: Asked) -> dict[str, str]:
    """Of the span and what it is narrowed to."""
    parts = {"from": asked.first.isoformat(), "to": asked.last.isoformat()}
    only = {"account": asked.account, "person": asked.person}
    return parts | {key: value for key, value in only.items() if value}


def drill(asked: Asked, name: str) -> str:
    """The address of what is behind a line; empty where there is nothing more to see."""
    if not name or asked.by in (By.MODEL, By.ENVIRONMENT):
        return ""
    if asked.by is By.PERSON:
        more = {"person": name, "by": By.ENVIRONMENT.value}
    else:
        kind = "group" if asked.by is By.TEAM else "course"
        more = {"account": f"{kind}:{name}", "by": By.PERSON.value}
    return urlencode(address_of(asked) | more)


def line_of(name: str, found: Figures) -> dict[str, Any]:
    """A line as the page shows it."""
    share = found.idle_share
    return {
        "name": name,
        "gpu": plots.hours(found.gpu_seconds / 3600),
        "charged": plots.hours(found.charged_seconds / 3600),
        "idle": "–" if share is None else f"{share:.0%}",
        "cpu": plots.hours(found.cpu_seconds / 3600),
        "memory": plots.hours(found.memory_seconds / 3600),
        "waits": found.waits,
        "mean_wait": found.mean_wait,
        "longest_wait": found.longest_wait,
        "servers": found.servers,
        "jobs": found.jobs,
    }


def names(by: By, _: Gettext) -> Any:
    """What a line is called."""
    return lambda name: name or _(NONE_WORDS[by])


def draw(drawn: report.Plot, by: By, of: Of, _: Gettext) -> Any:
    """The plot, with what a screen reader says of it."""
    title = _(N_("{what} by {whom}, stacked bars; the figures are in the table below.")).format(
        what=_(OF_WORDS[of]), whom=_(BY_WORDS[by])
    )

    rest = rest_of(drawn, by, _)
    return plots.both(drawn, title, lambda name: name or rest, date.isoformat)


def rest_of(drawn: report.Plot, by: By, _: Gettext) -> str:
    """What stands together in a plot: those that have no name, or many."""
    alone = len(drawn.names) <= report.TOP
    return _(NONE_WORDS[by]) if alone else in_context(_, NP_("usage", "All others"))


def spans(today: date, _: Gettext) -> list[tuple[str, dict[str, str]]]:
    """Spans that are asked for often."""
    month, year = today.replace(day=1), today.replace(month=1, day=1)
    before = month - timedelta(days=1)
    found = (
        (N_("Last 30 days"), today - timedelta(days=29), today),
        (N_("This month"), month, today),
        (N_("Last month"), before.replace(day=1), before),
        (N_("This year"), year, today),
    )
    return [
        (_(words), {"from": first.isoformat(), "to": last.isoformat()})
        for words, first, last in found
    ]


def month_before(today: date) -> str:
    """The month that is over: 2026-10."""
    return f"{today.replace(day=1) - timedelta(days=1):%Y-%m}"


class Export(_Usage, Page):
    """``GET usage.csv``: all lines of a report."""

    async def get(self) -> None:
        """In hours and seconds."""
        found = await self.ask_address()
        asked = found.asked
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        name = f"usage-by-{asked.by}-{asked.first}-{asked.last}.csv"
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        self.finish(report.table(found))


class MonthlyReport(_Usage, Page):
    """``GET usage/report?month=2026-10``: to be printed, or saved as PDF."""

    async def get(self) -> None:
        """What the viewer may see of a month."""
        seen, said = report.sight(self.viewer), self.said("month")
        found = await self.read(lambda session: whole_report(session, said, seen, self._))
        self.render_page("usage_report.html", **found, everything=seen.everything)


def whole_report(session: Session, month: str, seen: report.Sight, _: Gettext) -> dict[str, Any]:
    """All that a report of a month shows. Raises BadRequest for what is no month."""
    today = report.today(session)
    first, last = report.read_month(month or month_before(today))
    parts = []
    for by in (By.TEAM, By.COURSE, By.MODEL, By.ENVIRONMENT, By.PERSON):
        found = report.make(session, Asked(first, last, by), seen)
        lines = [line for line in found.lines if line[0] or len(found.lines) > 1]
        if not lines:
            continue
        drawn = report.plot(session, found, found.usual(), seen) if by is By.TEAM else None
        parts.append(
            {
                "title": _(BY_WORDS[by]),
                "lines": [line_of(*line) for line in lines[:OF_REPORT]],
                "left_out": max(0, len(lines) - OF_REPORT),
                "name_of": names(by, _),
                "plot": drawn,
                "drawing": drawn and draw(drawn, by, found.usual(), _),
                "rest": drawn and rest_of(drawn, by, _),
                "of": _(OF_WORDS[found.usual()]),
            }
        )
    whole = report.make(session, Asked(first, last), seen)
    return {
        "month": f"{first:%Y-%m}",
        "first": first,
        "last": last,
        "zone": whole.zone,
        "all": line_of("", whole.all),
        "people": len(whole.lines),
        "data_parts": parts,
        "colour_of": plots.colour_of,
        "empty": not whole.lines,
    }


# -- REST ------------------------------------------------------------------------------------------


class UsageQuery(Query):
    """A span and what there is a line for."""

    first: str = Field("", alias="from", max_length=40, description="a day, 2026-11-01")
    last: str = Field("", alias="to", max_length=40, description="a day; without one, today")
    by: Literal["person", "team", "course", "model", "environment"] = "person"
    account: str = Field("", max_length=LONGEST, description="charged to this one alone")
    person: str = Field("", max_length=LONGEST, description="of this person alone")


class UsageLine(Told):
    """What was used."""

    name: str = Field(description="empty: of none, such as what no team is charged for")
    gpu_hours: float = Field(description="a slice or a share of a GPU is a part of one")
    charged_gpu_hours: float = Field(description="as budgets count them")
    idle_share: float | None = Field(description="of gpu_hours; null where none were used")
    cpu_hours: float = Field(description="of cores that servers and jobs had")
    memory_gib_hours: float
    waits: Count = Field(description="requests for GPUs that were granted")
    mean_wait_seconds: float
    longest_wait_seconds: float
    servers: Count = Field(description="that began")
    jobs: Count


class UsageReport(Told):
    """What was used from a first day to a last one, by the clocks of a time zone."""

    first: str
    last: str
    timezone: str
    by: str
    until: str | None = Field(description="how far the sums are; null: none were made yet")
    lines: list[UsageLine]
    all: UsageLine


class UsageReportApi(_Usage, Api):
    """``GET api/v1/usage/report``."""

    @operation(
        "What was used over a span: one's own, of teams and courses for who looks after them, all "
        "for administrators",
        UsageReport,
        query=UsageQuery,
        refusals={400: "no such day, or no such span"},
    )
    async def get(self, query: UsageQuery) -> None:
        """Lines by person, team, course, model or environment."""
        only = {"account": query.account, "person": query.person}
        found = await self.ask(query.by, query.first, query.last, **only)
        self.reply(report.document(found))


ROUTES = (Route("/api/v1/usage/report", UsageReportApi),)
