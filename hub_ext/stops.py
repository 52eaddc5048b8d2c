"""Stops by others than a server's owner: who says why, at once or at a time that the owner is told.

``DELETE /hub/api/users/NAME/server`` takes ``{"message": "…", "grace": 300}`` beside JupyterHub's
``remove``: what the owner reads, and the seconds until the stop. An announced stop is a row of our
database, so that a hub that is restarted keeps it.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

from jupyterhub.apihandlers.users import UserServerAPIHandler
from jupyterhub.scopes import needs_scope

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.one_line import one_line
from commons.store import Store
from commons.store.models import utcnow
from commons.web.operations import NOT_JSON
from commons.web.pages import locale_of
from commons.web.refused import Refused
from hub_ext import held
from hub_ext.servers import HubServers, OneByOneHandler, break_off
from spawner import stops
from spawner.spawner import LabSpawner
from spawner.stops import MOST

INTERVAL = 2.0  # seconds between two looks for stops that are due
LONGEST = 24 * 3600  # seconds of grace
_UNDER_WAY: set[asyncio.Task[None]] = set()  # a task that nobody holds may be dropped

MESSAGE_TOO_LONG = Text(
    "message_too_long", N_("“message” must be a text of at most {most} characters.")
)
GRACE_WRONG = Text("grace_wrong", N_("“grace” must be whole seconds, at most {most}."))


def read_request(body: object) -> tuple[str, int]:
    """Message and seconds of grace of a request's body. Raises BadRequest."""
    if body is None:
        return "", 0
    if not isinstance(body, dict):
        raise BadRequest(NOT_JSON())
    message, grace = body.get("message") or "", body.get("grace") or 0
    if not isinstance(message, str) or len(message) > MOST:
        raise BadRequest(MESSAGE_TOO_LONG(most=MOST))
    if not isinstance(grace, int) or isinstance(grace, bool) or not 0 <= grace <= LONGEST:
        raise BadRequest(GRACE_WRONG(most=LONGEST))
    return one_line(message), grace


class StopServer(OneByOneHandler, UserServerAPIHandler):  # type: ignore[misc]
    """JupyterHub's, with a message to the owner."""

    @needs_scope("delete:servers")  # type: ignore[untyped-decorator]
    async def delete(self, user_name: str, server_name: str = "") -> None:
        """Stop it now, or announce that."""
        body = self.get_json_body()
        try:
            message, grace = read_request(body)
        except BadRequest as error:
            raise Refused(error, locale_of(self)) from error
        user, by = self.find_user(user_name), str(self.current_user.name)
        spawner = user.spawners.get(server_name) if user is not None else None
        if isinstance(spawner, LabSpawner) and spawner.active and by != user.name:
            if grace and spawner.ready:
                stop_at = utcnow() + timedelta(seconds=grace)
                await spawner.resources.store.run(
                    lambda session: stops.announce(
                        session, user.name, server_name, by, message, stop_at
                    )
                )
                self.set_status(202)
                self.write(json.dumps({"stop_at": stop_at.isoformat(timespec="seconds") + "Z"}))
                return
            spawner.ending = stops.ending(by, message)
        # JupyterHub's own answer to a server that is not there is that all is well; where it has
        # not begun to poll it, as after a start that failed in the middle, it stays.
        if isinstance(spawner, LabSpawner) and await spawner.has_ended():
            await self.stop_single_user(user, server_name)
        if isinstance(spawner, LabSpawner) and spawner.pending == "spawn":
            stopping = asyncio.create_task(self._break_off(user, spawner))
            _UNDER_WAY.add(stopping)
            stopping.add_done_callback(_UNDER_WAY.discard)
            # A server that is to be removed must be gone first.
            removes = isinstance(body, dict) and bool(body.get("remove"))
            await asyncio.wait([stopping], timeout=None if removes else self.slow_stop_timeout)
            if not stopping.done():
                self.set_status(202)
                return
        await super().delete(user_name, server_name)

    async def _break_off(self, user: Any, spawner: LabSpawner) -> None:
        await end(self, user, spawner)

    @needs_scope("start:servers")  # type: ignore[untyped-decorator]
    async def post(self, user_name: str, server_name: str = "") -> None:
        """JupyterHub's; a server that was started ahead of time makes room for what is asked."""
        user = self.find_user(user_name)
        found = await held.expected(user and user.spawners.get(server_name))
        if found is not None:
            waits, spawner = found
            asked = (self.get_server_json_body() or {}).get("user_options")
            if held.differs(spawner, asked):
                await held.leave(waits, spawner)
                await end(self, user, spawner)
        await super().post(user_name, server_name)


async def end(handler: Any, user: Any, spawner: LabSpawner) -> None:
    """End a server or its start, and have the hub be through with it."""
    if spawner.pending == "spawn":
        await break_off(spawner)
    if spawner.active and not spawner.pending:
        stopping = await handler.stop_single_user(user, spawner.name)
        if stopping is not None:
            await stopping


class AnnouncedStops:
    """Stops what was announced, when it is time."""

    def __init__(self, store: Store, servers: HubServers) -> None:
        self.store, self.servers = store, servers
        self._nothing: object = None  # the store's stamp when none was announced

    async def look(self) -> None:
        """Stop what is due. Raises StoreError, and what the hub raises where it does not stop."""
        stamp = self.store.stamp()
        if stamp is not None and stamp == self._nothing:
            return
        due, announced = await self.store.read(lambda s: (stops.due(s), stops.announced(s)))
        self._nothing = None if announced else stamp
        for username, server, by, message, at in due:
            started = self.servers.started(username, server)
            # One that was stopped and started again meanwhile is another.
            if started is not None and started <= at:
                ending = stops.ending(by, message) if by != username else None
                await self.servers.stop(username, server, ending)
            await self.store.run(
                lambda session, key=(username, server): stops.over(session, *key)  # type: ignore[misc]
            )
