"""The page of what people sent: open, throw away, and from whom nothing more is taken."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from urllib.parse import quote, urlencode

from sqlalchemy.orm import Session

from hub_ext.console import inbox
from hub_ext.console.handlers import Page
from spawner import options
from spawner.options.choice import Catalog


class Inbox(Page):
    """``GET`` and, to refuse somebody by name, ``POST``."""

    async def get(self) -> None:
        """What waits for the viewer, newest first."""
        viewer = self.viewer

        def work(session: Session) -> dict[str, Any]:
            catalog = options.offered(session, viewer)
            return {
                "notebooks": [
                    {
                        "row": row,
                        "at": row.at.replace(tzinfo=UTC).timestamp(),
                        "size": options.show_bytes(row.size),
                        "there": _there(row.environment, catalog),
                        "open": self._link(row, catalog),
                    }
                    for row in inbox.waiting_for(session, viewer.name)
                ],
                "refused": inbox.refused(session, viewer.name),
            }

        self.render_page("inbox.html", kept=inbox.KEPT.days, **await self.read(work))

    async def post(self) -> None:
        """Take nothing more of somebody. It is not said whether there is such a person."""
        sender = inbox.login_name(self.get_body_argument("sender", ""))[:255]
        if sender and sender.isprintable():
            name = self.viewer.name
            await self.change(lambda session: inbox.refuse(session, name, sender, True))
        self.redirect(f"{self.hub_auth.base_url}inbox")

    def _link(self, row: Any, catalog: Catalog) -> str:
        """To the viewer's server, which opens it; where none runs, to the form of a start, filled.

        The environment's version is named only where it can still be started.
        """
        hub, user = self.hub_auth.hub_prefix, quote(self.viewer.name)
        name = row.environment.partition(":")[0]
        there = _there(row.environment, catalog)
        asked = {"version": row.environment, "name": name}.get(there)
        query = {"environment": asked} if asked else {}
        query["next"] = f"{hub}user/{user}/lab?labcommons-inbox={row.id}"
        return f"{hub}spawn/{user}?{urlencode(query)}"


def _there(environment: str, catalog: Catalog) -> str:
    """What of the environment of a notebook its receiver may start: version, name, or none ("")."""
    name, _, version = environment.partition(":")
    versions = [entry.version for entry in catalog.get(name, ()) if entry.is_offered]
    return "version" if version in versions else "name" if versions else ""
