"""JupyterHub behind the guard: none of its pages is for other pages (``commons.web.guard``)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar
from weakref import WeakSet

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.apihandlers.users import (
    ActivityAPIHandler,
    SpawnProgressAPIHandler,
    UserServerAPIHandler,
)
from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler, PrefixRedirectHandler, UserUrlHandler
from jupyterhub.handlers.login import LogoutHandler
from jupyterhub.handlers.pages import AdminHandler, HealthCheckHandler, SpawnHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.spawner import SpawnException
from jupyterhub.user import User
from jupyterhub.utils import url_path_join
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from tornado.httputil import url_concat
from tornado.web import HTTPError, StaticFileHandler

from commons.audit import make_event
from commons.audit.requests import Recently, of_hub
from commons.i18n import gettext_for
from commons.shared_accounts import scope_of
from commons.store import StoreError, trouble
from commons.web.guard import CSP, XSRF_COOKIE, RequestKind, guarded
from commons.web.pages import language_of, locale_of
from commons.web.refused import Refused, Said
from commons.work import OneByOne
from hub_ext import (
    course_files,
    course_link,
    course_look,
    course_room,
    exam_link,
    held,
    live_link,
    shared_link,
    ssh_link,
    standing,
)
from hub_ext.admin_page import AdminPage
from hub_ext.blocks import Blocks
from hub_ext.failures import failure
from hub_ext.jupyterhub_words import refusal
from hub_ext.servers import OneByOneHandler
from hub_ext.sessions import end_sessions
from hub_ext.stops import StopServer, end
from spawner.dialogue import Step
from spawner.spawner import LabSpawner

HEALTH_TIMEOUT = 3  # seconds for our database; the check itself waits for four
STOPS_WITHIN = 40  # seconds for which a start waits for the stop before it
_HEADERS = {
    "Content-Security-Policy": CSP,
    # A stored page could be had of the browser's cache, by any script of the same origin.
    "Cache-Control": "no-store",
}


class _Confirming(BaseHandler):  # type: ignore[misc]
    """A page whose opening changes something; ``change`` is what is asked about."""

    change = ""

    def changes(self) -> bool:
        """Whether opening this address does more than show a page."""
        return True

    async def confirm(self) -> None:
        """The question, with a form that comes back as POST."""
        options = {
            key: ", ".join(one.decode("utf-8", "replace") for one in values)
            for key, values in self.request.query_arguments.items()
            if key not in ("next", "_xsrf")
        }
        self.finish(
            await self.render_template(
                "confirm_change.html",
                change=self.change,
                options=options,
                # Of the path and the arguments, as they were asked for.
                action=self.request.uri,
                server_name=self.path_args[1] if len(self.path_args) > 1 else "",
            )
        )


class SignOut(_Confirming, LogoutHandler):  # type: ignore[misc]
    """JupyterHub's, after which copied cookies open nothing either."""

    change = "sign-out"

    async def handle_logout(self) -> None:
        """JupyterHub has cleared this browser's cookies."""
        user = self.current_user
        if user:
            end_sessions(user)
            if audit := self.settings.get("audit"):
                address = self.request.remote_ip
                audit.record(make_event("logout", "success", user=user.name, address=address))

    def post(self) -> None:
        """Only said so that the method is known: the guard makes a confirmed POST a GET."""
        self.redirect(self.hub.base_url)


