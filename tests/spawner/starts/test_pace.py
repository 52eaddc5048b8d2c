"""How many may start at once, on a machine that is a formula and a clock that is a number."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.site import Sums
from spawner.starts.line import Ask, decide
from spawner.starts.pace import Pace
from spawner.starts.room import Need


class Machine:
    """Each start needs seconds of a core and some of waiting; more at once share the cores."""

    def __init__(
        self, cores: int = 2, work: float = 1.27, alone: float = 1.3,
        engine: Callable[[float], float] = lambda _now: 0.0,
    ) -> None:  # fmt: skip
        self.cores, self.work, self.alone, self.engine = cores, work, alone, engine

    def seconds(self, at_once: int, now: float) -> float:
        return max(self.alone, self.work * at_once / self.cores) + self.engine(now)

    def crowd(
        self, count: int, pace: Pace, now: float = 0.0
    ) -> tuple[list[float], Pace, list[int]]:
        """All ask at once: when each was ready, the pace then, and how many were at work."""
        waiting = {n: Ask((f"s{n:03}", ""), Need(), now + n / 1000) for n in range(count)}
        begun: dict[tuple[str, str], float] = {}
        ends: list[tuple[float, tuple[str, str]]] = []
        ready, at_once, came = [], [], now
        while waiting or ends:
            done = decide(waiting.values(), {}, len(begun), pace, Sums(), None, now)
            for ask in done.go:
                waiting = {n: one for n, one in waiting.items() if one is not ask}
                begun[ask.key] = now
                # As they are when it begins: good enough for a formula.
                heapq.heappush(ends, (now + self.seconds(len(begun), now), ask.key))
            at_once.append(len(begun))
            now, key = heapq.heappop(ends)
            pace = pace.after(now - begun[key], len(begun))
            del begun[key]
            ready.append(now - came)
        return ready, pace, at_once


@pytest.mark.parametrize("count", [20, 40])
def test_of_a_class_the_first_is_ready_at_once_and_the_last_no_later(count: int) -> None:
    machine = Machine()
    ready, _, at_once = machine.crowd(count, Pace.of(machine.cores))
    least = count * machine.work / machine.cores  # no order can be faster
    assert ready[0] < 2.0
    assert ready[-1] < least * 1.1
    assert ready[count // 2] < ready[-1] * 0.6
    assert max(at_once) <= 5


def test_a_large_machine_is_used_whole() -> None:
    machine = Machine(cores=32)
    ready, pace, _ = machine.crowd(400, Pace.of(machine.cores))
    assert pace.at_once >= 32
    assert ready[-1] < 400 * machine.work / machine.cores * 1.15


def test_an_engine_that_becomes_slow_is_lived_with_and_left_behind() -> None:
    """Its slowness is not the crowd's: fewer at once do not help, and so they come back."""
    slow = Machine(engine=lambda now: 10.0 if now > 5 else 0.0)
    ready, pace, _ = slow.crowd(60, Pace.of(2))
    gaps = [b - a for a, b in pairwise(ready)][-20:]
    assert pace.at_once >= 3
    assert sum(gaps) / len(gaps) < 11.3 / 2
    # And when it is well again, nothing of that is left.
    ready, pace, at_once = Machine().crowd(60, pace, 1000.0)
    assert ready[0] < 4
    assert max(at_once[-20:]) <= 5
    assert ready[-1] < 60 * 1.27 / 2 * 1.2


def test_single_starts_do_not_make_room_for_a_crowd() -> None:
    pace = Pace.of(2)
    for _ in range(1000):
        pace = pace.after(1.0, 1)
    assert pace.at_once == 3


def test_a_sites_own_number_is_kept() -> None:
    pace = Pace.of(2, 20)
    for seconds in (1, 50, 1, 100):
        pace = pace.after(seconds, 20).after_failure()
    assert pace.at_once == 20


@given(
    st.integers(1, 256),
    st.lists(st.tuples(st.floats(0, 3600), st.integers(1, 300), st.booleans()), max_size=300),
)
def test_whatever_is_seen_the_limit_keeps_its_limits_and_moves_by_one(
    cores: int, seen: list[tuple[float, int, bool]]
) -> None:
    pace = Pace.of(cores)
    for seconds, under_way, failed in seen:
        after = pace.after_failure() if failed else pace.after(seconds, under_way)
        assert after.least <= after.limit <= after.most
        assert after.limit <= pace.limit + 1
        assert after.at_once >= 1
        assert 0 < after.late <= 30
        assert after.wait(3) >= 0
        pace = after
