"""Rosters as schools have them: plain CSV, Moodle's upload format, a OneRoster 1.2 zip. Pure.

Whatever is in a file is hostile: it is read within limits, nothing is unpacked to the disk, and
what looks like a formula is a text. All that is wrong is said at once.

Text is UTF-8 or, by its mark, UTF-16; else GB18030 where it all fits and gives Chinese, which is
how Excel writes it in China; else Windows' Western (1252).
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from commons.i18n import N_
from commons.messages import Text
from spawner.gpu.quotas.problems import Problem, ProblemsError

MAX_BYTES = 2 * 1024 * 1024  # of a file, and of each that is read of a zip
MOST_MEMBERS = 100  # of a zip
MAX_FIELD = 500
MAX_ROWS = 10_000
MOST_PROBLEMS = 20
POSITIONS = ("instructor", "assistant", "student")

TOO_LARGE = Text("roster_too_large", N_("The file is larger than {megabytes} MB."))
NOT_A_ROSTER = Text(
    "roster_not_one",
    N_(
        "This is no roster: it needs a first line with the names of its columns, among them "
        "username, email or number; or one login name in each line."
    ),
)
TOO_MANY_ROWS = Text("roster_too_many_rows", N_("The file has more than {most} lines."))
ROW_WRONG = Text("roster_row_wrong", N_("this line cannot be read: {why}"))
NOBODY = Text("roster_nobody", N_("this line names nobody: no login name, address or number"))
ROLE_UNKNOWN = Text(
    "roster_role", N_("“{role}” is no role that is known here, such as student or teacher")
)
ZIP_WRONG = Text("roster_zip", N_("The zip cannot be read: it is damaged or encrypted."))
ZIP_MISSING = Text(
    "roster_zip_missing", N_("The zip has no {file}: it is no OneRoster file of this kind.")
)
CLASS_UNKNOWN = Text(
    "roster_class", N_("The file has no class “{wanted}”. It has: {known}. Name one of these.")
)
EMPTY = Text("roster_empty", N_("The file names nobody in the course “{wanted}”."))

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
ROLES = {
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


class RosterFileError(ProblemsError):
    """A file that cannot be used as a roster."""

    text = Text("roster_wrong", N_("This roster cannot be used."))


@dataclass(frozen=True)
class Entry:
    """Somebody in a file; empty where it does not say.

    Attributes:
        line: of the file; of a zip, of its users.csv.
        position: instructor, assistant or student.
    """

    line: int
    username: str
    mail: str
    number: str
    name: str
    position: str


@dataclass(frozen=True)
class Roster:
    """The people of a file; ``format``: csv, moodle or oneroster."""

    format: str
    people: tuple[Entry, ...]


def read(data: bytes, filename: str = "", course: str = "", today: date | None = None) -> Roster:
    """The people whom a file puts into a course. Raises RosterFileError.

    ``course`` is what a file calls it that has several; ``today`` (now): whose time in it is over,
    or has not begun, is left out. Who is there twice has the higher position.
    """
    if len(data) > MAX_BYTES:
        raise _wrong(TOO_LARGE(megabytes=MAX_BYTES // 2**20), filename)
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        people = _one_roster(data, filename, course, today or date.today())
        return Roster("oneroster", _once(people, filename, course))
    rows = _rows(data, filename)
    head = [_key(cell) for cell in rows[0][1]] if rows else []
    if any(re.fullmatch(r"course\d+", key) for key in head) and "username" in head:
        return Roster("moodle", _once(_moodle(rows, head, filename, course), filename, course))
    return Roster("csv", _once(_plain(rows, head, filename), filename, course))


def _wrong(message: object, filename: str, line: int | None = None) -> RosterFileError:
    return RosterFileError([Problem("", message, line=line)], filename)  # type: ignore[arg-type]


def _once(people: Sequence[Entry], filename: str, course: str) -> tuple[Entry, ...]:
    found: dict[tuple[str, str, str], Entry] = {}
    for one in people:
        key = (one.username.casefold(), one.mail.casefold(), one.number)
        before = found.get(key)
        if before is None or POSITIONS.index(one.position) < POSITIONS.index(before.position):
            found[key] = one
    if not found:
        raise _wrong(EMPTY(wanted=course), filename)
    return tuple(sorted(found.values(), key=lambda one: one.line))


# -- text -----------------------------------------------------------------------------------------

Row = tuple[int, list[str]]


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        text = ""
    other = [char for char in text if ord(char) > 0x7F]
    if other and all("\u3000" <= char <= "\u9fff" or char >= "\uff00" for char in other):
        return text
    return data.decode("cp1252", "replace")


def _rows(data: bytes, filename: str) -> list[Row]:
    """The lines that have something in them, with their numbers."""
    text = _decoded(data)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[Row] = []
    try:
        for row in reader:
            cells = [_clean(cell) for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
            if len(rows) > MAX_ROWS:
                raise _wrong(TOO_MANY_ROWS(most=MAX_ROWS), filename)
    except csv.Error as error:
        raise _wrong(ROW_WRONG(why=str(error)[:200]), filename, reader.line_num) from error
    return rows


def _clean(cell: str) -> str:
    """One line without signs that are not seen, of a length that a directory could have."""
    shown = "".join(" " if char.isspace() else char for char in cell)
    kept = (char for char in shown if unicodedata.category(char) not in ("Cc", "Cf", "Cs"))
    return "".join(kept).strip()[:MAX_FIELD]


def _key(cell: str) -> str:
    return re.sub(r"[\s_\-.]+", "", cell.casefold())


# -- the formats ----------------------------------------------------------------------------------


def _plain(rows: Sequence[Row], head: Sequence[str], filename: str) -> list[Entry]:
    columns = [_COLUMN.get(key, "") for key in head]
    named = {"username", "mail", "number"} & set(columns)
    if not named:
        if any(len(cells) != 1 for _, cells in rows) or not rows:
            raise _wrong(NOT_A_ROSTER(), filename)
        mails = ["@" in cells[0] for _, cells in rows]
        return [
            Entry(line, "" if mail else cells[0], cells[0] if mail else "", "", "", "student")
            for (line, cells), mail in zip(rows, mails, strict=True)
        ]
    return _entries(
        (
            (line, dict(zip(reversed(columns), reversed(_filled(cells, columns)), strict=True)))
            for line, cells in rows[1:]
        ),
        filename,
    )


def _filled(cells: Sequence[str], columns: Sequence[str]) -> list[str]:
    return [*cells, *[""] * len(columns)][: len(columns)]


def _moodle(rows: Sequence[Row], head: Sequence[str], filename: str, course: str) -> list[Entry]:
    """Rows with ``course1``, ``role1``, …: those that have the course."""
    found = []
    for line, cells in rows[1:]:
        known = dict(zip(head, _filled(cells, head), strict=True))
        for number in [key.removeprefix("course") for key in head if key.startswith("course")]:
            if known[f"course{number}"].casefold() == course.casefold():
                found.append((line, _row(known) | {"role": known.get(f"role{number}", "")}))
    return _entries(iter(found), filename)


def _row(known: Mapping[str, str]) -> dict[str, str]:
    return {_COLUMN[key]: value for key, value in known.items() if key in _COLUMN}


def _entries(rows: Iterator[tuple[int, Mapping[str, str]]], filename: str) -> list[Entry]:
    found, problems = [], []
    for line, row in rows:
        position = _ROLE.get(_key(row.get("role", "")))
        username, mail = row.get("username", ""), row.get("mail", "")
        number = row.get("number", "")
        if not (username or mail or number):
            problems.append(Problem("", NOBODY(), line=line))
        elif position is None:
            role = ROLE_UNKNOWN(role=row.get("role", "")[:40])
            problems.append(Problem("", role, line=line))
        else:
            both = f"{row.get('first', '')} {row.get('last', '')}".strip()
            name = row.get("name", "") or both
            found.append(Entry(line, username, mail, number, name, position))
    if problems:
        raise RosterFileError(problems[:MOST_PROBLEMS], filename)
    return found


# -- OneRoster ------------------------------------------------------------------------------------


def _one_roster(data: bytes, filename: str, course: str, today: date) -> list[Entry]:
    """The users whom enrollments put into one class, by OneRoster 1.2's CSV binding."""
    files = _unzipped(data, filename, ("users.csv", "enrollments.csv", "classes.csv"))
    classes = [row for _, row in files["classes.csv"] if _active(row)]
    wanted = _class(classes, course, filename)
    roles: dict[str, str] = {}
    for _, row in files["enrollments.csv"]:
        user = row.get("usersourcedid", "")
        position = _ROLE.get(_key(row.get("role", "")))
        begun = (row.get("begindate") or "0000-00-00") <= today.isoformat()
        over = (row.get("enddate") or "9999-99-99") < today.isoformat()
        if row.get("classsourcedid") != wanted or not _active(row) or not begun or over:
            continue
        if position is not None:  # guardians, administrators, relatives: not in the class
            roles[user] = min(roles.get(user, position), position, key=POSITIONS.index)
    rows = (
        (
            line,
            {
                "username": row.get("username", ""),
                "mail": row.get("email", ""),
                "number": row.get("identifier", ""),
                "first": row.get("givenname", ""),
                "last": row.get("familyname", ""),
                "role": roles[row.get("sourcedid", "")],
            },
        )
        for line, row in files["users.csv"]
        if row.get("sourcedid", "") in roles
        and _active(row)
        and row.get("enableduser", "true").lower() != "false"
    )
    return _entries(rows, filename)