class Spawn(_Confirming, OneByOneHandler, SpawnHandler):  # type: ignore[misc]
    """JupyterHub's: ``opt-…`` in the address starts a server, a new name makes one.

    Options without ``opt-`` fill the form (``spawner.options.linked``).
    """

    change = "spawn"

    async def prepare(self) -> None:
        """JupyterHub takes for granted that addresses and forms are UTF-8; ours are made so."""
        for fields in (self.request.query_arguments, self.request.body_arguments):
            for values in fields.values():
                values[:] = [one.decode("utf-8", "replace").encode() for one in values]
        await super().prepare()

    @needs_scope("servers")  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, server_name: str, display_name: str) -> None:
        """Of several tabs one starts it; the others are led to what became of it, and told.

        Who asks while it stops gets the start after that. A server that was started ahead of time
        is opened where that is what was chosen, and makes room for anything else.
        """
        user = self.find_user(user_name)
        spawner = user.spawners.get(server_name) if user is not None else None
        found = await held.expected(spawner)
        if found is not None:
            waits, mine = found
            if held.differs(mine, await held.posted(self, mine)):
                await held.leave(waits, mine)
                await end(self, user, mine)
            elif mine.ready:
                self.redirect(self.get_next_url(user, default=user.server_url(server_name)))
                return
        if spawner is not None and spawner.pending == "stop" and spawner._stop_future is not None:
            await asyncio.wait([spawner._stop_future], timeout=STOPS_WITHIN)
        if spawner is not None and self._is_on_its_way(spawner):
            self._lead(user, spawner)
            return
        await super()._post(user_name, server_name, display_name)

    async def _wrap_spawn_single_user(
        self, user: Any, server_name: str, display_name: str, spawner: Any, *more: Any, **named: Any
    ) -> Any:
        # While the other's form was read, this one's may have come.
        if self._is_on_its_way(spawner):
            return self._lead(user, spawner)
        self._asked.add(spawner)
        try:
            return await super()._wrap_spawn_single_user(
                user, server_name, display_name, spawner, *more, **named
            )
        finally:
            self._asked.discard(spawner)

    # Servers that are asked for at this moment, before JupyterHub says so.
    _asked: ClassVar[WeakSet[Any]] = WeakSet()

    def _is_on_its_way(self, spawner: Any) -> bool:
        return bool(spawner.ready or spawner.pending or spawner in self._asked)

    def _lead(self, user: Any, spawner: Any) -> None:
        """To the start that goes on, or to the list where it runs; what was asked is not used."""
        if spawner.ready:
            home = url_path_join(self.hub.base_url, "home")
            self.redirect(url_concat(home, {"already": spawner.name}))
        else:
            pending = self._get_pending_url(user, spawner.name)
            self.redirect(url_concat(pending, {"already": spawner.name}))

    def get(self, user_name: str | None = None, server_name: str = "") -> Any:
        """JupyterHub's; a team's or course's server is started on its own page."""
        scope = scope_of(user_name or "")
        if scope is not None:
            return self.redirect(shared_link.page_of(self, scope.source))
        return super().get(user_name, server_name)

    def _get_user_options(self, query_options: dict[str, Any]) -> Any:
        """Only what begins with ``opt-`` starts a server at once."""
        return super()._get_user_options(
            {key: value for key, value in query_options.items() if key.startswith("opt-")}
        )

    def changes(self) -> bool:
        """Whether opening this address does more than show the form."""
        if any(key.startswith("opt-") for key in self.request.query_arguments):
            return True
        name = self.path_args[1] if len(self.path_args) > 1 else ""
        user = self.find_user(self.path_args[0]) if name else None
        return user is not None and name not in user.orm_spawners

    @needs_scope("servers")  # type: ignore[untyped-decorator]
    async def _get(self, user_name: str, server_name: str, display_name: str) -> None:
        """JupyterHub's; who follows a link to something else than what was started ahead of time
        gets to choose that.
        """
        user = self.find_user(user_name)
        found = await held.expected(user and user.spawners.get(server_name))
        if found is not None:
            waits, spawner = found
            if held.differs(spawner, await held.linked(self, spawner)):
                if not self.changes():
                    spawner.handler = self
                    await spawner.run_auth_state_hook(await user.get_auth_state())
                    form = await spawner.get_options_form()
                    self.finish(await self._render_form(for_user=user, spawner_options_form=form))
                    return
                await held.leave(waits, spawner)
                await end(self, user, spawner)
        await super()._get(user_name, server_name, display_name)


