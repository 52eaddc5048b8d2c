"""The line itself, on a runtime in memory and a clock that is a number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from commons.errors import BadRequest, NotAvailable
from commons.leases import ServerKey
from commons.site import Servers, Sums
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.watch import Watch
from spawner.starts.line import PATIENCE, Place
from spawner.starts.room import Need
from spawner.starts.turns import Turns

G = 2**30


class Line:
    """One line, and who stands in it."""

    def __init__(self, runtime: MemoryRuntime, watch: Watch, settings: Servers) -> None:
        self.runtime, self.now, self.told = runtime, 1000.0, list[tuple[str, Place]]()
        self.turns = Turns(watch, settings, lambda: self.now)
        watch.changed = self.turns.look

    async def take(self, name: str, need: Need = Need(), **more: bool) -> ServerKey:  # noqa: B008
        key = (name, "")
        tell = lambda place: self.told.append((name, place))  # noqa: E731
        await self.turns.take(key, need, self.now, tell, **more)
        return key

    async def stand(self, name: str, need: Need = Need()) -> asyncio.Task[ServerKey]:  # noqa: B008
        """Come, and see that it is not one's turn."""
        task = asyncio.create_task(self.take(name, need))
        while not task.done() and self.turns.place((name, "")) is None:
            await asyncio.sleep(0)
        assert not task.done()
        return task


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    runtime = MemoryRuntime()
    watch = Watch(runtime, logging.getLogger("test"))
    watching = asyncio.create_task(watch.run())
    line = Line(runtime, watch, Servers(concurrent_starts=1, machine=Sums(memory="8G")))
    yield line
    await line.turns.close()
    watching.cancel()


async def test_who_leaves_the_line_moves_the_others_up(line: Line) -> None:
    first = await line.take("a")
    second, third = await line.stand("b"), await line.stand("c")
    second.cancel()
    await asyncio.wait([second])
    line.turns.give_back(first, answered=True)
    assert await third == ("c", "")
    assert line.turns.place(("b", "")) is None


async def test_who_leaves_in_the_moment_of_the_turn_gives_it_back(line: Line) -> None:
    first = await line.take("a")
    second, third = await line.stand("b"), await line.stand("c")
    line.turns.give_back(first, answered=True)
    while ("b", "") not in line.turns.held():
        await asyncio.sleep(0)
    second.cancel()  # it has its turn, and does not know yet
    await asyncio.wait([second])
    assert await third == ("c", "")


async def test_one_that_never_answers_does_not_hold_up_the_rest(line: Line) -> None:
    stuck = await line.take("a")
    second = await line.stand("b")
    line.now += line.turns.pace.late + 0.1
    line.turns.look()
    await second
    assert {stuck, ("b", "")} == line.turns.held().keys()


async def test_a_machine_short_of_memory_starts_as_soon_as_it_is_not(line: Line) -> None:
    line.runtime.left = 0
    first = await line.stand("a")
    place = line.turns.place(("a", ""))
    assert place is not None
    assert place.reason is not None
    assert place.reason.code == "disk_low"
    line.runtime.left = 2**40
    line.now += 2
    line.turns.look()
    await first


async def test_an_agent_that_does_not_say_what_is_left_stops_nobody(line: Line) -> None:
    await line.take("a")
    line.turns.give_back(("a", ""), answered=True)
    line.now += 10
    line.runtime.silence("free")
    await line.take("b")


async def test_what_can_never_fit_and_what_must_not_wait_is_refused(line: Line) -> None:
    with pytest.raises(BadRequest):
        await line.take("a", Need(9 * G))
    await line.take("b", Need(8 * G))
    with pytest.raises(NotAvailable, match="8 GiB are taken, 1 GiB are wanted"):
        await line.take("c", Need(G), wait=False)


async def test_a_smaller_size_is_advised_only_where_it_would_start_sooner(line: Line) -> None:
    line.turns.give_back(await line.take("a", Need(6 * G)), answered=True)
    line.turns.held = lambda: {("a", ""): Need(6 * G)}  # type: ignore[method-assign]
    await line.stand("b", Need(4 * G))
    assert [line.turns.sooner(("b", ""), Need(n * G)) for n in (1, 2, 3)] == [True, True, False]
    assert not line.turns.sooner(("nobody", ""), Need())
    # Somebody else has waited for long: what is free is kept for them.
    line.now += PATIENCE / 2
    await line.stand("c", Need(5 * G))
    line.now += PATIENCE / 2 + 1
    assert not line.turns.sooner(("c", ""), Need(G))
    assert line.turns.sooner(("b", ""), Need(G))  # it is kept for b, who would not need it


async def test_an_engine_that_is_silent_halves_the_crowd(line: Line) -> None:
    line.turns = Turns(line.turns._watch, Servers(), lambda: line.now)
    keys = [await line.take(name) for name in "abcdefghi"]  # eight cores, and one more
    for key in keys[:3]:
        line.turns.give_back(key, answered=False)
    assert line.turns.pace.at_once == 1
    for key in keys[3:]:
        line.now += 1
        line.turns.give_back(key, answered=True)
    assert len(line.turns.held()) == 0
