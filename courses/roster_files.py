"""Rosters as schools have them: plain CSV, Moodle's upload format, a OneRoster 1.2 zip. Pure.

Whatever is in a file is hostile: it is read within limits, nothing is unpacked to the disk, and
what looks like a formula is a text. All that is wrong is said at once, and nobody is left out in
silence: a file with a line that cannot be understood is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from commons.i18n import N_
from commons.messages import Text
from courses.one_roster import OneRoster
from courses.roster_text import (
    CLASS_UNKNOWN,
    CLASSES_SEVERAL,
    COLUMN,
    MAX_BYTES,
    ROLE,
    Entry,
    Format,
    Position,
    Reading,
    RosterFileError,
    Row,
    key_of,
    names,
)

__all__ = ["MAX_BYTES", "NOT_A_ROSTER", "Entry", "Roster", "RosterFileError", "read"]


NOT_A_ROSTER = Text(
    "roster_not_one",
    N_(
        "This is no roster: it needs a first line with the names of its columns, among them "
        "username, email or number; or one login name in each line."
    ),
)

_MOODLE = {
    "username": "username", "email": "mail", "idnumber": "number", "firstname": "first",
    "lastname": "last", "deleted": "deleted", "suspended": "suspended",
}  # fmt: skip
_MOODLE_COURSE = re.compile(r"(?:course|role|type|enrolstatus)\d+")
# Moodle's short name "teacher" is its non-editing teacher; whoever may edit is "editingteacher".
_MOODLE_ROLE: Mapping[str, Position] = {**ROLE, "teacher": "assistant"}
_MOODLE_TYPE = {"1": "student", "2": "editingteacher", "3": "teacher"}


@dataclass(frozen=True)
class Roster:
    """The people of a file, by line."""

    format: Format
    people: tuple[Entry, ...]


def read(data: bytes, filename: str = "", course: str = "", today: date | None = None) -> Roster:
    """The people whom a file puts into a course. Raises RosterFileError.

    ``course`` is what a file calls it that has several; ``today`` (now): whose time in it is over,
    or has not begun, is left out. Who is there twice (the same login name; without one address, or
    number) has the higher position, if the lines do not contradict each other otherwise.
    """
    kind = OneRoster if data[:4] in (b"PK\x03\x04", b"PK\x05\x06") else _Tables
    reading = kind(filename, course, today or date.today())
    people = tuple(reading.read(data))
    return Roster(reading.form, people)


class _Tables(Reading):
    """A file of text."""

    def _people(self, data: bytes) -> list[Entry]:
        rows = self._rows(data)
        head = [key_of(cell) for cell in rows[0][1]] if rows else []
        if "username" in head and any(re.fullmatch(r"course\d+", key) for key in head):
            self.form = "moodle"
            return self._moodle(rows, head)
        return self._plain(rows, head)

    def _plain(self, rows: Sequence[Row], head: Sequence[str]) -> list[Entry]:
        columns = {COLUMN[key] for key in head if key in COLUMN}
        if columns & {"username", "mail", "number"}:
            return [
                entry
                for line, row in self._records(rows, COLUMN)
                for entry in self._entry(line, row, ROLE.get(key_of(row.get("role", ""))))
            ]
        # One login name in each line, or one address.
        if columns or not rows or any(any(cells[1:]) or " " in cells[0] for _, cells in rows):
            self._fail(NOT_A_ROSTER())
        return [
            Entry(line, "", cell, "", "", "student")
            if "@" in cell
            else Entry(line, cell, "", "", "", "student")
            for line, (cell, *_) in rows
        ]

    def _moodle(self, rows: Sequence[Row], head: Sequence[str]) -> list[Entry]:
        """The lines with the course in ``course1``, ``course2``, …, unless it or they are off."""
        columns = _MOODLE | {key: key for key in head if _MOODLE_COURSE.fullmatch(key)}
        numbers = [key.removeprefix("course") for key in columns if key.startswith("course")]
        records = self._records(rows, columns)
        named = (row.get(f"course{number}", "") for _, row in records for number in numbers)
        courses: dict[str, str] = {}
        for course in filter(None, named):
            courses.setdefault(course.casefold(), course)
        if not self._course and len(courses) > 1:
            self._fail(CLASSES_SEVERAL(known=names(courses.values())))
        wanted = self._course.casefold() or next(iter(courses), "")
        if wanted not in courses and self._course:
            known = names(courses.values())
            self._fail(CLASS_UNKNOWN(wanted=self._course, known=known))
        people: list[Entry] = []
        for line, row in records:
            if "1" in (row.get("deleted"), row.get("suspended")):
                continue
            for number in numbers:
                if not wanted or row.get(f"course{number}", "").casefold() != wanted:
                    continue
                if row.get(f"enrolstatus{number}") == "1":  # suspended in this course
                    continue
                kind = row.get(f"type{number}", "")
                role = row.get(f"role{number}") or _MOODLE_TYPE.get(kind, kind)
                people += self._entry(line, row | {"role": role}, _MOODLE_ROLE.get(key_of(role)))
        return people
