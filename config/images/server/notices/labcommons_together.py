"""Server extension of what several people use together: who is in, and the end for who has left.

A socket that JupyterLab has opened stays open for as long as a browser keeps it, whoever may by
now. The hub says every few seconds who may be in (``POST labcommons/together``) and is told who is:
sockets of others are closed, and what was remembered of who may is forgotten. Kernels, documents
and everybody else go on.

The server's own token, which every program in it can read, opens nothing to who comes by the proxy:
somebody who has left may have kept it.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any

import labcommons_fetch
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.web import HTTPError, authenticated
from tornado.websocket import WebSocketHandler

LEFT = 4403  # the code with which a socket is closed; as HTTP's 403
GRACE = 0.5  # seconds in which a browser may take leave


class Sockets:
    """All open sockets of the server, whichever extension they belong to."""

    def __init__(self) -> None:
        self.open: set[WebSocketHandler] = set()

    def watch(self) -> None:
        """From now on. All handlers of sockets end in tornado's ``get``."""
        plain, found = WebSocketHandler.get, self.open

        async def get(self: WebSocketHandler, *path: Any, **named: Any) -> None:
            found.add(self)
            try:
                await plain(self, *path, **named)
            finally:
                found.discard(self)

        WebSocketHandler.get = get  # type: ignore[method-assign]

    def people(self) -> dict[str, int]:
        """Who is in, and with how many sockets."""
        return dict(Counter(map(_who, self.open)))

    def close(self, may: Iterable[str]) -> list[str]:
        """Close those of all others, and return whose they were."""
        left = [one for one in self.open if _who(one) not in may]
        for one in left:
            connection = one.ws_connection
            one.close(LEFT, "no longer in here")
            if connection is not None:  # tornado would wait for the browser for five seconds
                asyncio.get_running_loop().call_later(GRACE, connection._abort)
        return sorted(set(map(_who, left)))


def _who(handler: WebSocketHandler) -> str:
    return str(getattr(handler.current_user, "username", ""))


class Together(APIHandler):
    """``POST labcommons/together`` with ``{"may": [NAME]}``: the hub's, with the server's token."""

    sockets = Sockets()
    may: frozenset[str] | None = None

    @authenticated
    async def post(self) -> None:
        """``{"in": {NAME: sockets}, "closed": [NAME]}``."""
        if self.current_user.username != os.environ.get("JUPYTERHUB_USER"):
            raise HTTPError(403)
        body = self.get_json_body()
        names = body.get("may") if isinstance(body, dict) else None
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise HTTPError(400)
        before, Together.may = Together.may, frozenset(names)
        if before is not None and before - Together.may:
            self.identity_provider.hub_auth.cache.clear()
            labcommons_fetch.known.forget()
        # The server's own name is nobody's: programs in it have sockets, too.
        closed = self.sockets.close(Together.may | {self.current_user.username})
        self.finish({"in": self.sockets.people(), "closed": closed})


def _own(handler: APIHandler, user: Any) -> bool:
    """Whether somebody from outside comes with the server's own token."""
    own = user is not None and user.username == os.environ.get("JUPYTERHUB_USER")
    return own and "X-Forwarded-For" in handler.request.headers


def _load_jupyter_server_extension(server: Any) -> None:
    """Called by Jupyter Server."""
    Together.sockets.watch()
    who, plain = server.identity_provider, server.identity_provider.get_user

    async def get_user(handler: APIHandler) -> Any:
        user = await plain(handler)
        return None if _own(handler, user) else user

    who.get_user = get_user
    address = url_path_join(server.web_app.settings["base_url"], "labcommons/together")
    server.web_app.add_handlers(".*$", [(address, Together)])


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "labcommons_together"}]