class SpawnProgress(SpawnProgressAPIHandler):  # type: ignore[misc]
    """JupyterHub's, in the language and time zone of who looks, whoever has started the server."""

    async def send_event(self, event: dict[str, Any]) -> None:
        """Also why a start has failed, without JupyterHub's own words before it."""
        if isinstance(event, Step):
            event = event.said(locale_of(self))
        elif event.get("failed"):
            name = self.path_args[1] if len(self.path_args) > 1 else ""
            event["message"] = failure(self, self.path_args[0], name or "")
        await super().send_event(event)


class InWords(APIHandler):  # type: ignore[misc]
    """Comes before JupyterHub's handlers of REST: a refusal's ``message`` is in the language of who
    asks; in English it is JupyterHub's own. Programs go by ``status``.
    """

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """JupyterHub's answer."""
        error: Any = (kwargs.get("exc_info") or (None, None, None))[1] or HTTPError(status_code)
        kwargs.setdefault("exc_info", (HTTPError, error, None))
        error.jupyterhub_message = self._in_words(status_code, error)
        super().write_error(status_code, **kwargs)

    def _in_words(self, status: int, error: BaseException) -> str:
        said: Any = getattr(error, "jupyterhub_message", "")
        if isinstance(said, Said):
            return said.error.sentence(locale_of(self))
        if not said and isinstance(error, SpawnException):
            said = error.message
        elif not said and isinstance(error, HTTPError):
            said = error.get_message()
        if isinstance(said, tuple):  # as its checks of types raise
            said = said[0] % said[1:]
        language = language_of(self)
        if said and language == "en":
            return str(said)
        return refusal(str(said or ""), status, gettext_for(language))


@cache
def _in_words(handler: type) -> type:
    """A handler, in the reader's language where it is one of REST."""
    if not issubclass(handler, APIHandler):
        return handler
    return type(handler.__name__, (InWords, handler), {"__module__": handler.__module__})


class Activity(ActivityAPIHandler):  # type: ignore[misc]
    """JupyterHub's; a server that says that it is used has started, too.

    A hundred idle servers are most of a hub's work. So that its token was used is written with
    what it says, in one commit, and how its owner reads is not looked up for an empty answer.
    """

    for_programs = True

    def initialize(self, *args: Any, **named: Any) -> None:
        """Nothing is known to be used yet."""
        super().initialize(*args, **named)
        self._used: list[tuple[Any, Any]] = []

    def _record_activity(self, obj: Any, timestamp: Any = None) -> bool:
        self._used.append((obj, timestamp))
        return False

    def post(self, user_name: str) -> None:
        """JupyterHub has looked at who asks, and at the names."""
        for used in self._used:
            super()._record_activity(*used)
        super().post(user_name)
        asks = self.current_user
        user = asks if isinstance(asks, User) and asks.name == user_name else None
        servers = (user or self.find_user(user_name)).spawners
        for name in self.get_json_body().get("servers") or ():
            if isinstance(spawner := servers.get(name), LabSpawner):
                spawner.called.set()


