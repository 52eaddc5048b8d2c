"""Warm starts in the store: asked for, begun, what became of each server; one transaction each.

What is asked for is a row of ``warm_starts``. When its time has come, each person's server is a row
of ``warm_servers``, and the hub's keeper moves that from state to state: a hub that is killed
leaves a state from which the next one goes on.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from commons.errors import BadRequest, LabError, WrongValue
from commons.i18n import N_
from commons.leases import ServerKey
from commons.messages import Locale, Message, Text
from commons.principal import Principal
from commons.scopes import Scope, groups_of_site, of_account
from commons.site import Site
from commons.store.models import CoursePerson, Lease, WarmServer, WarmStart, utcnow
from commons.units import parse_duration
from spawner import options
from spawner.gpu.ledger.reservations import NOT_A_MOMENT, TEAM_OR_COURSE_ABSENT
from spawner.gpu.ledger.snapshot import LIVE
from spawner.gpu.quotas.document import DURATION, Label, TimeZone
from spawner.gpu.quotas.messages import NOT_A_MAPPING
from spawner.gpu.quotas.problems import Problem, ProblemsError, read_problems, unknown_name
from spawner.gpu.views import iso
from spawner.options.choice import SIZE_UNKNOWN

MOST_PEOPLE = 2000
LONGEST = 24 * 3600  # seconds for which servers are held
USUAL_HOLD = 3600
AHEAD = timedelta(days=366)
KEPT = timedelta(days=30)  # after which one that is over is no longer shown


class State(StrEnum):
    """What became of one person's server."""

    WAITING = "waiting"  # its turn has not come
    STARTING = "starting"
    READY = "ready"  # held: nobody has opened it
    OPENED = "opened"
    THEIRS = "theirs"  # the person has a server of their own choice
    FAILED = "failed"
    RELEASED = "released"  # nobody came
    CANCELLED = "cancelled"


LIVE_STATES = (State.WAITING, State.STARTING, State.READY)

HOLD_OUT_OF_RANGE = Text("hold_out_of_range", N_("must be from a minute to a day"))
NOBODY_NAMED = Text("warm_nobody", N_("needs a team or course, or people"))
TOO_MANY_PEOPLE = Text("warm_too_many", N_("must be at most {most} people"))
NOT_A_LOGIN = Text("warm_not_a_login", N_("must be login names"))
WARM_PAST = Text("warm_past", N_("That time is over already, or more than a year ahead."))
WARM_UNKNOWN = Text(
    "warm_unknown", N_("There is no start ahead of time “{id}”, or it was cancelled.")
)
WARM_AMBIGUOUS = Text(
    "warm_ambiguous", N_("There are several starts ahead of time “{id}”; use the id.")
)
# Why a server is as it is.
NOT_A_MEMBER = Text("warm_not_a_member", N_("is not in {subject}"))
NEVER_HERE = Text("warm_never_here", N_("has never logged in here: a server needs a home"))
NO_TIME = Text("warm_no_time", N_("its turn did not come in time"))
NOT_STARTED = Text("warm_not_started", N_("it did not start: {why}"))
ENDED = Text("warm_ended", N_("it ended before anybody had opened it"))
HAS_ONE = Text("warm_has_one", N_("a server of their own was there"))
HAS_ITS = Text("warm_has_its", N_("a server of this course was there already"))
CHOSE = Text("warm_chose", N_("chose something else"))
STOPPED_IT = Text("warm_stopped_it", N_("stopped it"))


class WarmError(ProblemsError):
    """What was asked for cannot be started ahead of time."""

    text = Text("warm_wrong", N_("These servers cannot be started ahead of time."))


def _wall(value: object) -> object:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise WrongValue(NOT_A_MOMENT()) from None
    if found.tzinfo is not None or "T" not in str(value).replace(" ", "T"):
        raise WrongValue(NOT_A_MOMENT())
    return found


def _hold(value: object) -> object:
    seconds = parse_duration(value)
    if not 60 <= seconds <= LONGEST:
        raise WrongValue(HOLD_OUT_OF_RANGE())
    return seconds


