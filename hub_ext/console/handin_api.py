"""REST about hand-ins: what is due, handing in, and for who grades what came."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from pydantic import Field
from sqlalchemy.orm import Session

from commons import frozen
from commons.errors import LabError
from commons.messages import Message
from commons.principal import Principal
from commons.rights import Action, Resource, can
from commons.scopes import Scope, groups_of_site
from commons.store.models import HandedIn
from commons.web.operations import Count, Part, Route, Sent, Time, Told, operation
from commons.web.pages import language_of
from commons.web.refused import Refused
from courses import handins, marks, people, records
from courses.deadlines import MINUTE, Deadline, Timing
from courses.document import CourseSpec, HandIn
from courses.handins import Team
from hub_ext.console.course_api import Changing, of
from hub_ext.console.handlers import Api
from hub_ext.console.hub_people import ask_hub, students
from spawner.gpu.views import iso


class HandedInTold(Told):
    """What was handed in once."""

    id: str
    handin: str
    team: str = Field(description="a login name, or @ and the name of a group")
    username: str = Field(description="who asked")
    members: list[str] = Field(description="for whom")
    path: str = Field(description="in the home of who asked")
    asked_at: Time = Field(description="when the server was asked")
    due_at: Time | None = Field(description="what comes from then on is late")
    late: bool
    state: str = Field(description="asked, taken, kept or refused")
    before: Count = Field(description="how many are in turn before it")
    message: str | None = Field(description="why it was refused, or what is in its way")
    digest: str = Field(description="SHA-256 of the manifest; empty before it is read")
    files: Count
    bytes: Count
    left_out: Count = Field(description="links and the like, which are not taken")
    receipt: dict[str, Any] | None = Field(description="once it is kept: signed")


class DueTold(Told):
    """A hand-in, as it is for who asks."""

    name: str
    title: str
    due: Time = Field(description="the last minute in time")
    until: Time = Field(description="the last minute in which it is taken, marked as late")
    extended: bool
    open: bool
    path: str = Field(description="what is handed in where nothing else is said")
    size: str
    files: Count
    again: bool
    team: str
    members: list[str]
    handed_in: list[HandedInTold] = Field(description="the newest first")


class HandInsTold(Told):
    """All of a course."""

    handins: list[DueTold]


class Ask(Sent):
    """What is handed in."""

    path: str = Field("", description="a file or folder of the home; empty: as the course says")


class TeamTold(Told):
    """Where one person or group stands."""

    team: str
    members: list[str]
    due: Time
    extended: bool
    handed_in: list[HandedInTold] = Field(description="the newest first")


class HandInTold(Told):
    """One, with who handed in and who did not.

    Whom the directory's groups put into the course is listed once they have logged in.
    """

    name: str
    title: str
    by_groups: bool
    teams: list[TeamTold]
    extensions: dict[str, Time] = Field(description="by team; empty name: all")
    groups: dict[str, str]
    feedback: list[HandedInTold] = Field(description="what was given, the newest first")


class Extend(Sent):
    """More time."""

    team: str = Field("", description="a login name, or @ and the name of a group; empty: all")
    until: str = Field("", description="as 2026-11-05 23:59, in the course's zone; empty: no more")


class ExtensionsTold(Told):
    """The extensions that there are."""

    extensions: dict[str, Time] = Field(description="by team; empty name: all")


class Groups(Sent):
    """Who hands in together."""

    groups: dict[str, Any] = Field(
        {},
        description="login names, and the group of each",
        json_schema_extra={"additionalProperties": {"type": "string"}},
    )


class GroupsTold(Told):
    """The groups that there are."""

    groups: dict[str, str]


class MarkTold(Told):
    """What somebody got."""

    mark: str
    comment: str


class MarksTold(Told):
    """Those that were given."""

    marks: dict[str, MarkTold] = Field(description="by login name")


class SetMarks(Sent):
    """Marks; who is not named keeps what they have."""

    marks: dict[str, Any] = Field(
        {},
        description="by login name: a mark, or an object with mark and comment; null takes it away",
        json_schema_extra={"additionalProperties": {"type": ["string", "object", "null"]}},
    )
    dry_run: bool = Field(False, description="only say what it would change")


class MarkChangeTold(Told):
    """Somebody's that is set, changed or removed."""

    username: str
    before: MarkTold | None
    after: MarkTold | None


class MarksApplied(Told):
    """What was, or would be, changed."""

    applied: bool
    changes: list[MarkChangeTold]


