"""A class before an Engine that becomes slow, and quick again: the line itself, on a clock that is
a number. The Engine answers one call at a time, so a crowd makes each of its calls later.
"""

from __future__ import annotations

import asyncio
import logging

from commons.leases import ServerKey
from commons.site import Servers
from rig.clock import run_fast
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.watch import Watch
from spawner.starts.room import Need
from spawner.starts.turns import Turns

QUICK, SLOW = 0.05, 1.5  # seconds of one call
CALLS = 6  # of the Engine, in one start
BESIDE = 0.5  # seconds of a start without the Engine
PATIENCE = 30.0  # seconds for which a call is waited for: servers.engine_timeout


class School:
    """People who click, and the Engine that starts their servers."""

    def __init__(self, settings: Servers) -> None:
        self.each = QUICK
        self.engine = asyncio.Lock()
        runtime = MemoryRuntime()
        self.watch = Watch(runtime, logging.getLogger("test"))
        self.loop = asyncio.get_running_loop()
        self.turns = Turns(self.watch, settings, self.loop.time)
        self.watch.changed = self.turns.look
        self.at_work: set[str] = set()
        self.most = 0
        self.began: list[str] = []
        self.failed: list[str] = []

    async def call(self) -> None:
        async with asyncio.timeout(PATIENCE), self.engine:
            await asyncio.sleep(self.each)

    async def click(self, name: str) -> float:
        """How long the server takes, from the turn on."""
        key: ServerKey = (name, "")
        await self.turns.take(key, Need(), self.loop.time(), lambda _place: None)
        began = self.loop.time()
        self.began.append(name)
        self.at_work.add(name)
        self.most = max(self.most, len(self.at_work))
        answered = False
        try:
            for _ in range(CALLS):
                await self.call()
            await asyncio.sleep(BESIDE)
            answered = True
        except TimeoutError:
            self.failed.append(name)
        finally:
            self.at_work.discard(name)
            self.turns.give_back(key, answered)
        return self.loop.time() - began

    async def crowd(self, name: str, count: int) -> None:
        """All click at one moment; returns when each has a server or none."""
        self.most = 0
        await asyncio.gather(*(self.click(f"{name}{n:03}") for n in range(count)))


def terms(settings: Servers) -> tuple[School, list[int], list[float]]:
    """Classes of 40, one after the other; the Engine is slow in the second and third.

    How many starts were at work at once in each, and how long each class took.
    """

    async def main() -> tuple[School, list[int], list[float]]:
        school = School(settings)
        watching = asyncio.create_task(school.watch.run())
        most, took = [], []
        for name, each in (("a", QUICK), ("b", SLOW), ("c", SLOW), ("d", QUICK), ("e", QUICK)):
            school.each, began = each, school.loop.time()
            await school.crowd(name, 40)
            most.append(school.most)
            took.append(school.loop.time() - began)
        watching.cancel()
        await school.turns.close()
        return school, most, took

    return run_fast(main())


def test_an_engine_that_is_slow_gets_fewer_starts_and_nobody_is_lost() -> None:
    """Kind: the line makes a slow Engine slower, until its calls are given up."""
    school, most, took = terms(Servers())
    assert school.failed == []
    assert school.began == sorted(school.began)
    assert len(school.began) == 5 * 40
    assert most[2] < most[0]
    # No order brings the last one sooner, slow or quick: the Engine was never without work.
    least = [40 * CALLS * each for each in (QUICK, SLOW, SLOW, QUICK, QUICK)]
    assert all(took < 1.1 * best for took, best in zip(took, least, strict=True))
    assert most[4] > 1


def test_without_pace_the_same_engine_loses_starts() -> None:
    """What the test before is worth: the same class at once."""
    school, _, _ = terms(Servers(concurrent_starts=40))
    assert school.failed
