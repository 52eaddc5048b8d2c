"""The room of a course, for its instructors and assistants: who is there, what their servers of the
course do, and messages, more time, restarts and stops.

What is shown and acted on is the course's: servers that were started for it, and are charged to it.
That somebody has another server is told, and nothing of it: it is its owner's alone.

``/hub/course-room/NAME`` is the page, ``/hub/api/courses/NAME/room`` the same as JSON.
"""

from __future__ import annotations

import csv
import io
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from tornado.web import HTTPError, authenticated

from commons import notices
from commons.audit import make_event
from commons.audit.table import as_text
from commons.errors import BadRequest, LabError, WrongValue
from commons.i18n import N_
from commons.leases import LeaseState, ServerKey
from commons.messages import Message, Text
from commons.one_line import one_line
from commons.principal import Principal
from commons.rights import Action, check
from commons.scopes import Scope
from commons.store.models import Course, GpuUsage, GpuWatch, Lease, utcnow
from commons.units import parse_duration
from commons.web.pages import language_of, locale_of
from commons.web.refused import Refused
from commons.work import Keyed
from courses import looks, people, records
from courses.document import check_in_site
from hub_ext import course_look
from hub_ext.metering import Meter
from hub_ext.servers import HubServers, runs_with
from spawner import stops
from spawner.gpu.ledger import transitions
from spawner.spawner import LabSpawner
from spawner.stops import MOST

DOES = ("message", "extend", "look", "restart", "stop")
IDLE = 600.0  # seconds without a sign of the person, after which a server is idle here
AT_ONCE = 5
LONGEST = 4 * 3600  # seconds by which time is given at once
CONSOLE = "access:services!service=labcommons"  # what a token needs for our REST

NOTHING_CHOSEN = Text("room_nobody", N_("Choose somebody first."))
NO_MESSAGE = Text("room_no_message", N_("Write a message of at most {most} characters."))
DO_UNKNOWN = Text("room_do", N_("“{do}” is nothing that can be done here; choose from: {known}."))
TIME_WRONG = Text("room_time", N_("Give a minute to {hours} hours more, such as 30m."))
NOT_HERE = Text("room_not_here", N_("has no server of this course now"))
NOT_IN_COURSE = Text("room_not_in_course", N_("is not in this course"))
NOT_A_STUDENT = Text("room_not_a_student", N_("is no student: that is for the instructors"))
NO_END = Text("room_no_end", N_("the server has no time limit"))
MOVING = Text("room_moving", N_("the server is being started or stopped"))


@dataclass(frozen=True)
class Place:
    """Somebody of the course, with a server of it, or without.

    Attributes:
        state: running, starting, stopping; other: only another server of theirs runs; none.
        memory, limit: in bytes; None where it is not known.
    """

    user: str
    position: str
    state: str = "none"
    server: str = ""
    environment: str = ""
    size: str = ""
    started: datetime | None = None
    active: datetime | None = None
    memory: int | None = None
    limit: int | None = None
    gpus: int = 0
    gpu_percent: float | None = None
    ends: datetime | None = None

    @property
    def key(self) -> str:
        """In forms and by REST: alice, or alice/ml101 for a server with a name."""
        return f"{self.user}/{self.server}" if self.server else self.user

    @property
    def idle(self) -> bool:
        """Whether nobody has used the server for some time."""
        seen = self.active or self.started
        if self.state != "running" or seen is None:
            return False
        return time.time() - seen.replace(tzinfo=UTC).timestamp() > IDLE

    def as_json(self) -> dict[str, Any]:
        """For JSON; times in UTC."""
        plain = {key: getattr(self, key) for key in self.__dataclass_fields__}
        for key in ("started", "active", "ends"):
            plain[key] = plain[key] and plain[key].isoformat(timespec="seconds") + "Z"
        return {"who": self.key, **plain, "idle": self.idle}


@dataclass
class Done:
    """What was done, and for whom it was not, and why."""

    done: list[str] = field(default_factory=list)
    left: list[tuple[str, Message]] = field(default_factory=list)


