"""Marks of hand-ins: a table, as CSV in and out; what would change is seen before it does.

A cell that a spreadsheet would take for a formula goes out with an apostrophe before it, and comes
back without: who exports, and imports what came, changes nothing.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import frozen
from commons.i18n import N_
from commons.messages import Message, Text
from commons.store.models import CourseMark
from courses.handins import stored
from spawner.gpu.quotas.problems import Problem, ProblemsError

MOST_ROWS = 5000
LONGEST_MARK, LONGEST_COMMENT = 40, 2000
COLUMNS = ("username", "mark", "comment")
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?\s*%?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

NO_COLUMNS = Text(
    "marks_columns",
    N_("the first line must name the columns username, mark and perhaps comment"),
)
MANY_ROWS = Text("marks_many", N_("there are more than {most} lines"))
NOT_THEIRS = Text("marks_unknown", N_("“{name}” is no student of the course"))
TWICE = Text("marks_twice", N_("“{name}” is there twice"))
TOO_LONG = Text("marks_long", N_("a mark has at most {mark} characters, a comment {comment}"))
NO_MARK = Text("marks_form", N_("must be a mark, or an object with mark and comment"))
CONTROLS = Text("marks_controls", N_("there are characters that cannot be shown"))


class MarksError(ProblemsError):
    """A table that cannot be used as marks."""

    text = Text("marks_wrong", N_("These marks cannot be used."))


@dataclass(frozen=True)
class Mark:
    """What somebody got."""

    mark: str
    comment: str = ""


@dataclass(frozen=True)
class Change:
    """Somebody's mark that is set, changed or removed; an empty one: not there."""

    username: str
    before: Mark | None
    after: Mark | None

    def __str__(self) -> str:
        return f"{self.username}: {_shown(self.before)} -> {_shown(self.after)}"


def _shown(mark: Mark | None) -> str:
    if mark is None:
        return "–"
    return f"{mark.mark} ({mark.comment})" if mark.comment else mark.mark


def guarded(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}" if cell.startswith((*_FORMULA, "'")) else cell


def plain(cell: str) -> str:
    """The other way round."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith((*_FORMULA, "'")) else cell


def to_csv(marks: Mapping[str, Mark], everybody: Iterable[str] = ()) -> str:
    """A line for each; who has no mark has an empty one."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for name in sorted({*marks, *everybody}):
        mark = marks.get(name, Mark(""))
        writer.writerow([guarded(name), guarded(mark.mark), guarded(mark.comment)])
    return out.getvalue()


def read_csv(text: str, known: Collection[str]) -> dict[str, Mark | None]:
    """Marks by login name; None for who has an empty one. Raises MarksError with each wrong line.

    Columns that are not known are not looked at.
    """
    first = text.split("\n", 1)[0]
    mark = max(",;\t", key=first.count)
    rows = list(csv.reader(io.StringIO(text.replace("\0", "\ufffd")), delimiter=mark))
    head = [cell.strip().casefold() for cell in rows[0]] if rows else []
    if not {"username", "mark"} <= set(head):
        raise MarksError([Problem("", NO_COLUMNS())])
    if len(rows) > MOST_ROWS:
        raise MarksError([Problem("", MANY_ROWS(most=MOST_ROWS))])
    found: dict[str, Mark | None] = {}
    problems = []
    for number, row in enumerate(rows[1:], 2):
        cells = dict(zip(head, (plain(cell.strip()) for cell in row), strict=False))
        name = cells.get("username", "").lower()
        if not any(cell.strip() for cell in row):
            continue
        wrong = _wrong(cells, name, known, found)
        if wrong is not None:
            problems.append(Problem("", wrong, line=number))
            continue
        got = Mark(cells.get("mark", ""), cells.get("comment", ""))
        found[name] = got if got.mark or got.comment else None
    if problems:
        raise MarksError(problems[:50])
    return found


def checked(document: Mapping[str, object], known: Collection[str]) -> dict[str, Mark | None]:
    """The same of what REST sends. Raises MarksError."""
    found: dict[str, Mark | None] = {}
    problems = []
    for name, value in list(document.items())[: MOST_ROWS + 1]:
        cells = {"mark": value} if isinstance(value, str) else value
        if cells is None:
            cells = {}
        texts = isinstance(cells, Mapping) and all(isinstance(v, str) for v in cells.values())
        if not isinstance(cells, Mapping) or not texts or not {*cells} <= {"mark", "comment"}:
            problems.append(Problem(name[:80], NO_MARK()))
            continue
        wrong = _wrong(cells, name, known, found)
        if wrong is not None:
            problems.append(Problem(name[:80], wrong))
            continue
        got = Mark(cells.get("mark", ""), cells.get("comment", ""))
        found[name] = got if got.mark or got.comment else None
    if len(document) > MOST_ROWS:
        problems.append(Problem("", MANY_ROWS(most=MOST_ROWS)))
    if problems:
        raise MarksError(problems[:50])
    return found


def _wrong(
    cells: Mapping[str, str], name: str, known: Collection[str], found: Collection[str]
) -> Message | None:
    if name not in known:
        return NOT_THEIRS(name=name[:80])
    if name in found:
        return TWICE(name=name)
    mark, comment = cells.get("mark", ""), cells.get("comment", "")
    if len(mark) > LONGEST_MARK or len(comment) > LONGEST_COMMENT:
        return TOO_LONG(mark=LONGEST_MARK, comment=LONGEST_COMMENT)
    if not mark.isprintable() or not comment.replace("\n", " ").replace("\r", " ").isprintable():
        return CONTROLS()
    return None


def marks(session: Session, course: str, handin: str) -> dict[str, Mark]:
    """Those that were given, by login name."""
    query = select(CourseMark).where(CourseMark.course == course, CourseMark.handin == handin)
    rows = session.scalars(query.order_by(CourseMark.username))
    return {row.username: Mark(row.mark, row.comment) for row in rows}


def of_person(session: Session, course: str, username: str) -> dict[str, Mark]:
    """Somebody's own, by hand-in."""
    query = select(CourseMark).where(CourseMark.course == course, CourseMark.username == username)
    return {row.handin: Mark(row.mark, row.comment) for row in session.scalars(query)}


def diff(before: Mapping[str, Mark], wanted: Mapping[str, Mark | None]) -> list[Change]:
    """What applying would change; who is not named keeps what they have."""
    return [
        Change(name, before.get(name), mark)
        for name, mark in sorted(wanted.items())
        if before.get(name) != mark
    ]


def apply(
    session: Session, course: str, handin: str, changes: Sequence[Change], by: str, now: float
) -> None:
    """Write changes down. Raises NotAvailable where the course is frozen."""
    frozen.check(session, course)
    for change in changes:
        row = session.get(CourseMark, (course, handin, change.username))
        if change.after is None:
            if row is not None:
                session.delete(row)
            continue
        if row is None:
            row = CourseMark(course=course, handin=handin, username=change.username)
            session.add(row)
        row.mark, row.comment = change.after.mark, change.after.comment
        row.changed_at, row.changed_by = stored(now), by[:255]
    session.flush()
