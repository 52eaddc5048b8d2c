"""The page of the servers that teams and courses use together."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from commons.errors import LabError
from commons.rights import Action, can
from commons.scopes import groups_of_site
from commons.site import words_in
from commons.web.pages import language_of
from commons.web.refused import Refused
from environments import catalog
from hub_ext.console.handlers import Page
from hub_ext.console.shared_api import Changing
from spawner import shared_servers

FIELDS = ("scope", "name", "environment", "size", "gpus", "leads_only", "members_run", "do")


class Shared(Changing, Page):
    """``shared``: the list by teams and courses, and for who looks after one the form."""

    async def get(self) -> None:
        """Those that the viewer may enter or start."""
        await self._show({}, [])

    async def post(self) -> None:
        """Start one, or make one; what was wrong is said, and what was typed stays."""
        sent = {key: self.get_body_argument(key, "").strip()[:300] for key in FIELDS}
        try:
            scope = self.scope(sent["scope"])
            if sent["do"] == "start":
                await self.ask(scope, sent["name"], up=True)
            else:
                options: dict[str, Any] = {k: sent[k] for k in ("environment", "size") if sent[k]}
                if sent["gpus"].isdecimal() and int(sent["gpus"]):
                    options["gpus"] = int(sent["gpus"])
                leads_only, members_run = bool(sent["leads_only"]), bool(sent["members_run"])
                await self.save(scope, sent["name"], options, leads_only, members_run)
        except Refused as error:
            await self._show(sent, [error.sentence], error.status_code)
        else:
            self.redirect(f"{self.hub_auth.base_url}shared#{scope.source}")

    async def _show(self, sent: dict[str, str], problems: list[str], status: int = 200) -> None:
        viewer, site, reading, lang = self.viewer, self.site, self.reading, language_of(self)
        mine = [s for s in groups_of_site(site) if can(viewer, Action.ENTER_SHARED, s)]

        def work(session: Session) -> dict[str, Any]:
            found: dict[str, list[dict[str, Any]]] = {scope.source: [] for scope in mine}
            for row in shared_servers.visible(session, viewer, site):
                found[row.scope].append(shared_servers.show(row, viewer, reading))
            newest = catalog.newest(session, packages=False)
            return {
                "servers": found,
                "environments": {
                    name: words_in(versions[0].words.get("title") or name, lang)
                    for name, versions in newest.items()
                    if versions
                },
            }

        found = await self.read(work)
        groups = [
            {
                "source": scope.source,
                "title": scope.title(self._),
                "servers": found["servers"][scope.source],
                "makes": bool(can(viewer, Action.MAKE_SHARED, scope)),
            }
            for scope in mine
        ]
        self.set_status(status)
        self.render_page(
            "shared.html",
            here="shared",
            # Of an administrator, who sees all: those in which there is something first.
            groups=sorted(groups, key=lambda one: not one["servers"]),
            refused=self._refused(),
            environments=found["environments"],
            sizes={
                name: words_in(size.title, lang) if size.title else name
                for name, size in site.sizes.items()
            },
            sent=sent,
            problems=problems,
        )

    def _refused(self) -> str:
        """Why there can be none at this site; "" where there can."""
        try:
            shared_servers.check_site(self.site)
        except LabError as error:
            return error.sentence(self.reading)
        return ""
