"""The page Servers: all of them, and what is done with those that are chosen."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from commons.errors import LabError
from hub_ext.console.handlers import Page
from hub_ext.console.server_acts import DOES, MOST_SERVERS, Done, Wanted, chosen
from hub_ext.console.server_api import Servers
from hub_ext.console.server_views import SHOWN, Asked
from spawner.options import show_bytes
from spawner.stops import MOST


class ServersPage(Servers, Page):
    """GET: the list. POST: ask whether it is meant, with whom it hits; then do it."""

    async def get(self) -> None:
        """By the filters of the address."""
        await self._show()

    async def post(self) -> None:
        """The first time it is asked, the second it is done."""
        do = self.get_body_argument("do", "")
        if do not in DOES:
            self.redirect(f"{self.hub_auth.base_url}servers")
            return
        who = self.get_body_arguments("who")[: MOST_SERVERS + 1]
        if self.get_body_argument("all", ""):
            asked = Asked.read(lambda name: self.get_body_argument(name, ""))
            who = [one.run.key for one in (await self.all())[1] if asked.fits(one)]
        sure = bool(self.get_body_argument("sure", ""))
        message = self.get_body_argument("message", "")
        try:
            time = self.get_body_argument("time", "")
            wanted = Wanted.read(do, who, message if sure else message or "…", time)
        except LabError as error:
            self.set_status(error.status)
            await self._show(problem=error.sentence(self.reading))
            return
        if sure:
            await self._show(did=do, done=await self.act(wanted))
            return
        _, there = await self.all()
        found, done = chosen(wanted, self.viewer, {one.run.key: one for one in there})
        self.render_page("servers_ask.html", do=do, chosen=found, left=self._left(done), most=MOST)

    def _left(self, done: Done | None) -> list[tuple[str, str]]:
        return [(key, why.in_words(self.reading)) for key, why in done.left] if done else []

    async def _show(self, done: Done | None = None, **more: Any) -> None:
        asked = Asked.read(lambda name: self.get_query_argument(name, ""))
        now, found = await self.all()
        fits = asked.in_order(one for one in found if asked.fits(one))
        given = self.get_query_argument("page", "1")
        pages = max(1, -(-len(fits) // SHOWN))
        page = min(pages, max(1, int(given[:6]))) if given.isdecimal() else 1
        filters = {name: value for name, value in vars(asked).items() if value}
        self.render_page(
            "servers.html",
            known=now.known,
            rows=fits[(page - 1) * SHOWN : page * SHOWN],
            count=len(fits),
            all_of_them=len(found),
            accounts=sorted({one.run.account for one in found}),
            asked=asked,
            page=page,
            pages=pages,
            query=lambda **said: urlencode({**filters, **said}),
            filters=filters,
            done=done.done if done else [],
            left=self._left(done),
            bytes_words=show_bytes,
            size_words=self.size_words,
            **more,
        )
