"""Guessing ends before the directory locks anybody out."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from commons.store import Store
from hub_ext.directory.errors import TooManyAttempts
from hub_ext.directory.memory import Memory, Remembered, release
from hub_ext.directory.throttle import Device, Limits, Throttle

LOG = logging.getLogger("throttle")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock, limits: Limits | None = None, store: Store | None = None) -> Throttle:
    memory = Memory(store, LOG, clock)
    memory.load(0)
    return Throttle(limits or Limits(4, 100, 900), memory, clock)


def guess(throttle: Throttle, name: str, address: str = "192.0.2.1", right: bool = False) -> str:
    try:
        attempt = throttle.begin(address)
        attempt.gate(name)
    except TooManyAttempts:
        return "refused"
    if right:
        attempt.right()
        return "right"
    attempt.wrong()
    return "tried"


def test_four_wrong_passwords_are_passed_on_and_then_none():
    throttle = make(Clock())
    assert [guess(throttle, "alice") for _ in range(6)] == ["tried"] * 4 + ["refused"] * 2
    assert guess(throttle, "bob") == "tried"


def test_the_right_password_clears_what_was_counted():
    throttle = make(Clock())
    for _ in range(3):
        guess(throttle, "alice")
    assert guess(throttle, "alice", right=True) == "right"
    assert [guess(throttle, "alice") for _ in range(4)] == ["tried"] * 4


def test_a_locked_name_is_free_again_after_the_window():
    clock = Clock()
    throttle = make(clock)
    for _ in range(5):
        guess(throttle, "alice")
    clock.now += 901
    assert guess(throttle, "alice") == "tried"


def test_many_at_once_count_before_they_are_answered():
    throttle = make(Clock())
    attempts = [throttle.begin("192.0.2.1") for _ in range(4)]
    for attempt in attempts:
        attempt.gate("alice")
    with pytest.raises(TooManyAttempts):
        throttle.begin("192.0.2.1").gate("alice")
    attempts[0].void()
    throttle.begin("192.0.2.1").gate("alice")


def test_a_class_behind_one_address_has_room_and_an_attacker_has_not():
    throttle = make(Clock(), Limits(4, 20, 900))
    for number in range(200):
        assert guess(throttle, f"p{number}", right=True) == "right"
    for number in range(10 * 20):
        assert guess(throttle, f"s{number:02}") == "tried"
    assert guess(throttle, "another") == "refused"
    assert guess(throttle, "another", address="198.51.100.1") == "tried"
    # Who has logged in from there is not shut out by others' failures.
    assert guess(throttle, "p7", right=True) == "right"


def test_an_address_from_which_nobody_came_is_locked_before_the_directory_is_asked():
    throttle = make(Clock(), Limits(4, 20, 900))
    for number in range(20):
        guess(throttle, f"s{number:02}")
    with pytest.raises(TooManyAttempts):
        throttle.begin("192.0.2.1")


MINE = Device("alice", "nonce", "20260101Z")


def with_device(throttle: Throttle, name: str, device: Device, changed: str = "20260101Z") -> str:
    attempt = throttle.begin("192.0.2.1", device)
    try:
        attempt.gate(name, changed)
    except TooManyAttempts:
        return "refused"
    attempt.wrong()
    return "tried"


def test_wrong_passwords_from_elsewhere_do_not_lock_a_browser_and_its_own_do():
    throttle = make(Clock())
    for number in range(6):
        guess(throttle, "alice", address=f"203.0.113.{number}")
    assert [with_device(throttle, "alice", MINE) for _ in range(6)] == ["tried"] * 4 + [
        "refused"
    ] * 2


def test_a_browser_is_a_stranger_for_others_and_after_a_change_of_the_password():
    throttle = make(Clock())
    for name in ("alice", "bob"):
        for _ in range(4):
            guess(throttle, name, address="203.0.113.1")
    assert with_device(throttle, "bob", MINE) == "refused"
    assert with_device(throttle, "alice", MINE, changed="20260202Z") == "refused"
    assert with_device(throttle, "alice", MINE) == "tried"


def test_a_right_password_in_ones_browser_gives_guesses_from_elsewhere_no_new_room():
    throttle = make(Clock())
    for _ in range(4):
        guess(throttle, "alice", address="203.0.113.1")
    attempt = throttle.begin("192.0.2.1", MINE)
    attempt.gate("alice", "20260101Z")
    attempt.right()
    assert guess(throttle, "alice", address="203.0.113.1") == "refused"


def test_all_addresses_of_one_ipv6_network_are_one():
    throttle = make(Clock(), Limits(4, 20, 900))
    for number in range(20):
        guess(throttle, f"s{number}", address=f"2001:db8::{number:x}")
    assert guess(throttle, "another", address="2001:db8::ffff") == "refused"
    assert guess(throttle, "another", address="2001:db8:0:1::1") == "tried"


def test_what_is_known_of_addresses_has_an_end():
    throttle = make(Clock())
    for number in range(10_100):
        throttle.greet("alice", f"192.0.2.0/{number}")
    for number in range(1_100):
        throttle.greet(f"s{number}", "192.0.2.1")
    assert len(throttle._seen) == 10_000
    assert len(throttle._seen["192.0.2.1"]) == 1_000


def test_reaching_a_limit_is_told_once():
    throttle = make(Clock())
    told = []
    for _ in range(4):
        attempt = throttle.begin("192.0.2.1")
        attempt.gate("alice")
        told += attempt.wrong()
    assert told == ["name"]


@given(
    st.lists(st.tuples(st.floats(0, 400), st.sampled_from(["alice", "bob"]), st.booleans())),
    st.integers(1, 6),
)
def test_no_window_ever_holds_more_wrong_passwords_than_the_limit(tries, limit):
    clock = Clock()
    throttle = make(clock, Limits(limit, 0, 900))
    passed: dict[str, list[float]] = {"alice": [], "bob": []}
    for wait, name, right in tries:
        clock.now += wait
        outcome = guess(throttle, name, right=right)
        if outcome == "right":
            passed[name] = []
        elif outcome == "tried":
            passed[name].append(clock.now)
            assert sum(at > clock.now - 900 for at in passed[name]) <= limit


def test_a_restarted_hub_goes_on_counting(store):
    clock = Clock()
    first = make(clock, store=store)
    for _ in range(4):
        guess(first, "alice")
    guess(first, "bob", right=True)
    first._kept.close()
    again = make(clock, store=Store(store.url))
    assert guess(again, "alice") == "refused"
    assert guess(again, "bob") == "tried"
    again._kept.close()


def test_people_are_remembered_and_changed_and_released(store):
    memory = Memory(Store(store.url), LOG)
    memory.load(0)
    memory.remember(Remembered("alice", "id-a", 5.0, roles={"admin": False}))
    memory.remember(Remembered("bob", "id-b", 6.0))
    memory.remember(Remembered("alice", "id-a", 7.0, 8.0, "disabled", True, {"admin": True}))
    memory.close()
    again = Memory(Store(store.url), LOG)
    again.load(0)
    assert again.person_by_id("id-a") == Remembered(
        "alice", "id-a", 7.0, 8.0, "disabled", True, {"admin": True}
    )
    assert release(store, "alice")
    again.reload("alice")
    assert again.person("alice") is None
    assert again.person_by_id("id-a") is None
    assert not release(store, "alice")
    again.close()


async def test_a_database_that_fails_stops_nobody_and_is_written_later(tmp_path, caplog):
    store = Store(f"sqlite:///{tmp_path / 'state.sqlite'}")
    memory = Memory(store, LOG)
    memory.load(0)
    transact = store.transact

    def fail(*_args, **_options):
        raise OperationalError("", {}, Exception("disk full")) from None

    store.transact = lambda *a, **o: transact(fail)
    memory.remember(Remembered("alice", "id-a", 5.0))
    while "not remembered" not in caplog.text:
        await asyncio.sleep(0.01)
    store.transact = transact
    memory.remember(Remembered("bob", "id-b", 6.0))
    memory.close()
    again = Memory(Store(store.url), LOG)
    again.load(0)
    assert again.person("alice").id == "id-a"
    again.close()
