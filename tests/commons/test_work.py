"""Work that goes on: what fails is said once, tried again, and never ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from prometheus_client import REGISTRY

from commons.work import Keyed, OneByOne, Periodic

log = logging.getLogger("work")


def metric(name: str, work: str) -> float:
    return REGISTRY.get_sample_value(f"labcommons_work_{name}", {"work": work}) or 0.0


async def until(rounds: list[int], wanted: int, periodic: Periodic) -> None:
    """Run until so many rounds were done."""
    task = asyncio.create_task(periodic.run())
    async with asyncio.timeout(30):
        while len(rounds) < wanted and not task.done():
            await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def counting(rounds: list[int], do: Callable[[int], None]) -> Callable[[], Awaitable[object]]:
    async def once() -> object:
        rounds.append(len(rounds))
        do(rounds[-1])
        return 0.0

    return once


async def test_a_round_that_fails_unforeseen_is_logged_with_its_cause_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds: list[int] = []

    def do(number: int) -> None:
        if number == 0:
            raise KeyError("a defect")

    await until(rounds, 3, Periodic("defect", counting(rounds, do), 0, log))
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info
    assert "a defect" in str(record.exc_info[1])
    assert metric("failures_total", "defect") == 1
    assert metric("rounds_total", "defect") >= 3
    assert metric("last_success_seconds", "defect") > 0


async def test_an_expected_error_is_one_line_for_each_change_of_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds: list[int] = []
    said = ["silent", "silent", "refused", "silent"]

    def do(number: int) -> None:
        if number < len(said):
            raise OSError(said[number])

    work = Periodic("outage", counting(rounds, do), 0, log, expected=(OSError,), longest=0)
    await until(rounds, 5, work)
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert lines == ["outage: silent", "outage: refused", "outage: silent"]
    assert all(not record.exc_info for record in caplog.records)


async def test_waking_saves_the_wait_but_not_the_pause_after_a_failure() -> None:
    rounds: list[int] = []

    async def once() -> None:
        rounds.append(0)
        if len(rounds) == 2:
            raise ValueError

    work = Periodic("woken", once, 1000, log)
    task = asyncio.create_task(work.run())

    async def settle() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    await asyncio.sleep(0.01)
    assert len(rounds) == 1
    work.wake()
    await settle()
    assert len(rounds) == 2
    work.wake()
    await settle()
    assert len(rounds) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_pause_after_failures_doubles_up_to_its_limit() -> None:
    async def once() -> None:
        raise ValueError

    work = Periodic("doubling", once, 1, log, expected=(ValueError,), longest=5)
    assert [await work._round() for _ in range(5)] == [1, 2, 4, 5, 5]


async def test_what_is_asked_for_twice_is_done_once_at_a_time() -> None:
    done: list[str] = []
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()
        done.append("x")

    keyed = Keyed("servers", log)
    assert keyed.start("a", work)
    assert not keyed.start("a", work)
    assert keyed.start("b", work)
    assert "a" in keyed
    go.set()
    async with asyncio.timeout(10):
        while len(keyed):
            await asyncio.sleep(0)
    assert done == ["x", "x"]
    assert keyed.start("a", work)
    await keyed.close()


async def test_a_task_that_is_cancelled_before_its_first_step_leaves_its_key_free() -> None:
    async def work() -> None:
        raise AssertionError

    keyed = Keyed("early", log)
    keyed.start("a", work)
    await keyed.close()
    assert "a" not in keyed
    assert metric("under_way", "early") == 0


async def test_a_failed_task_is_logged_and_frees_its_key(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise OSError("no")

    keyed = Keyed("failing", log, expected=(OSError,))
    keyed.start("a", work)
    while len(keyed):
        await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["failing a: no"]
    assert metric("failures_total", "failing") == 1


async def test_who_comes_together_goes_on_in_rounds_of_their_own() -> None:
    rounds, passed = 0, []

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def one() -> None:
        await one_by_one()
        passed.append(rounds)

    one_by_one, counting = OneByOne(), asyncio.create_task(count())
    await asyncio.gather(*(one() for _ in range(20)))
    counting.cancel()
    assert len(set(passed)) == 20


async def test_who_has_begun_waits_for_one_who_is_new_at_each_step_and_not_for_all() -> None:
    one_by_one, order = OneByOne(), []

    async def start(number: int) -> None:
        for step in range(4):
            await one_by_one(step)
            order.append((number, step))

    await asyncio.gather(*(start(number) for number in range(20)))
    assert order.index((0, 3)) <= 3 * 3
    # And the other way: what has begun, however much, keeps nobody from beginning.
    assert order.index((19, 0)) <= 3 * 20
    ends = [number for number, step in order if step == 3]
    assert ends[0] == 0
    assert sorted(ends) == list(range(20))


async def test_who_goes_away_while_waiting_keeps_nobody() -> None:
    one_by_one = OneByOne()
    waiting = [asyncio.create_task(one_by_one(number % 3)) for number in range(9)]
    for gone in waiting[::2]:
        await asyncio.sleep(0)
        gone.cancel()
    await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
    assert [one.cancelled() for one in waiting[1::2]] == [False] * 4
    await one_by_one()
