"""The page of servers that are started ahead of time: the list, and the form."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from commons.rights import Action, can
from commons.scopes import SITE, groups_of_site, of_account
from commons.site import words_in
from commons.store.models import WarmStart
from commons.web.pages import language_of, timezone_of
from commons.web.refused import Refused
from environments import catalog
from hub_ext.console import warm_api
from hub_ext.console.handlers import Page
from spawner.warm import records

FIELDS = ("name", "subject", "people", "starts", "timezone", "hold", "environment", "size", "gpus")


class Ahead(Page):
    """``GET`` and ``POST`` of the form, for administrators and who leads a team or course."""

    async def prepare(self) -> None:
        """Nobody else has anything to see here."""
        await super().prepare()
        if not self.viewer.led:
            self.need(Action.START_AHEAD, SITE)

    async def get(self) -> None:
        """The list and the form."""
        await self._show({}, [])

    async def post(self) -> None:
        """Start ahead, and come back; what was wrong is said beside the form, which stays."""
        sent = {key: self.get_body_argument(key, "").strip() for key in FIELDS}
        self.need(Action.START_AHEAD, of_account(sent["subject"]) or SITE)
        wanted = _wanted(sent)
        by, site = self.viewer.name, self.site

        def work(session: Session) -> WarmStart:
            return records.create(session, records.check(wanted, site), by, site)

        try:
            row = await self.change(work)
        except Refused as error:
            problems = [(one["path"], one["message"]) for one in error.details.get("problems", ())]
            await self._show(sent, problems or [("", error.sentence)], error.status_code)
        else:
            self.record("warm-start-change", done="create", warm=row.id)
            self.redirect(f"{self.hub_auth.base_url}ahead")

    async def _show(
        self, sent: dict[str, Any], problems: list[tuple[str, str]], status: int = 200
    ) -> None:
        viewer, reading, lang = self.viewer, self.reading, language_of(self)

        def work(session: Session) -> dict[str, Any]:
            rows = [
                records.show(session, row, reading) for row in warm_api.visible(session, viewer)
            ]
            newest = catalog.newest(session)
            return {
                "rows": sorted(rows, key=lambda row: row["state"] in ("over", "cancelled")),
                "environments": {
                    name: words_in(found[0].words.get("title") or name, lang)
                    for name, found in newest.items()
                    if found
                },
            }

        found = await self.read(work)
        scopes = [
            scope for scope in groups_of_site(self.site) if can(viewer, Action.START_AHEAD, scope)
        ]
        sizes = {
            name: words_in(size.title, lang) if size.title else name
            for name, size in self.site.sizes.items()
        }
        self.set_status(status)
        self.render_page(
            "ahead.html",
            **found,
            subjects=[scope.account for scope in scopes],
            sizes=sizes,
            zone=timezone_of(self),
            sent=sent,
            problems=problems,
        )


def _wanted(sent: dict[str, str]) -> dict[str, Any]:
    """What a filled form asks for."""
    wanted: dict[str, Any] = {
        key: sent[key] for key in ("name", "subject", "starts", "timezone", "hold") if sent[key]
    }
    wanted["people"] = sent["people"].replace(",", " ").split()
    options: dict[str, Any] = {key: sent[key] for key in ("environment", "size") if sent[key]}
    if sent["gpus"].isdecimal() and int(sent["gpus"]):
        options["gpus"] = int(sent["gpus"])
    return wanted | {"options": options}