class Room:
    """The rooms of all courses of one hub."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.servers = HubServers(app)
        self.acts = Keyed("servers of courses", app.log, expected=(LabError,), at_once=AT_ONCE)
        self._meter = Meter("what servers of courses use", app.log)

    async def look(self, course: str) -> list[Place]:
        """Everybody in a course, by name, with each server of it."""
        shared = LabSpawner.shared
        assert shared is not None
        listed, leases = await shared.store.read(lambda s: _stored(s, course))
        positions = positions_of(self._app.db, course, listed)
        mine = {user.name: user for user in self._app.users.values() if user.name in positions}
        found: list[Place] = []
        for name, position in sorted(positions.items()):
            active = (
                [one for one in mine[name].spawners.values() if one.active] if name in mine else []
            )
            its = [one for one in active if (one.user_options or {}).get("course") == course]
            found += [self._place(name, position, one, leases) for one in its]
            if not its:
                found.append(Place(name, position, "other" if active else "none"))
        return found

    def _place(
        self, name: str, position: str, spawner: Any, leases: Mapping[ServerKey, Any]
    ) -> Place:
        options, row = runs_with(spawner), spawner.orm_spawner
        shared = LabSpawner.shared
        assert shared is not None
        size = shared.site.sizes.get(str(options.get("size")))
        used = self._meter.used.get(spawner.container_ref)
        lease, percent = leases.get((name, spawner.name), (None, None))
        moving = {"spawn": "starting", "stop": "stopping"}
        return Place(
            name,
            position,
            moving.get(spawner.pending, "running" if spawner.ready else "starting"),
            spawner.name,
            str(options.get("environment") or ""),
            str(options.get("size") or ""),
            row.started,
            row.last_activity,
            used.memory if used is not None else None,
            size.memory_bytes if size else None,
            int(options.get("gpus") or 0),
            percent,
            lease and lease.ends_at,
        )

    def meter(self, places: Sequence[Place]) -> None:
        """Have what they use asked for, for the next look: nobody waits for two hundred answers."""
        handles = [
            spawner.container_ref
            for one in places
            if one.state == "running"
            and (owner := self._app.users.get(one.user)) is not None
            and (spawner := owner.spawners.get(one.server)) is not None
            and spawner.container_ref
        ]
        self._meter.ask(handles)

    async def act(self, asked: Asked, viewer: Principal, places: Sequence[Place]) -> Done:
        """Do what somebody asks for. Raises BadRequest for what cannot be at all."""
        there = {one.key: one for one in places}
        known = {one.user: one for one in places}
        done = Done()
        chosen: list[Place] = []
        for key in dict.fromkeys(asked.who):
            place = there.get(key) or known.get(key)
            reason = _why_not(asked, viewer, place)
            if reason is None and place is not None:
                chosen.append(place)
            else:
                done.left.append((key[:300], reason or NOT_IN_COURSE()))
        if asked.do == "message":
            await self._message(asked, viewer.name, chosen, done)
        elif asked.do == "extend":
            await self._extend(asked, chosen, done)
        elif asked.do == "look":
            for place in chosen:
                await course_look.ask(asked.course, viewer.name, place.user, place.server)
                done.done.append(place.key)
        else:
            for place in chosen:
                work = partial(self._end, place, viewer.name, asked)
                if self.acts.start((place.user, place.server), work):
                    done.done.append(place.key)
                else:
                    done.left.append((place.key, MOVING()))
        return done

    async def _end(self, place: Place, by: str, asked: Asked) -> None:
        """Stop a server; of a restart, start it with what it had."""
        options = self.servers.chosen(place.user, place.server)
        await self.servers.stop(place.user, place.server, stops.ending(by, asked.message))
        if asked.do == "restart":
            await self.servers.start(place.user, place.server, options)

    async def _message(self, asked: Asked, by: str, chosen: Sequence[Place], done: Done) -> None:
        cause = uuid.uuid4().hex
        receivers = list(dict.fromkeys(one.user for one in chosen))

        def work(session: Session) -> None:
            for name in receivers:
                notices.add(
                    session,
                    username=name,
                    lease_id=None,
                    code="course_message",
                    data={"by": by, "course": asked.course, "message": asked.message},
                    key=f"course:{cause}:{name[:100]}",
                )

        shared = LabSpawner.shared
        assert shared is not None
        await shared.store.run(work)
        done.done += receivers

    async def _extend(self, asked: Asked, chosen: Sequence[Place], done: Done) -> None:
        shared = LabSpawner.shared
        assert shared is not None
        for place in chosen:

            def work(session: Session, one: Place = place) -> Message | None:
                lease = transitions.of_server(session, one.user, one.server)
                if lease is None or lease.ends_at is None:
                    return NO_END()
                added, reasons = transitions.extend(session, lease.id, asked.seconds)
                return None if added else NOT_EXTENDED(reasons=reasons)

            reason = await shared.store.run(work)
            if reason is None:
                done.done.append(place.key)
            else:
                done.left.append((place.key, reason))


def positions_of(db: Any, course: str, listed: Mapping[str, str]) -> dict[str, str]:
    """By the hub's groups and by the roster (``listed``): the higher one counts."""
    words = {
        position.groups[-1].replace("{name}", course): position.word
        for position in people.COURSE.positions
    }
    query = db.query(orm.User.name, orm.Group.name).join(orm.User.groups)
    found = dict(listed)
    for name, group in query.filter(orm.Group.name.in_(words)):
        both = {words[group], found.get(name, words[group])}
        found[name] = min(both, key=people.WORDS.index)
    return found