def _active(row: Mapping[str, str]) -> bool:
    return row.get("status", "active").lower() in ("", "active")


def _class(classes: Sequence[Mapping[str, str]], course: str, filename: str) -> str:
    keys = ("sourcedid", "classcode", "title", "coursesourcedid")
    fitting = [
        row for row in classes if course.casefold() in {row.get(key, "").casefold() for key in keys}
    ]
    if not fitting and len(classes) == 1:
        fitting = list(classes)
    if len(fitting) != 1:
        known = [row.get("classcode") or row.get("sourcedid", "") for row in classes][:12]
        raise _wrong(CLASS_UNKNOWN(wanted=course, known=known), filename)
    return fitting[0].get("sourcedid", "")


def _unzipped(
    data: bytes, filename: str, wanted: Sequence[str]
) -> dict[str, list[tuple[int, dict[str, str]]]]:
    """The rows of some files of a zip, by lower-case column; nothing else of it is read."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {one.filename.rpartition("/")[2].lower(): one for one in archive.infolist()}
            if len(archive.infolist()) > MOST_MEMBERS:
                raise _wrong(ZIP_WRONG(), filename)
            for name in wanted:
                if name not in members:
                    raise _wrong(ZIP_MISSING(file=name), filename)
                with archive.open(members[name]) as member:
                    text = member.read(MAX_BYTES + 1)  # counted, not what the zip says of itself
                if len(text) > MAX_BYTES:
                    raise _wrong(TOO_LARGE(megabytes=MAX_BYTES // 2**20), f"{filename}/{name}")
                rows = _rows(text, f"{filename}/{name}")
                head = [_key(cell) for cell in rows[0][1]] if rows else []
                found[name] = [
                    (line, dict(zip(head, _filled(cells, head), strict=True)))
                    for line, cells in rows[1:]
                ]
    except (
        zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, OSError, EOFError,
        ValueError,
    ) as error:  # fmt: skip
        raise _wrong(ZIP_WRONG(), filename) from error
    return found
