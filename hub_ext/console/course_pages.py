"""The pages of courses: what one is in, and for instructors what a course is and who is in it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from commons.rights import Action, can
from commons.scopes import groups_of_site
from commons.store import DiskUse
from commons.store.models import Course, WarmStart, utcnow
from commons.units import amount
from commons.web.pages import language_of, timezone_of
from commons.web.refused import Refused
from courses import ahead, archives, exams, materials, people, records
from courses.document import CourseSpec, to_yaml
from hub_ext.console.course_api import Changing, of, visible
from hub_ext.console.handlers import Page
from spawner import shared_servers
from spawner.storage import Limits

# What a new course.yaml begins with; the lines that follow are for whoever fills it in.
NEW = """\
version: 1
course: {course}
title:
  en: {course}
  zh:
timezone: {timezone}
term: {{first: {first}, last: {last}}}
sessions:
  - weekdays: [tue]
    starts: "10:00"
    duration: 2h
days_off: []
environment:       # of a version: name:version
size:
materials:         # folder, or {{git: https://…, branch: main}}
gpus: {{each: 0, reserved: 0}}
warm: {{before: 10m, hold: 30m}}
"""


class Courses(Page):
    """``GET courses``: those that somebody is in; all for administrators."""

    async def get(self) -> None:
        """By name, with the next session."""
        viewer, lang, now = self.viewer, language_of(self), time.time()
        names = [
            one.owner
            for one in groups_of_site(self.site)
            if one.kind == "course" and visible(viewer, one.owner)
        ]

        def work(session: Session) -> list[dict[str, Any]]:
            rows = {row.name: row for row in records.all_of(session)}
            return [_told(session, name, rows.get(name), lang, now) for name in names]

        rows = await self.read(work)
        for row in rows:
            row["runs"] = bool(can(viewer, Action.RUN_COURSE, of(row["name"])))
        self.render_page("courses.html", here="courses", rows=rows)


class CoursePage(Changing, Page):
    """``courses/NAME``: GET, and POST of the two forms."""

    async def get(self, name: str) -> None:
        """For who is in it."""
        self.need_in(name)
        await self._show(name)

    async def post(self, name: str) -> None:
        """Look at what would change, or change it; what was wrong is said beside the form."""
        self.need(Action.RUN_COURSE, of(name))
        if self.get_body_argument("do", "") == "fetch":
            await self.change(lambda s: materials.want(s, name, utcnow()))
            self.record("course-change", done="fetch", course=name)
            self.redirect(f"{self.hub_auth.base_url}courses/{name}#materials")
            return
        document = self.get_body_argument("document", "")[:100_000].replace("\r\n", "\n")
        save = self.get_body_argument("do", "") == "save"
        anyway = bool(self.get_body_argument("anyway", ""))
        try:
            changes = await self.apply(name, document, dry_run=not save, anyway=anyway)
        except Refused as error:
            problems = [
                (one["path"], one["line"], one["message"])
                for one in error.details.get("problems", ())
            ] or [("", None, error.sentence)]
            unkept = error.document["code"] == "reservation_unkept"
            await self._show(
                name, document, problems=problems, unkept=unkept, status=error.status_code
            )
            return
        if save:
            self.redirect(f"{self.hub_auth.base_url}courses/{name}")
        else:
            await self._show(name, document, changes=changes, anyway=anyway)

    async def _show(self, name: str, document: str = "", status: int = 200, **more: Any) -> None:
        viewer, lang, now = self.viewer, language_of(self), time.time()
        runs = bool(can(viewer, Action.RUN_COURSE, of(name)))
        attends = bool(can(viewer, Action.ATTEND, of(name)))
        locale = self.reading

        def work(session: Session) -> dict[str, Any]:
            row = session.get(Course, name)
            found = _told(session, name, row, lang, now, viewer.name)
            found["end"] = archives.shown(session, name, row, locale, runs, viewer.admin)
            use = session.get(DiskUse, ("courses", name)) if attends else None
            found["disk"] = use and (use, Limits(session, self.site.storage).of("courses", name))
            found["shared"] = shared_servers.shown(session, of(name), viewer)
            if row:
                found["materials"] = materials.show(session, records.spec_of(row))
            if runs:
                found["sittings"] = exams.sittings(session, name)
                found["roster"] = people.roster(session, name)
                found["document"] = document or (
                    to_yaml(records.spec_of(row)) if row else self._new(name, now)
                )
            return found

        found = await self.read(work)
        if found.get("materials"):
            found["materials"] = materials.in_words(found["materials"], self.reading)
        for one in found["sessions"]:
            ends = datetime.fromisoformat(one["ends"]).astimezone(timezone_of(self))
            one["until"] = f"{ends:%H:%M}"
        self.set_status(status)
        self.render_page(
            "course.html",
            here="courses",
            course=found,
            runs=runs,
            attends=attends,
            zone=timezone_of(self),
            amount=amount,
            **more,
        )

    def _new(self, name: str, now: float) -> str:
        return NEW.format(
            course=name,
            timezone=timezone_of(self) or "UTC",
            first=time.strftime("%Y-%m-%d", time.gmtime(now)),
            last=time.strftime("%Y-%m-%d", time.gmtime(now + 120 * 86400)),
        )


class Export(Changing, Page):
    """``GET courses/NAME/course.yaml``."""

    async def get(self, name: str) -> None:
        """For its instructors."""
        self.need(Action.RUN_COURSE, of(name))
        text = await self.read(lambda s: to_yaml(records.spec_of(records.get(s, name))))
        self.set_header("Content-Type", "application/yaml; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{name}.yaml"')
        self.finish(text)


def _told(
    session: Session, name: str, row: Course | None, lang: str, now: float, who: str = ""
) -> dict[str, Any]:
    """A course for a page; of one of which nothing is said, its name."""
    if row is None:
        return {"name": name, "title": name, "spec": None, "sessions": [], "exams": []}
    spec: CourseSpec = records.spec_of(row)
    shown = records.show(session, row, now)
    shown["exams"] = exams.told(session, spec, who, now, lang)
    for one in shown["sessions"]:
        start = session.get(WarmStart, one["warm"]) if one["warm"] else None
        one["ready"] = ahead.ready(session, start) if start else None
    return {"name": name, "title": spec.called(lang), "spec": spec, **shown}