class HandingIn(Changing):
    """What page and API do."""

    @property
    def asked(self) -> float:
        """When this request came, whatever was asked of others since."""
        return time.time() - self.request.request_time()

    def grades(self, course: str) -> bool:
        """Whether who asks sees what others handed in."""
        return bool(can(self.viewer, Action.GRADE, of(course)))

    def told(self, session: Session, row: HandedIn) -> dict[str, Any]:
        """One, with what is said of it in the language of who reads."""
        found = handins.show(session, row)
        said = found["message"]
        found["message"] = Message.from_json(said).in_words(self.reading) if said else None
        return found

    def due(self, session: Session, spec: CourseSpec, one: HandIn, lang: str) -> dict[str, Any]:
        """One of a course, as it is for who asks."""
        team = handins.team_of(session, spec, one, self.viewer.name)
        ends = handins.deadline_of(session, spec, one, team)
        rows = handins.of_person(session, spec.course, self.viewer.name)
        return {
            "name": one.name,
            "title": one.called(lang),
            **times(ends),
            "open": ends.timing(self.asked) is not Timing.OVER
            and not frozen.is_frozen(session, spec.course),
            "path": one.path or one.name,
            "size": one.size,
            "files": one.files,
            "again": one.again,
            "team": team.name,
            "members": list(team.members),
            "handed_in": [self.told(session, row) for row in rows if row.handin == one.name],
        }

    async def hand_in(self, course: str, name: str, path: str) -> dict[str, Any]:
        """Write down that who asks hands in, at the moment at which this request came."""
        self.need(Action.HAND_IN, await self.hands_in_to(course))
        asked, who = self.asked, self.viewer.name

        def work(session: Session) -> dict[str, Any]:
            spec = records.spec_of(records.get(session, course))
            row = handins.ask(session, spec, name, who, path, asked)
            session.flush()
            return self.told(session, row)

        found = await self.change(work)
        if self.viewer.server is not None:
            self.record("hand-in", done="asked", course=course, handin=name, path=found["path"])
        return found

    async def hands_in_to(self, course: str) -> Resource | Scope:
        """A course that who asks is in, as if it were not there for anybody else.

        By its token a server is in no course: the hub and the roster say what its owner is in, and
        of that it hands in, for its owner, and reads what is due; nothing else. Raises Refused,
        HTTPError 502.
        """
        name, server = self.viewer.name, self.viewer.server
        if server is None or of(course) not in groups_of_site(self.site):
            self.need_in(course)
            return of(course)
        model = await ask_hub(self.hub_auth, f"users/{quote(name, safe='')}")
        owner = Principal.from_groups(name, False, (model or {}).get("groups") or ())
        if not owner.position(of(course)):
            roster = await self.read(lambda s: people.roster(s, course))
            if name not in roster:
                self.need_in(course)
        return Resource(of(course), holder=name, server=server)

    async def students(self, course: str) -> set[str]:
        """Whom the directory's groups and the roster have as students. Raises HTTPError 502."""
        there = await students(self.hub_auth, of(course))
        roster = await self.read(lambda s: people.roster(s, course))
        return there | {who for who, word in roster.items() if word == people.WORDS[-1]}

    async def set_marks(
        self, course: str, name: str, wanted: dict[str, marks.Mark | None], dry_run: bool
    ) -> list[marks.Change]:
        """What is, or would be, changed."""
        self.need(Action.GRADE, of(course))
        by, now = self.viewer.name, time.time()

        def work(session: Session) -> list[marks.Change]:
            handins.find(records.spec_of(records.get(session, course)), name)
            changes = marks.diff(marks.marks(session, course, name), wanted)
            if not dry_run:
                marks.apply(session, course, name, changes, by, now)
            return changes

        changes = await self.change(work)
        if changes and not dry_run:
            lines = [str(change)[:300] for change in changes]
            self.record("marks-change", course=course, handin=name, changes=lines[:500])
        return changes

    async def give_back(self, course: str, name: str, path: str) -> dict[str, Any]:
        """Feedback of a folder in the home of who asks, to each student's own."""
        self.need(Action.GRADE, of(course))
        to, by, asked = await self.students(course), self.viewer.name, self.asked

        def work(session: Session) -> dict[str, Any]:
            spec = records.spec_of(records.get(session, course))
            mine = {who for row in handins.of_course(session, course, name) for who in row.members}
            row = handins.give_back(session, spec, name, by, path, to | mine, asked)
            session.flush()
            return self.told(session, row)

        return await self.change(work)

    async def overview(self, course: str, name: str) -> dict[str, Any]:
        """Where everybody stands with one hand-in. Raises Refused, HTTPError 502."""
        there = await self.students(course)
        return await self.read(lambda session: self._overview(session, course, name, there))

    def _overview(
        self, session: Session, course: str, name: str, there: set[str]
    ) -> dict[str, Any]:
        spec = records.spec_of(records.get(session, course))
        one = handins.find(spec, name)
        groups = handins.groups(session, course, name) if one.groups else {}
        given = handins.extensions(session, course, name)
        teams = {
            team.name: team
            for team in (handins.team_in(one, groups, who) for who in there | groups.keys())
        }
        rows: dict[str, list[HandedIn]] = {}
        for row in handins.of_course(session, course, name):
            for team_name in handins.stands_with(row, one, groups, teams):
                rows.setdefault(team_name, []).append(row)
        for team, found in rows.items():
            teams.setdefault(team, Team(team, tuple(found[0].members)))
        return {
            "name": name,
            "title": one.called(language_of(self)),
            "by_groups": one.groups,
            "teams": [
                {
                    "team": team.name,
                    "members": list(team.members),
                    **_due(handins.deadline_in(spec, one, team, given)),
                    "handed_in": [self.told(session, row) for row in rows.get(team.name, ())],
                }
                for team in sorted(teams.values(), key=lambda team: team.name)
            ],
            "extensions": extensions(session, course, name),
            "groups": groups,
            "feedback": [
                self.told(session, row) for row in handins.given_back(session, course, name)[:20]
            ],
        }

    async def extend(self, course: str, name: str, team: str, until: str) -> dict[str, str]:
        """Give more time, or take it back."""
        self.need(Action.RUN_COURSE, of(course))
        by, now = self.viewer.name, time.time()

        def work(session: Session) -> dict[str, str]:
            spec = records.spec_of(records.get(session, course))
            handins.extend(session, spec, handins.find(spec, name), team, until, by, now)
            return extensions(session, course, name)

        found = await self.change(work)
        self.record(
            "hand-in-change",
            done="extension",
            course=course,
            handin=name,
            team=team or "all",
            until=until,
        )
        return found

    async def group(self, course: str, name: str, wanted: dict[str, str]) -> dict[str, str]:
        """Say who hands in together."""
        self.need(Action.RUN_COURSE, of(course))

        def work(session: Session) -> dict[str, tuple[str, str]]:
            spec = records.spec_of(records.get(session, course))
            return handins.set_groups(session, spec, handins.find(spec, name), wanted)

        changed = await self.change(work)
        if changed:
            lines = [f"{who}: {old or '-'} -> {new or '-'}" for who, (old, new) in changed.items()]
            self.record(
                "hand-in-change", done="groups", course=course, handin=name, changes=lines[:500]
            )
        return wanted


