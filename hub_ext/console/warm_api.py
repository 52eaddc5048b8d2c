"""REST about servers that are started ahead of time."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from commons.principal import Principal
from commons.rights import Action, can, check
from commons.scopes import SITE, Scope, of_account
from commons.store.models import WarmStart
from commons.web.openapi import Reason
from commons.web.operations import Count, Part, Route, Time, Told, operation
from hub_ext.console.handlers import Api
from spawner.warm import records


class Server(Told):
    """What became of one person's server."""

    user: str
    server: str = Field(description="its name; empty: their default one")
    state: records.State
    at: Time
    reason: Reason | None


class WarmStarted(Told):
    """Servers that are started ahead of time."""

    id: str
    name: str
    subject: str = Field(description="a team or course; empty for people alone")
    people: list[str]
    options: dict[str, Any] = Field(description="as user_options")
    starts_at: Time
    hold_until: Time
    created_by: str
    state: str = Field(description="planned, going, over, cancelled")
    counts: dict[str, Count] = Field(description="how many servers are in each state")
    servers: list[Server] = Field(description="once it has begun")


class WarmStarts(Told):
    """Those that the viewer may see, the next first."""

    warm_starts: list[WarmStarted]


def whose(row: WarmStart) -> Scope:
    """Who looks after it: the team's or course's leads, or the site's administrators."""
    return of_account(row.subject) or SITE


def visible(session: Session, viewer: Principal) -> list[WarmStart]:
    """Those that somebody may start and cancel."""
    rows = records.standing(session)
    return [row for row in rows if can(viewer, Action.START_AHEAD, whose(row))]


class WarmStartsApi(Api):
    """``api/v1/warm-starts``: GET and POST."""

    @operation("Servers that are started ahead of time, by who may start them", WarmStarts)
    async def get(self) -> None:
        """To come, going on, and over in the last 30 days."""
        viewer, reading = self.viewer, self.reading
        found = await self.read(
            lambda s: [records.show(s, row, reading) for row in visible(s, viewer)]
        )
        self.reply({"warm_starts": found})

    @operation(
        "Start servers ahead of time: for administrators, and who leads the team or course",
        WarmStarted,
        status=201,
        body=records.WarmSpec,
    )
    async def post(self, body: dict[str, Any]) -> None:
        """What is wrong with it, ``records.check`` says."""
        viewer, site, reading = self.viewer, self.site, self.reading
        self.need(Action.START_AHEAD, of_account(str(body.get("subject") or "")) or SITE)

        def work(session: Session) -> dict[str, Any]:
            spec = records.check(body, site)
            return records.show(session, records.create(session, spec, viewer.name, site), reading)

        made = await self.change(work)
        self.record("warm-start-change", done="create", warm=made["id"])
        self.reply(made)


class WarmStartApi(Api):
    """``api/v1/warm-starts/ID``: GET and DELETE."""

    @operation("One, with what became of each server", WarmStarted)
    async def get(self, warm: str) -> None:
        """For who may start it."""
        self.reply(await self._one(warm, cancel=False))

    @operation("Cancel it: start no more, release what nobody has opened", WarmStarted)
    async def delete(self, warm: str) -> None:
        """For who may start it."""
        found = await self._one(warm, cancel=True)
        self.record("warm-start-change", done="cancel", warm=found["id"])
        self.reply(found)

    async def _one(self, warm: str, cancel: bool) -> dict[str, Any]:
        viewer, reading = self.viewer, self.reading

        def work(session: Session) -> dict[str, Any]:
            row = records.get(session, warm)
            check(viewer, Action.START_AHEAD, whose(row))
            return records.show(session, records.cancel(session, warm) if cancel else row, reading)

        return await (self.change(work) if cancel else self.read(work))


ROUTES = (
    Route("/api/v1/warm-starts", WarmStartsApi),
    Route("/api/v1/warm-starts/{warm}", WarmStartApi, {"warm": Part("its id, or its name")}),
)
