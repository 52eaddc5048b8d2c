"""Starting and stopping people's servers from inside the hub, as its own pages would.

The hub's handlers do more than ``User.spawn`` and ``User.stop``: the proxy's route, the pending
state that pages show, metrics. So these are called, with a request that nobody sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler
from sqlalchemy.orm import selectinload
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from commons.leases import ServerKey
from commons.scopes import Scope, positions_in
from commons.shared_accounts import scope_of
from commons.store.ends import Ending
from commons.tokens import server_of
from commons.work import Keyed
from spawner.culling.culler import Running
from spawner.culling.policy import Facts
from spawner.warm.keeper import BrokenOff

LOOKS_AT_ONCE = 10  # a class may end together, and each costs the proxy and the agent a call
CANCELLED_WITHIN = 60  # seconds for a start that is broken off


class _NoConnection:
    """What a request without a client is connected to."""

    context = None

    def set_close_callback(self, _callback: Callable[[], None] | None) -> None:
        """Nobody hangs up."""


class OneByOneHandler(BaseHandler):  # type: ignore[misc]
    """Starts servers one after the other: JupyterHub writes six times to begin one."""

    async def spawn_single_user(self, *args: Any, **named: Any) -> Any:
        """JupyterHub's."""
        await self.settings["one_by_one"](1)
        return await super().spawn_single_user(*args, **named)


class _Inside(OneByOneHandler):
    """A handler of the hub without a browser; it does not wait for what it begins."""

    slow_spawn_timeout = 0


async def break_off(spawner: Any) -> None:
    """Cancel a start that is pending, and return when it is over: what it had made is gone then.

    JupyterHub waits one second for that. Whoever asks again waits for the same end: a second
    cancellation would let the start end before its container does.
    """
    begun = spawner._spawn_future
    if begun is not None:
        if not begun.cancelling():
            begun.cancel()
        await asyncio.wait([begun], timeout=CANCELLED_WITHIN)
        await asyncio.sleep(0)  # the hub's own callback marks the start as over