def times(ends: Deadline) -> dict[str, Any]:
    """A deadline as it is told: the last minutes."""
    return {
        "due": iso(ends.due - MINUTE),
        "until": iso(ends.until - MINUTE),
        "extended": ends.extended,
    }


def _due(ends: Deadline) -> dict[str, Any]:
    return {key: value for key, value in times(ends).items() if key != "until"}


def extensions(session: Session, course: str, name: str) -> dict[str, str]:
    """By team: the last minute in time."""
    return {
        team: str(iso(handins.seconds(row.due_at) - MINUTE))
        for team, row in handins.extensions(session, course, name).items()
    }


class HandInsApi(HandingIn, Api):
    """``GET api/v1/courses/NAME/handins``."""

    @operation("What is handed in, and when it is due for who asks", HandInsTold, servers=True)
    async def get(self, course: str) -> None:
        """With what they have handed in."""
        await self.hands_in_to(course)
        lang = language_of(self)

        def work(session: Session) -> list[dict[str, Any]]:
            spec = records.spec_of(records.get(session, course))
            return [self.due(session, spec, one, lang) for one in spec.handins]

        self.reply({"handins": await self.read(work)})


class HandInApi(HandingIn, Api):
    """``api/v1/courses/NAME/handins/HANDIN``: GET and POST."""

    @operation("Who handed in, when, for its instructors and assistants", HandInTold)
    async def get(self, course: str, handin: str) -> None:
        """With the extensions and groups."""
        self.need(Action.GRADE, of(course))
        self.reply(await self.overview(course, handin))

    @operation(
        "Hand in",
        HandedInTold,
        status=202,
        described="written down with the time of asking; read it again to see it kept",
        body=Ask,
        servers=True,
        refusals={409: "it is over, was handed in already, or too many wait"},
    )
    async def post(self, course: str, handin: str, body: Ask) -> None:
        """It is read a moment later, as who asks, and kept where nobody changes it."""
        self.reply(await self.hand_in(course, handin, body.path))


