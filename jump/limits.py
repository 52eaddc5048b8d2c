"""How many may come: pure bookkeeping, time is passed in."""

from __future__ import annotations

from collections import Counter, OrderedDict

UNKNOWN, UNKNOWN_OF_ONE = 100, 10  # connections whose key is not proved yet: of all, of an address
WINDOW = 600.0  # seconds
FAILED_ADDRESS, FAILED_NAME = 100, 60  # connections in it that ended without a key that is known
REMEMBERED = 10_000  # addresses and names; the oldest are forgotten


class Doors:
    """Connections before somebody has proved who they are."""

    def __init__(self, most: int = UNKNOWN, of_one: int = UNKNOWN_OF_ONE) -> None:
        self._most, self._of_one = most, of_one
        self._there: Counter[str] = Counter()

    def come(self, address: str) -> bool:
        """Whether one more may; it counts until ``leave``."""
        if self._there.total() >= self._most or self._there[address] >= self._of_one:
            return False
        self._there[address] += 1
        return True

    def leave(self, address: str) -> None:
        """It is known, or gone."""
        self._there[address] -= 1
        if self._there[address] <= 0:
            del self._there[address]


class Throttle:
    """Failures by address and by name.

    Who has come in as somebody before is not kept out by what others try under that name.
    """

    def __init__(self) -> None:
        self._failed: OrderedDict[str, list[float]] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def address_refused(self, address: str, now: float) -> bool:
        """Whether nobody is heard from there."""
        return self._count(f"@{address}", now) >= FAILED_ADDRESS

    def name_refused(self, name: str, address: str, now: float) -> bool:
        """Whether the hub is not asked about this name from there."""
        return (name, address) not in self._known and self._count(name, now) >= FAILED_NAME

    def failed(self, name: str, address: str, now: float) -> None:
        """A connection ended without a key that is known."""
        for key in filter(None, (f"@{address}", name)):
            times = self._failed.setdefault(key, [])
            times.append(now)
            del times[: -max(FAILED_ADDRESS, FAILED_NAME)]
            self._failed.move_to_end(key)
        while len(self._failed) > REMEMBERED:
            self._failed.popitem(last=False)

    def right(self, name: str, address: str) -> None:
        """Somebody came in."""
        self._failed.pop(f"@{address}", None)
        self._known[name, address] = None
        self._known.move_to_end((name, address))
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _count(self, key: str, now: float) -> int:
        times = self._failed.get(key)
        if times is None:
            return 0
        times[:] = [at for at in times if now - at < WINDOW]
        return len(times)
