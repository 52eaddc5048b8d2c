"""Rosters as schools have them: plain CSV, Moodle's upload format, a OneRoster 1.2 zip. Pure.

Whatever is in a file is hostile: it is read within limits, nothing is unpacked to the disk, and
what looks like a formula is a text. All that is wrong is said at once, and nobody is left out in
silence: a file with a line that cannot be understood is refused.

Text is UTF-16 by its mark, else UTF-8; else GB18030, which is how Excel writes it in China, where
it all fits and at least half of what is not ASCII is among the 3,755 commonest Chinese characters
(GB 2312's first level; what Western letters look like in GB18030 hardly ever is); else Windows'
Western (1252). Characters that are not seen (format marks) are taken away, others kept.
"""

from __future__ import annotations

import csv
import io
import re
import struct
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, NoReturn

from commons.i18n import N_
from commons.messages import Message, Text
from spawner.gpu.quotas.problems import Problem, ProblemsError

MAX_BYTES = 2 * 1024 * 1024  # of a file, and of each that is read of a zip
MAX_UNPACKED = 4 * MAX_BYTES  # of all that is read of a zip
MOST_MEMBERS = 100  # of a zip
MAX_FIELD = 500
MAX_ROWS = 10_000  # without the first line, which names the columns
MOST_COLUMNS = 500
MOST_PROBLEMS = 20
MOST_NAMES = 12  # of a list in a sentence

Format = Literal["csv", "moodle", "oneroster"]
Position = Literal["student", "assistant", "instructor"]
POSITIONS: tuple[Position, ...] = ("instructor", "assistant", "student")

TOO_LARGE = Text(
    "roster_too_large", N_("The file is larger than {megabytes} MB; leave out what is not needed.")
)
NOT_TEXT = Text("roster_not_text", N_("The file is no text; save it as CSV in UTF-8."))
NOT_A_ROSTER = Text(
    "roster_not_one",
    N_(
        "This is no roster: it needs a first line with the names of its columns, among them "
        "username, email or number; or one login name in each line."
    ),
)
TOO_MANY_ROWS = Text(
    "roster_too_many_rows", N_("The file has more than {most} lines; split it in parts.")
)
TOO_MANY_COLUMNS = Text(
    "roster_too_many_columns", N_("The file has more than {most} columns; take some away.")
)
ROW_WRONG = Text(
    "roster_row_wrong",
    N_("from this line on it cannot be read: a quotation mark is missing, or is one too many"),
)
ROW_WIDE = Text(
    "roster_row_wide",
    N_("this line has more cells than there are columns; put cells with commas in quotation marks"),
)
CELL_LONG = Text(
    "roster_cell_long", N_("a cell is longer than {most} characters; shorten it or take it away")
)
CONTROLS = Text("roster_controls", N_("a cell has control characters; type it anew"))
COLUMN_TWICE = Text(
    "roster_column_twice", N_("several columns mean the same: {names}; take all but one away")
)
COLUMN_MISSING = Text("roster_column_missing", N_("the column “{column}” is missing; add it"))
NOBODY = Text("roster_nobody", N_("this line names nobody: no login name, address or number"))
ROLE_UNKNOWN = Text(
    "roster_role", N_("“{role}” is no role that is known here, such as student or teacher")
)
TWICE = Text(
    "roster_twice", N_("“{name}” is in line {other} too, with other data; take one of them away")
)
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
CLASS_UNKNOWN = Text(
    "roster_class", N_("The file has no class “{wanted}”. It has: {known}. Name one of these.")
)
CLASSES_SEVERAL = Text(
    "roster_classes", N_("Several classes of the file fit: {known}. Name one of these.")
)
EMPTY = Text(
    "roster_empty",
    N_("The file names nobody."),
    when={"wanted": N_("The file names nobody in the course “{wanted}”.")},
)

