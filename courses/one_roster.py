"""OneRoster 1.2's CSV binding: a zip of tables. Pure; nothing is unpacked to the disk."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from datetime import date

from commons.i18n import N_
from commons.messages import Text
from courses.roster_text import (
    CLASS_UNKNOWN,
    CLASSES_SEVERAL,
    MAX_BYTES,
    POSITIONS,
    ROLE,
    ROLE_UNKNOWN,
    TOO_LARGE,
    TWICE,
    Entry,
    Position,
    Reading,
    Record,
    is_active,
    key_of,
    names,
)

MAX_UNPACKED = 4 * MAX_BYTES  # of all that is read of a zip
MOST_MEMBERS = 100  # of a zip

COLUMN_MISSING = Text("roster_column_missing", N_("the column “{column}” is missing; add it"))
DAY_WRONG = Text("roster_day", N_("“{day}” is not a day, such as 2026-12-18"))
USER_MISSING = Text(
    "roster_user_missing", N_("“{user}” is not in users.csv; add the row or take this one away")
)
DELTA = Text(
    "roster_delta", N_("the file has only changes (delta); export everything (bulk) instead")
)
ZIP_WRONG = Text(
    "roster_zip",
    N_("The zip cannot be read: it is damaged, encrypted or packed unusually; pack it anew."),
)
ZIP_MISSING = Text(
    "roster_zip_missing",
    N_("The zip has no {file}: it is no OneRoster file. Save a workbook of Excel as CSV."),
)
ZIP_TWICE = Text("roster_zip_twice", N_("The zip has several files {file}; leave one in it."))

# Of OneRoster's files the columns that are read; what they are called here.
_ONE_ROSTER = {
    "manifest.csv": {"propertyname": "key", "value": "value"},
    "users.csv": {
        "sourcedid": "id", "status": "status", "enableduser": "enabled", "username": "username",
        "email": "mail", "identifier": "number", "givenname": "first", "familyname": "last",
    },
    "enrollments.csv": {
        "classsourcedid": "class", "usersourcedid": "user", "role": "role", "status": "status",
        "begindate": "begin", "enddate": "end",
    },
    "classes.csv": {
        "sourcedid": "id", "status": "status", "title": "title", "classcode": "code",
        "coursesourcedid": "course",
    },
    "courses.csv": {"sourcedid": "id", "title": "title", "coursecode": "code", "status": "status"},
}  # fmt: skip
_NEEDED = {
    "users.csv": ("sourcedId",),
    "enrollments.csv": ("classSourcedId", "userSourcedId", "role"),
    "classes.csv": ("sourcedId",),
}
# Enrolled in a class without being of it.
_OUTSIDERS = {
    "administrator", "counselor", "districtadministrator", "guardian", "parent", "principal",
    "relative", "siteadministrator", "systemadministrator",
}  # fmt: skip


class OneRoster(Reading):
    """One zip."""

    form = "oneroster"
    path = "users.csv"

    def _people(self, data: bytes) -> list[Entry]:
        """The users whom enrollments put into one class, by OneRoster 1.2's CSV binding."""
        files = self._unzipped(data)
        for line, row in files["manifest.csv"]:
            file = row.get("key", "").lower().removeprefix("file.") + ".csv"
            if file in _NEEDED and row.get("value", "").lower() == "delta":
                self._add(DELTA(), line, "manifest.csv")
        if self._problems:
            self._refuse()
        users: dict[str, Record] = {}
        for line, row in files["users.csv"]:
            known, _ = users.setdefault(row.get("id", ""), (line, row))
            if known != line:
                name = row.get("id", "")[:60]
                self._add(TWICE(name=name, other=known), line, "users.csv")
        positions = self._positions(files, users)
        return [
            entry
            for user, position in positions.items()
            for line, row in [users[user]]
            if is_active(row) and row.get("enabled", "").lower() in ("", "true")
            for entry in self._entry(line, row, position, "users.csv")
        ]

    def _positions(
        self, files: Mapping[str, Sequence[Record]], users: Mapping[str, Record]
    ) -> dict[str, Position]:
        """Who is in the class today, and as what, by sourcedId."""
        path, wanted = "enrollments.csv", self._class(files)
        found: dict[str, Position] = {}
        for line, row in files[path]:
            role, user = key_of(row.get("role", "")), row.get("user", "")
            if row.get("class") != wanted or not is_active(row) or role in _OUTSIDERS:
                continue
            position = ROLE.get(role) if role else None
            begin, end = (self._day(row.get(key, ""), line) for key in ("begin", "end"))
            if position is None:
                self._add(ROLE_UNKNOWN(role=row.get("role", "")[:40]), line, path)
            elif user not in users:
                self._add(USER_MISSING(user=user[:60]), line, path)
            # The standard has the last day exclusive.
            elif (begin or self._today) <= self._today and (end is None or self._today < end):
                found[user] = min(found.get(user, position), position, key=POSITIONS.index)
        return found

    def _day(self, day: str, line: int) -> date | None:
        try:
            return date.fromisoformat(day[:10]) if day else None
        except ValueError:
            self._add(DAY_WRONG(day=day[:40]), line, "enrollments.csv")
            return None

    def _class(self, files: Mapping[str, Sequence[Record]]) -> str:
        """The sourcedId of the class that is meant: by it, by its code or title, by its course."""
        word = self._course.casefold()

        def named(row: Mapping[str, str], *keys: str) -> bool:
            return bool(word) and any(row.get(key, "").casefold() == word for key in keys)

        classes = [row for _, row in files["classes.csv"] if is_active(row)]
        courses = {
            row.get("id")
            for _, row in files["courses.csv"]
            if is_active(row) and named(row, "id", "code", "title")
        }
        fitting = (
            [row for row in classes if named(row, "id")]
            or [row for row in classes if named(row, "code", "title")]
            or [row for row in classes if named(row, "course") or row.get("course") in courses]
            or (classes if len(classes) == 1 or not word else [])
        )
        if len(fitting) > 1:
            self._fail(CLASSES_SEVERAL(known=names(row.get("id", "") for row in fitting)))
        if not fitting:
            known = names(row.get("code") or row.get("id", "") for row in classes)
            self._fail(CLASS_UNKNOWN(wanted=self._course, known=known))
        return fitting[0].get("id", "")

    def _unzipped(self, data: bytes) -> dict[str, list[Record]]:
        """The records of OneRoster's files; nothing else of the zip is read."""
        found: dict[str, list[Record]] = {}
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = self._members(archive)
                left = MAX_UNPACKED
                for name, columns in _ONE_ROSTER.items():
                    if name not in members:
                        found[name] = []
                        continue
                    most = min(MAX_BYTES, left)
                    with archive.open(members[name]) as member:
                        text = member.read(most + 1)  # counted, not what the zip says of itself
                    if len(text) > most:
                        whole = most < MAX_BYTES
                        megabytes = (MAX_UNPACKED if whole else MAX_BYTES) // 2**20
                        self._fail(TOO_LARGE(megabytes=megabytes), path="" if whole else name)
                    left -= len(text)
                    rows = self._rows(text, name)
                    head = [key_of(cell) for cell in rows[0][1]] if rows else []
                    for column in _NEEDED.get(name, ()):
                        if key_of(column) not in head:
                            self._add(COLUMN_MISSING(column=column), path=name)
                    found[name] = self._records(rows, columns, name)
        except (
            zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, OSError, EOFError,
            ValueError, OverflowError,
        ):  # fmt: skip
            self._fail(ZIP_WRONG())
        return found

    def _members(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        """Those of OneRoster's files, in whatever folder.

        Only of a kind of packing that zipfile unpacks bit by bit: it would unpack bzip2 and LZMA
        at once, however much comes of it.
        """
        members: dict[str, zipfile.ZipInfo] = {}
        if len(archive.infolist()) > MOST_MEMBERS:
            self._fail(ZIP_WRONG())
        for one in archive.infolist():
            name = re.split(r"[/\\]", one.filename)[-1].lower()
            if name not in _ONE_ROSTER:
                continue
            if name in members:
                self._add(ZIP_TWICE(file=name))
            if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                self._fail(ZIP_WRONG())
            members[name] = one
        for name in _NEEDED:
            if name not in members:
                self._add(ZIP_MISSING(file=name))
        if self._problems:
            self._refuse()
        return members
