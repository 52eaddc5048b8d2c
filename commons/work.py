"""What a process does beside answering: again and again, and once for each key.

One policy for all of it. What fails is logged (an expected error as one line, once for each change
of its words; anything else with its traceback) and tried again after a pause that doubles up to a
limit; it never ends the loop, and nothing else ends it but its cancellation. What runs, fails and
waits is counted for Prometheus, so that work which has stopped is seen: ``labcommons_work_*``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any

from prometheus_client import Counter, Gauge

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

LONGEST = 30.0  # seconds between two tries of what fails
SHORTEST = 1.0  # seconds that are left to others where a round takes longer than its interval

ROUNDS = Counter("labcommons_work_rounds", "Rounds and tasks begun, by work.", ["work"])
FAILURES = Counter("labcommons_work_failures", "Rounds and tasks that failed.", ["work"])
LAST = Gauge("labcommons_work_last_success_seconds", "When a round last succeeded.", ["work"])
SECONDS = Counter("labcommons_work_seconds", "Seconds that rounds and tasks took.", ["work"])
UNDER_WAY = Gauge("labcommons_work_under_way", "Tasks under way, by work.", ["work"])


class Periodic:
    """Work that is done every so often, and at once when it is woken.

    Args:
        name: in the log and in the metrics.
        once: one round; it may return the seconds until the next one.
        every: seconds from the beginning of a round to the next.
        expected: errors that say all in one line, such as StoreError.
        longest: seconds at most between two tries of what fails.
        first: seconds before the first round.
    """

    def __init__(
        self,
        name: str,
        once: Callable[[], Awaitable[float | None]],
        every: float,
        log: Log,
        *,
        expected: tuple[type[Exception], ...] = (),
        longest: float = LONGEST,
        first: float = 0,
    ) -> None:
        self.name, self.once, self.every, self.log = name, once, every, log
        self.expected, self.longest, self.first = expected, longest, first
        self._wake = asyncio.Event()
        self._failed = 0
        self._said = ""

    def wake(self) -> None:
        """Do not wait for the next round. It does not shorten the pause after a failure."""
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        pause = self.first
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await (asyncio.Event() if self._failed else self._wake).wait()
            self._wake.clear()
            pause = await self._round()

    async def _round(self) -> float:
        """One round; seconds until the next."""
        began = time.monotonic()
        ROUNDS.labels(self.name).inc()
        try:
            pause = await self.once()
        except Exception as error:
            self._failed += 1
            FAILURES.labels(self.name).inc()
            self._say(error)
            return float(min(self.longest, max(self.every, 0.1) * 2 ** min(self._failed - 1, 10)))
        finally:
            SECONDS.labels(self.name).inc(time.monotonic() - began)
        if self._failed:
            self.log.info("%s: works again", self.name)
        self._failed, self._said = 0, ""
        LAST.labels(self.name).set_to_current_time()
        if pause is not None:
            return float(pause)
        return max(self.every - (time.monotonic() - began), min(self.every, SHORTEST))

    def _say(self, error: Exception) -> None:
        if not isinstance(error, self.expected):
            self.log.exception("%s: a round failed", self.name)
        elif str(error) != self._said:
            self._said = str(error)
            self.log.error("%s: %s", self.name, error)


class Keyed:
    """Tasks of which one for each key is under way: what is asked for twice is done once.

    Args:
        name: in the log and in the metrics.
        expected: errors that say all in one line.
        at_once: tasks that may be under way at the same time; others wait for their turn.
    """

    def __init__(
        self,
        name: str,
        log: Log,
        *,
        expected: tuple[type[Exception], ...] = (),
        at_once: int = 1000,
    ) -> None:
        self.name, self.log, self.expected = name, log, expected
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(at_once)

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tasks

    def start(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        """Begin it, unless one for this key is under way; whether it was begun."""
        if key in self._tasks:
            return False
        task = asyncio.create_task(self._do(key, work), name=f"{self.name} {key}")
        self._tasks[key] = task
        # Not in the task: one that is cancelled before its first step never runs.
        task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return True

    async def _do(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        began = time.monotonic()
        ROUNDS.labels(self.name).inc()
        UNDER_WAY.labels(self.name).inc()
        try:
            async with self._turns:
                await work()
        except Exception as error:
            FAILURES.labels(self.name).inc()
            if isinstance(error, self.expected):
                self.log.error("%s %s: %s", self.name, key, error)
            else:
                self.log.exception("%s %s failed", self.name, key)
        else:
            LAST.labels(self.name).set_to_current_time()
        finally:
            UNDER_WAY.labels(self.name).dec()
            SECONDS.labels(self.name).inc(time.monotonic() - began)

    async def over(self, key: Hashable, within: float) -> None:
        """Return when what is under way for a key is over, or after so many seconds."""
        if (task := self._tasks.get(key)) is not None:
            await asyncio.wait([task], timeout=within)

    async def close(self) -> None:
        """Cancel what is under way, and wait for it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class OneByOne:
    """Who comes together goes on one after the other, each in a round of the event loop of its own.

    For work that holds the loop for some milliseconds, such as a commit of JupyterHub's: forty of
    them at once would be a second in which nobody else is served.

    Those who wait stand in lines, which take turns: who is new, who is at a later ``step`` of what
    they have begun (there the furthest is first), and any other that is named. So the first of a
    crowd has not to wait for all of it at each step, and no line keeps another from going on.
    """

    def __init__(self) -> None:
        self._busy = False
        self._count = itertools.count()
        # By name, in the order of their turns; none is empty.
        self._lines: dict[str, list[tuple[int, int, asyncio.Future[None]]]] = {}

    async def __call__(self, step: int = 0, line: str = "") -> None:
        if self._busy:
            await self._turn(step, line or ("begun" if step else "new"))
        self._busy = True
        try:
            await asyncio.sleep(0)
        finally:
            self._pass_on()

    async def _turn(self, step: int, line: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        heappush(self._lines.setdefault(line, []), (-step, next(self._count), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # it came in the very moment
            raise

    def _pass_on(self) -> None:
        while self._lines:
            name = next(iter(self._lines))
            waiting = self._lines.pop(name)
            turn = heappop(waiting)[2]
            if waiting:
                self._lines[name] = waiting  # behind the others
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False
