"""What runs now, as the hub says it: asked once for all who look, and kept for some seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlencode

from tornado.web import HTTPError

from commons.rights import Resource
from commons.scopes import own_account
from commons.shared_accounts import scope_of
from hub_ext.console.hub_people import ask_hub

KEPT = 5.0  # seconds
IDLE = 600.0  # seconds without a sign of somebody, after which a server is idle

State = Literal["running", "starting", "stopping"]


@dataclass(frozen=True)
class Running:
    """A server; times in seconds since 1970, memory in bytes, CPU in cores, None where not known.

    Attributes:
        account: who is charged; the person where nothing else was chosen.
    """

    user: str
    server: str
    state: str
    environment: str = ""
    size: str = ""
    gpus: int = 0
    account: str = ""
    started: float | None = None
    active: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    cpu: float | None = None
    cpu_limit: float | None = None

    @property
    def key(self) -> str:
        """In forms and by REST: alice, or alice/train for a server with a name."""
        return f"{self.user}/{self.server}" if self.server else self.user

    @property
    def resource(self) -> Resource:
        """Whose it is, for ``commons.rights``."""
        return Resource.charged(self.account, self.user)

    def idle(self, now: float) -> bool:
        """Whether nobody has used it for some time."""
        seen = self.active or self.started
        return self.state == "running" and seen is not None and now - seen > IDLE


@dataclass(frozen=True)
class Now:
    """What the hub said, and when each person was last here.

    Attributes:
        known: whether it answered; what is here is nothing else.
    """

    servers: tuple[Running, ...] = ()
    seen: Mapping[str, float] = field(default_factory=dict)
    known: bool = True

    def of(self, key: str) -> Running | None:
        """One by its key."""
        return next((one for one in self.servers if one.key == key), None)


class Live:
    """For one console."""

    def __init__(self, hub_auth: Any) -> None:
        self._auth, self._asking = hub_auth, asyncio.Lock()
        self._made, self._now = -KEPT, Now(known=False)

    async def now(self) -> Now:
        """Never raises: where the hub does not answer, nothing is known."""
        async with self._asking:
            if time.monotonic() - self._made >= KEPT:
                try:
                    self._now = read(await ask_hub(self._auth, "live") or {})
                except HTTPError:
                    self._now = Now(known=False)
                self._made = time.monotonic()
            return self._now

    async def person(self, name: str) -> dict[str, Any] | None:
        """As the hub knows somebody; None for nobody, and where it does not answer."""
        try:
            found = await ask_hub(self._auth, f"live?{urlencode({'person': name})}")
        except HTTPError:
            return None
        return dict(found) if found else None


def read(said: Mapping[str, Any]) -> Now:
    """The hub's answer. Raises HTTPError 502 for what is none."""
    try:
        servers = tuple(_running(one) for one in said["servers"])
        return Now(servers, {name: _seconds(at) or 0.0 for name, at in said["seen"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HTTPError(502) from error


def _running(one: Mapping[str, Any]) -> Running:
    times = {key: _seconds(one[key]) for key in ("started", "active")}
    scope = scope_of(one["user"])
    account = one["account"] or (scope.account if scope else own_account(one["user"]))
    return Running(**{**one, **times, "account": account})


def _seconds(at: str | None) -> float | None:
    return datetime.fromisoformat(at).timestamp() if at else None
