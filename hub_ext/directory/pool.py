"""Connections bound as the service account, kept open and used again.

A login spends most of its time on TLS: a search on a kept connection takes a tenth of a new
one's. They are for searches only. Every user's bind gets a connection of its own, as a failed
bind leaves one anonymous (RFC 4513, 4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .connection import Deadline, Session
from .entry import Entry
from .errors import ServerFailed
from .settings import DirectoryServer

# Seconds a connection may wait unused: servers and firewalls forget it after some minutes.
_MAX_IDLE = 60.0

Open = Callable[[DirectoryServer, Deadline], Session]


class Service:
    """One server, asked as the service account.

    A kept connection may have died meanwhile (the server was restarted): the first search
    that finds it dead is repeated once on a new one. A search changes nothing, so that is safe.
    """

    def __init__(self, session: Session, reopen: Callable[[], Session] | None) -> None:
        self.session = session
        self._reopen = reopen

    def search(
        self,
        base_dn: str,
        search_filter: str,
        attributes: Sequence[str],
        *,
        limit: int,
        base_only: bool = False,
    ) -> list[Entry]:
        """As ``Session.search``."""
        reopen, self._reopen = self._reopen, None
        try:
            return self.session.search(
                base_dn, search_filter, attributes, limit=limit, base_only=base_only
            )
        except ServerFailed:
            if reopen is None or not self.session.broken:
                raise
        self.session.close()
        self.session = reopen()
        return self.session.search(
            base_dn, search_filter, attributes, limit=limit, base_only=base_only
        )


class ServicePool:
    """Kept connections by server; never more than there are threads that use them."""

    def __init__(self, open_session: Open) -> None:
        self._open = open_session
        self._lock = threading.Lock()
        self._idle: dict[DirectoryServer, list[tuple[float, Session]]] = {}

    @contextmanager
    def service(self, server: DirectoryServer, deadline: Deadline) -> Iterator[Service]:
        """A connection for this caller alone. Raises ServerFailed when none can be opened."""
        session = self._take(server, deadline)
        service = (
            Service(session, lambda: self._reopened(server, deadline))
            if session
            else Service(self._open(server, deadline), None)
        )
        try:
            yield service
        finally:
            self._give_back(server, service.session)

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            kept = [session for idle in self._idle.values() for _, session in idle]
            self._idle.clear()
        for session in kept:
            session.close()

    def _take(self, server: DirectoryServer, deadline: Deadline) -> Session | None:
        oldest = time.monotonic() - _MAX_IDLE
        stale: list[Session] = []
        session = None
        with self._lock:
            idle = self._idle.get(server, [])
            # The last used first: the others grow old and are closed.
            while idle and session is None:
                since, candidate = idle.pop()
                if since < oldest:
                    stale.append(candidate)
                else:
                    session = candidate
            while idle and idle[0][0] < oldest:
                stale.append(idle.pop(0)[1])
        for old in stale:
            old.close()
        if session:
            try:
                session.lend(deadline)
            except BaseException:
                session.close()
                raise
        return session

    def _reopened(self, server: DirectoryServer, deadline: Deadline) -> Session:
        # The others kept for this server died with it.
        with self._lock:
            dead = self._idle.pop(server, [])
        for _, session in dead:
            session.close()
        return self._open(server, deadline)

    def _give_back(self, server: DirectoryServer, session: Session) -> None:
        if session.broken:
            session.close()
            return
        session.rest()
        with self._lock:
            self._idle.setdefault(server, []).append((time.monotonic(), session))
