"""REST about courses: what they are, and who is in them."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from commons.errors import BadRequest
from commons.principal import Principal
from commons.rights import Action, can
from commons.scopes import Scope, groups_of_site
from commons.web.operations import Count, Part, Route, Sent, Time, Told, operation
from commons.web.refused import Refused
from courses import people, records
from courses.document import (
    OTHER_COURSE,
    CourseError,
    check_course,
    check_in_site,
    read_course,
)
from hub_ext.console.handlers import Api, Base
from spawner.gpu.quotas.problems import Problem


class SessionTold(Told):
    """One meeting of the class."""

    starts: Time
    ends: Time
    day: str = Field(description="in the course's time zone")
    time: str = Field(description="in the course's time zone")
    warm: str | None = Field(description="the start ahead of time that is planned for it")


class CourseTold(Told):
    """A course, with its sessions of the next two weeks."""

    course: dict[str, Any] = Field(description="as course.yaml has it")
    changed_at: Time
    changed_by: str
    on_roster: Count
    sessions: list[SessionTold]


class CoursesTold(Told):
    """Those that the viewer is in; all for administrators."""

    courses: list[CourseTold]


class Apply(Sent):
    """A course.yaml, and how it is applied."""

    document: Any = Field(
        None,
        description="course.yaml as a mapping, or its text",
        json_schema_extra={"type": ["object", "string"]},
    )
    dry_run: bool = Field(False, description="only say what it would change")
    anyway: bool = Field(False, description="also where its GPUs cannot be kept as things are")


class ChangeTold(Told):
    """One key that is set, changed or removed."""

    key: str
    before: Any = Field(description="null: not there")
    after: Any = Field(description="null: not there")


class Applied(Told):
    """What was, or would be, changed."""

    applied: bool
    changes: list[ChangeTold]


class Roster(Sent):
    """Who is on it."""

    people: dict[str, Any] = Field(
        {},
        description="login names, and what each is: instructor, assistant or student",
        json_schema_extra={"additionalProperties": {"type": "string"}},
    )
    prune: bool = Field(False, description="take off whom it does not name")
    leaving: int = Field(
        0, ge=0, description="with prune: how many leave by that, as a dry run has shown"
    )
    dry_run: bool = Field(False, description="only say what it would change")


class RosterTold(Told):
    """Those on the roster; whom the directory's groups put into the course are not listed."""

    people: dict[str, str]


class RosterChange(Told):
    """Somebody who is added, moved or removed."""

    username: str
    before: str = Field(description="empty: not on it")
    after: str = Field(description="empty: not on it")


class RosterApplied(Told):
    """What was, or would be, changed."""

    applied: bool
    changes: list[RosterChange]


class _DryRunError(Exception):
    """Takes back what was tried."""

    def __init__(self, changes: list[Any]) -> None:
        super().__init__()
        self.changes = changes


def of(name: str) -> Scope:
    """A course among the scopes."""
    return Scope("course", name)


def visible(viewer: Principal, name: str) -> bool:
    """Whether somebody is in a course, or an administrator."""
    return bool(viewer.position(of(name))) or bool(can(viewer, Action.RUN_COURSE, of(name)))


class Changing(Base):
    """What page and API do."""

    def need_in(self, name: str) -> None:
        """Raises Refused for who is not in a course, as if it were not there."""
        if of(name) not in groups_of_site(self.site) or not visible(self.viewer, name):
            error = BadRequest(records.COURSE_UNKNOWN(name=name[:80]))
            error.status = 404
            raise Refused(error, self.reading)

    async def apply(
        self, name: str, document: object, *, dry_run: bool, anyway: bool
    ) -> list[records.Change]:
        """Make the course what a document says; with ``dry_run`` say what would change."""
        viewer, site = self.viewer, self.site

        def work(session: Session) -> list[records.Change]:
            read = read_course(document) if isinstance(document, str) else check_course(document)
            if read.course != name:
                other = OTHER_COURSE(found=read.course, wanted=name)
                raise CourseError([Problem("course", other)])
            records.check_may(session, read, viewer)
            changes = records.apply(session, read, viewer.name, site, anyway=anyway)
            if dry_run:
                raise _DryRunError(changes)
            return changes

        try:
            changes = await self.change(work)
        except _DryRunError as tried:
            return tried.changes
        if changes:
            lines = [str(change) for change in changes]
            self.record("course-change", done="apply", course=name, changes=lines[:500])
        return changes


class CoursesApi(Api):
    """``GET api/v1/courses``."""

    @operation("The courses that one is in; all for administrators", CoursesTold)
    async def get(self) -> None:
        """With their sessions of the next two weeks."""
        viewer, now = self.viewer, time.time()
        found = await self.read(
            lambda s: [
                records.show(s, row, now) for row in records.all_of(s) if visible(viewer, row.name)
            ]
        )
        self.reply({"courses": found})


class CourseApi(Changing, Api):
    """``api/v1/courses/NAME``: GET, PUT and DELETE."""

    @operation("One course", CourseTold)
    async def get(self, course: str) -> None:
        """For who is in it."""
        self.need_in(course)
        now = time.time()
        self.reply(await self.read(lambda s: records.show(s, records.get(s, course), now)))

    @operation("Make it what a course.yaml says, for its instructors", Applied, body=Apply)
    async def put(self, course: str, body: Apply) -> None:
        """With its reservations and planned servers, in one transaction."""
        self.need(Action.RUN_COURSE, of(course))
        changes = await self.apply(course, body.document, dry_run=body.dry_run, anyway=body.anyway)
        told = [vars(change) for change in changes]
        self.reply({"applied": not body.dry_run, "changes": told})

    @operation("Forget what is said of it; its folder stays", CourseTold, admins=True)
    async def delete(self, course: str) -> None:
        """With its roster, reservations and planned servers."""
        now = time.time()

        def work(session: Session) -> dict[str, Any]:
            shown = records.show(session, records.get(session, course), now)
            records.remove(session, course)
            return shown

        shown = await self.change(work)
        self.record("course-change", done="remove", course=course)
        self.reply(shown)


class RosterApi(Api):
    """``api/v1/courses/NAME/roster``: GET and PUT."""

    @operation("Who is on its roster, for its instructors", RosterTold)
    async def get(self, course: str) -> None:
        """Beside whom the directory's groups put into it."""
        self.need(Action.RUN_COURSE, of(course))
        self.reply({"people": await self.read(lambda s: people.roster(s, course))})

    @operation("Put people on it, or make it exactly these", RosterApplied, body=Roster)
    async def put(self, course: str, body: Roster) -> None:
        """It has effect at once: at the next page that somebody opens, within half a minute."""
        self.need(Action.RUN_COURSE, of(course))
        by, site = self.viewer.name, self.site

        def work(session: Session) -> list[people.Change]:
            check_in_site(of(course), site)
            said = None if body.dry_run else body.leaving
            changes = people.apply(session, course, body.people, by, body.prune, said)
            if body.dry_run:
                raise _DryRunError(changes)
            return changes

        try:
            changes = await self.change(work)
        except _DryRunError as tried:
            changes = tried.changes
        if changes and not body.dry_run:
            lines = [str(change) for change in changes]
            self.record("course-change", done="roster", course=course, changes=lines[:500])
        self.reply({"applied": not body.dry_run, "changes": [vars(change) for change in changes]})


_COURSE = {"course": Part("its name in the site file")}
ROUTES = (
    Route("/api/v1/courses", CoursesApi),
    Route("/api/v1/courses/{course}", CourseApi, _COURSE),
    Route("/api/v1/courses/{course}/roster", RosterApi, _COURSE),
)
