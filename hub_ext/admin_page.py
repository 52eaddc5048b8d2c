"""``/hub/admin``: the hub itself, and the ways to what the console has of people and servers.

In place of JupyterHub's own page. Whoever is shut out, stopped or started is so on the console's
pages; here the hub alone is shut down, after a question that says whom that hits.
"""

from __future__ import annotations

from typing import Any

from jupyterhub import __version__, orm
from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.scopes import needs_scope
from tornado.ioloop import IOLoop
from tornado.web import authenticated

from commons.audit import make_event

SURE = "shutdown"  # what the form says that has asked


class AdminPage(BaseHandler):  # type: ignore[misc]
    """GET: the page, with ``?ask=1`` the question. POST: shut the hub down."""

    @authenticated
    @needs_scope("admin-ui")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """What runs, and the ways on."""
        await self._show(asked=bool(self.get_query_argument("ask", "")))

    @authenticated
    @needs_scope("admin-ui", "shutdown")  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Answer first, then end: Docker starts it again."""
        if self.get_body_argument("do", "") != SURE:
            await self._show(asked=True)
            return
        if audit := self.settings.get("audit"):
            name, address = self.current_user.name, self.request.remote_ip
            audit.record(
                make_event(
                    "hub-change",
                    "success",
                    user=name,
                    address=address,
                    details={"done": "shutdown", **self._counts()},
                )
            )
        await self._show(ends=True)
        IOLoop.current().add_callback(JupyterHub.instance().stop)

    def _counts(self) -> dict[str, int]:
        spawners = [one for user in self.users.values() for one in user.spawners.values()]
        return {
            "running": sum(one.ready for one in spawners),
            "starting": sum(one.pending == "spawn" for one in spawners),
            "people": self.db.query(orm.User).count(),
        }

    async def _show(self, **more: Any) -> None:
        page = await self.render_template(
            "admin.html", **self._counts(), jupyterhub=__version__, **more
        )
        self.finish(page)
