"""Addresses of host names, looked up again and again, kept for a while."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address

AGAIN = 60.0  # seconds between two look-ups of a name
# An address that a name had lately stays open: who asked before may still use it.
KEEP = 3600.0
MOST = 256  # addresses of one name


def look_up(host: str) -> list[IPv4Address]:
    """The IPv4 addresses of a name. Raises OSError."""
    found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    return [IPv4Address(one[4][0]) for one in found]


class Names:
    """Addresses by name; time is passed in, in seconds.

    Look-ups run in a thread of their own: a resolver that hangs never delays a check of the rules.
    """

    def __init__(self, ask: Callable[[str], list[IPv4Address]] = look_up) -> None:
        self._ask = ask
        self._seen: dict[str, dict[IPv4Address, float]] = {}
        self._failed: dict[str, str] = {}
        self._asked: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def refresh(self, hosts: Iterable[str], now: float, wait: float = 0) -> None:
        """Look up what is due; return at once, or after ``wait`` seconds at most."""
        if self._thread is None or not self._thread.is_alive():
            due = [one for one in hosts if now - self._asked.get(one, -AGAIN) >= AGAIN]
            if not due:
                return
            self._asked |= dict.fromkeys(due, now)
            self._thread = threading.Thread(target=self._look, args=(due, now), daemon=True)
            self._thread.start()
        if wait:
            self._thread.join(wait)

    def _look(self, hosts: list[str], now: float) -> None:
        for host in hosts:
            try:
                found = self._ask(host)[:MOST]
            except OSError as error:
                self._failed[host] = str(error)
                continue
            self._failed.pop(host, None)
            former = {a: at for a, at in self._seen.get(host, {}).items() if now - at < KEEP}
            # As a whole, so that who reads meanwhile sees the former or this.
            self._seen[host] = former | dict.fromkeys(found, now)

    def addresses(self, hosts: Iterable[str]) -> dict[str, tuple[IPv4Address, ...]]:
        """What is known now."""
        return {host: tuple(sorted(self._seen.get(host, {}))) for host in hosts}

    def unknown(self, hosts: Iterable[str]) -> dict[str, str]:
        """Names without any address, and why."""
        return {
            host: self._failed.get(host, "not looked up yet")
            for host in hosts
            if not self._seen.get(host)
        }
