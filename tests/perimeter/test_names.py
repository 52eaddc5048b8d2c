"""Addresses of hosts: looked up again, kept for a while, never waited for longer than said."""

from __future__ import annotations

from ipaddress import IPv4Address
from threading import Event

from perimeter.names import AGAIN, KEEP, MOST, Names

ONE, TWO = IPv4Address("203.0.113.1"), IPv4Address("203.0.113.2")
PATIENCE = 30.0  # seconds, which no look-up below takes


class Resolver:
    """Says what it is told to say, and counts who asks."""

    def __init__(self) -> None:
        self.answers: dict[str, list[IPv4Address]] = {}
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[IPv4Address]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such host")
        return self.answers[host]


def test_an_address_stays_for_a_while_after_the_name_has_another() -> None:
    resolver = Resolver()
    names = Names(resolver)
    resolver.answers["a"] = [ONE]
    names.refresh(["a"], 0, wait=PATIENCE)
    assert names.addresses(["a"]) == {"a": (ONE,)}
    resolver.answers["a"] = [TWO]
    names.refresh(["a"], AGAIN, wait=PATIENCE)
    assert names.addresses(["a"]) == {"a": (ONE, TWO)}
    names.refresh(["a"], KEEP, wait=PATIENCE)
    assert names.addresses(["a"]) == {"a": (TWO,)}


def test_a_name_is_not_asked_for_again_too_soon() -> None:
    resolver = Resolver()
    names = Names(resolver)
    for now in (0.0, 1.0, AGAIN - 1, AGAIN):
        names.refresh(["a"], now, wait=PATIENCE)
    assert resolver.asked == ["a", "a"]


def test_a_name_that_fails_keeps_what_it_had_and_says_why_it_has_nothing() -> None:
    resolver = Resolver()
    resolver.answers["a"] = [ONE]
    names = Names(resolver)
    assert names.unknown(["a"]) == {"a": "not looked up yet"}
    names.refresh(["a", "b"], 0, wait=PATIENCE)
    del resolver.answers["a"]
    names.refresh(["a", "b"], AGAIN, wait=PATIENCE)
    assert names.addresses(["a", "b"]) == {"a": (ONE,), "b": ()}
    assert names.unknown(["a", "b"]) == {"b": "no such host"}


def test_a_resolver_that_hangs_is_not_waited_for() -> None:
    begun, go_on = Event(), Event()

    def hang(_host: str) -> list[IPv4Address]:
        begun.set()
        go_on.wait(PATIENCE)
        return [ONE]

    names = Names(hang)
    names.refresh(["a"], 0)
    assert begun.wait(PATIENCE)
    names.refresh(["a"], AGAIN)
    assert names.addresses(["a"]) == {"a": ()}
    go_on.set()
    names.refresh(["a"], AGAIN + 1, wait=PATIENCE)
    assert names.addresses(["a"]) == {"a": (ONE,)}


def test_a_name_with_very_many_addresses_has_some_of_them() -> None:
    names = Names(lambda _host: [ONE + number for number in range(5000)])
    names.refresh(["a"], 0, wait=PATIENCE)
    assert len(names.addresses(["a"])["a"]) == MOST
