"""Which server to ask: in the order given, those that failed lately or are slow now last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .errors import DirectoryUnavailable, ServerFailed
from .settings import DirectoryServer

T = TypeVar("T")
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]

# Seconds after which a server that has not answered yet is no longer asked first.
_SLOW = 1.0


class Servers:
    """The servers of one directory, shared by all threads.

    A server that failed rests for ``cool_down`` seconds; then one caller tries it, and the
    others follow when it has answered. While a caller waits for one for more than a second,
    others ask the next. (ldap3's own pool stays with a server that accepts and never
    answers, and loops while all refuse.)
    """

    def __init__(self, servers: Iterable[DirectoryServer], cool_down: float, log: Log) -> None:
        self._servers = tuple(servers)
        self._cool_down = cool_down
        self._log = log
        self._lock = threading.Lock()
        self._rests_until: dict[DirectoryServer, float] = {}
        # When each attempt that is under way began.
        self._waiting: dict[DirectoryServer, list[float]] = {}

    def replace(self, servers: Iterable[DirectoryServer]) -> None:
        """Go on with other servers; what is known of those that stay is kept."""
        replaced = tuple(servers)
        with self._lock:
            changed = set(replaced) != set(self._servers)
            self._servers = replaced
        if changed:
            self._log.info("directory: servers are %s", ", ".join(map(str, replaced)))

    @property
    def known(self) -> tuple[DirectoryServer, ...]:
        """All of them, in order."""
        with self._lock:
            return self._servers

    def attempt(self, work: Callable[[DirectoryServer], T], *, patient: bool = True) -> T:
        """The result of ``work`` with the first server that answers.

        ``patient`` also asks resting servers, after all others; a caller who can do without
        an answer is not patient. Raises DirectoryUnavailable with one cause for each server.
        """
        causes: list[str] = []
        for server in self._candidates(patient):
            try:
                with self._watched(server):
                    result = work(server)
            except ServerFailed as failure:
                self._rest(server)
                self._log.warning(
                    "directory: server %s failed and rests for %g s: %s",
                    server,
                    self._cool_down,
                    failure.cause,
                )
                causes.append(str(failure))
            else:
                self._wake(server)
                return result
        if not causes:
            known = self.known
            causes = (
                ["every server failed lately and still rests"]
                if known
                else ["DNS has named no server"]
            )
        raise DirectoryUnavailable(causes)

    @contextmanager
    def _watched(self, server: DirectoryServer) -> Iterator[None]:
        begun = time.monotonic()
        with self._lock:
            self._waiting.setdefault(server, []).append(begun)
        try:
            yield
        finally:
            with self._lock:
                self._waiting[server].remove(begun)

    def _candidates(self, patient: bool) -> list[DirectoryServer]:
        now = time.monotonic()
        with self._lock:
            until = {server: self._rests_until.get(server, 0.0) for server in self._servers}
            slow = {
                server
                for server in self._servers
                if any(begun < now - _SLOW for begun in self._waiting.get(server, ()))
            }
            # It has rested: this caller tries it, for the others it rests a little longer.
            for server in self._servers:
                if 0 < until[server] <= now and server not in slow:
                    self._rests_until[server] = now + _SLOW
        awake = [server for server in self._servers if until[server] <= now]
        awake.sort(key=slow.__contains__)
        resting = sorted(
            (server for server in self._servers if until[server] > now), key=until.__getitem__
        )
        return awake + resting if patient else awake

    def _rest(self, server: DirectoryServer) -> None:
        with self._lock:
            self._rests_until[server] = time.monotonic() + self._cool_down

    def _wake(self, server: DirectoryServer) -> None:
        with self._lock:
            rested = self._rests_until.pop(server, None)
        if rested is not None:
            self._log.info("directory: server %s answers again", server)