COLUMNS = {
    "username": ("username", "user", "login", "uid", "account", "用户名", "登录名", "账号"),
    "mail": ("email", "mail", "emailaddress", "邮箱", "电子邮箱", "电子邮件", "邮件"),
    "number": (
        "number", "idnumber", "id", "studentid", "studentnumber", "matriculation",
        "matriculationnumber", "matrikelnummer", "学号", "工号", "编号",
    ),
    "name": ("name", "fullname", "displayname", "姓名", "名字"),
    "first": ("firstname", "givenname", "vorname", "名"),
    "last": ("lastname", "surname", "familyname", "nachname", "姓"),
    "role": ("role", "position", "角色", "身份", "职务"),
}  # fmt: skip
ROLES: Mapping[Position, Sequence[str]] = {
    "student": ("student", "learner", "学生", "学员", ""),
    "assistant": (
        "assistant", "aide", "ta", "teachingassistant", "tutor", "nonediting", "proctor",
        "noneditingteacher", "助教", "助理",
    ),
    "instructor": (
        "instructor", "teacher", "editingteacher", "lecturer", "manager", "professor", "教师",
        "老师", "讲师", "主讲",
    ),
}  # fmt: skip
_ROLE = {word: position for position, words in ROLES.items() for word in words}
_COLUMN = {word: key for key, words in COLUMNS.items() for word in words}

_MOODLE = {
    "username": "username", "email": "mail", "idnumber": "number", "firstname": "first",
    "lastname": "last", "deleted": "deleted", "suspended": "suspended",
}  # fmt: skip
_MOODLE_COURSE = re.compile(r"(?:course|role|type|enrolstatus)\d+")
# Moodle's short name "teacher" is its non-editing teacher; whoever may edit is "editingteacher".
_MOODLE_ROLE: Mapping[str, Position] = {**_ROLE, "teacher": "assistant"}
_MOODLE_TYPE = {"1": "student", "2": "editingteacher", "3": "teacher"}

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


class RosterFileError(ProblemsError):
    """A file that cannot be used as a roster."""

    text = Text("roster_wrong", N_("This roster cannot be used."))


@dataclass(frozen=True)
class Entry:
    """Somebody in a file; empty where it does not say.

    Attributes:
        line: of the file; of a zip, of its users.csv.
    """

    line: int
    username: str
    mail: str
    number: str
    name: str
    position: Position


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
    return _Reading(filename, course, today or date.today()).read(data)


# -- text -----------------------------------------------------------------------------------------

Row = tuple[int, list[str]]
Record = tuple[int, dict[str, str]]


