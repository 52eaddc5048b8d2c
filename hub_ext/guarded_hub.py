"""JupyterHub behind the guard: none of its pages is for other pages (``hub_ext.guard``)."""

from __future__ import annotations

from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler, PrefixRedirectHandler, UserUrlHandler
from jupyterhub.handlers.login import LogoutHandler
from jupyterhub.handlers.pages import SpawnHandler
from tornado.web import StaticFileHandler

from hub_ext.guard import CSP, XSRF_COOKIE, Kind, guarded
from hub_ext.sessions import end_sessions

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

    def post(self) -> None:
        """Only said so that the method is known: the guard makes a confirmed POST a GET."""
        self.redirect(self.hub.base_url)


class Spawn(_Confirming, SpawnHandler):  # type: ignore[misc]
    """JupyterHub's: options in the address start a server, a new name makes one."""

    change = "spawn"

    def changes(self) -> bool:
        """Whether opening this address does more than show the form."""
        if self.request.query_arguments.keys() - {"next", "_xsrf"}:
            return True
        name = self.path_args[1] if len(self.path_args) > 1 else ""
        user = self.find_user(self.path_args[0]) if name else None
        return user is not None and name not in user.orm_spawners


_OURS = {LogoutHandler: SignOut, SpawnHandler: Spawn}


def kind_of(handler: Any) -> Kind:
    """What a request to one of JupyterHub's handlers asks for."""
    if isinstance(handler, StaticFileHandler | PrefixRedirectHandler):
        return Kind.OPEN
    if isinstance(handler, UserUrlHandler) and "api" in _parts(handler):
        return Kind.OPEN  # how JupyterLab hears that its server has stopped: a sentence in JSON
    if isinstance(handler, APIHandler):
        return Kind.API
    if isinstance(handler, _Confirming) and handler.current_user and handler.changes():
        return Kind.CHANGE
    return Kind.PAGE


def _parts(handler: Any) -> list[str]:
    return str(handler.path_kwargs.get("user_path")).split("/")


class GuardedHub(JupyterHub):  # type: ignore[misc]
    """JupyterHub with the guard before each of its handlers."""

    name = "jupyterhub"

    def init_tornado_settings(self) -> None:
        """Headers and the cookie of the token, unless the configuration says otherwise."""
        given = self.tornado_settings
        given["headers"] = _HEADERS | given.get("headers", {})
        given["xsrf_cookie_kwargs"] = XSRF_COOKIE | given.get("xsrf_cookie_kwargs", {})
        super().init_tornado_settings()
        self.tornado_settings["static_handler_class"] = guarded(
            self.tornado_settings["static_handler_class"], kind_of
        )

    def init_tornado_application(self) -> None:
        """Every handler that there is, whoever has added it."""
        rules: list[Any] = self.handlers  # type: ignore[has-type]
        self.handlers = [
            (pattern, guarded(_OURS.get(handler, handler), kind_of), *rest)
            for pattern, handler, *rest in rules
        ]
        super().init_tornado_application()


if __name__ == "__main__":
    GuardedHub.launch_instance()
