"""The page of the audit trail, for administrators, and what it exports."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tornado.iostream import StreamClosedError

from commons.audit import ACTIONS, reading
from commons.audit.chain import encode
from commons.audit.table import COLUMNS, cells, row
from commons.i18n import N_, zone_after
from commons.web.pages import timezone_of
from hub_ext.console.audit_api import older
from hub_ext.console.handlers import Page

SHOWN = 50  # events of a page
PIECE = 500  # events of an export that are read at a time
LONGEST = 200  # characters of a filter
FILTERS = ("person", "action", "outcome", "about", "since", "until")
OUTCOMES = {"success": N_("done"), "failure": N_("refused or failed"), "unknown": N_("not known")}
WORDS: Mapping[str, str] = {
    "login": N_("Login"),
    "lockout": N_("Login locked"),
    "access-refused": N_("Account refused"),
    "sessions-ended": N_("Sessions ended"),
    "role-change": N_("Role changed"),
    "logout": N_("Logout"),
    "access-denied": N_("Access denied"),
    "look": N_("Look at what is another's"),
    "token-change": N_("Token changed"),
    "group-change": N_("Group changed"),
    "user-change": N_("Person changed"),
    "share-change": N_("Share changed"),
    "ssh-open": N_("SSH opened"),
    "ssh-close": N_("SSH closed"),
    "ssh-refused": N_("SSH refused"),
    "ssh-key-change": N_("SSH key changed"),
    "server-request": N_("Server asked for"),
    "server-start": N_("Server started"),
    "server-end": N_("Server ended"),
    "server-stopped": N_("Server stopped"),
    "servers-change": N_("Servers stopped, written to or given more time"),
    "person-block": N_("Person blocked or let in again"),
    "hub-change": N_("Hub changed"),
    "site-file": N_("Site file read"),
    "command": N_("Command of an administrator"),
    "export": N_("Trail exported"),
    "backup-file": N_("File taken out of a backup"),
    "audit-checkpoint": N_("Trail signed"),
    "audit-retire": N_("Old events removed"),
    "audit-target": N_("Sending of the trail"),
    "audit-gap": N_("Events that are missing"),
    "audit-broken": N_("Trail not whole"),
    "quota-change": N_("Quota changed"),
    "reservation-change": N_("Reservation changed"),
    "warm-start-change": N_("Start ahead of time changed"),
    "course-change": N_("Course changed"),
    "course-archive": N_("Course archived"),
    "course-download": N_("Archive of a course downloaded"),
    "course-remove": N_("Course removed with its files"),
    "course-room": N_("Room of a course"),
    "hand-in": N_("Handed in"),
    "hand-in-change": N_("Deadline or groups changed"),
    "hand-in-download": N_("Hand-ins downloaded"),
    "feedback": N_("Feedback given"),
    "autograde": N_("Graded by a program"),
    "marks-change": N_("Marks changed"),
    "shared-server-change": N_("Shared server changed"),
    "exam-begin": N_("Exam begun"),
    "exam-end": N_("Exam ended"),
    "job-submit": N_("Job asked for"),
    "job-cancel": N_("Job cancelled"),
    "job-start": N_("Job started"),
    "job-end": N_("Job over"),
    "broadcast-change": N_("Message to everybody"),
    "maintenance-change": N_("Maintenance begun or ended"),
    "gpu-drain": N_("GPU drained or taken back"),
    "lease-change": N_("GPU lease changed"),
    "channel-upload": N_("Package uploaded"),
    "channel-refuse": N_("Package refused"),
    "channel-yank": N_("Package withdrawn"),
    "channel-restore": N_("Package offered again"),
    "environment-build": N_("Environment built"),
    "environment-publish": N_("Environment published"),
    "environment-promote": N_("Environment promoted"),
    "environment-delete": N_("Environment deleted"),
    "environment-prune": N_("Environments pruned"),
    "environment-drift": N_("Packages changed by hand"),
    "environment-request": N_("Environment asked for by a server"),
    "environment-decide": N_("Decision on an environment"),
}


class _Trail(Page):
    """What page and export have in common: the folder, and the filters of the address."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """With the data folder."""
        super().initialize(**shared)
        self.root = data / "audit"

    async def prepare(self) -> None:
        """Nobody else has anything to see here."""
        await super().prepare()
        self.need_admin()

    def asked(self) -> dict[str, str]:
        """The filters that are set."""
        found = {name: self.get_query_argument(name, "").strip()[:LONGEST] for name in FILTERS}
        return {name: value for name, value in found.items() if value}

    def wanted(self, asked: Mapping[str, str]) -> reading.Filter:
        """Times of the address are of the reader's zone; what is none lets all pass."""
        times = {name: self._utc(asked.get(name, "")) for name in ("since", "until")}
        return reading.Filter(**{**asked, **times})

    def _utc(self, said: str) -> str:
        try:
            at = datetime.fromisoformat(said)
            at = at if at.tzinfo else at.replace(tzinfo=timezone_of(self) or UTC)
            return at.astimezone(UTC).isoformat()[:16]
        except (ValueError, OverflowError):
            return ""


class Trail(_Trail):
    """``GET audit``."""

    async def get(self) -> None:
        """Events that fit, the newest first. Read in a thread: days may be looked through."""
        asked, before = self.asked(), self.get_query_argument("before", "")[:LONGEST]
        found, after = await asyncio.to_thread(older, self.root, self.wanted(asked), before, SHOWN)
        self.record("look", what="audit", **asked)
        self.render_page(
            "audit.html",
            events=[{**row(event), "at": self._local(event)} for event in found],
            asked=asked,
            before=before,
            older=urlencode({**asked, "before": after}) if after else "",
            back_to=self._local({"@timestamp": after.partition(" ")[0]}) if after else "",
            query=urlencode(asked),
            actions=sorted(ACTIONS, key=lambda action: self._(WORDS[action])),
            words=WORDS,
            outcomes=OUTCOMES,
        )

    def _local(self, event: Mapping[str, Any]) -> str:
        """When it was, to the second, by the reader's clock."""
        try:
            at = datetime.fromisoformat(str(event.get("@timestamp")))
            there = at.astimezone(timezone_of(self) or UTC)
        except (ValueError, OverflowError):
            return ""
        return f"{there:%Y-%m-%d %H:%M:%S}{zone_after(there)}"


class Export(_Trail):
    """``GET audit.csv`` and ``audit.jsonl``: all events that fit, the oldest first."""

    async def get(self, form: str) -> None:
        """As it is read, in pieces: it may be large."""
        asked = self.asked()
        self.record("export", what="audit", form=form, **asked)
        kind = "text/csv" if form == "csv" else "application/x-ndjson"
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="audit.{form}"')
        events = reading.events(self.root, self.wanted(asked))
        lines = _table(events) if form == "csv" else (encode(one) + b"\n" for one in events)
        while piece := await asyncio.to_thread(lambda: [*islice(lines, PIECE)]):
            self.write(b"".join(piece))
            try:
                await self.flush()
            except StreamClosedError:  # nobody waits for it any more
                return


def _table(events: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    # A spreadsheet takes a file without the mark for one of its own country's encoding.
    yield b"\xef\xbb\xbf" + _line(COLUMNS)
    for event in events:
        yield _line(cells(event))


def _line(values: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue().encode()
