"""Ends exams by the clock: their servers stop, and what was saved is the instructors' to read.

Each step is written when it is done, and done again where a hub was killed before that; a hub that
was away at somebody's end does it when it is back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from commons.audit import AuditTrail, make_event
from commons.leases import ServerKey
from commons.store import Store
from commons.store.ends import Ending
from commons.work import Keyed
from courses import exams
from courses.exams import Due
from spawner.runtime.protocol import Runtime
from spawner.runtime.spec import CloseExam

INTERVAL = 5.0  # seconds between two looks


class Servers(Protocol):
    """The hub, as the keeper needs it."""

    def known(self) -> set[ServerKey]:
        """Servers that run, or are on their way up or down."""

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        """Stop a server; returns when it is gone."""

    def forget(self, user: str, server: str) -> None:
        """Have no such server any more."""


class ExamKeeper:
    """The exams of one hub. ``clock``: seconds since 1970."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        servers: Servers,
        audit: AuditTrail,
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.runtime, self.servers = store, runtime, servers
        self.audit, self.log, self.clock = audit, log, clock
        self._acts = Keyed("ends of exams", log)

    async def look(self) -> None:
        """One round. Raises StoreError."""
        if not await self.store.read(exams.any_open):
            return
        now = self.clock()
        found = await self.store.run(lambda session: exams.due(session, now))
        known = self.servers.known()
        for one in found:
            if one.ends <= now:
                self._acts.start(one.key, partial(self.end, one))
                continue
            for user, server in known:  # whatever was on its way when they began
                if user == one.username and server != one.server:
                    stop = partial(self.servers.stop, user, server, Ending("stopped"))
                    self._acts.start((user, server), stop)

    async def end(self, one: Due) -> None:
        """Stop the server, and collect what was saved. Raises what the hub and the agent raise."""
        await self.servers.stop(one.username, one.server, Ending("exam_over"))
        await self.store.run(lambda session: exams.ended(session, one, collected=False))
        await self.runtime.run_task(CloseExam(place=one.place, user=one.username))
        await self.store.run(lambda session: exams.ended(session, one, collected=True))
        self.servers.forget(one.username, one.server)
        details = {"course": one.course, "exam": one.exam}
        self.audit.record(make_event("exam-end", "success", user=one.username, details=details))

    @property
    def busy(self) -> bool:
        """Whether an exam is being ended."""
        return bool(self._acts)
