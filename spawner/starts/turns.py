"""Whose turn it is to start: the line in front of one machine, and who is told what of it.

Nothing here asks again and again: somebody comes, a start is over, a server ends, and the line is
looked at once. Only where the machine itself is short of something that nobody reports, it is
looked at again after a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from commons.errors import BadRequest, LabError, NotAvailable
from commons.leases import ServerKey
from commons.messages import Message
from commons.site import Servers, Sums
from spawner.runtime.protocol import Free
from spawner.runtime.watch import Watch
from spawner.starts import line, room
from spawner.starts.line import Ask, Place
from spawner.starts.pace import Pace
from spawner.starts.room import Need

log = logging.getLogger(__name__)

TELL_EVERY = 1.0  # seconds between two tellings of all places
SHORT = 2.0  # seconds until a machine that is short of something is looked at again
FRESH = 1.0  # seconds for which a look at the machine holds

Tell = Callable[[Place], None]


@dataclass
class _Waits:
    ask: Ask
    tell: Tell
    turn: asyncio.Future[None]
    leaves: bool


@dataclass
class _Starts:
    need: Need
    began: float
    late: bool = False  # it waits for something, and is not at work


class Closed(Exception):
    """There is maintenance."""


class Turns:
    """The line of one hub.

    Args:
        watch: what runs, with what counts of it.
        settings: the site's ``concurrent_starts`` and sums.
        clock: seconds since 1970.

    Attributes:
        ahead: servers that are started before their owners come, and jobs: behind all others.
        closed: whose turn does not come now, and why; they keep their places (maintenance).
    """

    def __init__(
        self, watch: Watch, settings: Servers, clock: Callable[[], float] = time.time
    ) -> None:
        self._watch, self._settings, self._clock = watch, settings, clock
        fixed = settings.concurrent_starts
        self.pace = Pace.of(1, None if fixed == "auto" else fixed)
        self._sums: Sums | None = None
        self._waiting: dict[ServerKey, _Waits] = {}
        self._starting: dict[ServerKey, _Starts] = {}
        self._places: Mapping[ServerKey, Place] = {}
        self._free: Free | None = None
        self._looked = 0.0
        self._deciding: asyncio.Task[None] | None = None
        self._again = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.ahead: set[ServerKey] = set()
        self.closed: Callable[[ServerKey], Message | None] = lambda _key: None

    # -- what spawners call -----------------------------------------------------------------------

    async def take(
        self,
        key: ServerKey,
        need: Need,
        asked: float,
        tell: Tell,
        wait: bool = True,
        leaves: bool = False,
    ) -> None:
        """Return when this server may start; then ``give_back`` is owed.

        ``asked``: when, in seconds since 1970. ``tell`` hears of each new place. Raises
        NotAvailable for what its owner may not have, and without ``wait`` for what there is no
        room for now; BadRequest for what this machine can never hold; with ``leaves``, Closed
        where the turn does not come for now: who holds GPUs has to give them back.
        """
        sums = await self._of_machine()
        held = self.held()
        # What waits behind its owner does not stand in the owner's way.
        mine = held | {
            one.ask.key: one.ask.need
            for one in self._waiting.values()
            if one.ask.key not in self.ahead
        }
        if reason := room.over_person(key, need, mine, self._settings.person):
            raise NotAvailable(reason)
        if room.over_machine(key, need, {}, sums):
            raise BadRequest(room.TOO_LARGE())
        if not wait and (reason := room.over_machine(key, need, held, sums)):
            raise NotAvailable(reason)
        before = sum(other[0] == key[0] and other != key for other in mine)
        turn = asyncio.get_running_loop().create_future()
        self._waiting[key] = waits = _Waits(Ask(key, need, asked, before), tell, turn, leaves)
        self.look()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(key)  # it came in the very moment
            raise
        finally:
            if self._waiting.get(key) is waits:
                del self._waiting[key]
                self.look()

    def give_back(self, key: ServerKey, answered: bool | None = None) -> None:
        """The start is over. ``answered``: by a server that answers, or not; None: broken off."""
        began = self._starting.pop(key, None)
        if began is None:
            return
        seconds = max(0.0, self._clock() - began.began)
        if answered:
            self.pace = self.pace.after(seconds, 1 + self._at_work())
        elif answered is False:
            self.pace = self.pace.after_failure()
        elif seconds > self.pace.late and not began.late:
            self.pace = self.pace.after_late(seconds)
        self.look()

    def place(self, key: ServerKey) -> Place | None:
        """Where a server stands in line; None where it does not."""
        return self._places.get(key) if key in self._waiting else None

    def sooner(self, key: ServerKey, need: Need) -> bool:
        """Whether a server that waits for room need not, were it asked for now and this large."""
        if self._sums is None or key not in self._waiting or self.closed(key):
            return False
        now = self._clock()
        asks = {other: one.ask for other, one in self._waiting.items()}
        asks[key] = replace(asks[key], need=need, asked=now)
        args = (self.held(), self._at_work(), self.pace, self._sums, self._free, now)
        place = line.decide(asks.values(), *args).places.get(key)
        return place is None or place.reason is None

    def held(self) -> dict[ServerKey, Need]:
        """What runs and what is starting, and what counts of it."""
        running = {(s.user, s.server): room.need_of(s) for s in self._watch.running()}
        return running | {key: one.need for key, one in self._starting.items()}

    def come(self, key: ServerKey) -> None:
        """Its owner waits for it now."""
        if key in self.ahead:
            self.ahead.discard(key)
            self.look()

    def look(self) -> None:
        """Something has changed: see who may start."""
        if self._deciding is not None and not self._deciding.done():
            self._again = True
        elif self._waiting:
            self._deciding = asyncio.create_task(self._decide())
            self._deciding.add_done_callback(_said)

    async def close(self) -> None:
        """Look no more."""
        for timer in self._timers.values():
            timer.cancel()
        if self._deciding is not None:
            self._deciding.cancel()
            await asyncio.wait([self._deciding])

    # -- the work ---------------------------------------------------------------------------------

    async def _of_machine(self) -> Sums:
        """The site's sums, with the machine's own memory where it says nothing."""
        if self._sums is None:
            nodes = await self._watch.runtime.nodes()
            await self._watch.whole()  # until then it is not known what runs
            if self._settings.concurrent_starts == "auto":
                self.pace = Pace.of(sum(node.cpu for node in nodes))
            self._sums = room.sums_of(self._settings.machine, nodes)
        return self._sums

    async def _measure(self) -> Free | None:
        """What the machine has left; None where it does not say."""
        if self._clock() - self._looked >= FRESH:
            try:
                found = await self._watch.runtime.free()
            except LabError as error:
                log.warning("what the machine has left is not known: %s", error)
                found = []
            self._free, self._looked = (found[0] if found else None), self._clock()
        return self._free

    def _at_work(self) -> int:
        """Starts under way that are no later than a start may be."""
        return sum(not one.late for one in self._starting.values())

    def _see_late(self, now: float) -> None:
        """The oldest first: how long that one takes is news of how long the others may take."""
        for one in sorted(self._starting.values(), key=lambda one: one.began):
            if not one.late and now - one.began >= self.pace.late:
                one.late = True
                self.pace = self.pace.after_late(now - one.began)

    async def _decide(self) -> None:
        sums = await self._of_machine()
        while True:
            self._again = False
            free = await self._measure()
            now = self._clock()
            self._see_late(now)
            closed = {key: why for key in self._waiting if (why := self.closed(key))}
            asks = [
                replace(one.ask, ahead=key in self.ahead)
                for key, one in self._waiting.items()
                if key not in closed
            ]
            decided = line.decide(asks, self.held(), self._at_work(), self.pace, sums, free, now)
            for ask in decided.go:
                self._let_go(ask, now)
            self._places = decided.places | self._outside(closed, len(decided.places))
            if not self._again:
                break
        if self._places:
            self._later("tell", TELL_EVERY, self._tell_places)
            if working := [one.began for one in self._starting.values() if not one.late]:
                # One that never answers must not hold up the rest.
                self._later("late", max(min(working) + self.pace.late - now, 0.0) + 0.01, self.look)
            if room.measured(free, self._at_work()):
                self._later("short", SHORT, self.look)

    def _outside(self, closed: Mapping[ServerKey, Message], before: int) -> dict[ServerKey, Place]:
        """The places of those whose turn does not come for now, behind the others."""
        for one in [self._waiting[key] for key in closed if self._waiting[key].leaves]:
            if not one.turn.done():
                one.turn.set_exception(Closed)
        order = sorted(closed, key=lambda key: self._waiting[key].ask.place)
        return {key: Place(n, None, closed[key]) for n, key in enumerate(order, before + 1)}

    def _let_go(self, ask: Ask, now: float) -> None:
        waits = self._waiting.pop(ask.key)
        if not waits.turn.done():
            self._starting[ask.key] = _Starts(ask.need, now)
            waits.turn.set_result(None)

    def _later(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        """Once, whoever asks for it again meanwhile."""
        if name not in self._timers:

            def now() -> None:
                del self._timers[name]
                act()

            self._timers[name] = asyncio.get_running_loop().call_later(seconds, now)

    def _tell_places(self) -> None:
        for key, place in self._places.items():
            if key in self._waiting:
                self._waiting[key].tell(place)


def _said(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("who may start is not decided", exc_info=error)
