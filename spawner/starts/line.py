"""Who may start now, and who waits for what: one function of plain values.

First come, first served between people; a person's second server stands behind those of others
that come within ``BEHIND`` seconds, so that a crowd comes to work before anybody has two. Nobody
starves: a place in line is a moment that is written once, and whoever comes after it is behind.

What the machine has no room for lets smaller ones pass, for ``PATIENCE`` seconds; from then on
room is kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from commons.i18n import N_
from commons.leases import ServerKey
from commons.messages import Message, Text
from commons.site import Sums
from spawner.runtime.protocol import Free
from spawner.starts.pace import Pace
from spawner.starts.room import Held, Need, measured, over_machine

BEHIND = 300.0
PATIENCE = 300.0

KEPT = Text("room_kept", N_("What is free is kept for somebody who has waited longer."))


@dataclass(frozen=True)
class Ask:
    """Somebody's server that is to start.

    Attributes:
        asked: when, in seconds since 1970; it survives a restart of the hub.
        before: how many servers of the same person run, start or wait already.
        ahead: started before its owner comes (``spawner.warm``): behind all who wait themselves.
    """

    key: ServerKey
    need: Need
    asked: float
    before: int = 0
    ahead: bool = False

    @property
    def place(self) -> tuple[bool, float, float, ServerKey]:
        """What the line is sorted by."""
        return (self.ahead, self.asked + BEHIND * self.before, self.asked, self.key)


@dataclass(frozen=True)
class Place:
    """Where somebody stands: 1 is next. ``expected`` is when they may start; None: not known."""

    position: int
    expected: float | None
    reason: Message | None = None


@dataclass(frozen=True)
class Decision:
    """Who starts now, and where the others stand."""

    go: tuple[Ask, ...] = ()
    places: dict[ServerKey, Place] = field(default_factory=dict)


def decide(
    waiting: Iterable[Ask],
    held: Held,
    starting: int,
    pace: Pace,
    sums: Sums,
    free: Free | None,
    now: float,
) -> Decision:
    """``held`` is what runs and what is starting; ``starting`` counts what is at work at that."""
    taken, kept, turns = dict(held), False, 0
    go: list[Ask] = []
    places: dict[ServerKey, Place] = {}
    for ask in sorted(waiting, key=lambda one: one.place):
        reason = over_machine(ask.key, ask.need, taken, sums)
        if reason is not None:
            kept = kept or now - ask.asked >= PATIENCE
        elif kept:
            reason = KEPT()
        else:
            reason = measured(free, starting)
        if reason is None and starting < pace.at_once:
            go.append(ask)
            taken[ask.key] = ask.need
            starting += 1
            continue
        expected = None
        if reason is None:
            turns += 1  # who waits for room is in nobody's way
            expected = now + pace.wait(turns)
        places[ask.key] = Place(len(places) + 1, expected, reason)
    return Decision(tuple(go), places)
