"""Starting and stopping people's servers from inside the hub, as its own pages would.

The hub's handlers do more than ``User.spawn`` and ``User.stop``: the proxy's route, the pending
state that pages show, metrics. So these are called, with a request that nobody sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from hub_ext.credentials import server_of

Server = tuple[str, str]  # user name, server name

CANCELLED_WITHIN = 60  # seconds for a start that is broken off


class _NoConnection:
    """What a request without a client is connected to."""

    context = None

    def set_close_callback(self, _callback: Callable[[], None] | None) -> None:
        """Nobody hangs up."""


class _Inside(BaseHandler):  # type: ignore[misc]
    """A handler of the hub without a browser; it does not wait for what it begins."""

    slow_spawn_timeout = 0


class HubServers:
    """The servers of one hub, for the keeper of leases."""

    def __init__(self, app: JupyterHub) -> None:
        self._app = app

    def _handler(self) -> _Inside:
        request = HTTPServerRequest(
            method="POST",
            uri=self._app.hub.base_url,
            headers=HTTPHeaders(),
            connection=_NoConnection(),  # type: ignore[arg-type]
        )
        return _Inside(self._app.tornado_application, request)

    def known(self) -> set[Server]:
        """Servers that run or are on their way up or down, as the hub sees it now."""
        return {
            (user.name, name)
            for user in self._app.users.values()
            for name, spawner in user.spawners.items()
            if spawner.active or spawner.pending or spawner._start_pending
        }

    def take_tokens_back(self) -> int:
        """Delete the tokens of servers that are gone, which a hub that was killed has left valid;
        how many there were. What a server holds that may still run is kept.
        """
        database, gone = self._app.db, 0
        unsure = {
            (user.name, name)
            for user in self._app.users.values()
            for name, spawner in user.spawners.items()
            if (spawner.active or spawner.pending) and not spawner.api_token
        }
        held = {
            token.id
            for user in self._app.users.values()
            for spawner in user.spawners.values()
            if spawner.active and spawner.api_token
            for token in [orm.APIToken.find(database, spawner.api_token)]
            if token is not None
        }
        made = orm.APIToken.note.startswith("Server at ", autoescape=True)
        for token in database.query(orm.APIToken).filter(made, orm.APIToken.user_id.isnot(None)):
            server = server_of(token.user.name, token.scopes)
            if server is None or token.id in held or (token.user.name, server) in unsure:
                continue
            database.delete(token)
            gone += 1
        database.commit()
        return gone

    async def start(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        """Begin to start a server with these options. Raises what the hub raises."""
        owner = self._app.users.get(user)
        if owner is None:
            raise LookupError(f"the hub does not know {user!r}")
        await self._handler().spawn_single_user(owner, server, options=dict(options))

    async def stop(self, user: str, server: str) -> None:
        """Stop a server, or break its start off; returns when the hub is through with it."""
        owner = self._app.users.get(user)
        spawner = owner.spawners.get(server) if owner is not None else None
        if spawner is None or not spawner.active:
            return
        if spawner.pending == "spawn":
            begun = spawner._spawn_future
            if begun is not None:
                begun.cancel()
                await asyncio.wait([begun], timeout=CANCELLED_WITHIN)
                await asyncio.sleep(0)  # the hub's own callback marks the start as over
        stopping = getattr(spawner, "_stop_future", None)  # there is none before the first stop
        if spawner.pending != "stop":
            stopping = await self._handler().stop_single_user(owner, server)
        if stopping is not None:
            await stopping
        if spawner.ready:
            raise RuntimeError("the hub did not stop it")