def _people(value: object) -> object:
    names = list(dict.fromkeys(value)) if isinstance(value, list) else None
    if names is None or not all(
        isinstance(one, str) and 0 < len(one) <= 255 and one.isprintable() for one in names
    ):
        raise WrongValue(NOT_A_LOGIN())
    if len(names) > MOST_PEOPLE:
        raise WrongValue(TOO_MANY_PEOPLE(most=MOST_PEOPLE))
    return names


class WarmSpec(BaseModel):
    """What somebody asks for. ``starts`` is wall time in ``timezone``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Label
    subject: str = Field("", description="a team or course, such as course:ml101")
    people: Annotated[
        list[str],
        BeforeValidator(_people),
        WithJsonSchema({"type": "array", "items": {"type": "string"}}),
    ] = Field([], description="login names; none: all who are in the team or course")
    starts: Annotated[
        datetime | None,
        BeforeValidator(_wall),
        WithJsonSchema({"type": "string"}),
    ] = Field(None, description="wall time in the time zone: 2026-11-24T09:50; at once without")
    timezone: TimeZone = Field("UTC", description="IANA name, such as Europe/Berlin")
    hold: Annotated[int, BeforeValidator(_hold), DURATION] = Field(
        USUAL_HOLD, description="how long servers are kept that nobody opens"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="as user_options: environment, size, gpus, …"
    )

    @model_validator(mode="after")
    def _somebody(self) -> WarmSpec:
        if not self.subject and not self.people:
            raise WrongValue(NOBODY_NAMED())
        return self

    def starts_at(self, now: datetime) -> datetime:
        """When it begins, in UTC without zone."""
        if self.starts is None:
            return now
        zoned = self.starts.replace(tzinfo=ZoneInfo(self.timezone))
        return zoned.astimezone(UTC).replace(tzinfo=None)

    @property
    def scope(self) -> Scope | None:
        """The team or course; None for a list of people."""
        return of_account(self.subject)


def check(wanted: object, site: Site) -> WarmSpec:
    """A well-formed request, for a team or course that exists. Raises WarmError, BadRequest."""
    if not isinstance(wanted, dict):
        raise WarmError([Problem("", NOT_A_MAPPING())])
    try:
        spec = WarmSpec.model_validate(wanted)
    except ValidationError as error:
        raise WarmError(read_problems(error)) from error
    known = groups_of_site(site)
    if spec.subject and spec.scope not in known:
        absent = TEAM_OR_COURSE_ABSENT(name=spec.subject)
        accounts = [one.account for one in known]
        raise WarmError([unknown_name("subject", absent, spec.subject, accounts)])
    try:
        request = options.parse(spec.options)
        if request.size and request.size not in site.sizes:
            raise BadRequest(SIZE_UNKNOWN(size=request.size, known=[*site.sizes]))
    except LabError as error:
        raise WarmError([Problem("options", error.message)]) from error
    return spec


def create(
    session: Session,
    spec: WarmSpec,
    by: str,
    site: Site,
    now: datetime | None = None,
    warm_id: str = "",
) -> WarmStart:
    """Ask for it; ``warm_id`` is that of what must not be asked for twice.

    Raises WarmError for what somebody in that team or course could not start, and BadRequest for
    what is over already.
    """
    now = now or utcnow()
    starts_at = spec.starts_at(now)
    hold_until = starts_at + timedelta(seconds=spec.hold)
    if hold_until <= now or starts_at > now + AHEAD:
        raise BadRequest(WARM_PAST())
    scope, asked = spec.scope, dict(spec.options)
    if scope is not None:
        # Not whoever each of them would charge by themselves: another team, or their own budget.
        if asked.get("gpus") and not asked.get("account") and not asked.get("course"):
            asked["account"] = scope.account
        word = scope.row.positions[-1].word
        somebody = Principal("", positions={scope: word}, uid=1, gid=1)
        try:
            catalog = options.offered(session, somebody)
            options.resolve(options.parse(asked), catalog, site, somebody)
        except LabError as error:
            raise WarmError([Problem("options", error.message)]) from error
    row = WarmStart(
        id=warm_id or uuid.uuid4().hex[:12],
        name=spec.name,
        subject=spec.subject,
        people=spec.people,
        user_options=asked,
        starts_at=starts_at,
        hold_until=hold_until,
        created_by=by[:255],
    )
    session.add(row)
    session.flush()
    return row


def standing(session: Session, now: datetime | None = None) -> list[WarmStart]:
    """All that are to come, going on, or were over in the last days, the next first."""
    since = (now or utcnow()) - KEPT
    query = select(WarmStart).where(WarmStart.hold_until > since)
    return list(session.scalars(query.order_by(WarmStart.starts_at, WarmStart.id)))


def get(session: Session, warm_id: str) -> WarmStart:
    """One by its id or, where only one has it, its name. Raises BadRequest (404)."""
    found = [row for row in standing(session) if warm_id in (row.id, row.name)]
    going = [row for row in found if not is_over(row)]
    found = going or found
    if len(found) != 1:
        error = BadRequest((WARM_AMBIGUOUS if found else WARM_UNKNOWN)(id=warm_id[:80]))
        error.status = 404
        raise error
    return found[0]


def is_over(row: WarmStart, now: datetime | None = None) -> bool:
    """Whether nothing is started or held any more."""
    return row.cancelled_at is not None or row.hold_until <= (now or utcnow())


def cancel(session: Session, warm_id: str) -> WarmStart:
    """What has not begun is not begun, what is held is released; what was opened goes on."""
    row = get(session, warm_id)
    if row.cancelled_at is None:
        row.cancelled_at = utcnow()
    return row


def show(session: Session, row: WarmStart, locale: Locale | None = None) -> dict[str, Any]:
    """One, with what became of each person's server, as plain data ready for JSON."""
    locale = locale or Locale()
    rows = session.scalars(
        select(WarmServer).where(WarmServer.warm_id == row.id).order_by(WarmServer.username)
    )
    servers = [
        {
            "user": one.username,
            "server": one.server_name,
            "state": one.state,
            "at": iso(one.at),
            "reason": Message.from_json(one.reason).as_json(locale) if one.reason else None,
        }
        for one in rows
    ]
    counts: dict[str, int] = {}
    for one in servers:
        counts[str(one["state"])] = counts.get(str(one["state"]), 0) + 1
    return {
        "id": row.id,
        "name": row.name,
        "subject": row.subject,
        "people": row.people,
        "options": row.user_options,
        "starts_at": iso(row.starts_at),
        "hold_until": iso(row.hold_until),
        "created_by": row.created_by,
        "state": _state(row),
        "counts": counts,
        "servers": servers,
    }


