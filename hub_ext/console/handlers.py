"""Requests to the console: who asks, what may be seen, and how refusals look."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from http.client import responses
from typing import Any, TypeVar

from jinja2 import Environment
from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from sqlalchemy import text
from sqlalchemy.orm import Session
from tornado.web import Finish, HTTPError, RequestHandler, StaticFileHandler

from hub_ext.audit import make_event
from hub_ext.console import openapi, page_words
from hub_ext.console.viewer import Viewer
from hub_ext.guard import Kind
from hub_ext.i18n import N_, Gettext, gettext_for
from hub_ext.pages import language_of, timezone_of
from hub_ext.site import Site
from hub_ext.store import Store, StoreError
from kernels.hostile import parse_json
from spawner.errors import SpawnerError
from spawner.gpu import board
from spawner.gpu.problems import ProblemsError

MAX_BODY = 2 * 2**20  # bytes; the largest is an environment.yml in JSON

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
    405: (
        "method_not_allowed",
        N_("This address does not take that method. openapi.json lists what there is."),
    ),
    413: ("too_large", N_("The request is too large.")),
    502: ("hub_unavailable", N_("The hub does not answer. Try again in a minute.")),
    503: ("store_unavailable", N_("The database does not answer. Try again in a minute.")),
}
UNFORESEEN = (
    "internal",
    N_("Something went wrong here. Tell an administrator the time and the address."),
)


PERSON_WANTED = N_(
    "A server may not do this for its owner. Do it on a page of the hub, or with a token that you "
    "make there (Tokens, in the menu)."
)


class Refused(HTTPError):
    """A refusal with a code and a sentence of its own, and what a program can read of it.

    ``details`` go into the error beside code and message: ``reasons``, ``problems``.
    """

    def __init__(self, status: int, code: str, sentence: str, **details: Any) -> None:
        super().__init__(status, code)
        self.code, self.sentence, self.details = code, sentence, details


class Base(HubOAuthenticated, RequestHandler):  # type: ignore[misc]
    """What every answer has: safe headers, the store, a language."""

    viewer: Viewer
    # Methods that a server may use with its own token; all others want the person.
    for_servers: tuple[str, ...] = ()

    def initialize(self, hub_auth: Any, store: Store, templates: Environment, site: Site) -> None:
        """Called by tornado with what ``make_app`` gives."""
        self.hub_auth, self.store, self.templates, self.site = hub_auth, store, templates, site

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
        Raises HTTPError 403 for somebody who may not use the console, 502 without the hub;
        Refused for a server's token where only a person is served.
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
        viewer = Viewer.from_model(model)
        if viewer.server is not None and self.request.method not in self.for_servers:
            raise self.person_wanted()
        return viewer

    def person_wanted(self) -> Refused:
        """What a server is told that asks for more than a server may; to be raised."""
        return Refused(403, "person_wanted", self._(PERSON_WANTED))

    @property
    def say(self) -> board.Say:
        """Reasons as sentences, in the language and the time zone of the request."""
        return board.speaker(self._, timezone_of(self), time.time())

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read from the store. Raises HTTPError: 503 where that fails, else as refused."""
        return await self._in_store(self.store.read(work))

    async def change(self, work: Callable[[Session], T]) -> T:
        """Change the store, in one transaction. Raises as ``read`` does."""
        return await self._in_store(self.store.run(work))

    async def _in_store(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except StoreError as error:
            log.error("%s", error)
            raise HTTPError(503) from error
        except SpawnerError as error:
            raise Refused(error.status, error.code, error.sentence(self._)) from error
        except ProblemsError as error:
            problems = [
                {"path": one.path, "line": one.line, "message": one.sentence(self._)}
                for one in error.problems
            ]
            said = "; ".join(f"{one['path']}: {one['message']}" for one in problems)
            raise Refused(400, error.code, said, problems=problems) from error

    def need_admin(self) -> None:
        """Raises Refused for everybody else."""
        if not self.viewer.admin:
            sentence = self._(N_("Only an administrator may do this."))
            raise Refused(403, "admins_only", sentence)

    def record(self, action: str, **details: Any) -> None:
        """Leave a line about a change in the audit trail."""
        if self.viewer.server is not None:
            details["by"] = {"server": self.viewer.server}
        self.settings["audit"].record(
            make_event(
                action,
                "success",
                user=self.viewer.name,
                address=self.request.remote_ip,
                details=details,
                service="console",
            )
        )

    def refusal(self, status: int) -> tuple[str, str]:
        """Code and sentence of a status, in the language of the request."""
        code, sentence = REFUSALS.get(status, UNFORESEEN)
        return code, self._(sentence)


def kind_of(handler: object) -> Kind:
    """What a request to one of our handlers asks for, for the guard."""
    if isinstance(handler, Static):
        return Kind.OPEN
    return Kind.API if isinstance(handler, Api) else Kind.PAGE


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
                **page_words.for_page(self._, timezone_of(self)),
                **values,
            )
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A page with the cause and the remedy; nothing of what was sent."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        sentence = error.sentence if isinstance(error, Refused) else self.refusal(status_code)[1]
        self.render_page("console_error.html", status=status_code, sentence=sentence)


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
        return "login_unfinished", self._(N_("The login did not finish. Open the page again."))


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

    def body(self, **kinds: type) -> dict[str, Any]:
        """The JSON object that was sent, with these keys at most, each None or of its type.

        Raises Refused for anything else.
        """
        try:
            document = parse_json(self.request.body or b"{}", MAX_BODY)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            sentence = self._(N_("The body must be a JSON object."))
            raise Refused(400, "not_json", sentence)
        for key, value in document.items():
            kind = kinds.get(key)
            wrong = value is not None and (
                kind is None
                or not isinstance(value, kind)
                or (kind is int and isinstance(value, bool))
            )
            if wrong:
                sentence = self._(
                    N_("“{key}” is not among the keys that are taken here, or of another type.")
                ).format(key=str(key)[:40])
                raise Refused(400, "key_wrong", sentence, keys=sorted(kinds))
        return {key: document.get(key) for key in kinds}

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """``{"error": {"code": …, "message": …, "reasons": […]}}``."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, Refused):
            document = {"code": error.code, "message": error.sentence, **error.details}
        else:
            code, sentence = self.refusal(status_code)
            document = {"code": code, "message": sentence}
        if status_code == 401:
            self.set_header("WWW-Authenticate", "token")
        self.reply({"error": {"reasons": [], **document}})


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