def _decoded(data: bytes) -> str:
    """Raises UnicodeDecodeError."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        text = ""
    other = Counter(char for char in text if not char.isascii())
    common = sum(count for char, count in other.items() if _is_common_chinese(char))
    return text if other and 2 * common >= other.total() else data.decode("cp1252")


def _is_common_chinese(char: str) -> bool:
    code = char.encode("gb2312", "ignore")
    return len(code) == 2 and 0xB0 <= code[0] <= 0xD7


def _clean(cell: str) -> str:
    """One line without signs that are not seen."""
    if cell.isprintable():
        return cell.strip()
    shown = "".join(" " if char.isspace() else char for char in cell)
    return "".join(char for char in shown if unicodedata.category(char) != "Cf").strip()


def _has_controls(cell: str) -> bool:
    return not cell.isprintable() and any(unicodedata.category(char) == "Cc" for char in cell)


def _key(cell: str) -> str:
    return re.sub(r"[\s_\-.]+", "", cell.casefold())


def _separator(text: str) -> str:
    """The one by which the first line has most of the columns that are known."""
    first = next((line for line in text.splitlines() if line.strip()), "")[:10_000]
    return max(
        ",;\t",
        key=lambda mark: sum(_key(cell.strip(' "')) in _COLUMN for cell in first.split(mark)),
    )


def _full_name(first: str, last: str) -> str:
    chinese = re.fullmatch(r"[\u3400-\u9fff]+", first + last)
    return f"{last}{first}" if chinese else f"{first} {last}".strip()


def _names(names: Iterable[str]) -> list[str]:
    """Some names of a file, for a sentence."""
    some = [name if len(name) <= 60 else f"{name[:60]}…" for name in names]
    return [*some[:MOST_NAMES], *(["…"] if len(some) > MOST_NAMES else [])] or ["–"]


def _is_active(row: Mapping[str, str]) -> bool:
    return row.get("status", "").lower() in ("", "active")


class _Reading:
    """One file, and what is wrong with it."""

    def __init__(self, filename: str, course: str, today: date) -> None:
        self._filename = "".join(filter(str.isprintable, filename))[:200]
        self._course, self._today = _clean(course), today
        self._problems: list[Problem] = []

    def read(self, data: bytes) -> Roster:
        if len(data) > MAX_BYTES:
            self._fail(TOO_LARGE(megabytes=MAX_BYTES // 2**20))
        form: Format
        if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            form, people = "oneroster", self._one_roster(data)
        else:
            rows = self._rows(data)
            head = [_key(cell) for cell in rows[0][1]] if rows else []
            if "username" in head and any(re.fullmatch(r"course\d+", key) for key in head):
                form, people = "moodle", self._moodle(rows, head)
            else:
                form, people = "csv", self._plain(rows, head)
        people = self._once(people, "users.csv" if form == "oneroster" else "")
        if self._problems:
            self._refuse()
        if not people:
            self._fail(EMPTY(wanted=None if form == "csv" else self._course or None))
        return Roster(form, tuple(people))

    def _add(self, message: Message, line: int | None = None, path: str = "") -> None:
        self._problems.append(Problem(path, message, line=line))

    def _fail(self, message: Message, line: int | None = None, path: str = "") -> NoReturn:
        """What makes reading on useless, with all that was found before."""
        self._add(message, line, path)
        self._refuse()

    def _refuse(self) -> NoReturn:
        found = sorted(self._problems, key=lambda one: (one.path, one.line or 0))
        raise RosterFileError(found[:MOST_PROBLEMS], self._filename)

    def _rows(self, data: bytes, path: str = "") -> list[Row]:
        """The lines that have something in them, with the numbers of their first."""
        try:
            text = _decoded(data)
        except UnicodeDecodeError:
            self._fail(NOT_TEXT(), path=path)
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter="," if path else _separator(text),
            skipinitialspace=True,
            strict=True,
        )
        rows: list[Row] = []
        line = 1
        try:
            for row in reader:
                if len(row) > MOST_COLUMNS:
                    self._fail(TOO_MANY_COLUMNS(most=MOST_COLUMNS), line, path)
                cells = [_clean(cell) for cell in row]
                if any(cells):
                    self._check(cells, line, path)
                    rows.append((line, [cell[:MAX_FIELD] for cell in cells]))
                if len(rows) > MAX_ROWS + 1 or line > 10 * MAX_ROWS:  # some have empty ones
                    self._fail(TOO_MANY_ROWS(most=MAX_ROWS), path=path)
                line = reader.line_num + 1
        except csv.Error:
            self._fail(ROW_WRONG(), line, path)
        return rows

    def _check(self, cells: Sequence[str], line: int, path: str) -> None:
        if any(len(cell) > MAX_FIELD for cell in cells):
            self._add(CELL_LONG(most=MAX_FIELD), line, path)
        if any(_has_controls(cell) for cell in cells):
            self._add(CONTROLS(), line, path)

    def _records(
        self, rows: Sequence[Row], columns: Mapping[str, str], path: str = ""
    ) -> list[Record]:
        """The lines after the first by what ``columns`` calls its cells; others are left out."""
        if not rows:
            return []
        line, titles = rows[0]
        head = [columns.get(_key(title), "") for title in titles]
        for name in sorted({name for name in head if name and head.count(name) > 1}):
            same = [title for title, one in zip(titles, head, strict=True) if one == name]
            self._add(COLUMN_TWICE(names=_names(same)), line, path)
        found = []
        for line, cells in rows[1:]:
            if any(cells[len(head) :]):
                self._add(ROW_WIDE(), line, path)
            row = dict(zip(head, cells, strict=False))
            row.pop("", None)
            found.append((line, row))
        return found

    def _entry(
        self, line: int, row: Mapping[str, str], position: Position | None, path: str = ""
    ) -> list[Entry]:
        username, mail, number = (row.get(key, "") for key in ("username", "mail", "number"))
        if not (username or mail or number):
            self._add(NOBODY(), line, path)
        elif position is None:
            self._add(ROLE_UNKNOWN(role=row.get("role", "")[:40]), line, path)
        else:
            name = row.get("name") or _full_name(row.get("first", ""), row.get("last", ""))
            return [Entry(line, username, mail, number, name, position)]
        return []

    def _once(self, people: Iterable[Entry], path: str) -> list[Entry]:
        found: dict[tuple[int, str], Entry] = {}
        for one in people:
            who = [one.username.casefold(), one.mail.casefold(), one.number.casefold()]
            key = next((kind, word) for kind, word in enumerate(who) if word)
            before = found.setdefault(key, one)
            data = (before.mail.casefold(), before.number.casefold())
            if any(a and b and a != b for a, b in zip(who[1:], data, strict=True)):
                name = one.username or one.mail or one.number
                self._add(TWICE(name=name[:60], other=before.line), one.line, path)
            if POSITIONS.index(one.position) < POSITIONS.index(before.position):
                found[key] = one
        return sorted(found.values(), key=lambda one: one.line)

    # -- the formats ------------------------------------------------------------------------------

    def _plain(self, rows: Sequence[Row], head: Sequence[str]) -> list[Entry]:
        columns = {_COLUMN[key] for key in head if key in _COLUMN}
        if columns & {"username", "mail", "number"}:
            return [
                entry
                for line, row in self._records(rows, _COLUMN)
                for entry in self._entry(line, row, _ROLE.get(_key(row.get("role", ""))))
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
            self._fail(CLASSES_SEVERAL(known=_names(courses.values())))
        wanted = self._course.casefold() or next(iter(courses), "")
        if wanted not in courses and self._course:
            known = _names(courses.values())
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
                people += self._entry(line, row | {"role": role}, _MOODLE_ROLE.get(_key(role)))
        return people

    def _one_roster(self, data: bytes) -> list[Entry]:
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
            if _is_active(row) and row.get("enabled", "").lower() in ("", "true")
            for entry in self._entry(line, row, position, "users.csv")
        ]

    def _positions(
        self, files: Mapping[str, Sequence[Record]], users: Mapping[str, Record]
    ) -> dict[str, Position]:
        """Who is in the class today, and as what, by sourcedId."""
        path, wanted = "enrollments.csv", self._class(files)
        found: dict[str, Position] = {}
        for line, row in files[path]:
            role, user = _key(row.get("role", "")), row.get("user", "")
            if row.get("class") != wanted or not _is_active(row) or role in _OUTSIDERS:
                continue
            position = _ROLE.get(role) if role else None
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

        classes = [row for _, row in files["classes.csv"] if _is_active(row)]
        courses = {
            row.get("id")
            for _, row in files["courses.csv"]
            if _is_active(row) and named(row, "id", "code", "title")
        }
        fitting = (
            [row for row in classes if named(row, "id")]
            or [row for row in classes if named(row, "code", "title")]
            or [row for row in classes if named(row, "course") or row.get("course") in courses]
            or (classes if len(classes) == 1 or not word else [])
        )
        if len(fitting) > 1:
            self._fail(CLASSES_SEVERAL(known=_names(row.get("id", "") for row in fitting)))
        if not fitting:
            known = _names(row.get("code") or row.get("id", "") for row in classes)
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
                    head = [_key(cell) for cell in rows[0][1]] if rows else []
                    for column in _NEEDED.get(name, ()):
                        if _key(column) not in head:
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