def _state(row: WarmStart) -> str:
    if row.cancelled_at is not None:
        return "cancelled"
    if row.hold_until <= utcnow():
        return "over"
    return "planned" if row.begun_at is None else "going"


# -- what the hub's keeper does --------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """One person's server that is to be started, held or released."""

    warm_id: str
    name: str
    user: str
    state: State
    tries: int
    container: str
    options: Mapping[str, Any]
    chosen: Mapping[str, Any] | None
    hold_until: datetime
    cancelled: bool
    failed: bool = False  # its last try
    server: str = ""
    beside: str = ""  # what it is called where the default server is taken; empty: it has no name

    @property
    def key(self) -> ServerKey:
        """The server."""
        return (self.user, self.server)


def due(session: Session, now: datetime) -> list[WarmStart]:
    """Those whose time has come, and that have not begun."""
    query = select(WarmStart).where(
        WarmStart.begun_at.is_(None),
        WarmStart.cancelled_at.is_(None),
        WarmStart.starts_at <= now,
        WarmStart.hold_until > now,
    )
    return list(session.scalars(query.order_by(WarmStart.starts_at, WarmStart.id)))


def begin(session: Session, warm_id: str, members: Iterable[str] | None, now: datetime) -> None:
    """Write down whose servers they are. ``members``: who is in its team or course now."""
    row = session.get(WarmStart, warm_id)
    if row is None or row.begun_at is not None or row.cancelled_at is not None:
        return
    row.begun_at = now
    there = None if members is None else {*members, *_on_roster(session, row)}
    for user in row.people or sorted(there or ()):
        stranger = there is not None and user not in there
        reason = NOT_A_MEMBER(subject=row.subject).as_json() if stranger else None
        state = State.FAILED if stranger else State.WAITING
        session.add(WarmServer(warm_id=row.id, username=user, state=state, at=now, reason=reason))


