"""Which server to ask: in the order given, those that failed lately last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from .errors import DirectoryUnavailable, ServerFailed
from .settings import Server

T = TypeVar("T")
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Servers:
    """The servers of one directory, shared by all threads.

    A server that failed rests for ``cool_down`` seconds. (ldap3's own pool stays with a
    server that accepts and never answers, and loops while all refuse.)
    """

    def __init__(self, servers: Iterable[Server], cool_down: float, log: Log) -> None:
        self._servers = tuple(servers)
        self._cool_down = cool_down
        self._log = log
        self._lock = threading.Lock()
        self._rests_until: dict[Server, float] = {}

    def attempt(self, work: Callable[[Server], T], *, patient: bool = True) -> T:
        """The result of ``work`` with the first server that answers.

        ``patient`` also asks resting servers, after all others; a caller who can do without
        an answer is not patient. Raises DirectoryUnavailable with one cause for each server.
        """
        causes: list[str] = []
        for server in self._candidates(patient):
            try:
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
        raise DirectoryUnavailable(causes or ["every server failed lately and still rests"])

    def _candidates(self, patient: bool) -> list[Server]:
        now = time.monotonic()
        with self._lock:
            until = {server: self._rests_until.get(server, 0.0) for server in self._servers}
        awake = [server for server in self._servers if until[server] <= now]
        resting = sorted(
            (server for server in self._servers if until[server] > now), key=until.__getitem__
        )
        return awake + resting if patient else awake

    def _rest(self, server: Server) -> None:
        with self._lock:
            self._rests_until[server] = time.monotonic() + self._cool_down

    def _wake(self, server: Server) -> None:
        with self._lock:
            rested = self._rests_until.pop(server, None)
        if rested is not None:
            self._log.info("directory: server %s answers again", server)