class _Told(BaseHandler):  # type: ignore[misc]
    """Where a database cannot be used, that is what is said, in every handler: who asks is not
    known then, and is not told to be nobody.
    """

    _trouble: Exception | None = None

    async def get_current_user(self) -> Any:
        """JupyterHub's, which takes somebody whom it cannot look up for nobody."""
        try:
            user = await super().get_current_user()
        except (SQLAlchemyError, StoreError) as error:
            if trouble.of(error) is None:
                raise
            self._trouble = error
            return None
        blocks: Blocks | None = self.settings.get("blocks")
        # Who is shut out is nobody; but that a server goes on is heard.
        heard = isinstance(self, Activity) or not isinstance(user, User)
        if not heard and blocks is not None and blocks.of(user.name):
            self._jupyterhub_user = user = None
        return user

    async def prepare(self) -> None:
        """JupyterHub's."""
        await super().prepare()
        if self._trouble is not None:
            raise self._trouble

    def check_xsrf_cookie(self) -> None:
        """JupyterHub's, for whom it knows."""
        if self._trouble is not None:
            raise self._trouble
        super().check_xsrf_cookie()

    def _handle_request_exception(self, error: BaseException) -> None:
        """tornado's: whatever a handler raises ends here."""
        found = trouble.of(error)
        if found is None:
            super()._handle_request_exception(error)
            return
        self.log.error("%s %s: %s", self.request.method, self.request.path, error)
        with suppress(SQLAlchemyError):
            self.db.rollback()
        # To say more of the person it would be asked again.
        self._jupyterhub_user = None
        unavailable = trouble.DatabaseUnavailable(found)
        try:  # tornado takes the error that is being handled
            raise Refused(unavailable, locale_of(self), retry_after=trouble.RETRY_AFTER) from error
        except Refused as said:
            super()._handle_request_exception(said)


class _Recorded(BaseHandler):  # type: ignore[misc]
    """Refusals, changes and looks at what is another's are in the audit trail."""

    def on_finish(self) -> None:
        """JupyterHub's; whatever was answered, and whoever has asked."""
        super().on_finish()
        user = getattr(self, "_jupyterhub_user", None)  # not asked for anew
        name = getattr(user, "name", "")
        if isinstance(user, orm.Service):
            name = f"service:{name}"
        method, uri = self.request.method or "", self.request.uri or ""
        token = "Authorization" in self.request.headers
        seen = of_hub(method, uri, self.get_status(), name, token, self._owner_of)
        audit = self.settings.get("audit")
        if seen is None or audit is None:
            return
        path, address = self.request.path[:300], self.request.remote_ip or ""
        once = seen.action in ("access-denied", "look")
        if once and not _recently.new(seen.action, name or address, path):
            return
        details = {"method": method, "path": path, "of": seen.about}
        audit.record(
            make_event(
                seen.action,
                seen.outcome,
                user=name,
                address=address,
                reason=seen.reason,
                details={key: value for key, value in details.items() if value},
            )
        )

    def _owner_of(self, client: str) -> str:
        query = self.db.query(orm.User.name).join(orm.Spawner, orm.Spawner.user_id == orm.User.id)
        return query.filter(orm.Spawner.oauth_client_id == client).scalar() or ""


_recently = Recently()


class Health(HealthCheckHandler):  # type: ignore[misc]
    """200 where what the hub needs answers: its databases, and the agent that tells what runs.

    503 names what does not. Nothing is ended for it: all of it comes back by itself.
    """

    async def get(self) -> None:
        """Ask each for nothing much."""
        problems = [] if await self._databases() else ["database"]
        shared = LabSpawner.shared
        if shared is not None and not shared.watch.known:
            problems.append("agent")
        self.set_status(503 if problems else 200)
        self.set_header("Content-Type", "application/json")
        self.finish({"status": "unavailable" if problems else "ok", "problems": problems})

    head = get

    async def _databases(self) -> bool:
        shared = LabSpawner.shared
        try:
            if shared is not None:
                async with asyncio.timeout(HEALTH_TIMEOUT):
                    await shared.store.read(lambda session: session.execute(text("SELECT 1")))
            # On the loop, as all that JupyterHub asks: it is silent where that is.
            self.db.execute(text("SELECT 1"))
        except (SQLAlchemyError, StoreError, TimeoutError):
            with suppress(SQLAlchemyError):
                self.db.rollback()
            return False
        return True


