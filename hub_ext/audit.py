"""The audit trail: who did what, from where, with which outcome; one JSON object a line.

Field names are those of the Elastic Common Schema (ECS 8.11), so that Elastic, Splunk and
others read it without a mapping::

    {"@timestamp": "2026-11-21T09:30:00.123Z", "ecs": {"version": "8.11"},
     "event": {"kind": "event", "category": ["authentication"], "type": ["start"],
               "action": "login", "outcome": "failure", "reason": "wrong_credentials"},
     "user": {"name": "alice"}, "source": {"ip": "192.0.2.7"}, "service": {"name": "hub"}}

No password, token or other secret is ever part of an event.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

ECS_VERSION = "8.11"
Outcome = Literal["success", "failure", "unknown"]

# ECS event.category and event.type of each action.
ACTIONS: dict[str, tuple[str, str]] = {
    "login": ("authentication", "start"),
    "lockout": ("authentication", "denied"),
    "access-refused": ("authentication", "end"),
    "sessions-ended": ("authentication", "end"),
    "role-change": ("iam", "change"),
    "server-stopped": ("process", "end"),
    "quota-change": ("configuration", "change"),
    "reservation-change": ("configuration", "change"),
    "gpu-drain": ("configuration", "change"),
    "lease-change": ("configuration", "change"),
    "environment-build": ("package", "installation"),
    "environment-publish": ("package", "installation"),
    "environment-promote": ("package", "installation"),
    "environment-delete": ("package", "deletion"),
    "environment-prune": ("package", "deletion"),
    # What a server asked for in its owner's name; what comes of it is one of the others.
    "environment-request": ("package", "change"),
    # Whether a version is pinned, tagged, deprecated or withdrawn; and that its folder was told.
    "environment-decide": ("package", "change"),
}
_MAX_TEXT = 256
_log = logging.getLogger("labcommons.audit")


def make_event(
    action: str,
    outcome: Outcome,
    *,
    user: str,
    user_id: str = "",
    address: str | None = None,
    reason: str = "",
    details: Mapping[str, Any] | None = None,
    at: datetime | None = None,
    service: str = "hub",
) -> dict[str, Any]:
    """One event. ``action`` is one of ACTIONS; ``details`` go under ``labcommons``.

    Raises KeyError for an action that is not listed: add it with its ECS category first.
    """
    category, kind = ACTIONS[action]
    moment = (at or datetime.now(UTC)).astimezone(UTC)
    event: dict[str, Any] = {
        "@timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "ecs": {"version": ECS_VERSION},
        "event": {
            "kind": "event",
            "category": [category],
            "type": [kind],
            "action": action,
            "outcome": outcome,
        },
        "service": {"name": service, "type": "labcommons"},
        "user": {"name": user[:_MAX_TEXT]},
    }
    if reason:
        event["event"]["reason"] = reason
    if user_id:
        event["user"]["id"] = user_id
    if address:
        event["source"] = {"ip": address}
    if details:
        event["labcommons"] = dict(details)
    return event


def log_to_stderr() -> None:
    """Let events that go to the logger be seen: one JSON object a line, nothing around it."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False


def record_command(
    action: str,
    outcome: Outcome,
    details: Mapping[str, Any],
    *,
    user: str = "",
    data: Path | None = None,
) -> None:
    """Leave a line about what a command of an administrator's shell did.

    Where the hub's folder is not to be seen (in a builder), it goes to ``logs/audit.jsonl``.
    """
    data = data or Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    event = make_event(
        action, outcome, user=user or "administrator", details=details, service="command"
    )
    for folder in (data / "hub", data / "logs"):
        if folder.is_dir() and os.access(folder, os.W_OK):
            trail = AuditTrail(folder / "audit.jsonl")
            trail.record(event)
            trail.close()
            return
    _log.info("%s", json.dumps(event))


class AuditTrail:
    """Appends events to a file, or to the logger ``labcommons.audit`` where there is none.

    A thread writes, in order. Each event is one write to a file opened for it alone: it may be
    rotated by moving it away. A line that cannot be written goes to the log instead.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="audit")

    def record(self, event: Mapping[str, Any]) -> None:
        """Write an event soon; returns at once and never raises."""
        # ASCII: nothing in a name can end a line or turn the text around.
        line = json.dumps(event, ensure_ascii=True, separators=(",", ":"))
        if self._path is None:
            _log.info("%s", line)
        else:
            self._writer.submit(self._append, self._path, line)

    def close(self) -> None:
        """Write what is left."""
        self._writer.shutdown(wait=True)

    @staticmethod
    def _append(path: Path, line: str) -> None:
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, line.encode() + b"\n")
            finally:
                os.close(file)
        except OSError as error:
            _log.error("audit file %s: %s; the event was: %s", path, error.strerror, line)
