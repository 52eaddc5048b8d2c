"""How many wrong passwords are passed on to the directory.

Strictly for each name, so that guessing ends before the directory locks the account; loosely
for each address, as a whole class may sit behind one. In any ``window`` seconds no more than
``per_name`` passwords of a name are tried that are not right, however many come at once: a
try counts from before it is made and is given back when it was right, or was not answered.

A browser in which somebody logged in before has an allowance of its own for that name: wrong
passwords from elsewhere do not lock it (OWASP, "Slow Down Online Guessing Attacks with Device
Cookies"). The lock of an address does not hold for who logged in from there lately, and an address
from which many have is a campus's: its allowance grows with them.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from .errors import TooManyAttempts

# A name that logged in from an address is known there for so long, seconds; how many are kept.
SEEN = 30 * 86400.0
MOST_ADDRESSES, MOST_NAMES = 10_000, 1_000
# An address has its allowance once more for each of so many people.
CAMPUS = 9


class Failures(Protocol):
    """Times of failures by key, kept across restarts (``memory.Memory``)."""

    def failures(self, key: str) -> list[float]: ...

    def set_failures(self, key: str, times: list[float], *, keep: bool = True) -> None: ...


@dataclass(frozen=True)
class Limits:
    """``window`` is in seconds; 0 of a limit switches it off."""

    per_name: int = 4
    per_address: int = 100
    window: float = 900.0


@dataclass(frozen=True)
class Device:
    """A browser in which somebody has logged in, as its cookie says.

    Attributes:
        name: who, as ``accounts.throttle_key``.
        nonce: which browser; its failures are counted by it.
        password_time: of the password's last change then; after another one it is a stranger.
    """

    name: str
    nonce: str
    password_time: str = ""


class Attempt:
    """One try of a password: ``right``, ``wrong`` or, without an answer, ``void``."""

    def __init__(self, throttle: Throttle, address: str, device: Device | None = None) -> None:
        self._throttle = throttle
        self._address = address
        self._device = device
        self._key: str | None = None
        self._at = 0.0
        self.name: str | None = None
        self.password_time = ""

    def gate(self, name: str, password_time: str = "") -> None:
        """Count it for this name. Raises TooManyAttempts.

        The same try at another server, after the first gave no answer, counts once.
        """
        if self.name is not None:
            return
        known = self._device is not None and (
            (self._device.name, self._device.password_time) == (name, password_time)
        )
        key = f"device:{self._device.nonce}" if known and self._device else f"name:{name}"
        self._at = self._throttle.enter(key, name, self._address, known)
        self.name, self.password_time, self._key = name, password_time, key

    def right(self) -> None:
        """Who knows the password has made no failures."""
        if self.name is not None and self._key is not None:
            self._throttle.forget(self._key)
            self._throttle.greet(self.name, self._address)

    def wrong(self) -> list[str]:
        """What the failure has locked: ``name``, ``address``; mostly nothing."""
        return self._throttle.failed(self._key, self._at, self._address)

    def void(self) -> None:
        """The directory has not judged the password."""
        if self._key is not None:
            self._throttle.give_back(self._key, self._at)


class Throttle:
    """Counts for one hub, safe from any thread. Times are seconds since 1970."""

    def __init__(
        self, limits: Limits, kept: Failures, clock: Callable[[], float] = time.time
    ) -> None:
        self._limits = limits
        self._kept = kept
        self._clock = clock
        self._lock = threading.Lock()
        # Who has logged in from where, and when; the latest address last.
        self._seen: OrderedDict[str, dict[str, float]] = OrderedDict()

    def begin(self, address: str, device: Device | None = None) -> Attempt:
        """Raises TooManyAttempts for an address with too many failures and nobody known."""
        address = _place(address)
        with self._lock:
            if device is None and not self._known(address):
                self._check_address(address)
        return Attempt(self, address, device)

    def enter(self, key: str, name: str, address: str, known: bool) -> float:
        """Count a try before it is made; its time. Raises TooManyAttempts."""
        with self._lock:
            if not known and name not in self._known(address):
                self._check_address(address)
            recent = self._check(key, self._limits.per_name, "for this name")
            now = self._clock()
            if not self._limits.per_name:
                return now
            # Not kept across a restart until it is known to be wrong.
            self._kept.set_failures(key, [*recent, now], keep=False)
            return now

    def greet(self, name: str, address: str) -> None:
        """Somebody has logged in from there."""
        with self._lock:
            names = self._seen.pop(address, {})
            names.pop(name, None)
            names[name] = self._clock()
            if len(names) > MOST_NAMES:
                del names[next(iter(names))]
            self._seen[address] = names
            if len(self._seen) > MOST_ADDRESSES:
                self._seen.popitem(last=False)

    def forget(self, key: str) -> None:
        """A right password."""
        with self._lock:
            if self._kept.failures(key):
                self._kept.set_failures(key, [])

    def give_back(self, key: str, at: float) -> None:
        """A try without an answer."""
        with self._lock:
            times = self._kept.failures(key)
            if at in times:
                times.remove(at)
                self._kept.set_failures(key, times)

    def failed(self, key: str | None, at: float, address: str) -> list[str]:
        """Count a failure for the address; which of its two limits this one has reached."""
        reached = []
        with self._lock:
            if key is not None:
                times = self._recent(key)
                self._kept.set_failures(key, times)
                if len(times) == self._limits.per_name and times[-1] == at:
                    reached.append("name")
            times = [*self._recent(f"address:{address}"), self._clock()]
            most = self._most(address)
            times = times[-max(most, 1) :]
            before = len(self._recent(f"address:{address}"))
            self._kept.set_failures(f"address:{address}", times)
            if before < len(times) == most:
                reached.append("address")
        return reached

    def _known(self, address: str) -> set[str]:
        """Who has logged in from there lately."""
        since = self._clock() - SEEN
        return {name for name, at in self._seen.get(address, {}).items() if at > since}

    def _most(self, address: str) -> int:
        """Failures that an address may have."""
        return self._limits.per_address * (1 + min(CAMPUS, len(self._known(address))))

    def _check_address(self, address: str) -> None:
        self._check(f"address:{address}", self._most(address), "from this address")

    def _check(self, key: str, limit: int, what: str) -> list[float]:
        recent = self._recent(key)
        if limit and len(recent) >= limit:
            oldest = recent[-limit]
            raise TooManyAttempts(oldest + self._limits.window - self._clock(), what)
        return recent

    def _recent(self, key: str) -> list[float]:
        """Failures within the window; those a turned-back clock put ahead count as now."""
        now = self._clock()
        return [min(at, now) for at in self._kept.failures(key) if at > now - self._limits.window]


def _place(address: str) -> str:
    """What counts as one address: of IPv6 the first half, as one customer has all of the other."""
    with suppress(ValueError):
        found = ipaddress.ip_address(address)
        if found.version == 6 and not found.ipv4_mapped:
            return str(ipaddress.ip_network((found, 64), strict=False))
    return address