def _on_roster(session: Session, row: WarmStart) -> set[str]:
    """Whom a roster puts into its course: the hub learns of them when they come."""
    scope = of_account(row.subject)
    if scope is None or scope.kind != "course":
        return set()
    query = select(CoursePerson.username).where(CoursePerson.course == scope.owner)
    return set(session.scalars(query))


def beside(subject: str) -> str:
    """What a team's or course's server is called where a person's default one is taken.

    Empty for what no team or course asked for. JupyterHub takes 30 letters, digits and hyphens.
    """
    scope = of_account(subject)
    if scope is None:
        return ""
    name = re.sub("[^a-z0-9]+", "-", scope.owner)
    return (name if name[:1].isalpha() else f"{scope.kind}-{name}")[:30].strip("-")


def serves(runs: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a server that runs is what a course asks for: its environment, with its GPUs.

    What does not matter to the class may differ: the size, more GPUs.
    """
    if not wanted.get("course") or runs.get("course") != wanted["course"]:
        return False
    name, _, version = str(wanted.get("environment") or "").partition(":")
    found, _, its = str(runs.get("environment") or "").partition(":")
    if (name and name != found) or (version and version != its):
        return False
    return int(runs.get("gpus") or 0) >= int(wanted.get("gpus") or 0)


def live(session: Session, user: str | None = None) -> list[Held]:
    """Servers that are to be started, held or released, in the order of their starts."""
    query = (
        select(WarmServer, WarmStart)
        .join(WarmStart, WarmStart.id == WarmServer.warm_id)
        .where(WarmServer.state.in_(LIVE_STATES))
        .order_by(WarmStart.starts_at, WarmStart.id, WarmServer.username)
    )
    if user is not None:
        query = query.where(WarmServer.username == user)
    return [
        Held(
            start.id,
            start.name,
            one.username,
            State(one.state),
            one.tries,
            one.container,
            start.user_options,
            one.chosen,
            start.hold_until,
            start.cancelled_at is not None,
            one.reason is not None,
            one.server_name,
            beside(start.subject),
        )
        for one, start in session.execute(query)
    ]


def move(
    session: Session,
    held: Held,
    to: State,
    reason: Message | None = None,
    *,
    tries: int | None = None,
    container: str = "",
    server: str | None = None,
    chosen: Mapping[str, Any] | None = None,
) -> bool:
    """From the state that is known to another; False where it is no longer in that."""
    row = session.get(WarmServer, (held.warm_id, held.user), with_for_update=True)
    if row is None or row.state != held.state:
        return False
    row.state, row.at = to, utcnow()
    row.reason = reason.as_json() if reason else None
    row.container = container or row.container
    if tries is not None:
        row.tries = tries
    if server is not None:
        row.server_name = server
    if chosen is not None:
        row.chosen = dict(chosen)
    if to is State.READY:
        _keep_lease(session, held)
    return True


def _keep_lease(session: Session, held: Held) -> None:
    """Its GPUs are not idle before the time until which it is held."""
    lease = session.scalars(
        select(Lease).where(
            Lease.username == held.user,
            Lease.server_name == held.server,
            Lease.state.in_(LIVE),
        )
    ).first()
    if lease is not None:
        lease.keep_until = max(lease.keep_until or held.hold_until, held.hold_until)


def held(session: Session) -> dict[ServerKey, datetime]:
    """Servers that nobody has opened yet, and until when each is kept."""
    query = (
        select(WarmServer.username, WarmServer.server_name, func.max(WarmStart.hold_until))
        .join(WarmStart, WarmStart.id == WarmServer.warm_id)
        .where(
            WarmServer.state.in_((State.STARTING, State.READY)), WarmStart.cancelled_at.is_(None)
        )
        .group_by(WarmServer.username, WarmServer.server_name)
    )
    return {(user, server): until for user, server, until in session.execute(query)}
