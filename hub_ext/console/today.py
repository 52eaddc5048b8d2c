"""The page Today, and the same by REST: what needs whoever looks, and what is theirs."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import Field
from sqlalchemy.orm import Session

from commons.rights import Action, can
from commons.scopes import SITE
from commons.web.operations import Route, Told, operation
from commons.web.pages import language_of
from hub_ext.console import gpu_views, server_views, today_views
from hub_ext.console.handlers import Api, Page
from hub_ext.console.server_api import Servers, ServerTold
from jobs import records
from spawner.options import show_bytes

JOBS = 5  # of one's own that are shown


class ItemTold(Told):
    """One thing that needs somebody."""

    level: Literal["broken", "warning", "note"]
    kind: str = Field(description="a check of labcommons doctor, or queue, builds, memory, …")
    about: str
    cause: str
    remedy: str | None
    href: str = Field(description="where it is mended, below the console's address")


class TodayTold(Told):
    """What needs whoever asks, the most urgent first, and their servers."""

    items: list[ItemTold]
    servers: list[ServerTold]


class _Today(Servers):
    async def found(self, more: bool) -> dict[str, Any]:
        """``more``: with what the page alone shows."""
        now, viewer, at = await self.live.now(), self.viewer, time.time()
        lang, site, say, reading = language_of(self), self.site, self.say, self.reading

        def work(session: Session) -> dict[str, Any]:
            servers = server_views.servers(session, viewer, now, at)
            told: dict[str, Any] = {
                "items": today_views.items(session, viewer, site, servers, now.known, lang, at),
                "mine": [one for one in servers if one.run.user == viewer.name],
                "others": len([one for one in servers if one.run.user != viewer.name]),
            }
            if more:
                told["me"] = gpu_views.me(session, viewer, say, at)
                rows = records.mine(session, viewer.name, over=False)
                told["jobs"] = records.show_all(session, rows[:JOBS], reading)
                told["jobs_left"] = max(0, len(rows) - JOBS)
            return told

        return await self.read(work)


class TodayPage(_Today, Page):
    """``GET today``."""

    async def get(self) -> None:
        """It keeps itself true."""
        found = await self.found(more=True)
        found["items"] = [one.as_json(self.reading) for one in found["items"]]
        self.render_page(
            "today.html",
            **found,
            every=bool(can(self.viewer, Action.ADMINISTER, SITE)),
            bytes_words=show_bytes,
            size_words=self.size_words,
        )


class TodayApi(_Today, Api):
    """``GET api/v1/today``."""

    @operation("What needs whoever asks, the most urgent first", TodayTold)
    async def get(self) -> None:
        """For administrators of all, for leads of what they look after."""
        found = await self.found(more=False)
        self.reply(
            {
                "items": [one.as_json(self.reading) for one in found["items"]],
                "servers": [one.as_json() for one in found["mine"]],
            }
        )


ROUTES = (Route("/api/v1/today", TodayApi),)