class _InTurn(_Recorded, _Told):
    """Requests that come together begin one after the other: who asks costs some milliseconds of
    the loop, and forty clicks at once would keep it from everything else for that long together.
    """

    async def prepare(self) -> None:
        """JupyterHub's, when it is this request's turn. For what a server says a start waits."""
        await self.settings["one_by_one"](line="servers" if isinstance(self, Activity) else "")
        await super().prepare()

    def find_user(self, name: str) -> Any:
        """JupyterHub's; of whom the hub knows, roles, groups and shares are not read each time."""
        found = self.db.query(orm.User.id).filter(orm.User.name == name).scalar()
        return None if found is None else self.users.get(found)


@cache
def _in_turn(handler: type) -> type:
    """A handler of JupyterHub's whose requests wait for their turn."""
    if not issubclass(handler, BaseHandler) or issubclass(handler, HealthCheckHandler):
        return handler
    return type(handler.__name__, (_InTurn, handler), {"__module__": handler.__module__})


_OURS = {
    AdminHandler: AdminPage,
    LogoutHandler: SignOut,
    SpawnHandler: Spawn,
    UserUrlHandler: shared_link.UserUrl,
    UserServerAPIHandler: StopServer,
    SpawnProgressAPIHandler: SpawnProgress,
    ActivityAPIHandler: Activity,
    HealthCheckHandler: Health,
}


def kind_of(handler: Any) -> RequestKind:
    """What a request to one of JupyterHub's handlers asks for."""
    if isinstance(handler, StaticFileHandler | PrefixRedirectHandler | standing.Broadcasts):
        return RequestKind.OPEN
    if isinstance(handler, UserUrlHandler) and "api" in _parts(handler):
        return RequestKind.OPEN  # how JupyterLab hears that its server has stopped
    if isinstance(handler, APIHandler):
        return RequestKind.API
    # Not ``current_user``: an address that cannot be read is answered before anybody is known.
    known = getattr(handler, "_jupyterhub_user", None)
    if isinstance(handler, _Confirming) and known and handler.changes():
        return RequestKind.CHANGE
    return RequestKind.PAGE


def _parts(handler: Any) -> list[str]:
    known: dict[str, str] = getattr(handler, "path_kwargs", {})
    return str(known.get("user_path")).split("/")


class GuardedHub(JupyterHub):  # type: ignore[misc]
    """JupyterHub with the guard before each of its handlers."""

    name = "jupyterhub"

    def init_tornado_settings(self) -> None:
        """Headers and the cookie of the token, unless the configuration says otherwise."""
        given = self.tornado_settings
        given["headers"] = _HEADERS | given.get("headers", {})
        shared = LabSpawner.shared
        given["room"] = course_room.Room(self)
        given["live"] = live_link.Live(self)
        given["one_by_one"] = shared.one_by_one if shared is not None else OneByOne()
        given["xsrf_cookie_kwargs"] = XSRF_COOKIE | given.get("xsrf_cookie_kwargs", {})
        super().init_tornado_settings()
        self.tornado_settings["static_handler_class"] = guarded(
            self.tornado_settings["static_handler_class"], kind_of
        )

    def init_handlers(self) -> None:
        """JupyterHub's, and ours before its last one, which takes whatever is left."""
        super().init_handlers()
        rules: list[Any] = self.handlers  # type: ignore[has-type]
        ours = [
            *standing.HANDLERS,
            *exam_link.HANDLERS,
            *course_link.HANDLERS,
            *course_room.HANDLERS,
            *course_files.HANDLERS,
            *course_look.HANDLERS,
            *shared_link.HANDLERS,
            *ssh_link.HANDLERS,
            *live_link.HANDLERS,
        ]
        self.handlers = self.add_url_prefix(self.hub_prefix, ours) + rules

    def init_tornado_application(self) -> None:
        """Every handler that there is, whoever has added it."""
        rules: list[Any] = self.handlers  # type: ignore[has-type]
        self.handlers = [
            (pattern, guarded(_in_turn(_in_words(_OURS.get(handler, handler))), kind_of), *rest)
            for pattern, handler, *rest in rules
        ]
        super().init_tornado_application()


if __name__ == "__main__":
    GuardedHub.launch_instance()