def read(db: Any, session: Session, course: str) -> list[Place]:
    """The room by what the databases say (the hub's ``db``): for commands, which see no memory."""
    listed, leases = _stored(session, course)
    positions = positions_of(db, course, listed)
    query = db.query(orm.User.name, orm.Spawner).join(orm.Spawner.user)
    running: dict[str, list[Any]] = {}
    for name, row in query.filter(orm.Spawner.server_id.isnot(None)):
        running.setdefault(name, []).append(row)
    found = []
    for name, position in sorted(positions.items()):
        rows = running.get(name, [])
        its = [row for row in rows if (row.user_options or {}).get("course") == course]
        for row in its:
            options = row.user_options
            lease, percent = leases.get((name, row.name), (None, None))
            found.append(
                Place(
                    name,
                    position,
                    "running",
                    row.name,
                    str(options.get("environment") or ""),
                    str(options.get("size") or ""),
                    row.started,
                    row.last_activity,
                    gpus=int(options.get("gpus") or 0),
                    gpu_percent=percent,
                    ends=lease and lease.ends_at,
                )
            )
        if not its:
            found.append(Place(name, position, "other" if rows else "none"))
    return found


NOT_EXTENDED = Text("room_not_extended", N_("It may not run longer: {reasons}"))


@dataclass(frozen=True)
class Asked:
    """What is to be done, and with whom."""

    course: str
    do: str
    who: tuple[str, ...]
    message: str = ""
    seconds: int = 1800

    @classmethod
    def read(cls, course: str, body: Mapping[str, Any]) -> Asked:
        """From a form or from JSON. Raises BadRequest."""
        do, who, message = body.get("do"), body.get("who"), body.get("message") or ""
        if do not in DOES:
            raise BadRequest(DO_UNKNOWN(do=str(do)[:40], known=list(DOES)))
        if not isinstance(who, list) or not who or not all(isinstance(one, str) for one in who):
            raise BadRequest(NOTHING_CHOSEN())
        if not isinstance(message, str) or len(message) > MOST or (do == "message" and not message):
            raise BadRequest(NO_MESSAGE(most=MOST))
        try:
            seconds = parse_duration(body.get("by") or "30m")
        except WrongValue:
            seconds = 0
        if not 60 <= seconds <= LONGEST:
            raise BadRequest(TIME_WRONG(hours=LONGEST // 3600))
        return cls(course, str(do), tuple(who[: people.MOST_PEOPLE]), one_line(message), seconds)


def _why_not(asked: Asked, viewer: Principal, place: Place | None) -> Message | None:
    """Why it is not done with somebody: an assistant looks after students alone."""
    scope = Scope("course", asked.course)
    if place is None:
        return NOT_IN_COURSE()
    if asked.do == "message":
        return None
    leads = viewer.admin or viewer.leads(scope) or place.user == viewer.name
    if not leads and place.position != people.WORDS[-1]:
        return NOT_A_STUDENT()
    if place.state in ("none", "other"):
        return NOT_HERE()
    if asked.do in ("look", "restart") and place.state != "running":
        return MOVING()
    return None


def _stored(session: Session, course: str) -> tuple[dict[str, str], dict[ServerKey, Any]]:
    """The roster, and the leases that are charged to the course."""
    query = (
        select(Lease, GpuWatch.gpu_percent)
        .outerjoin(GpuWatch, GpuWatch.lease_id == Lease.id)
        .where(Lease.account == f"course:{course}", Lease.state == LeaseState.ACTIVE)
    )
    leases = {(one.username, one.server_name): (one, use) for one, use in session.execute(query)}
    return people.roster(session, course), leases


def gpu_hours(session: Session, course: str) -> dict[str, float]:
    """What each has been charged to the course, in weighted GPU-hours."""
    query = (
        select(GpuUsage.username, func.sum(GpuUsage.gpu_seconds))
        .where(GpuUsage.account == f"course:{course}")
        .group_by(GpuUsage.username)
    )
    return {name: round(seconds / 3600, 2) for name, seconds in session.execute(query)}


CSV = (
    "login", "position", "state", "server", "environment", "size", "started", "last_activity",
    "memory_bytes", "memory_limit_bytes", "gpus", "gpu_percent", "ends", "gpu_hours",
)  # fmt: skip


def as_csv(places: Sequence[Place], hours: Mapping[str, float]) -> str:
    """For a spreadsheet; with the mark by which Excel knows UTF-8."""
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(CSV)
    for one in places:
        plain = one.as_json()
        values = (
            one.user, one.position, one.state, one.server, one.environment, one.size,
            plain["started"], plain["active"], one.memory, one.limit, one.gpus, one.gpu_percent,
            plain["ends"], hours.get(one.user, 0.0),
        )  # fmt: skip
        table.writerow([as_text("" if value is None else str(value)) for value in values])
    return "\ufeff" + out.getvalue()


# -- handlers -------------------------------------------------------------------------------------


class _InRoom:
    """What page and API have in common."""

    settings: Mapping[str, Any]
    current_user: Any
    request: Any

    @property
    def room(self) -> Room:
        found = self.settings["room"]
        assert isinstance(found, Room)
        return found

    def viewer(self) -> Principal:
        raise NotImplementedError

    def need(self, name: str) -> Principal:
        """Raises Refused for all but instructors, assistants and administrators."""
        shared = LabSpawner.shared
        assert shared is not None
        viewer = self.viewer()
        try:
            check(viewer, Action.ATTEND, Scope("course", name))
            check_in_site(Scope("course", name), shared.site)
        except LabError as error:
            raise Refused(error, locale_of(self)) from error  # type: ignore[arg-type]
        return viewer

    async def places(self, name: str) -> list[Place]:
        found = await self.room.look(name)
        self.room.meter(found)
        return found

    async def act(self, name: str, body: Mapping[str, Any], viewer: Principal) -> Done:
        """Raises BadRequest."""
        asked = Asked.read(name, body)
        done = await self.room.act(asked, viewer, await self.room.look(name))
        if done.done:
            shared = LabSpawner.shared
            assert shared is not None
            shared.audit.record(
                make_event(
                    "course-room",
                    "success",
                    user=viewer.name,
                    address=self.request.remote_ip,
                    details={"done": asked.do, "course": name, "who": done.done[:500]},
                )
            )
        return done


class RoomPage(_InRoom, BaseHandler):  # type: ignore[misc]
    """GET: everybody; ``?part=csv`` as a file. POST: ask whether it is meant, then do it."""

    def viewer(self) -> Principal:
        """Who has logged in."""
        user = self.current_user
        groups = [group.name for group in user.groups]
        return Principal.from_groups(user.name, bool(user.admin), groups)

    @authenticated
    async def get(self, name: str) -> None:
        """The room."""
        self.need(name)
        if self.get_query_argument("part", "") == "csv":
            await self._csv(name)
        else:
            await self._show(name)

    @authenticated
    async def post(self, name: str) -> None:
        """The first time it is asked, the second it is done."""
        viewer = self.need(name)
        body = {
            "do": self.get_body_argument("do", ""),
            "who": self.get_body_arguments("who"),
            "message": self.get_body_argument("message", ""),
            "by": self.get_body_argument("by", ""),
        }
        locale = locale_of(self)
        try:
            if not self.get_body_argument("sure", ""):
                asked = Asked.read(name, {**body, "message": body["message"] or "…"})
                places = {one.key: one for one in await self.room.look(name)}
                chosen = [
                    (places[key], _why_not(asked, viewer, places[key]))
                    for key in asked.who
                    if key in places
                ]
                fits = [one for one, why in chosen if why is None]
                left = [(one.key, why.in_words(locale)) for one, why in chosen if why is not None]
                await self._show(name, "course_room_ask.html", do=asked.do, chosen=fits, left=left)
                return
            done = await self.act(name, body, viewer)
        except LabError as error:
            self.set_status(error.status)
            await self._show(name, problem=error.sentence(locale))
            return
        left = [(key, why.in_words(locale)) for key, why in done.left]
        await self._show(name, did=str(body["do"]), done=done.done, left=left)

    async def _show(self, name: str, template: str = "course_room.html", **more: Any) -> None:
        shared = LabSpawner.shared
        assert shared is not None
        lang = language_of(self)
        by, now = self.current_user.name, utcnow()

        def work(session: Session) -> dict[str, Any]:
            asked = looks.of_asker(session, name, by, now) if places else []
            shown = [(one.id, one.username, str(looks.state_of(one, now))) for one in asked]
            return {"title": _title(session, name, lang), "asked": shown}

        places = await self.places(name) if template == "course_room.html" else []
        found = await shared.store.read(work)
        page = await self.render_template(
            template, course=name, places=places, most=MOST, **found, **more
        )
        self.finish(page)

    async def _csv(self, name: str) -> None:
        shared = LabSpawner.shared
        assert shared is not None
        places = await self.room.look(name)
        hours = await shared.store.read(lambda s: gpu_hours(s, name))
        shared.audit.record(
            make_event(
                "course-room",
                "success",
                user=self.current_user.name,
                address=self.request.remote_ip,
                details={"done": "export", "course": name},
            )
        )
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{name}-room.csv"')
        self.finish(as_csv(places, hours))


class RoomApi(_InRoom, APIHandler):  # type: ignore[misc]
    """``GET`` and ``POST /hub/api/courses/NAME/room``."""

    def viewer(self) -> Principal:
        """By the token, which has to be one for our REST, and no server's."""
        user = self.current_user
        if user is None or not hasattr(user, "groups"):
            raise HTTPError(403)
        scopes = set(self.expanded_scopes)
        if self.get_token() is not None and not {CONSOLE, "access:services"} & scopes:
            raise HTTPError(403)
        model = {"name": user.name, "admin": user.admin, "scopes": scopes}
        return Principal.from_hub({**model, "groups": [group.name for group in user.groups]})

    async def get(self, name: str) -> None:
        """Everybody, with each server of the course; ``?part=rows`` as a page has them."""
        self.need(name)
        places = await self.places(name)
        if self.get_query_argument("part", "") == "rows":
            rows = await self.render_template("course_room_rows.html", places=places)
            self.write(json.dumps({"rows": rows}))
            return
        self.write(json.dumps({"course": name, "people": [one.as_json() for one in places]}))

    async def post(self, name: str) -> None:
        """``{"do": "message", "who": ["alice", "bob/ml101"], "message": "…", "by": "30m"}``."""
        viewer, body = self.need(name), self.get_json_body()
        locale = locale_of(self)
        try:
            done = await self.act(name, body if isinstance(body, dict) else {}, viewer)
        except LabError as error:
            raise Refused(error, locale) from error
        left = [{"who": key, "reason": why.as_json(locale)} for key, why in done.left]
        self.write(json.dumps({"done": done.done, "left": left}))


def _title(session: Session, name: str, lang: str) -> str:
    row = session.get(Course, name)
    return records.spec_of(row).called(lang) if row else name


_NAME = "([a-z0-9._-]{1,64})"
HANDLERS = (
    (rf"/course-room/{_NAME}", RoomPage),
    (rf"/api/courses/{_NAME}/room", RoomApi),
)
