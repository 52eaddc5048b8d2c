"""``GET /hub/api/live``: what runs now, and who was here when, for the console and nobody else.

What the hub alone knows, in one answer that is made at most every two seconds, however many look.
``?person=NAME`` is one person: as the hub knows them, with their tokens, which are no secrets.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from tornado.web import HTTPError

from commons.tokens import server_of
from hub_ext.metering import Meter
from hub_ext.servers import runs_with
from spawner.spawner import LabSpawner

SERVICE = "labcommons"
KEPT = 2.0  # seconds for which an answer is not made anew
MOST_TOKENS = 200
LONGEST = 300  # characters of what somebody chose or named
_MOVING = {"spawn": "starting", "stop": "stopping"}


class Live:
    """What one hub says of its servers and people."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.meter = Meter("what servers use", app.log)
        self._made, self._said = -KEPT, b""

    def said(self) -> bytes:
        """JSON: ``servers``, and ``seen``: when each person was last here."""
        if time.monotonic() - self._made >= KEPT:
            active = [
                (user.name, spawner)
                for user in self._app.users.values()
                for spawner in user.spawners.values()
                if spawner.active
            ]
            self.meter.ask([one.container_ref for _, one in active if one.container_ref])
            seen = self._app.db.query(orm.User.name, orm.User.last_activity)
            found = {
                "servers": [self._server(name, spawner) for name, spawner in active],
                "seen": {name: _iso(at) for name, at in seen if at},
            }
            self._made, self._said = time.monotonic(), json.dumps(found).encode()
        return self._said

    def _server(self, user: str, spawner: Any) -> dict[str, Any]:
        options, row = runs_with(spawner), spawner.orm_spawner
        shared = LabSpawner.shared
        size = shared.site.sizes.get(str(options.get("size"))) if shared is not None else None
        used = self.meter.used.get(spawner.container_ref)
        course = str(options.get("course") or "")[:LONGEST]
        gpus = options.get("gpus")
        return {
            "user": user,
            "server": spawner.name,
            "state": _MOVING.get(spawner.pending, "running" if spawner.ready else "starting"),
            "environment": str(options.get("environment") or "")[:LONGEST],
            "size": str(options.get("size") or "")[:LONGEST],
            "gpus": gpus if type(gpus) is int else 0,
            "account": str(options.get("account") or (f"course:{course}" if course else ""))[
                :LONGEST
            ],
            "started": _iso(row.started),
            "active": _iso(row.last_activity),
            "memory": used.memory if used is not None else None,
            "memory_limit": size.memory_bytes if size is not None else None,
            "cpu": round(used.cpu, 2) if used is not None else None,
            "cpu_limit": size.cpu if size is not None else None,
        }

    def person(self, name: str) -> dict[str, Any] | None:
        """One; None for somebody whom the hub does not know."""
        row = self._app.db.query(orm.User).filter(orm.User.name == name).first()
        if row is None:
            return None
        # Made on purpose; those of servers and logins come and go.
        tokens = [
            one
            for one in row.api_tokens
            if one.client_id == "jupyterhub" and server_of(name, one.scopes) is None
        ]
        return {
            "name": row.name,
            "admin": bool(row.admin),
            "created": _iso(row.created),
            "seen": _iso(row.last_activity),
            "groups": sorted(group.name for group in row.groups)[:MOST_TOKENS],
            "servers": sorted(row.orm_spawners)[:MOST_TOKENS],
            "tokens": [
                {
                    "note": str(one.note or "")[:LONGEST],
                    "created": _iso(one.created),
                    "used": _iso(one.last_activity),
                    "expires": _iso(one.expires_at),
                }
                for one in sorted(tokens, key=lambda one: one.id)[:MOST_TOKENS]
            ],
        }


def _iso(at: datetime | None) -> str | None:
    """A time of the hub's database (UTC without zone)."""
    return at.isoformat(timespec="seconds") + "Z" if at is not None else None


class LiveApi(APIHandler):  # type: ignore[misc]
    """For the console's own token."""

    async def get(self) -> None:
        """All, or one person."""
        asks = self.current_user
        if not isinstance(asks, orm.Service) or asks.name != SERVICE:
            raise HTTPError(403)
        live: Live = self.settings["live"]
        name = self.get_query_argument("person", "")
        if not name:
            self.finish(live.said())
            return
        found = live.person(name)
        if found is None:
            raise HTTPError(404)
        self.finish(json.dumps(found))


HANDLERS = ((r"/api/live", LiveApi),)
