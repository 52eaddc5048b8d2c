"""Who is next: order, fairness and sums, for any crowd."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from commons.site import Sums
from spawner.runtime.protocol import Free
from spawner.starts import line
from spawner.starts.line import BEHIND, PATIENCE, Ask, decide
from spawner.starts.pace import Pace
from spawner.starts.room import DISK, STARTING, Need, fit

G = 2**30
NO_SUMS = Sums()
asks = st.builds(
    Ask,
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["", "two", "three"])),
    st.builds(Need, st.integers(0, 8).map(lambda n: n * G), st.integers(0, 4).map(float)),
    st.floats(0, 2 * BEHIND),
    st.integers(0, 3),
)
crowds = st.lists(asks, max_size=24, unique_by=lambda ask: ask.key)
sums = st.builds(
    Sums,
    servers=st.none() | st.integers(1, 12),
    memory=st.none() | st.integers(8, 40).map(lambda n: f"{n}G"),
    cpu=st.none() | st.integers(4, 20).map(float),
)
paces = st.builds(lambda limit: Pace(limit), st.floats(1, 12))


@given(crowds, st.integers(0, 12), paces, st.floats(0, 1000))
def test_who_came_first_is_first_and_never_more_than_the_pace_are_at_work(
    crowd: list[Ask], starting: int, pace: Pace, now: float
) -> None:
    found = decide(crowd, {}, starting, pace, NO_SUMS, None, now)
    order = [ask.key for ask in sorted(crowd, key=lambda ask: ask.place)]
    assert [*(ask.key for ask in found.go), *found.places] == order
    assert starting + len(found.go) <= max(starting, pace.at_once)
    # And nobody waits for nothing.
    assert not found.places or starting + len(found.go) >= pace.at_once
    assert [place.position for place in found.places.values()] == [
        n + 1 for n in range(len(found.places))
    ]
    expected = [place.expected for place in found.places.values()]
    assert all(a <= b for a, b in pairwise(expected))  # type: ignore[operator]


@given(crowds, sums, paces, st.floats(0, 1000))
def test_sums_are_never_exceeded_and_each_who_waits_for_room_is_told_so(
    crowd: list[Ask], limits: Sums, pace: Pace, now: float
) -> None:
    found = decide(crowd, {}, 0, pace, limits, None, now)
    assert limits.servers is None or len(found.go) <= limits.servers
    if limits.memory is not None:
        assert sum(ask.need.memory for ask in found.go) <= int(limits.memory[:-1]) * G
    if limits.cpu is not None:
        assert sum(ask.need.cpu for ask in found.go) <= limits.cpu
    for place in found.places.values():
        assert (place.expected is None) == (place.reason is not None)
    if any(place.reason is None for place in found.places.values()):
        assert len(found.go) == pace.at_once


@given(crowds, sums, paces, st.randoms(use_true_random=False))
def test_nobody_starves(crowd: list[Ask], limits: Sums, pace: Pace, random: object) -> None:
    """Servers end one after the other; others come without end. All of the crowd get in."""
    crowd = [ask for ask in crowd if not _too_large(ask, limits)]
    left = {ask.key: ask for ask in crowd}
    running: dict[tuple[str, str], Need] = {}
    now, number = 2 * BEHIND, 0
    for _round in range(400):
        if not left:
            break
        for _ in range(pace.at_once):  # small ones, that fit nearly always
            number += 1
            newcomer = Ask((f"n{number}", ""), Need(G // 2, 0.5), now)
            left.setdefault(newcomer.key, newcomer)
        found = decide(left.values(), running, 0, pace, limits, None, now)
        for ask in found.go:
            running[ask.key] = left.pop(ask.key).need
        if running:
            running.pop(next(iter(running)))  # the oldest ends
        now += 60
        if not any(ask.key in left for ask in crowd):
            break
    assert not any(ask.key in left for ask in crowd)


def _too_large(ask: Ask, limits: Sums) -> bool:
    return bool(line.over_machine(ask.key, ask.need, {}, limits))


def test_who_waits_for_room_makes_nobodys_turn_later() -> None:
    """Kind: an expected second that counts people who are in nobody's way."""
    large = [Ask((name, ""), Need(10 * G), 0.0) for name in "abc"]
    small = Ask(("s", ""), Need(G), 1.0)
    pace = Pace(1)
    found = decide([*large, small], {("x", ""): Need(8 * G)}, 1, pace, Sums(memory="16G"), None, 2)
    place = found.places[small.key]
    assert (place.position, place.expected) == (4, 2 + pace.wait(1))


@given(st.builds(Need, st.integers(0, 8).map(lambda n: n * G), st.floats(0, 4)), sums)
def test_as_many_fit_as_are_let_in(need: Need, limits: Sums) -> None:
    crowd = [Ask((f"p{n}", ""), need, 0.0) for n in range(64)]
    found = decide(crowd, {}, 0, Pace(64), limits, None, 0.0)
    assert len(found.go) == min(64, fit(need, limits))


def test_a_second_server_stands_behind_the_first_of_others() -> None:
    crowd = [
        Ask(("alice", ""), Need(), 0.0),
        Ask(("alice", "two"), Need(), 0.1, before=1),
        Ask(("bob", ""), Need(), 5.0),
        Ask(("late", ""), Need(), BEHIND + 1),
    ]
    found = decide(crowd, {}, 0, Pace(1), NO_SUMS, None, 6.0)
    assert [ask.key for ask in found.go] == [("alice", "")]
    assert [*found.places] == [("bob", ""), ("alice", "two"), ("late", "")]


def test_what_is_started_ahead_stands_behind_all_who_wait_themselves() -> None:
    crowd = [
        Ask(("alice", ""), Need(), 0.0, ahead=True),
        Ask(("bob", ""), Need(), 1.0, ahead=True),
        Ask(("late", ""), Need(), BEHIND + 1),
        Ask(("late", "two"), Need(), BEHIND + 1, before=1),
    ]
    found = decide(crowd, {}, 0, Pace(1), NO_SUMS, None, BEHIND + 2)
    assert [ask.key for ask in found.go] == [("late", "")]
    assert [*found.places] == [("late", "two"), ("alice", ""), ("bob", "")]


def test_what_does_not_fit_lets_others_pass_but_not_for_ever() -> None:
    large, small = Ask(("l", ""), Need(10 * G), 0.0), Ask(("s", ""), Need(G), 1.0)
    held = {("x", ""): Need(8 * G)}
    limits = Sums(memory="16G")
    found = decide([large, small], held, 0, Pace(4), limits, None, 10.0)
    assert found.go == (small,)
    found = decide([large, small], held, 0, Pace(4), limits, None, PATIENCE)
    assert found.go == ()
    assert found.places[small.key].reason == line.KEPT()


def test_a_machine_that_is_short_of_memory_or_disk_starts_nothing() -> None:
    crowd = [Ask((name, ""), Need(), 0.0) for name in "abc"]

    def go(memory: int, disk: int) -> int:
        free = Free(node="here", memory=memory, disk=disk, engine=0)
        return len(decide(crowd, {}, 0, Pace(3), NO_SUMS, free, 0.0).go)

    assert go(STARTING * 3, DISK) == 3
    assert go(STARTING * 2, DISK) == 2
    assert go(STARTING * 3, DISK - 1) == 0
    free = Free(node="here", memory=0, disk=DISK, engine=0)
    found = decide(crowd, {}, 0, Pace(3), NO_SUMS, free, 0.0)
    [code] = {place.reason.code for place in found.places.values() if place.reason}
    assert code == "memory_low"
