"""An event of the audit trail: who did what, from where, with which outcome.

Field names are those of the Elastic Common Schema (ECS 8.11), so that Elastic, Splunk and
others read it without a mapping::

    {"@timestamp": "2026-11-21T09:30:00.123Z", "ecs": {"version": "8.11"},
     "event": {"kind": "event", "category": ["authentication"], "type": ["start"],
               "action": "login", "outcome": "failure", "reason": "wrong_credentials"},
     "user": {"name": "alice"}, "source": {"ip": "192.0.2.7"}, "service": {"name": "hub"}}

No password, token or other secret is ever part of an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
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
    "logout": ("authentication", "end"),
    # A page or a call that somebody may not have; the outcome is "failure".
    "access-denied": ("authentication", "denied"),
    # Somebody enters a server that is not theirs, or asks for what is another's.
    "look": ("iam", "info"),
    "token-change": ("iam", "change"),
    "group-change": ("iam", "change"),
    "user-change": ("iam", "change"),
    "share-change": ("iam", "change"),
    # Sessions by SSH, and the keys for them.
    "ssh-open": ("session", "start"),
    "ssh-close": ("session", "end"),  # with its bytes
    "ssh-refused": ("authentication", "denied"),
    "ssh-key-change": ("iam", "change"),
    "server-request": ("process", "change"),  # asked of the hub: to start, stop or remove it
    "server-start": ("process", "start"),  # what was asked for, by whom, and what it got
    "server-end": ("process", "end"),  # with its cause
    "server-stopped": ("process", "end"),
    # Of the console, with those of others: stops, messages, more time.
    "servers-change": ("process", "change"),
    # Somebody is shut out here, or let in again, whatever the directory says.
    "person-block": ("iam", "change"),
    "hub-change": ("configuration", "change"),
    "site-file": ("configuration", "info"),  # what a service starts with
    "command": ("configuration", "change"),  # of an administrator's shell
    "export": ("file", "access"),
    # Somebody took a file of their own out of a backup.
    "backup-file": ("file", "access"),
    # Of the trail itself: signed heads of all chains; files that are older than the site keeps
    # them; where events are shipped to; and what went to a log alone.
    "audit-checkpoint": ("file", "info"),
    "audit-retire": ("file", "deletion"),
    "audit-target": ("network", "info"),
    "audit-gap": ("file", "info"),
    "audit-broken": ("file", "change"),
    "quota-change": ("configuration", "change"),
    "reservation-change": ("configuration", "change"),
    "warm-start-change": ("configuration", "change"),
    "course-change": ("configuration", "change"),
    "course-archive": ("file", "creation"),
    "course-download": ("file", "access"),  # of an archive
    "course-remove": ("file", "deletion"),  # with its files
    # What its instructors and assistants do with its people: messages, their servers, a list.
    "course-room": ("process", "change"),
    # What somebody handed in of a course, and what became of it.
    "hand-in": ("file", "creation"),
    "hand-in-change": ("configuration", "change"),  # more time, groups
    "hand-in-download": ("file", "access"),
    "feedback": ("file", "creation"),
    "autograde": ("process", "end"),  # what a program made of a hand-in: marks, feedback
    "marks-change": ("configuration", "change"),
    "shared-server-change": ("configuration", "change"),  # made, started, somebody shut out, …
    "exam-begin": ("process", "start"),
    "exam-end": ("process", "end"),  # its server is gone, and the folder the instructors'
    "job-submit": ("process", "change"),
    "job-cancel": ("process", "change"),
    "job-start": ("process", "start"),
    "job-end": ("process", "end"),  # with its state and exit code
    "broadcast-change": ("configuration", "change"),
    "maintenance-change": ("configuration", "change"),
    "gpu-drain": ("configuration", "change"),
    "lease-change": ("configuration", "change"),
    # Packages of the site's own channels: put there, refused, withdrawn, and that taken back.
    "channel-upload": ("package", "installation"),
    "channel-refuse": ("package", "info"),
    "channel-yank": ("package", "deletion"),
    "channel-restore": ("package", "change"),
    "environment-build": ("package", "installation"),
    "environment-publish": ("package", "installation"),
    "environment-promote": ("package", "installation"),
    "environment-delete": ("package", "deletion"),
    "environment-prune": ("package", "deletion"),
    # Packages that somebody installed or removed by hand; it is their folder's word.
    "environment-drift": ("package", "change"),
    # What a server asked for in its owner's name; what comes of it is one of the others.
    "environment-request": ("package", "change"),
    # Whether a version is pinned, tagged, deprecated or withdrawn; and that its folder was told.
    "environment-decide": ("package", "change"),
}
_MAX_TEXT = 256


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
