"""Requests to our services: who asks, what may be seen, and how refusals look."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http.client import responses
from typing import Any, Literal, TypeVar

from jinja2 import Environment
from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from tornado.web import Finish, HTTPError, RequestHandler, StaticFileHandler

from commons.audit import make_event
from commons.audit.requests import Recently
from commons.errors import LabError
from commons.i18n import N_, Gettext, gettext_for
from commons.messages import Locale, Message, Text
from commons.principal import Principal
from commons.rights import PERSON_WANTED, Action, Resource, can, check
from commons.scopes import SITE, Scope
from commons.site import Site
from commons.store import Store, StoreError
from commons.store.models import ExamSitting
from commons.store.trouble import RETRY_AFTER, SENTENCES, DatabaseUnavailable, Trouble
from commons.web.guard import RequestKind
from commons.web.operations import Told, declared, operation
from commons.web.pages import language_of, locale_of, meet
from commons.web.refused import Refused

MAX_BODY = 2 * 2**20  # bytes; the largest is an environment.yml in JSON

T = TypeVar("T")

log = logging.getLogger("labcommons.web")

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

# What is said for a status.
REFUSALS = {
    400: Text(
        "bad_request", N_("The request is not understood. Check its address and parameters.")
    ),
    401: Text(
        "not_authenticated",
        N_("Send a token of the hub in the header “Authorization: token TOKEN”."),
    ),
    403: Text("not_allowed", N_("This account may not do this. Ask an administrator.")),
    404: Text(
        "not_found", N_("There is nothing at this address. openapi.json lists what there is.")
    ),
    405: Text(
        "method_not_allowed",
        N_("This address does not take that method. openapi.json lists what there is."),
    ),
    413: Text("too_large", N_("The request is too large.")),
    502: Text("hub_unavailable", N_("The hub does not answer. Try again in a minute.")),
    503: SENTENCES[Trouble.AWAY],
}
NO_PAGE = Text("no_page", N_("The address may be mistyped, or what it named has been removed."))
UNFORESEEN = Text(
    "internal", N_("Something went wrong here. Tell an administrator the time and the address.")
)
LOGIN_UNFINISHED = Text("login_unfinished", N_("The login did not finish. Open the page again."))


class Base(HubOAuthenticated, RequestHandler):  # type: ignore[misc]
    """What every answer has: safe headers, the store, a language."""

    viewer: Principal
    service = ""  # the name that lines of the audit trail have

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

    @property
    def reading(self) -> Locale:
        """How who asks reads: language, time zone, now."""
        return locale_of(self)

    async def identify(self) -> Principal | None:
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
            # What the hub lacks may be the database, as we do.
            await self.ask_store()
            raise HTTPError(502) from error
        self._hub_auth_user_cache = model
        if model is None:
            return None
        viewer = Principal.from_hub(model)
        await meet(self, viewer.name)
        asked = declared(self, self.request.method or "")
        if viewer.server is not None and not (asked and asked.servers):
            raise self.person_wanted()
        if viewer.server and not (asked and asked.exams) and await self._sits(viewer):
            raise self.person_wanted()
        return viewer

    async def _sits(self, viewer: Principal) -> bool:
        """Whether it is the server of an exam that goes on: what comes in or out is not for it."""
        name, server = viewer.name, str(viewer.server)
        return server.startswith("exam-") and await self.read(
            lambda s: (
                s.scalar(
                    select(ExamSitting.course).where(
                        ExamSitting.username == name,
                        ExamSitting.exam == server.removeprefix("exam-"),
                        ExamSitting.ended_at.is_(None),
                    )
                )
                is not None
            )
        )

    def person_wanted(self) -> Refused:
        """What a server is told that asks for more than a server may; to be raised."""
        return Refused(PERSON_WANTED.error(), self._)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read from the store. Raises HTTPError: 503 where that fails, else as refused."""
        return await self._in_store(self.store.read(work))

    async def ask_store(self) -> None:
        """Return where the store answers within some seconds. Raises HTTPError 503."""
        try:
            work = self.read(lambda session: session.execute(text("SELECT 1")).scalar())
            await asyncio.wait_for(work, HEALTH_TIMEOUT)
        except TimeoutError as error:
            raise HTTPError(503) from error

    async def change(self, work: Callable[[Session], T]) -> T:
        """Change the store, in one transaction. Raises as ``read`` does."""
        return await self._in_store(self.store.run(work))

    async def _in_store(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except StoreError as error:
            log.error("%s", error)
            raise self.without_store(error) from error
        except LabError as error:
            raise Refused(error, self.reading) from error

    def without_store(self, error: StoreError) -> Refused:
        """What is said where the database cannot be used; to be raised."""
        unavailable = DatabaseUnavailable(error.trouble)
        return Refused(unavailable, self.reading, retry_after=RETRY_AFTER)

    def need(self, action: Action, asked: Resource | Scope = SITE) -> None:
        """Raises Refused, saying who may, where the viewer may not."""
        try:
            check(self.viewer, action, asked)
        except LabError as error:
            raise Refused(error, self.reading) from error

    def need_admin(self) -> None:
        """Raises Refused for everybody else."""
        self.need(Action.ADMINISTER)

    def record(self, action: str, /, **details: Any) -> None:
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
                service=self.service,
            )
        )

    def on_finish(self) -> None:
        """Who was refused something is in the audit trail."""
        viewer = getattr(self, "viewer", None)
        path = self.request.path[:300]
        if viewer is None or self.get_status() != 403:
            return
        if _recently.new(viewer.name, path) and "audit" in self.settings:
            self.settings["audit"].record(
                make_event(
                    "access-denied",
                    "failure",
                    user=viewer.name,
                    address=self.request.remote_ip,
                    details={"method": self.request.method, "path": path},
                    service=self.service,
                )
            )

    def refusal(self, status: int) -> Message:
        """What is said for a status."""
        return REFUSALS.get(status, UNFORESEEN)()

    def refused(self, status: int, error: object) -> Refused:
        """What went wrong, as it is answered; of what is no refusal of ours, its status alone."""
        if isinstance(error, Refused):
            return error
        if isinstance(error, StoreError):
            return self.without_store(error)
        later = RETRY_AFTER if status in (502, 503) else 0
        return Refused(LabError(self.refusal(status)), self._, status, retry_after=later)

    def answer_refusal(self, error: Refused) -> None:
        """Status and headers of a refusal."""
        self.set_status(error.status_code)
        for name, value in error.headers.items():
            self.set_header(name, value)


