"""Where a service leaves its events: soon, in order, and without ever keeping it from its work."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from commons.audit.chain import Chain, encode
from commons.audit.events import Outcome, make_event

# Events of one writing; and how many may wait for the disk.
BATCH, WAITING = 256, 10_000
_log = logging.getLogger("labcommons.audit")


def folder(writer: str = "") -> Path:
    """Where a writer's chain is, by ``LABCOMMONS_DATA``; without one, where all are."""
    return Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data")) / "audit" / writer


class AuditTrail:
    """Writes events to a chain, or to the logger ``labcommons.audit`` where there is none.

    A thread writes, in order; what comes meanwhile is written together. What cannot be written
    goes to the log, and the chain says how many did as soon as it can be written to again.
    """

    def __init__(self, chain: Chain | None = None) -> None:
        self._chain = chain
        self._events: queue.Queue[Mapping[str, Any] | None] = queue.Queue(WAITING)
        self._lost = 0
        self._thread: threading.Thread | None = None
        self._begin = threading.Lock()

    def record(self, event: Mapping[str, Any]) -> None:
        """Write an event soon; returns at once and never raises."""
        if self._chain is None:
            _log.info("%s", encode(event).decode("ascii"))
            return
        with self._begin:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="audit", daemon=True)
                self._thread.start()
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._to_log([event], "too many wait for the disk")

    def close(self) -> None:
        """Write what is left."""
        if self._thread is not None:
            self._events.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        goes_on = True
        while goes_on:
            batch = [self._events.get()]
            with suppress(queue.Empty):
                while len(batch) < BATCH:
                    batch.append(self._events.get_nowait())
            goes_on = None not in batch
            self._write([event for event in batch if event is not None])

    def _write(self, events: list[Mapping[str, Any]]) -> None:
        assert self._chain is not None
        if not events:
            return
        lost = self._lost
        if lost:
            gap = make_event(
                "audit-gap", "failure", user="", details={"in_the_log_alone": lost},
                service=self._chain.writer,
            )  # fmt: skip
            events = [gap, *events]
        try:
            self._chain.append(events)
        except OSError as error:
            self._to_log(events[1:] if lost else events, str(error))
        else:
            self._lost -= lost

    def _to_log(self, events: list[Mapping[str, Any]], why: str) -> None:
        self._lost += len(events)
        for event in events:
            _log.error("not in the audit trail (%s): %s", why, encode(event).decode("ascii"))


def record_command(
    action: str,
    outcome: Outcome,
    details: Mapping[str, Any],
    *,
    user: str = "",
    data: Path | None = None,
) -> None:
    """Leave a line about what a command of an administrator's shell did.

    In the chain of commands; in the hub's container, where that is not to be seen, in the hub's.
    """
    event = make_event(
        action, outcome, user=user or "administrator", details=details, service="command"
    )
    audit = folder() if data is None else data / "audit"
    for writer in ("command", "hub"):
        if os.access(audit / writer, os.W_OK):
            try:
                Chain(audit / writer, writer).append([event])
                return
            except OSError as error:
                _log.error("audit trail %s: %s", audit / writer, error)
    _log.info("%s", encode(event).decode("ascii"))
