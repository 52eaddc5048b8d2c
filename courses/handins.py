"""What is handed in: asked, listed, with deadlines and groups of one's own; in the store.

The row is written before anything is read of a home, with the time at which the server was asked;
what it becomes ``courses.handin_keeper`` sees to, however often the hub is killed.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import String, cast, delete, func, or_, select
from sqlalchemy.orm import Session

from commons import frozen
from commons.errors import BadRequest, NotAvailable, WrongValue
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import NAME
from commons.store.database import tell
from commons.store.models import HandedIn, HandInExtension, HandInGroup
from courses.deadlines import MINUTE, Deadline, Timing, deadline, moment
from courses.document import NOT_A_MOMENT, CourseSpec, HandIn, check_path
from spawner.gpu.policy.reasons import shown_moment
from spawner.gpu.views import iso

NEWS = "handins"
KINDS = ("handin", "feedback")  # of rows; a third one is courses.grading's
MOST_WAITING = 3  # of one team, that are still to be read
MOST_KEPT = 50  # of one team
ALL = ""  # an extension for everybody
_LOGIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

HANDIN_UNKNOWN = Text("handin_unknown", N_("The course “{course}” has no hand-in “{name}”."))
HANDIN_OVER = Text(
    "handin_over",
    N_("“{name}” was due {due} and is not taken any more. Ask an instructor for more time."),
    shown={"due": shown_moment},
)
HANDIN_ONCE = Text(
    "handin_once",
    N_("“{name}” is handed in once, and you have. Ask an instructor to let you do so again."),
)
HANDIN_WAITS = Text(
    "handin_waits",
    N_("{most} of your hand-ins are still to be read; wait until one of them is."),
)
HANDIN_OFTEN = Text(
    "handin_often", N_("“{name}” was handed in {most} times; ask an instructor to go on.")
)
HANDIN_WRONG = Text("handin_wrong", N_("“{value}” {problem}."))
NO_SUCH_HANDED_IN = Text("handed_in_unknown", N_("There is no such hand-in, or it is not yours."))
NOT_A_GROUP = Text("handin_group_name", N_("“{name}” is no name of a group; write one like pair1."))
NO_GROUPS = Text("handin_no_groups", N_("“{name}” is handed in by each alone."))
EXTENSION_EARLY = Text(
    "extension_early",
    N_("That is not later than “{name}” is due anyway ({due})."),
    shown={"due": shown_moment},
)
NOT_A_TEAM = Text("handin_team", N_("“{name}” is no login name and no group of this hand-in."))


class State(StrEnum):
    """Where a hand-in is; ``asked`` and ``taken`` go on by themselves."""

    ASKED = "asked"
    TAKEN = "taken"
    KEPT = "kept"
    REFUSED = "refused"


WAITING = (State.ASKED, State.TAKEN)


@dataclass(frozen=True)
class Team:
    """Who hands in together: ``name`` is a login name, or @ and the name of a group."""

    name: str
    members: tuple[str, ...]


def find(spec: CourseSpec, name: str) -> HandIn:
    """Raises BadRequest (404) for one that the course does not have."""
    for one in spec.handins:
        if one.name == name:
            return one
    error = BadRequest(HANDIN_UNKNOWN(course=spec.course, name=name[:80]))
    error.status = 404
    raise error


def seconds(moment: datetime) -> float:
    """Of a time as the store has it."""
    return moment.replace(tzinfo=UTC).timestamp()


def stored(at: float) -> datetime:
    """The other way round."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


# -- groups and extensions ------------------------------------------------------------------------


def groups(session: Session, course: str, handin: str) -> dict[str, str]:
    """The group of each who is in one."""
    query = select(HandInGroup).where(HandInGroup.course == course, HandInGroup.handin == handin)
    return {row.username: row.name for row in session.scalars(query.order_by(HandInGroup.username))}


def team_in(handin: HandIn, found: Mapping[str, str], username: str) -> Team:
    """Whom somebody hands in for, by the groups that there are."""
    name = found.get(username) if handin.groups else None
    if name is None:
        return Team(username, (username,))
    return Team(f"@{name}", tuple(one for one, group in found.items() if group == name))


def stands_with(
    row: HandedIn, handin: HandIn, found: Mapping[str, str], teams: Collection[str]
) -> list[str]:
    """With whom of ``teams`` something stands: whose it was, or where its people are now.

    Who handed in alone and then joined a group is counted with that.
    """
    if row.team in teams:
        return [row.team]
    now = {team_in(handin, found, who).name for who in row.members}
    return sorted(now & {*teams}) or [row.team]


def team_of(session: Session, spec: CourseSpec, handin: HandIn, username: str) -> Team:
    """Whom somebody hands in for."""
    found = groups(session, spec.course, handin.name) if handin.groups else {}
    return team_in(handin, found, username)


