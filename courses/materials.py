"""A course's materials in the store: when they are to be fetched, what came of it, in words.

Who wants them fetched says so in the row; the hub's ``material_keeper`` does it. What fails changes
nothing of what is given out, and is said until it goes well.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy.orm import Session

from commons import frozen
from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Message, Text
from commons.store.models import CourseMaterials
from commons.units import amount
from courses import records
from courses.document import CourseSpec, Materials
from spawner.gpu.views import iso
from spawner.runtime.docker.material_task import MOST_BYTES, SECONDS
from spawner.runtime.spec import Fetched

EVERY = timedelta(minutes=15)
SOON = timedelta(minutes=1)  # after what was not the materials' fault

NO_MATERIALS = Text(
    "course_no_materials",
    N_("The course “{name}” says nothing of materials. Write “materials” into its course.yaml."),
)
_FAILURES: Mapping[str, Text] = {
    "gone": Text(
        "materials_gone",
        N_(
            "There is no repository at {git}, or none that can be read without a login. Correct "
            "“materials” in course.yaml, or make the repository readable."
        ),
    ),
    "login": Text(
        "materials_login",
        N_(
            "{git} wants a login, which materials cannot have. Make the repository readable "
            "without one, or write “materials: folder”."
        ),
    ),
    "unreachable": Text(
        "materials_unreachable",
        N_(
            "{git} does not answer ({detail}). It is tried again; if it stays so, ask an "
            "administrator whether this site reaches it."
        ),
    ),
    "branch": Text(
        "materials_branch",
        N_("{git} has no branch “{branch}”. Correct “materials” in course.yaml."),
    ),
    "empty": Text("materials_empty", N_("There is nothing in {git} yet. Push something to it.")),
    "files": Text(
        "materials_files",
        N_("There are more than {detail} files. Leave out what students do not need."),
    ),
    "bytes": Text(
        "materials_bytes",
        N_("It is more than {most}. Put large data into the folder that the course shares."),
    ),
    "time": Text(
        "materials_time",
        N_("Fetching took longer than {minutes} minutes. Leave out what students do not need."),
    ),
    "disk": Text(
        "materials_disk",
        N_(
            "The course’s folder or the disk is full. Remove something from it, or ask an "
            "administrator for more room."
        ),
    ),
    "failed": Text(
        "materials_failed",
        N_("It failed ({detail}). It is tried again; if it stays so, ask an administrator."),
    ),
}
_LEFT_OUT: Mapping[str, Text] = {
    "link": Text("left_out_link", N_("a link that leads out of the materials")),
    "large": Text("left_out_large", N_("larger than 100 MB")),
    "special": Text("left_out_special", N_("neither a file nor a folder")),
    "repository": Text("left_out_repository", N_("a repository of its own (a submodule)")),
    "name": Text("left_out_name", N_("a name with characters that cannot be shown")),
    "depth": Text("left_out_depth", N_("too many folders in each other")),
    "denied": Text("left_out_denied", N_("cannot be read")),
}


def place(course: str) -> str:
    """Where a person finds them, below the home."""
    return str(PurePosixPath("courses", course))


def want(session: Session, name: str, now: datetime) -> None:
    """Have them fetched. Raises BadRequest where there are none to fetch."""
    if records.spec_of(records.get(session, name)).materials is None:
        raise BadRequest(NO_MATERIALS(name=name[:80]))
    frozen.check(session, name)
    _row(session, name).asked_at = now


def due(session: Session, now: datetime) -> list[tuple[str, Materials]]:
    """What is to be fetched now, by course: asked for, changed, and now and then in its term."""
    found = []
    still = frozen.courses(session)
    for course in records.all_of(session):
        spec = records.spec_of(course)
        if spec.materials is None or course.name in still:
            continue
        row = session.get(CourseMaterials, course.name)
        if row is None or row.source != str(spec.materials) or row.tried_at is None:
            found.append((course.name, spec.materials))
            continue
        is_asked = row.asked_at is not None and row.asked_at > row.tried_at
        is_time = row.tried_at + EVERY <= now and now.date() <= spec.term.last
        if is_asked or is_time:
            found.append((course.name, spec.materials))
    return found


def ended(
    session: Session, name: str, materials: Materials, began: datetime, fetched: Fetched
) -> None:
    """Write down what came of a fetch."""
    row = _row(session, name)
    row.tried_at, row.source = began, str(materials)
    if fetched.failure:
        row.problem = _FAILURES[fetched.failure](
            git=materials.git,
            branch=materials.branch,
            detail=fetched.detail,
            most=amount(MOST_BYTES),
            minutes=SECONDS // 60,
        ).as_json()
        return
    row.problem, row.fetched_at = None, began
    row.revision, row.files, row.bytes = fetched.revision, fetched.files, fetched.bytes
    row.left_out = [list(one) for one in fetched.left_out]
    row.more_left_out = fetched.more_left_out


def held_up(
    session: Session, name: str, materials: Materials, began: datetime, why: Message
) -> None:
    """It could not even be tried, and is before long."""
    row = _row(session, name)
    row.tried_at, row.source, row.problem = began - EVERY + SOON, str(materials), why.as_json()


def show(session: Session, spec: CourseSpec) -> dict[str, Any] | None:
    """As plain data ready for JSON, messages as such; None where the course has none."""
    if spec.materials is None:
        return None
    row = session.get(CourseMaterials, spec.course) or CourseMaterials(
        files=0, bytes=0, left_out=[], more_left_out=0
    )
    asked = row.tried_at is None or (row.asked_at is not None and row.asked_at > row.tried_at)
    return {
        "source": str(spec.materials),
        "folder": f"~/{place(spec.course)}",
        "fetched_at": iso(row.fetched_at),
        "tried_at": iso(row.tried_at),
        "waits": asked or row.source != str(spec.materials),
        "files": row.files,
        "bytes": row.bytes,
        "left_out": [(path, _LEFT_OUT[why]()) for path, why in row.left_out if why in _LEFT_OUT],
        "more_left_out": row.more_left_out,
        "problem": Message.from_json(row.problem) if row.problem else None,
    }


def of(session: Session, name: str) -> dict[str, Any]:
    """``show`` of a course by name. Raises BadRequest where there are none."""
    shown = show(session, records.spec_of(records.get(session, name)))
    if shown is None:
        raise BadRequest(NO_MATERIALS(name=name[:80]))
    return shown


def in_words(shown: dict[str, Any], locale: Any) -> dict[str, Any]:
    """What ``show`` found, with sentences in place of messages."""
    left = [{"path": path, "why": why.in_words(locale)} for path, why in shown["left_out"]]
    problem = shown["problem"].in_words(locale) if shown["problem"] else None
    return {**shown, "left_out": left, "problem": problem}


def _row(session: Session, name: str) -> CourseMaterials:
    row = session.get(CourseMaterials, name)
    if row is None:
        row = CourseMaterials(
            course=name, source="", revision="", files=0, bytes=0, left_out=[], more_left_out=0
        )
        session.add(row)
    return row
