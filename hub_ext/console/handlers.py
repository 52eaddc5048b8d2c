"""Requests to the console: who asks, what may be seen, and how refusals look."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from http.client import responses
from typing import Any, TypeVar

from jinja2 import Environment
from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from sqlalchemy import text
from sqlalchemy.orm import Session
from tornado.web import Finish, HTTPError, RequestHandler, StaticFileHandler

from hub_ext.console import openapi, views
from hub_ext.console.views import Viewer
from hub_ext.i18n import N_, Gettext, gettext_for
from hub_ext.pages import language_of
from hub_ext.store import Store, StoreError

T = TypeVar("T")

log = logging.getLogger("labcommons.console")

# Hub (its answer about who somebody is), then our database.
HUB_TIMEOUT = 10  # seconds
HEALTH_TIMEOUT = 5  # seconds

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

# What is said for a status: a stable code and a sentence.
REFUSALS = {
    400: ("bad_request", N_("The request is not understood. Check its address and parameters.")),
    401: (
        "not_authenticated",
        N_("Send a token of the hub in the header “Authorization: token TOKEN”."),
    ),
    403: ("not_allowed", N_("This account may not use the console. Ask an administrator.")),
    404: ("not_found", N_("There is nothing at this address. openapi.json lists what there is.")),
    405: ("method_not_allowed", N_("This address can only be read (GET).")),
    502: ("hub_unavailable", N_("The hub does not answer. Try again in a minute.")),
    503: ("store_unavailable", N_("The database does not answer. Try again in a minute.")),
}
UNFORESEEN = (
    "internal",
    N_("Something went wrong here. Tell an administrator the time and the address."),
)


class Base(HubOAuthenticated, RequestHandler):  # type: ignore[misc]
    """What every answer has: safe headers, the store, a language."""

    viewer: Viewer

    def initialize(self, hub_auth: Any, store: Store, templates: Environment) -> None:
        """Called by tornado with what ``make_app`` gives."""
        self.hub_auth, self.store, self.templates = hub_auth, store, templates

    def set_default_headers(self) -> None:
        """Also of error pages, which tornado clears first."""
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")

    @property
    def _(self) -> Gettext:
        return gettext_for(language_of(self))

    async def identify(self) -> Viewer | None:
        """Who asks, from token or cookie; None for nobody.

        The hub is asked here, off ``current_user``, which would block the event loop.
        Raises HTTPError 403 for somebody who may not use the console, 502 without the hub.
        """
        try:
            model = await asyncio.wait_for(self.hub_auth.get_user(self, sync=False), HUB_TIMEOUT)
            model = self.check_hub_user(model) if model else None
        except UserNotAllowed as error:
            raise HTTPError(403) from error
        except (TimeoutError, HTTPError) as error:
            log.warning("the hub was asked who somebody is: %s", error)
            raise HTTPError(502) from error
        self._hub_auth_user_cache = model
        if model is None:
            return None
        groups = tuple(str(group) for group in model.get("groups") or ())
        return Viewer(str(model["name"]), bool(model.get("admin")), groups)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read from the store. Raises HTTPError 503 where that fails."""
        try:
            return await self.store.read(work)
        except StoreError as error:
            log.error("%s", error)
            raise HTTPError(503) from error

    def refusal(self, status: int) -> tuple[str, str]:
        """Code and sentence of a status, in the language of the request."""
        code, sentence = REFUSALS.get(status, UNFORESEEN)
        return code, self._(sentence)