class HubServers:
    """The servers of one hub, for the keeper of leases."""

    def __init__(self, app: JupyterHub) -> None:
        self._app = app
        self._looks = Keyed("looks at servers that ended", app.log, at_once=LOOKS_AT_ONCE)

    def _handler(self) -> _Inside:
        request = HTTPServerRequest(
            start_line=RequestStartLine("POST", self._app.hub.base_url, "HTTP/1.0"),
            headers=HTTPHeaders(),
            connection=_NoConnection(),  # type: ignore[arg-type]
        )
        return _Inside(self._app.tornado_application, request)

    @property
    def _users(self) -> Any:
        """The hub's people. What its database has not taken is given up first: until then nothing
        of them can be read.
        """
        if not self._app.db.is_active:
            self._app.db.rollback()
        return self._app.users

    def known(self) -> set[ServerKey]:
        """Servers that run or are on their way up or down, as the hub sees it now."""
        return {
            (user.name, name)
            for user in self._users.values()
            for name, spawner in user.spawners.items()
            if spawner.active or spawner.pending or spawner._start_pending
        }

    def started(self, user: str, server: str) -> datetime | None:
        """When the server that runs now was started (UTC without zone); None where none runs."""
        owner = self._users.get(user)
        spawner = owner.spawners.get(server) if owner is not None else None
        if spawner is None or not spawner.active:
            return None
        began: datetime | None = spawner.orm_spawner.started
        return began

    def running(self) -> dict[ServerKey, str]:
        """The containers of the servers that the hub takes for running; "" where there is none, or
        only one whose start has failed.
        """
        return {
            (user.name, name): "" if _start_failed(spawner) else spawner.container_ref
            for user in self._users.values()
            for name, spawner in user.spawners.items()
            if spawner.ready
        }

    def culled(self) -> list[Running]:
        """The servers that run, with what the rules of ``servers.culling`` are chosen by."""
        return [
            Running(
                (user.name, name),
                spawner.container_ref,
                spawner.orm_spawner.started.replace(tzinfo=UTC).timestamp(),
                Facts(
                    str(spawner.user_options.get("size")),
                    int(spawner.user_options.get("gpus") or 0),
                    frozenset(scope.source for scope in _scopes_of(user)),
                ),
            )
            for user in self._app.users.values()
            for name, spawner in user.spawners.items()
            if spawner.ready and spawner.container_ref and spawner.orm_spawner.started
        ]

    def working(self) -> list[tuple[ServerKey, datetime, datetime]]:
        """Servers that run: since when, and when they were last used (UTC without zone)."""
        found = []
        for user in self._users.values():
            for name, spawner in user.spawners.items():
                if spawner.ready and (row := spawner.orm_spawner) and row.started:
                    used = row.last_activity or row.started
                    found.append(((user.name, name), row.started, used))
        return found

    def is_admin(self, user: str) -> bool:
        """Whether the hub knows somebody as an administrator."""
        owner = self._users.get(user)
        return bool(owner is not None and owner.admin)

    def look_soon(self, server: ServerKey) -> None:
        """The runtime says that it ended: the hub looks now, and not at its next poll.

        What it sees decides: where the runtime is silent by then, the server is not gone.
        """
        self._looks.start(server, partial(self.look_again, *server))

    async def look_again(self, user: str, server: str) -> None:
        """Have the hub poll a server whose container runs no more, and be through with it.

        Through, too, with one that the hub takes for ready though its start has failed: that is
        so where the hub's own database went away in the middle of it.
        """
        owner = self._users.get(user)
        spawner = owner.spawners.get(server) if owner is not None else None
        if spawner is None or not spawner.ready:
            return
        # Where the hub has not begun to poll it, nobody is told that it ended.
        over = _start_failed(spawner) or await spawner.poll_and_notify() is not None
        if over and spawner.ready:
            await self.stop(
                user, server, Ending("start_failed") if _start_failed(spawner) else None
            )

    def take_tokens_back(self) -> int:
        """Delete the tokens of servers that are gone, which a hub that was killed has left valid;
        how many there were. What a server holds that may still run is kept.
        """
        database, gone = self._app.db, 0
        mine = {
            (user.name, name): spawner.api_token
            for user in self._users.values()
            for name, spawner in user.spawners.items()
            if spawner.active or spawner.pending
        }
        made = orm.APIToken.note.startswith("Server at ", autoescape=True)
        for token in database.query(orm.APIToken).filter(made, orm.APIToken.user_id.isnot(None)):
            server = server_of(token.user.name, token.scopes)
            # Of one whose token is not known each may be it.
            if server is None or (
                (key := (token.user.name, server)) in mine
                and (not mine[key] or token.match(mine[key]))
            ):
                continue
            database.delete(token)
            gone += 1
        database.commit()
        return gone

    async def start(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        """Begin to start a server with these options. Raises what the hub raises."""
        owner = self._users.get(user)
        if owner is None:
            raise LookupError(f"the hub does not know {user!r}")
        if server:
            owner.get_or_create_spawner(server, server)
        await self._handler().spawn_single_user(owner, server, options=dict(options))

    def members(self, scope: Scope) -> list[str]:
        """Who is in a team or course, by the hub's groups."""
        groups = {
            name.replace("{name}", scope.owner)
            for position in scope.row.positions
            for name in position.groups
        }
        found = self._app.db.query(orm.User.name).join(orm.User.groups)
        return sorted({name for (name,) in found.filter(orm.Group.name.in_(groups))})

    def positions(self, scope: Scope) -> dict[str, list[str]]:
        """Whom the directory's groups put into a team or course, by position."""
        people = self._app.db.query(orm.User.name).join(orm.User.groups)
        return {
            position.word: sorted(
                name
                for (name,) in people.filter(
                    orm.Group.name == position.groups[-1].replace("{name}", scope.owner)
                )
            )
            for position in scope.row.positions
        }

    def answerable(self, scope: Scope) -> set[str]:
        """Administrators, and who leads a team or course, by the hub's groups."""
        groups = {
            position.groups[-1].replace("{name}", scope.owner)
            for position in scope.row.positions
            if position.leads
        }
        people = self._app.db.query(orm.User.name)
        leads = people.join(orm.User.groups).filter(orm.Group.name.in_(groups))
        return {name for (name,) in (*people.filter(orm.User.admin), *leads)}

    def chosen(self, user: str, server: str) -> dict[str, Any]:
        """The options that a person chose last; empty for none, and for nobody whom it knows."""
        owner = self._app.users.get(user)
        row = owner.orm_spawners.get(server) if owner is not None else None
        return dict((row.user_options if row is not None else None) or {})

    def choose(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        """Make these the ones that are offered next, where no server runs."""
        owner = self._app.users.get(user)
        row = owner.orm_spawners.get(server) if owner is not None else None
        if row is None or owner is None:
            return
        spawner = owner.spawners.get(server)
        if spawner is not None and spawner.active:
            return
        row.user_options = dict(options)
        if spawner is not None:
            spawner.user_options = dict(options)
        self._app.db.commit()

    def runs(self, user: str, server: str) -> dict[str, Any]:
        """What a server runs with, as user_options, the environment with its version."""
        owner = self._users.get(user)
        spawner = owner.spawners.get(server) if owner is not None else None
        return runs_with(spawner) if spawner is not None else {}

    def may_have(self, user: str, server: str) -> bool:
        """Whether somebody may have a server of this name beside those that they have."""
        owner = self._users.get(user)
        return owner is not None and may_have(
            owner, server, self._app.allow_named_servers, self._app.named_server_limit_per_user
        )

    def forget(self, user: str, server: str) -> None:
        """Have no such server any more, where it does not run: it would count against the most."""
        owner = self._users.get(user)
        row = owner.orm_spawners.get(server) if owner is not None else None
        if row is None or not server or owner.spawners[server].active:
            return
        self._app.db.delete(row)
        owner.spawners.pop(server, None)
        self._app.db.commit()

    def new_account(self, name: str) -> Any:
        """Somebody who never logs in (``commons.shared_accounts``)."""
        return self._handler().user_from_username(name)

    async def persist(self, model: Mapping[str, Any], user: Any) -> None:
        """What the authenticator says of somebody now: groups, administrator or not."""
        await self._handler().auth_to_user(dict(model), user)
        user._auth_refreshed = time.monotonic()

    async def bring_up(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        """Start a server and return when it runs. Raises LookupError for a person that the hub
        does not know, BrokenOff where somebody ended the start, and what the start raised.
        """
        try:
            await self.start(user, server, options)
        except asyncio.CancelledError as error:
            raise BrokenOff from error
        spawner = self._app.users[user].spawners[server]
        begun = spawner._spawn_future
        if begun is not None:
            await asyncio.wait([begun])
            if begun.cancelled():
                raise BrokenOff
            # Kept by the hub, it would tell the owner's first click that it has failed.
            spawner._spawn_future = None
            begun.result()
        if not spawner.ready:
            raise BrokenOff

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        """Stop a server, or break its start off; returns when the hub is through with it.

        ``ending`` is why; None: its owner asked for it.
        """
        owner = self._users.get(user)
        spawner = owner.spawners.get(server) if owner is not None else None
        if spawner is None or not spawner.active:
            return
        spawner.ending = ending or spawner.ending
        if spawner.pending == "spawn":
            await break_off(spawner)
        stopping = getattr(spawner, "_stop_future", None)  # there is none before the first stop
        if spawner.pending != "stop":
            stopping = await self._handler().stop_single_user(owner, server)
        if stopping is not None:
            await stopping
        if spawner.ready:
            raise RuntimeError("the hub did not stop it")


def runs_with(spawner: Any) -> dict[str, Any]:
    """What a server runs with, as user_options, the environment with its version."""
    options = dict(spawner.user_options or {})
    environment = getattr(spawner, "running_environment", "") or options.get("environment")
    return options | ({"environment": environment} if environment else {})


def may_have(owner: Any, server: str, named: bool, most: int | Callable[..., Any]) -> bool:
    """Whether somebody may have a server of this name, where so many named ones may be."""
    there = {name for name in owner.orm_spawners if name}
    return named and (server in there or callable(most) or not most or len(there) < most)


def _scopes_of(user: Any) -> set[Scope]:
    """The teams and courses of somebody; of an account of one, that."""
    own = scope_of(user.name)
    return {*positions_in([one.name for one in user.groups]), *([own] if own else ())}


def _start_failed(spawner: Any) -> bool:
    """Whether the start of what the hub has for this server came to nothing."""
    begun = spawner._spawn_future  # JupyterHub keeps it where it has failed
    over = begun is not None and begun.done() and not begun.cancelled()
    return over and begun.exception() is not None


def owners(database: Any) -> list[Any]:
    """The rows of people who have servers, with those of their servers; to be held while the hub
    looks at its servers: it reads each anew where nobody holds it, five queries for each server.
    """
    servers = orm.User._orm_spawners
    up = orm.Spawner.server_id.isnot(None) | orm.Spawner.started.isnot(None)
    query = database.query(orm.User).join(servers).filter(up)
    return list(query.options(selectinload(servers)))


def unfinished_starts(database: Any) -> list[tuple[ServerKey, datetime]]:
    """Servers that were starting when an earlier hub ended, and when that began.

    To be asked before the hub looks at its servers. What is kept of one is written when it is up.
    """
    query = database.query(orm.Spawner).filter(orm.Spawner.started.isnot(None))
    return [
        ((row.user.name, row.name), row.started)
        for row in query
        if row.user is not None and not (row.state or {}).get("container")
    ]
