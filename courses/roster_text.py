"""The text of a roster's file, line by line, and all that is wrong with it. Pure.

Text is UTF-16 by its mark, else UTF-8; else GB18030, which is how Excel writes it in China, where
it all fits and at least half of what is not ASCII is among the 3,755 commonest Chinese characters
(GB 2312's first level; what Western letters look like in GB18030 hardly ever is); else Windows'
Western (1252). Characters that are not seen (format marks) are taken away, others kept.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, NoReturn

from commons.i18n import N_
from commons.messages import Message, Text
from spawner.gpu.quotas.problems import Problem, ProblemsError

MAX_BYTES = 2 * 1024 * 1024  # of a file, and of each that is read of a zip
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
NOBODY = Text("roster_nobody", N_("this line names nobody: no login name, address or number"))
ROLE_UNKNOWN = Text(
    "roster_role", N_("“{role}” is no role that is known here, such as student or teacher")
)
TWICE = Text(
    "roster_twice", N_("“{name}” is in line {other} too, with other data; take one of them away")
)
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
ROLE = {word: position for position, words in ROLES.items() for word in words}
COLUMN = {word: key for key, words in COLUMNS.items() for word in words}


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


Row = tuple[int, list[str]]
Record = tuple[int, dict[str, str]]


def decoded(data: bytes) -> str:
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


def clean(cell: str) -> str:
    """One line without signs that are not seen."""
    if cell.isprintable():
        return cell.strip()
    shown = "".join(" " if char.isspace() else char for char in cell)
    return "".join(char for char in shown if unicodedata.category(char) != "Cf").strip()


def _has_controls(cell: str) -> bool:
    return not cell.isprintable() and any(unicodedata.category(char) == "Cc" for char in cell)


def key_of(cell: str) -> str:
    return re.sub(r"[\s_\-.]+", "", cell.casefold())


def separator(text: str) -> str:
    """The one by which the first line has most of the columns that are known."""
    first = next((line for line in text.splitlines() if line.strip()), "")[:10_000]
    return max(
        ",;\t",
        key=lambda mark: sum(key_of(cell.strip(' "')) in COLUMN for cell in first.split(mark)),
    )


def full_name(first: str, last: str) -> str:
    chinese = re.fullmatch(r"[\u3400-\u9fff]+", first + last)
    return f"{last}{first}" if chinese else f"{first} {last}".strip()


def names(names: Iterable[str]) -> list[str]:
    """Some names of a file, for a sentence."""
    some = [name if len(name) <= 60 else f"{name[:60]}…" for name in names]
    return [*some[:MOST_NAMES], *(["…"] if len(some) > MOST_NAMES else [])] or ["–"]


def is_active(row: Mapping[str, str]) -> bool:
    return row.get("status", "").lower() in ("", "active")


class Reading:
    """One file, and what is wrong with it.

    Attributes:
        form: what it turned out to be.
        path: of the table with its people, in a zip.
    """

    form: Format = "csv"
    path = ""

    def __init__(self, filename: str, course: str, today: date) -> None:
        self._filename = "".join(filter(str.isprintable, filename))[:200]
        self._course, self._today = clean(course), today
        self._problems: list[Problem] = []

    def read(self, data: bytes) -> list[Entry]:
        """The people of the file, each once, by line. Raises RosterFileError."""
        if len(data) > MAX_BYTES:
            self._fail(TOO_LARGE(megabytes=MAX_BYTES // 2**20))
        people = self._once(self._people(data), self.path)
        if self._problems:
            self._refuse()
        if not people:
            self._fail(EMPTY(wanted=None if self.form == "csv" else self._course or None))
        return people

    def _people(self, data: bytes) -> Iterable[Entry]:
        raise NotImplementedError

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
            text = decoded(data)
        except UnicodeDecodeError:
            self._fail(NOT_TEXT(), path=path)
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter="," if path else separator(text),
            skipinitialspace=True,
            strict=True,
        )
        rows: list[Row] = []
        line = 1
        try:
            for row in reader:
                if len(row) > MOST_COLUMNS:
                    self._fail(TOO_MANY_COLUMNS(most=MOST_COLUMNS), line, path)
                cells = [clean(cell) for cell in row]
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
        head = [columns.get(key_of(title), "") for title in titles]
        for name in sorted({name for name in head if name and head.count(name) > 1}):
            same = [title for title, one in zip(titles, head, strict=True) if one == name]
            self._add(COLUMN_TWICE(names=names(same)), line, path)
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
            name = row.get("name") or full_name(row.get("first", ""), row.get("last", ""))
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