class FeedbackApi(HandingIn, Api):
    """``POST api/v1/courses/NAME/handins/HANDIN/feedback``."""

    @operation(
        "Give feedback: a folder with one for each student, by login name",
        HandedInTold,
        status=202,
        described="written down; who grades reads of it where the hand-in is told",
        body=Ask,
    )
    async def post(self, course: str, handin: str, body: Ask) -> None:
        """Of the home of who asks; each student reads their own, and nobody changes it."""
        self.reply(await self.give_back(course, handin, body.path))


class MarksApi(HandingIn, Api):
    """``api/v1/courses/NAME/handins/HANDIN/marks``: GET and PUT."""

    @operation("The marks, for who grades", MarksTold)
    async def get(self, course: str, handin: str) -> None:
        """By login name."""
        self.need(Action.GRADE, of(course))

        def work(session: Session) -> dict[str, marks.Mark]:
            handins.find(records.spec_of(records.get(session, course)), handin)
            return marks.marks(session, course, handin)

        found = await self.read(work)
        self.reply({"marks": {name: vars(mark) for name, mark in found.items()}})

    @operation("Set marks; students see theirs at once", MarksApplied, body=SetMarks)
    async def put(self, course: str, handin: str, body: SetMarks) -> None:
        """Of students of the course alone."""
        self.need(Action.GRADE, of(course))
        known = await self.students(course)
        try:
            wanted = marks.checked(body.marks, known)
        except LabError as error:
            raise Refused(error, self.reading) from error
        changes = await self.set_marks(course, handin, wanted, body.dry_run)
        told = [
            {
                "username": one.username,
                "before": one.before and vars(one.before),
                "after": one.after and vars(one.after),
            }
            for one in changes
        ]
        self.reply({"applied": not body.dry_run, "changes": told})


class HandedInApi(HandingIn, Api):
    """``GET api/v1/courses/NAME/handed-in/ID``."""

    @operation(
        "What was handed in once: its own people’s, or all for who grades",
        HandedInTold,
        servers=True,
    )
    async def get(self, course: str, handed: str) -> None:
        """With its receipt, once it is kept."""
        await self.hands_in_to(course)
        who = None if self.grades(course) else self.viewer.name
        found = await self.read(lambda s: self.told(s, handins.get(s, course, handed, who)))
        self.reply(found)


class ExtensionsApi(HandingIn, Api):
    """``PUT api/v1/courses/NAME/handins/HANDIN/extensions``."""

    @operation("Give somebody, a group or all more time", ExtensionsTold, body=Extend)
    async def put(self, course: str, handin: str, body: Extend) -> None:
        """It lets them hand in once more, too, what is handed in once."""
        found = await self.extend(course, handin, body.team, body.until)
        self.reply({"extensions": found})


class GroupsApi(HandingIn, Api):
    """``PUT api/v1/courses/NAME/handins/HANDIN/groups``."""

    @operation("Say who hands in together", GroupsTold, body=Groups)
    async def put(self, course: str, handin: str, body: Groups) -> None:
        """Exactly these; what was handed in stays whose it was."""
        wanted = {who: str(name) for who, name in body.groups.items()}
        self.reply({"groups": await self.group(course, handin, wanted)})


_COURSE = Part("its name in the site file")
_HANDIN = Part("its name in the course.yaml")
_BOTH = {"course": _COURSE, "handin": _HANDIN}
ROUTES = (
    Route("/api/v1/courses/{course}/handins", HandInsApi, {"course": _COURSE}),
    Route("/api/v1/courses/{course}/handins/{handin}", HandInApi, _BOTH),
    Route("/api/v1/courses/{course}/handins/{handin}/extensions", ExtensionsApi, _BOTH),
    Route("/api/v1/courses/{course}/handins/{handin}/groups", GroupsApi, _BOTH),
    Route("/api/v1/courses/{course}/handins/{handin}/feedback", FeedbackApi, _BOTH),
    Route("/api/v1/courses/{course}/handins/{handin}/marks", MarksApi, _BOTH),
    Route(
        "/api/v1/courses/{course}/handed-in/{handed}",
        HandedInApi,
        {"course": _COURSE, "handed": Part("a hand-in's id")},
    ),
)
