"""How many may come, by the clock that is passed in."""

from __future__ import annotations

from jump.limits import FAILED_ADDRESS, FAILED_NAME, REMEMBERED, WINDOW, Doors, Throttle


def test_one_address_takes_not_all_doors() -> None:
    doors = Doors(most=5, of_one=2)
    assert [doors.come("a"), doors.come("a"), doors.come("a")] == [True, True, False]
    assert [doors.come(one) for one in "bcde"] == [True, True, True, False]
    doors.leave("a")
    assert doors.come("e")


def test_an_address_that_fails_is_not_heard_for_a_while() -> None:
    throttle = Throttle()
    for number in range(FAILED_ADDRESS):
        assert not throttle.address_refused("a", 1.0)
        throttle.failed(f"name-{number}", "a", 1.0)
    assert throttle.address_refused("a", 2.0)
    assert not throttle.address_refused("b", 2.0)
    assert not throttle.address_refused("a", 1.0 + WINDOW)


def test_others_failures_do_not_keep_out_who_has_come_in_from_there() -> None:
    throttle = Throttle()
    throttle.right("alice", "home")
    for number in range(FAILED_NAME):
        throttle.failed("alice", f"address-{number}", 1.0)
    assert throttle.name_refused("alice", "elsewhere", 2.0)
    assert not throttle.name_refused("alice", "home", 2.0)
    assert not throttle.name_refused("bob", "elsewhere", 2.0)


def test_what_is_remembered_is_bounded() -> None:
    throttle = Throttle()
    for number in range(2 * REMEMBERED):
        throttle.failed(f"n{number}", "", 1.0)
        throttle.right(f"n{number}", "a")
    assert len(throttle._failed) <= REMEMBERED
    assert len(throttle._known) <= REMEMBERED
