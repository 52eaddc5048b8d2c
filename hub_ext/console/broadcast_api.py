"""REST about messages to everybody."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from commons import broadcasts
from commons.web.operations import Part, Route, Sent, Time, Told, operation
from commons.web.pages import timezone_of
from hub_ext.console.handlers import Api


class Shown(Told):
    """A message that lasts now, as the reader is told of it."""

    id: str
    kind: Literal["info", "warning", "maintenance"]
    title: str
    text: str = Field(description="in the reader's language, or the one that there is")
    more: str = Field(description="times of maintenance; may be empty")
    ends_at: Time | None
    dismissible: bool
    close: str = Field(description="the word on the button")


class ShownNow(Told):
    """What is shown on every page."""

    broadcasts: list[Shown]


class Broadcast(Told):
    """A message to everybody, as administrators see it."""

    id: str
    kind: Literal["info", "warning"]
    en: str | None
    zh: str | None
    starts_at: Time
    ends_at: Time
    state: Literal["planned", "shown", "over", "withdrawn"]
    created_by: str
    created_at: Time
    withdrawn_by: str


class Broadcasts(Told):
    """Those of the last 90 days, the newest first."""

    broadcasts: list[Broadcast]


class NewBroadcast(Sent):
    """A message: a text in one language at least."""

    kind: str = Field("info", description="info or warning")
    en: str = ""
    zh: str = ""
    starts: str = Field("", description="a time or a duration from now; at once without")
    until: str = Field(description="2026-11-24T18:00 in the time zone, or 2h")
    timezone: str = Field("UTC", description="IANA name, such as Europe/Berlin")


class ShownApi(Api):
    """``GET api/v1/broadcasts``."""

    @operation("Messages to everybody that last now", ShownNow, servers=True, exams=True)
    async def get(self) -> None:
        """In the language and the time zone of who asks."""
        board: broadcasts.Board = self.settings["board"]
        zone = timezone_of(self)
        found = [broadcasts.told(one, self._, zone) for one in await board.fresh()]
        self.reply({"broadcasts": found})

    @operation("Tell everybody something", Broadcast, status=201, body=NewBroadcast, admins=True)
    async def post(self, body: NewBroadcast) -> None:
        """It is shown from its begin to its end."""
        self.need_admin()
        by, asked = self.viewer.name, body.model_dump()
        row = await self.change(lambda s: broadcasts.as_json(broadcasts.send(s, **asked, by=by)))
        self.record("broadcast-change", done="send", broadcast=row["id"], kind=row["kind"])
        self.reply(row)


class HistoryApi(Api):
    """``GET api/v1/broadcasts/history``."""

    @operation("Messages to everybody, of the last 90 days", Broadcasts, admins=True)
    async def get(self) -> None:
        """The newest first."""
        self.need_admin()
        found = await self.read(lambda s: [broadcasts.as_json(r) for r in broadcasts.listed(s)])
        self.reply({"broadcasts": found})


class BroadcastApi(Api):
    """``DELETE api/v1/broadcasts/ID``."""

    @operation("Withdraw a message to everybody", Broadcast, admins=True)
    async def delete(self, broadcast: str) -> None:
        """It is gone everywhere within seconds."""
        self.need_admin()
        by = self.viewer.name
        row = await self.change(lambda s: broadcasts.as_json(broadcasts.withdraw(s, broadcast, by)))
        self.record("broadcast-change", done="withdraw", broadcast=row["id"])
        self.reply(row)


ROUTES = (
    Route("/api/v1/broadcasts", ShownApi),
    Route("/api/v1/broadcasts/history", HistoryApi),
    Route("/api/v1/broadcasts/{broadcast}", BroadcastApi, {"broadcast": Part("its id")}),
)
