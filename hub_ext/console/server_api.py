"""REST about servers: all of them, and what is done with them."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import Field

from commons.errors import LabError
from commons.site import words_in
from commons.web.openapi import Reason
from commons.web.operations import Count, Query, Route, Sent, Time, Told, operation
from commons.web.pages import language_of
from commons.web.refused import Refused
from hub_ext.console import server_acts, server_views
from hub_ext.console.handlers import Api, Base
from hub_ext.console.live import Live, Now
from hub_ext.console.server_acts import Done, Wanted
from hub_ext.console.server_views import Asked, Server


class ServerTold(Told):
    """A server that runs, or is on its way up or down."""

    who: str = Field(description="alice, or alice/train for a server with a name")
    user: str
    server: str
    state: Literal["running", "idle", "starting", "stopping", "waiting"]
    environment: str
    size: str
    gpus: Count
    account: str = Field(description="who is charged")
    started: Time | None
    active: Time | None = Field(description="when it was last used")
    memory: int | None = Field(description="bytes now")
    memory_limit: int | None
    cpu: float | None = Field(description="cores now")
    cpu_limit: float | None
    lease: str | None
    gpu_percent: float | None
    ends: Time | None
    why: str | None = Field(description="by what it ends then: time_limit, idle, culled, …")


class ServersTold(Told):
    """Servers, as far as the viewer may see them."""

    known: bool = Field(description="false: the hub does not answer, and nothing is known")
    servers: list[ServerTold]


class Left(Told):
    """A server with which it was not done."""

    who: str
    reason: Reason


class DoneTold(Told):
    """With which it was done."""

    done: list[str]
    left: list[Left]


class Which(Query):
    """Which servers, in which order."""

    q: str = Field("", description="a part of a name")
    state: str = Field("", description="running, idle, starting, stopping or waiting")
    gpus: str = Field("", description="with or without")
    account: str = Field("", description="who is charged")
    sort: str = Field("user", description="user, memory, cpu, active, started or ends")


Who = Annotated[list[str], Field(description="keys, as GET tells them")]


class Message(Sent):
    """To who uses them."""

    who: Who
    message: str


class Stop(Sent):
    """At once, or after ``grace``."""

    who: Who
    message: str = Field("", description="what their owners read")
    grace: str | int = Field("", description="until the stop, which they are told: 15m, or seconds")


class Extend(Sent):
    """Of servers with a time limit."""

    who: Who
    by: str | int = Field("30m", description="such as 2h")


class Servers(Base):
    """What page and API do."""

    @property
    def live(self) -> Live:
        """What runs."""
        found = self.settings["live"]
        assert isinstance(found, Live)
        return found

    def size_words(self, name: str) -> str:
        """What a size is called, in the reader's language."""
        size = self.site.sizes.get(name)
        return words_in(size.title, language_of(self)) if size and size.title else name

    async def all(self) -> tuple[Now, list[Server]]:
        """What the viewer may see."""
        now, viewer, at = await self.live.now(), self.viewer, time.time()
        return now, await self.read(lambda s: server_views.servers(s, viewer, now, at))

    async def act(self, wanted: Wanted) -> Done:
        """Do it, and write it down."""
        viewer = self.viewer
        _, there = await self.all()
        found, done = server_acts.chosen(wanted, viewer, {one.run.key: one for one in there})
        if found:
            await self.change(lambda s: server_acts.act(s, wanted, viewer.name, found, done))
        if done.done:
            details: dict[str, Any] = {"done": wanted.do, "who": done.done[:500]}
            if wanted.message:
                details["message"] = wanted.message
            self.record("servers-change", **details)
        return done


class ServersApi(Servers, Api):
    """``GET api/v1/servers``."""

    @operation(
        "All servers: oneself's, one's groups' for leads, everybody's for administrators",
        ServersTold,
        query=Which,
    )
    async def get(self, query: Which) -> None:
        """In the order that is asked for."""
        asked = Asked.read(lambda name: str(getattr(query, name)))
        now, found = await self.all()
        shown = asked.in_order(one for one in found if asked.fits(one))
        self.reply({"known": now.known, "servers": [one.as_json() for one in shown]})


class _Act(Servers, Api):
    async def do(
        self, what: str, who: list[str], message: str = "", seconds: str | int = ""
    ) -> None:
        """Raises Refused."""
        try:
            wanted = Wanted.read(what, who, message, seconds)
        except LabError as error:
            raise Refused(error, self.reading) from error
        self.reply((await self.act(wanted)).as_json(self.reading))


class StopApi(_Act):
    """``POST api/v1/servers/stop``."""

    @operation("Stop servers, and say why", DoneTold, body=Stop)
    async def post(self, body: Stop) -> None:
        """Within seconds, or when the time that was told is over."""
        await self.do("stop", body.who, body.message, body.grace)


class MessageApi(_Act):
    """``POST api/v1/servers/message``."""

    @operation("Write to who uses servers", DoneTold, body=Message)
    async def post(self, body: Message) -> None:
        """They read it in their notebooks and on their pages."""
        await self.do("message", body.who, body.message)


class ExtendApi(_Act):
    """``POST api/v1/servers/extend``."""

    @operation("Let servers run longer, as far as limits allow", DoneTold, body=Extend)
    async def post(self, body: Extend) -> None:
        """Of those with a time limit."""
        await self.do("extend", body.who, "", body.by)


ROUTES = (
    Route("/api/v1/servers", ServersApi),
    Route("/api/v1/servers/stop", StopApi),
    Route("/api/v1/servers/message", MessageApi),
    Route("/api/v1/servers/extend", ExtendApi),
)
