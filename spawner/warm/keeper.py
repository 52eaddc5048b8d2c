"""The hub's loop over warm starts: begin, start in turn, hold, release.

It acts through the hub's own start and stop, and stands behind people's own clicks
(``Turns.ahead``). Each look goes by what the store says and what the hub has; what an earlier
hub left in the middle is taken up from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from sqlalchemy.orm import Session

from commons import maintenance
from commons.errors import LabError
from commons.leases import ServerKey
from commons.messages import Message, verbatim
from commons.scopes import Scope, of_account
from commons.store import Store, StoreError
from commons.store.ends import Ending
from commons.store.models import utcnow
from commons.web.refused import Refused
from commons.work import Keyed, Periodic
from spawner.warm import records
from spawner.warm.records import Held, State

LOOK = 2.0  # seconds between two looks
AT_ONCE = 20  # servers on their way up; the line of starts says whose turn it is
TRIES = 3
SILENT = 500  # from this status on, another try may help


class BrokenOff(Exception):
    """A start was ended by somebody."""


class Servers(Protocol):
    """The hub, as the keeper needs it."""

    def known(self) -> set[ServerKey]:
        """Servers that run or are on their way up or down."""

    def running(self) -> dict[ServerKey, str]:
        """The containers of the servers that run."""

    def chosen(self, user: str, server: str) -> dict[str, Any]:
        """The options that a person chose last; empty for none."""

    def choose(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        """Make them the ones of the next start, where no server runs."""

    def runs(self, user: str, server: str) -> dict[str, Any]:
        """What a server runs with, as user_options, the environment with its version."""

    def may_have(self, user: str, server: str) -> bool:
        """Whether somebody may have a server of this name beside those that they have."""

    def forget(self, user: str, server: str) -> None:
        """Have no such server any more, where it does not run."""

    async def bring_up(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        """Start a server and return when it runs. Raises LookupError for a person that the hub
        does not know, BrokenOff where somebody ended the start, and what the start raised.
        """

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        """Stop a server, or what is left of its start; returns when it is gone."""


class WarmKeeper:
    """Starts, holds and releases what was asked for ahead of time.

    Args:
        ahead: the servers that are being started by it, for the line of starts.
        members: the people of a team or course, as the hub knows them.
    """

    def __init__(
        self,
        store: Store,
        servers: Servers,
        ahead: set[ServerKey],
        members: Callable[[Scope], Iterable[str]],
        log: logging.Logger,
        clock: Callable[[], datetime] = utcnow,
    ) -> None:
        self.store, self.servers, self.ahead = store, servers, ahead
        self.members, self.log, self.clock = members, log, clock
        self._ready = True  # whether somebody may come to one, as far as is known
        self._nothing: object = None  # the store's stamp when there was nothing to do ever
        self._acts = Keyed("servers ahead of time", log, expected=(StoreError,))

    async def run(self) -> None:
        """Look for ever."""
        await Periodic(
            "servers ahead of time", self.look, LOOK, self.log, expected=(StoreError,)
        ).run()

    async def look(self) -> None:
        """Begin what is due; start, hold and release."""
        now, stamp = self.clock(), self.store.stamp()
        if stamp is not None and stamp == self._nothing:
            return
        due, live, standing, closed = await self.store.read(
            lambda s: (
                records.due(s, now),
                records.live(s),
                records.standing(s, now),
                maintenance.current(s) is not None,
            )
        )
        self._nothing = None if live or standing else stamp
        for start in due:
            scope = of_account(start.subject)
            members = None if scope is None else list(self.members(scope))
            await self.store.run(partial(records.begin, warm_id=start.id, members=members, now=now))
            self.log.info("servers ahead of time: “%s” begins", start.name)
        if due:
            live = await self.store.read(records.live)
        self._ready = any(held.state in (State.STARTING, State.READY) for held in live)
        if not live:
            return
        known, running = self.servers.known(), self.servers.running()
        theirs = _by_person(known)
        for held in live:
            over = held.cancelled or now >= held.hold_until
            key = held.key
            if _release(held) in self._acts:
                continue
            if held.state is State.READY:
                await self._hold(held, running.get(key), over)
            elif held.state is State.STARTING:
                await self._going(held, key in known, running.get(key), over)
            elif over:
                await self._move(held, *_not_begun(held))
            elif key in known and held.tries > 0 and not held.failed:
                # After a restart the hub itself begins again what it had begun.
                await self._move(held, State.STARTING)
            else:
                await self._begin(held, theirs.get(held.user, set()), closed)

    async def opened(self, used: Iterable[ServerKey]) -> None:
        """Somebody has come to these servers."""
        keys = set(used)
        if not keys or not self._ready:
            return
        for held in await self.store.read(records.live):
            if held.state is State.READY and held.key in keys:
                await self._move(held, State.OPENED)

    @property
    def busy(self) -> bool:
        """Whether a server is being started or released."""
        return bool(len(self._acts))

    async def close(self) -> None:
        """Leave what is under way to the next hub."""
        await self._acts.close()

    # -- one server -----------------------------------------------------------------------------

    async def _move(
        self, held: Held, to: State, reason: Message | None = None, **more: Any
    ) -> bool:
        return await self.store.run(lambda s: records.move(s, held, to, reason, **more))

    async def _begin(self, held: Held, theirs: set[str], closed: bool) -> None:
        """In the default server, or in one beside what a person runs in that."""
        user, server = held.user, "" if "" not in theirs else held.beside
        if any(records.serves(self.servers.runs(user, one), held.options) for one in theirs):
            await self._move(held, State.THEIRS, records.HAS_ITS())
        elif server in theirs or not self._may_have(user, server):
            await self._move(held, State.THEIRS, records.HAS_ONE())
        elif not closed and len(self._acts) < AT_ONCE:
            self._acts.start((user, server), partial(self._start, held, server))

    def _may_have(self, user: str, server: str) -> bool:
        return not server or self.servers.may_have(user, server)

    async def _start(self, held: Held, server: str) -> None:
        key = (held.user, server)
        chosen = self.servers.chosen(*key)
        tries = held.tries + 1
        # Written before: a hub that is killed meanwhile knows that this is no click.
        if not await self._move(held, State.STARTING, tries=tries, server=server, chosen=chosen):
            return
        going = replace(held, state=State.STARTING, tries=tries, server=server, chosen=chosen)
        self.ahead.add(key)
        try:
            await self.servers.bring_up(*key, held.options)
        except BrokenOff:
            if _release(held) not in self._acts:
                await self._move(going, State.THEIRS, records.STOPPED_IT())
        except Exception as error:
            reason, again = why(error)
            self.log.warning("servers ahead of time: %s: %s", held.user, reason)
            if again and going.tries < TRIES:
                await self._move(going, State.WAITING, reason)
            else:
                await self._fail(going, reason)
        else:
            await self._move(going, State.READY, container=self.servers.running().get(key, ""))
        finally:
            self.ahead.discard(key)

    async def _fail(self, held: Held, reason: Message) -> None:
        await self._move(held, State.FAILED, reason)
        self._choose_again(held)

    async def _going(self, held: Held, known: bool, container: str | None, over: bool) -> None:
        """On its way up; by this hub, or by an earlier one that was killed."""
        key = held.key
        if key in self._acts and not over:
            return
        if over:
            if known:
                await self._stop(held, _not_begun(held)[0])
            else:
                await self._move(held, *_not_begun(held))
        elif container:
            await self._move(held, State.READY, container=container)
        elif not known and held.tries >= TRIES:
            await self._fail(held, records.NO_TIME())
        elif not known:
            await self._move(held, State.WAITING)

    async def _hold(self, held: Held, container: str | None, over: bool) -> None:
        """Ready, as far as is known."""
        final = State.CANCELLED if held.cancelled else State.RELEASED
        if container and container != held.container:
            await self._move(held, State.THEIRS, records.HAS_ONE())
        elif container:
            if over:
                await self._stop(held, final)
        elif over:
            # Released by a hub that was killed before it could write so.
            await self._move(held, final)
            self._choose_again(held)
        else:
            await self._fail(held, records.ENDED())

    async def _stop(self, held: Held, to: State) -> None:
        key = held.key
        data: dict[str, Any] = {"name": held.name}
        if not held.cancelled:
            data["hold_until_at"] = held.hold_until.replace(tzinfo=UTC).timestamp()

        async def release() -> None:
            await self.servers.stop(*key, Ending("released", data=data))
            await self._move(held, to, records.NO_TIME() if to is State.FAILED else None)
            self._choose_again(held)

        self._acts.start(_release(held), release)

    def _choose_again(self, held: Held) -> None:
        """What the person had chosen last is offered to them next, as if nothing had been."""
        if held.server and not held.chosen:
            self.servers.forget(*held.key)
        elif held.chosen is not None:
            self.servers.choose(*held.key, held.chosen)


def _by_person(known: Iterable[ServerKey]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for user, server in known:
        found.setdefault(user, set()).add(server)
    return found


def _release(held: Held) -> tuple[str, str, str]:
    return (*held.key, "release")


def _not_begun(held: Held) -> tuple[State, Message | None]:
    """What a server comes to whose time is over before it was ready."""
    return (State.CANCELLED, None) if held.cancelled else (State.FAILED, records.NO_TIME())


def why(error: Exception) -> tuple[Message, bool]:
    """Why a start failed, and whether another try may help."""
    if isinstance(error, LookupError):
        return records.NEVER_HERE(), False
    if isinstance(error, Refused):
        told = (error.details.get("reasons") or [error.sentence])[0]
        return Message.from_json(told), error.status_code >= SILENT
    if isinstance(error, LabError):
        return error.message, error.status >= SILENT
    return records.NOT_STARTED(why=verbatim(str(error)[:500] or type(error).__name__)), True


def expected(session: Session, user: str, server: str) -> Held | None:
    """The server that is being started or held for a person; None where there is none."""
    states = (State.STARTING, State.READY)
    live = records.live(session, user)
    return next((one for one in live if one.state in states and one.server == server), None)
