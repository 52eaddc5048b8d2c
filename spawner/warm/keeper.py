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
        for held in live:
            over = held.cancelled or now >= held.hold_until
            key = (held.user, "")
            if _release(held) in self._acts:
                continue
            if held.state is State.READY:
                await self._hold(held, running.get(key), over)
            elif held.state is State.STARTING:
                await self._going(held, key in known, running.get(key), over)
            elif over:
                await self._move(held, *_not_begun(held))
            elif key in known:
                # After a restart the hub itself begins again what it had begun.
                ours = held.tries > 0 and not held.failed
                reason = None if ours else records.HAS_ONE()
                await self._move(held, State.STARTING if ours else State.THEIRS, reason)
            elif not closed and len(self._acts) < AT_ONCE:
                self._acts.start(key, partial(self._start, held))

    async def opened(self, used: Iterable[ServerKey]) -> None:
        """Somebody has come to these servers."""
        users = {user for user, server in used if not server}
        if not users or not self._ready:
            return
        for held in await self.store.read(records.live):
            if held.state is State.READY and held.user in users:
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

    async def _start(self, held: Held) -> None:
        key = (held.user, "")
        chosen = self.servers.chosen(*key)
        # Written before: a hub that is killed meanwhile knows that this is no click.
        if not await self._move(held, State.STARTING, tries=held.tries + 1, chosen=chosen):
            return
        going = _after(held, State.STARTING, held.tries + 1)
        self.ahead.add(key)
        try:
            await self.servers.bring_up(*key, held.options)
        except BrokenOff:
            if _release(held) not in self._acts:
                await self._move(going, State.THEIRS, records.STOPPED_IT())
        except Exception as error:
            reason, again = _why(error)
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
        key = (held.user, "")
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
        key = (held.user, "")
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
        if held.chosen is not None:
            self.servers.choose(held.user, "", held.chosen)


def _release(held: Held) -> tuple[str, str]:
    return (held.user, "release")


def _after(held: Held, state: State, tries: int) -> Held:
    return replace(held, state=state, tries=tries)


def _not_begun(held: Held) -> tuple[State, Message | None]:
    """What a server comes to whose time is over before it was ready."""
    return (State.CANCELLED, None) if held.cancelled else (State.FAILED, records.NO_TIME())


def _why(error: Exception) -> tuple[Message, bool]:
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
    if server:
        return None
    states = (State.STARTING, State.READY)
    return next((one for one in records.live(session, user) if one.state in states), None)