def set_groups(
    session: Session, spec: CourseSpec, handin: HandIn, wanted: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Make the groups these, and return who is moved, from which to which. Raises BadRequest.

    What was handed in stays whose it was.
    """
    if wanted and not handin.groups:
        raise BadRequest(NO_GROUPS(name=handin.name))
    for username, name in wanted.items():
        if not NAME.fullmatch(name):
            raise BadRequest(NOT_A_GROUP(name=name[:80]))
        if not _LOGIN.fullmatch(username):
            raise BadRequest(NOT_A_TEAM(name=username[:80]))
    before = groups(session, spec.course, handin.name)
    changed = {
        one: (before.get(one, ""), wanted.get(one, ""))
        for one in sorted({*before, *wanted})
        if before.get(one) != wanted.get(one)
    }
    if changed:
        session.execute(
            delete(HandInGroup).where(
                HandInGroup.course == spec.course, HandInGroup.handin == handin.name
            )
        )
        for username, name in wanted.items():
            row = HandInGroup(course=spec.course, handin=handin.name, username=username, name=name)
            session.add(row)
        session.flush()
    return changed


def extensions(session: Session, course: str, handin: str) -> dict[str, HandInExtension]:
    """Those that were given, by whose they are."""
    query = select(HandInExtension).where(
        HandInExtension.course == course, HandInExtension.handin == handin
    )
    return {row.team: row for row in session.scalars(query.order_by(HandInExtension.team))}


def extend(
    session: Session, spec: CourseSpec, handin: HandIn, team: str, until: str, by: str, now: float
) -> HandInExtension | None:
    """Give somebody, a group or all until another minute; an empty one takes an extension back.

    It also lets them hand in once more what is handed in once. Raises BadRequest.
    """
    known = {f"@{name}" for name in groups(session, spec.course, handin.name).values()}
    if team not in known and team != ALL and not _LOGIN.fullmatch(team):
        raise BadRequest(NOT_A_TEAM(name=team[:80]))
    row = session.get(HandInExtension, (spec.course, handin.name, team))
    if not until:
        if row is not None:
            session.delete(row)
        return None
    try:
        at = moment(until, spec.timezone)
    except ValueError:
        raise BadRequest(HANDIN_WRONG(value=until[:40], problem=NOT_A_MOMENT())) from None
    if at <= (plain := deadline(spec, handin)).due:
        raise BadRequest(EXTENSION_EARLY(name=handin.name, due=plain.due - MINUTE))
    if row is None:
        row = HandInExtension(course=spec.course, handin=handin.name, team=team)
        session.add(row)
    row.due_at, row.given_at, row.given_by = stored(at), stored(now), by[:255]
    session.flush()
    return row


def deadline_in(
    spec: CourseSpec, handin: HandIn, team: Team, given: Mapping[str, HandInExtension]
) -> Deadline:
    """With the extensions of the team, of each in it, and of all."""
    return deadline(spec, handin, [seconds(row.due_at) for row in _of_team(team, given)])


def deadline_of(session: Session, spec: CourseSpec, handin: HandIn, team: Team) -> Deadline:
    """The same, by what there is."""
    return deadline_in(spec, handin, team, extensions(session, spec.course, handin.name))


def _of_team(team: Team, given: Mapping[str, HandInExtension]) -> list[HandInExtension]:
    who = {team.name, ALL, *team.members}
    return [row for name, row in given.items() if name in who]


# -- handing in -----------------------------------------------------------------------------------


def ask(
    session: Session, spec: CourseSpec, name: str, username: str, path: str, asked: float
) -> HandedIn:
    """Write down that somebody hands in, at the moment at which the server was asked.

    Raises BadRequest, NotAvailable with the cause.
    """
    frozen.check(session, spec.course)
    handin = find(spec, name)
    where = checked_path(path or handin.path or handin.name)
    team = team_of(session, spec, handin, username)
    given = extensions(session, spec.course, handin.name)
    ends = deadline_in(spec, handin, team, given)
    if ends.timing(asked) is Timing.OVER:
        raise NotAvailable(HANDIN_OVER(name=handin.name, due=ends.due - MINUTE))
    rows = of_team(session, spec.course, handin.name, team.name)
    live = [row for row in rows if row.state != State.REFUSED]
    if live and not handin.again:
        last = max(row.asked_at for row in live)
        if not any(row.given_at > last for row in _of_team(team, given)):
            raise NotAvailable(HANDIN_ONCE(name=handin.name))
    if sum(row.state in WAITING for row in rows) >= MOST_WAITING:
        raise NotAvailable(HANDIN_WAITS(most=MOST_WAITING))
    if len(live) >= MOST_KEPT:
        raise NotAvailable(HANDIN_OFTEN(name=handin.name, most=MOST_KEPT))
    row = HandedIn(
        id=secrets.token_hex(6),
        kind="handin",
        course=spec.course,
        handin=handin.name,
        team=team.name,
        username=username,
        members=list(team.members),
        path=where,
        asked_at=stored(asked),
        due_at=stored(ends.due),
        state=State.ASKED,
    )
    session.add(row)
    tell(session, NEWS)
    return row


def give_back(
    session: Session, spec: CourseSpec, name: str, by: str, path: str, to: Iterable[str], now: float
) -> HandedIn:
    """Write down that somebody gives feedback: a folder of theirs, in it one for each student (or
    group, with @ before its name), which that student alone reads. Raises BadRequest.
    """
    frozen.check(session, spec.course)
    handin = find(spec, name)
    row = HandedIn(
        id=secrets.token_hex(6),
        kind="feedback",
        course=spec.course,
        handin=handin.name,
        team="",
        username=by,
        members=sorted(to),
        path=checked_path(path),
        asked_at=stored(now),
        due_at=None,
        state=State.ASKED,
    )
    session.add(row)
    tell(session, NEWS)
    return row


def given_back(session: Session, course: str, handin: str = "") -> list[HandedIn]:
    """All feedback that was given, the newest first."""
    query = select(HandedIn).where(HandedIn.kind == "feedback", HandedIn.course == course)
    if handin:
        query = query.where(HandedIn.handin == handin)
    return list(session.scalars(query.order_by(HandedIn.asked_at.desc(), HandedIn.id)))


def feedback_for(session: Session, course: str, username: str) -> dict[str, datetime]:
    """When somebody's feedback came, by hand-in."""
    found: dict[str, datetime] = {}
    query = select(HandedIn).where(HandedIn.kind != "handin", HandedIn.course == course)
    for row in session.scalars(query.order_by(HandedIn.ended_at.desc(), HandedIn.id)):
        if row.kind == "autograde" and not row.files:
            continue  # graded, and nothing to read
        if row.state == State.KEPT and username in row.members and row.ended_at is not None:
            found.setdefault(row.handin, row.ended_at)
    return found


def checked_path(path: str) -> str:
    """A file or folder of a home. Raises BadRequest."""
    try:
        return check_path(path)
    except WrongValue as error:
        raise BadRequest(HANDIN_WRONG(value=path[:200], problem=error.message)) from None


def of_team(session: Session, course: str, handin: str, team: str) -> list[HandedIn]:
    """The newest first."""
    query = select(HandedIn).where(
        HandedIn.kind == "handin",
        HandedIn.course == course,
        HandedIn.handin == handin,
        HandedIn.team == team,
    )
    return list(session.scalars(query.order_by(HandedIn.asked_at.desc(), HandedIn.id)))


def of_course(session: Session, course: str, handin: str = "") -> list[HandedIn]:
    """All that was handed in, the newest first."""
    query = select(HandedIn).where(HandedIn.kind == "handin", HandedIn.course == course)
    if handin:
        query = query.where(HandedIn.handin == handin)
    return list(session.scalars(query.order_by(HandedIn.asked_at.desc(), HandedIn.id)))


def of_person(session: Session, course: str, username: str) -> list[HandedIn]:
    """What somebody handed in, or was handed in for them, the newest first."""
    listed = cast(HandedIn.members, String).contains(f'"{username}"', autoescape=True)
    query = select(HandedIn).where(
        HandedIn.kind == "handin",
        HandedIn.course == course,
        or_(HandedIn.username == username, listed),
    )
    found = session.scalars(query.order_by(HandedIn.asked_at.desc(), HandedIn.id))
    return [row for row in found if is_of(row, username)]


def is_of(row: HandedIn, username: str) -> bool:
    """Whether somebody may see it as their own."""
    return username == row.username or username in row.members


def get(session: Session, course: str, one: str, username: str | None) -> HandedIn:
    """One, of somebody; None: whosever. Raises BadRequest (404)."""
    row = session.get(HandedIn, one[:16])
    wrong = row is None or row.course != course or row.kind != "handin"
    if wrong or row is None or (username is not None and not is_of(row, username)):
        error = BadRequest(NO_SUCH_HANDED_IN())
        error.status = 404
        raise error
    return row


def before(session: Session, row: HandedIn) -> int:
    """How many are in turn before one that waits."""
    query = select(func.count()).where(
        HandedIn.state.in_(WAITING),
        HandedIn.kind.in_(KINDS),
        or_(
            HandedIn.asked_at < row.asked_at,
            (HandedIn.asked_at == row.asked_at) & (HandedIn.id < row.id),
        ),
    )
    return (session.scalar(query) or 0) if row.state in WAITING else 0


def is_late(row: HandedIn) -> bool:
    """Whether it was asked after its deadline."""
    return row.due_at is not None and row.asked_at >= row.due_at


def place(row: HandedIn) -> str:
    """Where it is laid, below the course's ``handins``."""
    return f"{row.handin}/{row.team}/{row.asked_at:%Y-%m-%dT%H-%M-%SZ}-{row.id}"


def show(session: Session, row: HandedIn) -> dict[str, Any]:
    """One, as plain data ready for JSON."""
    return {
        "id": row.id,
        "handin": row.handin,
        "team": row.team,
        "username": row.username,
        "members": list(row.members),
        "path": row.path,
        "asked_at": iso(row.asked_at),
        "due_at": iso(row.due_at) if row.due_at else None,
        "late": is_late(row),
        "state": row.state,
        "before": before(session, row),
        "message": row.message,
        "digest": row.digest,
        "files": row.files,
        "bytes": row.bytes,
        "left_out": row.left_out,
        "receipt": row.receipt,
    }
