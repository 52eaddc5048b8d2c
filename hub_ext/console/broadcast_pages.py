"""The page of messages to everybody: what is shown, and the form."""

from __future__ import annotations

from typing import Any

from commons import broadcasts
from commons.web.pages import timezone_of
from commons.web.refused import Refused
from hub_ext.console.handlers import Page

FIELDS = ("kind", "en", "zh", "starts", "until", "timezone")


class Broadcasts(Page):
    """``GET`` and ``POST`` of the form, for administrators."""

    async def prepare(self) -> None:
        """Nobody else has anything to see here."""
        await super().prepare()
        self.need_admin()

    async def get(self) -> None:
        """The list and the form."""
        await self._show({})

    async def post(self) -> None:
        """Send, and come back; what was wrong is said above the form, which stays."""
        sent = {key: self.get_body_argument(key, "").strip() for key in FIELDS}
        by = self.viewer.name
        asked: dict[str, Any] = {**sent, "timezone": sent["timezone"] or "UTC"}
        try:
            row = await self.change(
                lambda s: broadcasts.as_json(broadcasts.send(s, **asked, by=by))
            )
        except Refused as error:
            await self._show(sent, error.sentence, error.status_code)
        else:
            self.record("broadcast-change", done="send", broadcast=row["id"], kind=row["kind"])
            self.redirect(f"{self.hub_auth.base_url}broadcasts")

    async def _show(self, sent: dict[str, Any], wrong: str = "", status: int = 200) -> None:
        rows = await self.read(
            lambda s: [(row, broadcasts.state(row)) for row in broadcasts.listed(s)]
        )
        self.set_status(status)
        self.render_page(
            "broadcasts.html",
            rows=rows,
            sent=sent,
            wrong=wrong,
            zone=timezone_of(self),
            most=broadcasts.MOST,
        )