class Page(Base):
    """A page for people; who is not logged in is sent to the hub."""

    async def prepare(self) -> None:
        """Find out who asks."""
        viewer = await self.identify()
        if viewer is None:
            self.redirect(self.get_login_url())
            raise Finish
        self.viewer = viewer

    def render_page(self, name: str, **values: Any) -> None:
        """Render one of our templates; everything in it is escaped."""
        hub = self.hub_auth.hub_prefix
        viewer = getattr(self, "viewer", None)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(
            self.templates.get_template(name).render(
                handler=self,
                viewer=viewer,
                who=viewer.name if viewer else "",
                is_admin=bool(viewer and viewer.admin),
                home_url=f"{hub}home",
                hub_url=hub,
                logout_href=f"{hub}logout",
                prefix=hub.removesuffix("hub/"),
                console_url=self.hub_auth.base_url,
                **values,
            )
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A page with the cause and the remedy; nothing of what was sent."""
        _, sentence = self.refusal(status_code)
        self.render_page("console_error.html", status=status_code, sentence=sentence)


class Overview(Page):
    """The page: GPUs, leases, environments."""

    async def get(self) -> None:
        """Render what the viewer may see."""
        lang = language_of(self)
        viewer = self.viewer

        def work(session: Session) -> dict[str, Any]:
            return {
                "gpus": views.gpus(session),
                **views.leases(session, viewer),
                **views.environments(session, lang),
            }

        self.render_page("console.html", **await self.read(work))


class NotFound(Page):
    """Any other address, for people."""

    async def prepare(self) -> None:
        """Nobody is asked who they are for nothing."""
        raise HTTPError(404)


class Callback(Page, HubOAuthCallbackHandler):  # type: ignore[misc]
    """The end of a login through the hub."""

    async def prepare(self) -> None:
        """Nobody is known yet."""

    def refusal(self, status: int) -> tuple[str, str]:
        """Whatever went wrong, beginning again is the remedy."""
        return "login_unfinished", self._(
            N_("The login did not finish. Open “GPUs and environments” again.")
        )


class Api(Base):
    """An answer in JSON; who is not known gets 401, never a redirect."""

    public = False

    async def prepare(self) -> None:
        """Find out who asks, unless everybody may."""
        if self.public:
            return
        viewer = await self.identify()
        if viewer is None:
            raise HTTPError(401)
        self.viewer = viewer

    def reply(self, document: dict[str, Any]) -> None:
        """Finish with a JSON document."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(document, ensure_ascii=False))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """``{"error": {"code": …, "message": …}}``."""
        code, sentence = self.refusal(status_code)
        if status_code == 401:
            self.set_header("WWW-Authenticate", "token")
        self.reply({"error": {"code": code, "message": sentence}})


class GpusApi(Api):
    """``GET api/v1/gpus``."""

    def check_xsrf_cookie(self) -> None:
        """Not needed: every account sees the same counts, so a page that somebody else's
        server shows learns nothing by them. The spawn page, which is the hub's and cannot
        know this service's XSRF token, keeps its counts fresh from here.
        """

    async def get(self) -> None:
        """Counts of GPUs."""
        self.reply(await self.read(views.gpus))


class LeasesApi(Api):
    """``GET api/v1/leases``."""

    async def get(self) -> None:
        """Leases that the viewer may see."""
        viewer = self.viewer
        self.reply(await self.read(lambda session: views.leases(session, viewer)))


class OpenApi(Api):
    """``GET openapi.json``."""

    public = True

    async def get(self) -> None:
        """The description of this API."""
        self.reply(openapi.document(self.hub_auth.base_url))


class Health(Api):
    """``GET health``: 200 where the store answers, else 503."""

    public = True

    async def get(self) -> None:
        """Ask the store for nothing much."""
        try:
            work = self.read(lambda session: session.execute(text("SELECT 1")).scalar())
            await asyncio.wait_for(work, HEALTH_TIMEOUT)
        except TimeoutError as error:
            raise HTTPError(503) from error
        self.reply({"status": "ok"})


class ApiNotFound(Api):
    """Any other address below ``api/``."""

    public = True

    async def prepare(self) -> None:
        """There is nothing."""
        raise HTTPError(404)


class Static(StaticFileHandler):
    """Our own style sheet and scripts."""

    def set_extra_headers(self, path: str) -> None:
        """As of every answer."""
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A word is enough: nobody looks at it."""
        self.finish(responses.get(status_code, "error"))
