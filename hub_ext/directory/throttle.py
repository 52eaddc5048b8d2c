"""How many wrong passwords are passed on to the directory.

Strictly for each name, so that guessing ends before the directory locks the account; loosely
for each address, as a whole class may sit behind one. In any ``window`` seconds no more than
``per_name`` passwords of a name are tried that are not right, however many come at once: a
try counts from before it is made and is given back when it was right, or was not answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .errors import TooManyAttempts


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


class Attempt:
    """One try of a password: ``right``, ``wrong`` or, without an answer, ``void``."""

    def __init__(self, throttle: Throttle, address: str) -> None:
        self._throttle = throttle
        self._address = address
        self.name: str | None = None
        self._at = 0.0

    def gate(self, name: str) -> None:
        """Count it for this name. Raises TooManyAttempts.

        The same try at another server, after the first gave no answer, counts once.
        """
        if self.name is None:
            self._at = self._throttle.enter(name)
            self.name = name

    def right(self) -> None:
        """Who knows the password has made no failures."""
        if self.name is not None:
            self._throttle.forget(self.name)

    def wrong(self) -> list[str]:
        """What the failure has locked: ``name``, ``address``; mostly nothing."""
        return self._throttle.failed(self.name, self._at, self._address)

    def void(self) -> None:
        """The directory has not judged the password."""
        if self.name is not None:
            self._throttle.give_back(self.name, self._at)


class Throttle:
    """Counts for one hub, safe from any thread. Times are seconds since 1970."""

    def __init__(
        self, limits: Limits, kept: Failures, clock: Callable[[], float] = time.time
    ) -> None:
        self._limits = limits
        self._kept = kept
        self._clock = clock
        self._lock = threading.Lock()

    def begin(self, address: str) -> Attempt:
        """Raises TooManyAttempts for an address with too many failures."""
        with self._lock:
            self._check(f"address:{address}", self._limits.per_address, "from this address")
        return Attempt(self, address)

    def enter(self, name: str) -> float:
        """Count a try, or raise TooManyAttempts; the time by which it is known."""
        with self._lock:
            recent = self._check(f"name:{name}", self._limits.per_name, "for this name")
            now = self._clock()
            if not self._limits.per_name:
                return now
            # Not kept across a restart until it is known to be wrong.
            self._kept.set_failures(f"name:{name}", [*recent, now], keep=False)
            return now

    def forget(self, name: str) -> None:
        """A right password."""
        with self._lock:
            if self._kept.failures(f"name:{name}"):
                self._kept.set_failures(f"name:{name}", [])

    def give_back(self, name: str, at: float) -> None:
        """A try without an answer."""
        with self._lock:
            times = self._kept.failures(f"name:{name}")
            if at in times:
                times.remove(at)
                self._kept.set_failures(f"name:{name}", times)

    def failed(self, name: str | None, at: float, address: str) -> list[str]:
        """Count a failure for the address; which of its two limits this one has reached."""
        reached = []
        with self._lock:
            if name is not None:
                times = self._recent(f"name:{name}")
                self._kept.set_failures(f"name:{name}", times)
                if len(times) == self._limits.per_name and times[-1] == at:
                    reached.append("name")
            times = [*self._recent(f"address:{address}"), self._clock()]
            times = times[-max(self._limits.per_address, 1) :]
            before = len(self._recent(f"address:{address}"))
            self._kept.set_failures(f"address:{address}", times)
            if before < len(times) == self._limits.per_address:
                reached.append("address")
        return reached

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