_recently = Recently()


def kind_of(handler: object) -> RequestKind:
    """What a request to one of our handlers asks for, for the guard."""
    if isinstance(handler, Static):
        return RequestKind.OPEN
    return RequestKind.API if isinstance(handler, Api) else RequestKind.PAGE


class Page(Base):
    """A page for people; who is not logged in is sent to the hub."""

    async def prepare(self) -> None:
        """Find out who asks."""
        viewer = await self.identify()
        if viewer is None:
            self.redirect(self.get_login_url())
            raise Finish
        self.viewer = viewer

    def refusal(self, status: int) -> Message:
        """For people: what is there for programs is no help."""
        return NO_PAGE() if status == 404 else super().refusal(status)

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
                is_admin=bool(viewer and can(viewer, Action.ADMINISTER, SITE)),
                is_lead=bool(viewer and viewer.led),
                in_courses=bool(viewer and any(one.kind == "course" for one in viewer.positions)),
                home_url=f"{hub}home",
                hub_url=hub,
                logout_href=f"{hub}logout",
                prefix=hub.removesuffix("hub/"),
                service_url=self.hub_auth.base_url,
                **values,
            )
        )

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A page with the cause and the remedy; nothing of what was sent."""
        error = self.refused(status_code, kwargs.get("exc_info", (None, None, None))[1])
        self.answer_refusal(error)
        self.render_page("service_error.html", status=error.status_code, sentence=error.sentence)


class NotFound(Page):
    """Any other address, for people."""

    async def prepare(self) -> None:
        """Who is known gets the ways to go on from here, as on every page."""
        if {"Cookie", "Authorization"} & set(self.request.headers):
            with suppress(HTTPError, Refused):
                if viewer := await self.identify():
                    self.viewer = viewer
        raise HTTPError(404)


class Callback(Page, HubOAuthCallbackHandler):  # type: ignore[misc]
    """The end of a login through the hub."""

    async def prepare(self) -> None:
        """Nobody is known yet."""

    def refusal(self, status: int) -> Message:
        """Whatever went wrong, beginning again is the remedy."""
        return LOGIN_UNFINISHED()


class Api(Base):
    """An answer in JSON; who is not known gets 401, never a redirect."""

    max_body = MAX_BODY

    async def prepare(self) -> None:
        """Find out who asks, unless everybody may."""
        asked = declared(self, self.request.method or "")
        if asked and asked.public:
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
        """``{"error": {"code": …, "message": …, "reasons": […]}}``."""
        error = self.refused(status_code, kwargs.get("exc_info", (None, None, None))[1])
        self.answer_refusal(error)
        if error.status_code == 401:
            self.set_header("WWW-Authenticate", "token")
        self.reply({"error": error.document})


class Described(Api):
    """``GET openapi.json``: the description of a service's API, its setting ``described``."""

    async def prepare(self) -> None:
        """Everybody may read it."""

    async def get(self) -> None:
        """The description."""
        self.reply(self.settings["described"])


class Well(Told):
    """The service works."""

    status: Literal["ok"]


class Health(Api):
    """``GET health``: 200 where the store answers, else 503."""

    @operation("Whether the service and its database work", Well, public=True)
    async def get(self) -> None:
        """Ask the store for nothing much."""
        await self.ask_store()
        self.reply({"status": "ok"})


class ApiNotFound(Api):
    """Any other address below ``api/``."""

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
