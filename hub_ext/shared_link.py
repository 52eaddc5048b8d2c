"""``/hub/shared/SCOPE/NAME``: the one link into a server that a team or course uses together.

Each comes in with their own arrangement of tabs. Where the server does not run, its page says so
and starts it; JupyterHub's pages about it would be its account's, which is nobody.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from jinja2 import pass_context
from jinja2.runtime import Context
from jupyterhub.handlers.base import BaseHandler, UserUrlHandler
from jupyterhub.utils import get_accepted_mimetype
from sqlalchemy.orm import Session
from tornado.web import authenticated

from commons.errors import LabError
from commons.i18n import gettext_for
from commons.principal import Principal
from commons.scopes import parse_source
from commons.shared_accounts import name_of, scope_of
from commons.store import StoreError
from commons.web.pages import handler_of, language_of, locale_of
from commons.web.refused import Refused
from spawner import shared_servers
from spawner.shared_servers import SHARED_UNKNOWN
from spawner.spawner import LabSpawner


def page_of(handler: BaseHandler, source: str = "") -> str:
    """The address of the page of all shared servers, at those of a team or course."""
    page = f"{handler.settings['base_url']}services/labcommons/shared"
    return f"{page}#{source}" if source else page


def _viewer(handler: BaseHandler) -> Principal:
    user = handler.current_user
    return Principal.from_groups(user.name, bool(user.admin), [one.name for one in user.groups])


class SharedLink(BaseHandler):  # type: ignore[misc]
    """Leads into the server, or to its page."""

    @authenticated
    async def get(self, source: str, name: str) -> None:
        """To who may not go in, it is not there."""
        resources, viewer = LabSpawner.shared, _viewer(self)
        assert resources is not None

        def work(session: Session) -> None:
            scope = shared_servers.scope_in_site(source, resources.site)
            if not shared_servers.may_enter(viewer, shared_servers.get(session, scope, name)):
                raise shared_servers.gone(SHARED_UNKNOWN(scope=source, name=name))

        try:
            await resources.store.read(work)
        except LabError as error:
            raise Refused(error, locale_of(self)) from error
        user = self.find_user(name_of(parse_source(source, "")))
        spawner = user.spawners.get(name) if user is not None else None
        if spawner is not None and spawner.ready:
            mine = quote(self.current_user.name, safe="")
            self.redirect(f"{user.server_url(name)}lab/workspaces/{mine}")
        else:
            self.redirect(page_of(self, source))


class UserUrl(UserUrlHandler):  # type: ignore[misc]
    """JupyterHub's; of a shared server that does not run, people come to its own page."""

    @authenticated
    async def get(self, user_name: str, user_path: str) -> None:
        """For programs, and of people's own servers, as JupyterHub says."""
        scope, parts = scope_of(user_name), (user_path or "/").split("/")
        accepts = get_accepted_mimetype(
            self.request.headers.get("Accept", ""), choices=["application/json", "text/html"]
        )
        if scope is not None and "api" not in parts and accepts != "application/json":
            user = self.find_user(user_name)
            name = parts[1] if len(parts) > 1 else ""
            spawner = user.spawners.get(name) if user is not None and name else None
            if spawner is None or not spawner.ready:
                self.redirect(page_of(self, scope.source))
                return
        await super().get(user_name, user_path)


# -- for templates ---------------------------------------------------------------------------------


@pass_context
def shared_client(context: Context, client: Any) -> str:
    """Whose shared server an OAuth client is, as people call it; "" for anything else."""
    handler, owner = handler_of(context), getattr(getattr(client, "spawner", None), "user", None)
    scope = scope_of(owner.name) if owner is not None else None
    if scope is None or handler is None:
        return ""
    return scope.title(gettext_for(language_of(handler)))


@pass_context
async def shared_servers_of(context: Context) -> list[dict[str, Any]] | None:
    """Those that who looks at the page may enter or start, for their home page; None for who is in
    no team or course. An administrator sees all others on the page of shared servers.
    """
    handler, resources = handler_of(context), LabSpawner.shared
    if handler is None or resources is None or not getattr(handler, "current_user", None):
        return None
    viewer, locale = _viewer(handler), locale_of(handler)
    if not viewer.positions:
        return [] if viewer.admin else None

    def work(session: Session) -> list[dict[str, Any]]:
        rows = shared_servers.visible(session, viewer, resources.site)
        return [
            shared_servers.show(row, viewer, locale)
            for row in rows
            if viewer.position(shared_servers.scope_of(row))
        ]

    try:
        found = await resources.store.read(work)
    except StoreError:
        return None
    for one in found:
        scope = shared_servers.scope_in_site(one["scope"], resources.site)
        one["title"] = scope.title(gettext_for(language_of(handler)))
    return found


HANDLERS = [(r"/shared/([a-z0-9._-]{1,80})/([a-z0-9-]{1,30})", SharedLink)]
