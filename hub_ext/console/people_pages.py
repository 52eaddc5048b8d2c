"""The pages People and of one person."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from commons import notices
from commons.rights import Action, can
from commons.scopes import SITE
from commons.web.pages import timezone_of
from commons.web.refused import Refused
from hub_ext.console import people_views
from hub_ext.console.handlers import Page
from hub_ext.console.people_api import People
from hub_ext.console.people_views import SHOWN, Asked
from spawner import endings
from spawner.options import show_bytes


class PeoplePage(People, Page):
    """``people``."""

    async def get(self) -> None:
        """By the filters of the address."""
        asked = Asked.read(lambda name: self.get_query_argument(name, ""))
        everybody = await self.everybody()
        fits = asked.in_order(one for one in everybody if asked.fits(one))
        given = self.get_query_argument("page", "1")
        pages = max(1, -(-len(fits) // SHOWN))
        page = min(pages, max(1, int(given[:6]))) if given.isdecimal() else 1
        filters = {name: value for name, value in vars(asked).items() if value}
        self.render_page(
            "people.html",
            rows=fits[(page - 1) * SHOWN : page * SHOWN],
            count=len(fits),
            all_of_them=len(everybody),
            groups=sorted({group for one in everybody for group in one.groups}),
            asked=asked,
            page=page,
            pages=pages,
            query=lambda **said: urlencode({**filters, **said}),
            bytes_words=show_bytes,
        )


class PersonPage(People, Page):
    """``people/NAME``: GET; POST blocks, or takes that back."""

    async def get(self, name: str) -> None:
        """What the viewer may know."""
        await self._show(name)

    async def post(self, name: str) -> None:
        """The form asks; whoever sends it means it."""
        self.need(Action.ADMINISTER)
        sent = {key: self.get_body_argument(key, "").strip() for key in ("reason", "until")}
        try:
            if self.get_body_argument("do", "") == "unblock":
                await self.unblock(name)
            else:
                stop = bool(self.get_body_argument("stop", ""))
                await self.block(name, sent["reason"], sent["until"] or None, stop)
        except Refused as error:
            if error.status_code in (403, 404):
                raise
            self.set_status(error.status_code)
            await self._show(name, problem=error.sentence, sent=sent)
            return
        self.redirect(self.request.path)

    async def _show(self, name: str, problem: str = "", **more: Any) -> None:
        person = await self.person(name)
        every = bool(can(self.viewer, Action.ADMINISTER, SITE))
        beside = await self.read(lambda s: people_views.more(s, name)) if every else {}
        zone = timezone_of(self)
        in_hub = await self.live.person(name) if every else None
        self.render_page(
            "person.html",
            person=person,
            beside=beside,
            in_hub=in_hub,
            every=every,
            ended=[
                (row, notices.sentence(row.cause, endings.said(row), self._, zone))
                for row in beside.get("ends", ())
            ],
            bytes_words=show_bytes,
            size_words=self.size_words,
            problem=problem,
            **{"sent": {}, **more},
        )
