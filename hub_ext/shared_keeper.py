"""Keeps the shared servers of teams and courses: up, down, and open to those alone who may be in.

Who may enter is a role of JupyterHub's that the hub's groups of the team or course have, so that a
new member comes in without a restart (its shares with groups open nothing to a browser: a token has
what is shared with its person alone). Who has left is shut out within seconds: the server is told
who may be in, and closes the sockets of all others (``labcommons_together`` in it).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from jupyterhub import orm, roles
from jupyterhub.app import JupyterHub
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.simple_httpclient import HTTPStreamClosedError

from commons.audit import AuditTrail, make_event
from commons.shared_accounts import MARK, name_of, scope_of
from commons.site import Site
from commons.store import Store, StoreError
from commons.store.ends import Ending
from commons.store.models import SharedServer
from commons.web import origins
from commons.work import Keyed
from hub_ext.servers import HubServers
from kernels.hostile import parse_json
from spawner import shared_servers as shared
from spawner.shared_servers import DOWN, UP, State
from spawner.warm.keeper import BrokenOff, why

LOOK = 2.0  # seconds between two looks
FRESH = 30.0  # seconds for which what the directory says of somebody who is in is believed
CONNECT_TIMEOUT, TIMEOUT = 2, 3  # seconds for a server's answer
MOST = 256 * 1024  # bytes of it

Key = tuple[str, str]  # scope and name
Rosters = Callable[[str], Awaitable[Mapping[str, str]]]


class SharedKeeper:
    """The hub's loop over ``shared_servers``.

    Args:
        rosters: what rosters of courses say of somebody; it is looked at each time.
    """

    def __init__(
        self,
        app: JupyterHub,
        servers: HubServers,
        store: Store,
        site: Site,
        audit: AuditTrail,
        rosters: Rosters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._servers, self._store, self._site = app, servers, store, site
        self._audit, self._rosters, self._clock = audit, rosters, clock
        self._apart = origins.own_hosts(site)
        self._acts = Keyed("shared servers", app.log, expected=(StoreError,))
        self._client = AsyncHTTPClient(force_instance=True, max_body_size=MOST)
        self._nothing: object = None  # the store's stamp when there was nothing to do ever
        self._granted: dict[Key, set[str]] = {}
        self._in: dict[Key, frozenset[str]] = {}
        # When the directory was asked about somebody who is in, and what the rosters said then.
        self._asked: dict[str, tuple[float, Mapping[str, str]]] = {}
        self._barred: set[str] = set()

    async def look(self) -> None:
        """Make everything so as it is asked for, and shut out who may not be in."""
        stamp = self._store.stamp()
        if stamp is not None and stamp == self._nothing:
            return
        rows = await self._store.read(shared.all_of)
        left = self._left({(name_of(shared.scope_of(row)), row.name) for row in rows})
        self._nothing = None if rows or left else stamp
        for user, server in left:
            self._acts.start((user, server), partial(self._forget, user, server))
        for row in rows:
            await self._keep(row)
        async with asyncio.TaskGroup() as group:
            for row in rows:
                group.create_task(self._look_in(row))

    async def close(self) -> None:
        """Leave what is under way to the next hub."""
        await self._acts.close()

    # -- up and down ---------------------------------------------------------------------------

    async def _keep(self, row: SharedServer) -> None:
        key, state = (row.scope, row.name), State(row.state)
        self._grant(row)
        spawner = self._spawner(row)
        up = spawner is not None and spawner.ready
        known = up or (spawner is not None and bool(spawner.active or spawner.pending))
        if state is State.ENDING or (state in UP and not self._apart):
            self._acts.start((*key, "end"), partial(self._stop, row))
        elif state is State.ASKED:
            self._acts.start(key, partial(self._start, row))
        elif key in self._acts:
            return
        elif up and state is not State.RUNNING:
            await self._move(row, (*DOWN, State.STARTING), State.RUNNING)
        elif not known and state not in DOWN:  # ended by itself, or with its GPU's time, …
            await self._move(row, (State.RUNNING, State.STARTING), State.STOPPED)

    async def _start(self, row: SharedServer) -> None:
        if not await self._move(row, (State.ASKED,), State.STARTING):
            return
        server = (name_of(shared.scope_of(row)), row.name)
        starting = (State.STARTING,)
        try:
            await self._servers.bring_up(*server, row.user_options)
        except BrokenOff:
            await self._move(row, starting, State.STOPPED)
        except Exception as error:
            reason, _again = why(error)
            self._app.log.warning("shared server %s/%s: %s", *server, reason)
            await self._move(row, starting, State.FAILED, reason)
        else:
            await self._move(row, starting, State.RUNNING)

    async def _stop(self, row: SharedServer) -> None:
        server = (name_of(shared.scope_of(row)), row.name)
        ending = Ending("stopped_by", by=row.by) if row.by else None
        await self._servers.stop(*server, ending)
        await self._move(row, (*UP, State.ENDING), State.STOPPED)

    async def _move(self, row: SharedServer, before: tuple[State, ...], *to: Any) -> bool:
        key = (row.scope, row.name)
        return await self._store.run(lambda s: shared.move(s, key, before, *to))

    # -- who may enter -------------------------------------------------------------------------

    def _spawner(self, row: SharedServer) -> Any:
        user = self._app.users.get(name_of(shared.scope_of(row)))
        return None if user is None else user.spawners.get(row.name)

    def _grant(self, row: SharedServer) -> None:
        """The account, its server and the groups that may enter, in the hub's database."""
        key = (row.scope, row.name)
        wanted = shared.groups_in(row) if self._apart else set()
        if self._granted.get(key) == wanted:
            return
        db, name = self._app.db, name_of(shared.scope_of(row))
        user = self._app.users.get(name) or self._servers.new_account(name)
        if row.name not in user.orm_spawners:
            user._new_orm_spawner(row.name, None)
        role = roles.create_role(
            db,
            {"name": _role(name, row.name), "scopes": [f"access:servers!server={name}/{row.name}"]},
        )
        for group in list(role.groups):
            if group.name not in wanted:
                roles.strip_role(db, group, role)
        for one in sorted(wanted):
            group = orm.Group.find(db, one)
            if group is None:
                group = orm.Group(name=one)
                db.add(group)
            roles.grant_role(db, group, role)
        db.commit()
        self._granted[key] = wanted

    def _may(self, row: SharedServer) -> set[str]:
        """The people of those groups, and administrators."""
        people = self._app.db.query(orm.User.name)
        wanted = self._granted.get((row.scope, row.name), set())
        members = people.join(orm.User.groups).filter(orm.Group.name.in_(wanted))
        found = {name for (name,) in (*members, *people.filter(orm.User.admin))}
        return found - self._barred

    async def _look_in(self, row: SharedServer) -> None:
        """Tell the server who may be in, and learn who is."""
        key, spawner = (row.scope, row.name), self._spawner(row)
        if spawner is None or not spawner.ready:
            self._in.pop(key, None)
            return
        before = self._in.get(key, frozenset())
        for name in before:
            await self._ask_directory(name)
        there = await spawner.whereabouts()
        if there is None:
            return
        url, token = there
        try:
            found, closed = await self._tell(url, token, self._may(row))
        except (OSError, ValueError, HTTPClientError, HTTPStreamClosedError) as error:
            self._app.log.warning("shared server %s/%s does not say who is in: %s", *key, error)
            return
        account = name_of(shared.scope_of(row))
        for name in sorted(found - before):
            self._record("look", name, "entered", {"of": account, "server": row.name})
        for name in closed:
            about = {"done": "shut-out", "scope": row.scope, "server": row.name}
            self._record("shared-server-change", name, "", about)
        self._in[key] = found
        if sorted(found) != row.people:
            await self._store.run(lambda s: shared.note_people(s, key, found))

    async def _ask_directory(self, name: str) -> None:
        """What somebody who is in is by now: JupyterHub asks only when they ask it something."""
        user = self._app.users.get(name)
        if user is None:
            return
        rosters = await self._rosters(name) if self._rosters else {}
        at, known = self._asked.get(name, (0.0, rosters))
        if self._clock() - at < FRESH and known == rosters:
            return
        self._asked[name] = (self._clock(), rosters)
        fresh = await self._app.authenticator.refresh_user(user)
        if isinstance(fresh, dict):
            await self._servers.persist(fresh, user)
        if fresh:
            self._barred.discard(name)
        else:
            self._barred.add(name)

    async def _tell(self, url: str, token: str, may: set[str]) -> tuple[frozenset[str], list[str]]:
        answer = await self._client.fetch(
            f"{url}labcommons/together",
            method="POST",
            body=json.dumps({"may": sorted(may)}),
            headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
            connect_timeout=CONNECT_TIMEOUT,
            request_timeout=TIMEOUT,
            follow_redirects=False,
        )
        said = parse_json(answer.body, MOST)
        match said:
            case {"in": dict(people), "closed": list(closed)}:
                pass
            case _:
                raise ValueError("no list of people")
        # The server is its visitors': of what it says, what can be so is believed.
        return frozenset(may.intersection(people)), [
            one for one in closed if isinstance(one, str) and self._app.users.get(one) is not None
        ]

    # -- what is left --------------------------------------------------------------------------

    def _left(self, wanted: set[tuple[str, str]]) -> list[tuple[str, str]]:
        """Servers of such accounts that nobody has made here, or that were removed."""
        query = self._app.db.query(orm.User.name, orm.Spawner.name).join(
            orm.Spawner, orm.Spawner.user_id == orm.User.id
        )
        found = query.filter(orm.User.name.startswith(MARK, autoescape=True))
        left = [(u, s) for u, s in found if (u, s) not in wanted and scope_of(u) is not None]
        # Everybody has a default one: of an account it only must not run.
        return [(u, s) for u, s in left if s or self._app.users[u].spawners[s].active]

    async def _forget(self, account: str, server: str) -> None:
        await self._servers.stop(account, server)
        self._servers.forget(account, server)
        if orm.Role.find(self._app.db, _role(account, server)) is not None:
            roles.delete_role(self._app.db, _role(account, server))
        scope = scope_of(account)
        if scope is not None:
            self._granted.pop((scope.source, server), None)

    def _record(self, action: str, user: str, reason: str, details: Mapping[str, Any]) -> None:
        self._audit.record(make_event(action, "success", user=user, reason=reason, details=details))


def _role(account: str, server: str) -> str:
    """The name of the role of who may enter; no two servers have the same."""
    return f"shared{account}--{server}"
