"""``/hub/course/NAME/exam/EXAM``: when it is, and at its time the button that begins it.

Beginning stops the person's other servers, as the page says, and starts the exam's; until it has
ended they start no other (``spawner.exams``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.orm import Session
from tornado.web import authenticated

from commons.audit import make_event
from commons.errors import BadRequest, LabError
from commons.principal import Principal
from commons.scopes import Scope
from commons.store.models import ExamSitting
from commons.web.pages import language_of, locale_of
from commons.web.refused import Refused
from courses import exams, records
from courses.exams import State
from hub_ext.servers import OneByOneHandler
from hub_ext.stops import end
from spawner.exams import server_of
from spawner.spawner import LabSpawner

SOON = 3600  # seconds before it begins from which on the page comes again by itself


class ExamPage(OneByOneHandler):
    """GET: what it is for who asks. POST: begin it, or go on."""

    slow_spawn_timeout = 0  # its progress is shown

    @authenticated
    async def get(self, course: str, name: str) -> None:
        """For who is in the course."""
        self._need(course)
        await self._show(course, name)

    @authenticated
    async def post(self, course: str, name: str) -> None:
        """By the clock of this moment; leads into the server."""
        self._need(course)
        user, shared = self.current_user, LabSpawner.shared
        assert shared is not None
        username, now = user.name, time.time()

        def work(session: Session) -> bool:
            before = session.get(ExamSitting, (course, name, username))
            goes_on = before is not None
            exams.begin(session, course, name, username, now)
            return goes_on

        try:
            goes_on = await shared.store.run(work)
        except LabError as error:
            raise Refused(error, locale_of(self)) from error
        server = server_of(name)
        for other in self._others(server):
            await end(self, user, other)
        details = {"course": course, "exam": name, **({"again": True} if goes_on else {})}
        shared.audit.record(
            make_event(
                "exam-begin",
                "success",
                user=username,
                address=self.request.remote_ip,
                details=details,
            )
        )
        spawner = user.get_or_create_spawner(server, server)
        target = user.server_url(server)
        if spawner.ready:
            self.redirect(target)
            return
        if not spawner.active:
            await self.spawn_single_user(user, server, options={})
        pending = f"{self.hub.base_url}spawn-pending/{user.escaped_name}/{server}"
        self.redirect(f"{pending}?{urlencode({'next': target})}")

    def _need(self, course: str) -> None:
        """Raises Refused, as if it were not there, for who is not in the course."""
        user = self.current_user
        viewer = Principal.from_groups(
            user.name, bool(user.admin), [group.name for group in user.groups]
        )
        if not viewer.position(Scope("course", course)):
            error = BadRequest(records.COURSE_UNKNOWN(name=course[:80]))
            error.status = 404
            raise Refused(error, locale_of(self))

    def _others(self, server: str) -> list[Any]:
        return [
            one
            for one in self.current_user.spawners.values()
            if one.name != server and (one.active or one.pending)
        ]

    async def _show(self, course: str, name: str) -> None:
        user, shared, now = self.current_user, LabSpawner.shared, time.time()
        assert shared is not None
        username, language = user.name, language_of(self)

        def work(session: Session) -> tuple[Mapping[str, Any], float]:
            spec, exam = exams.find(session, course, name)
            when = exams.hours(spec, exam, username)
            sitting = session.get(ExamSitting, (course, name, username))
            state = exams.state(when, sitting, now)
            more = when.ends - exams.hours(spec, exam).ends
            return {
                "title": exam.called(language),
                "course_title": spec.called(language),
                "state": str(state),
                "starts": _utc(when.starts),
                "ends": _utc(when.ends),
                "extra": round(more / 60),
                "environment": exam.environment,
            }, when.starts - now if state is State.BEFORE else 0

        try:
            found, wait = await shared.store.read(work)
        except LabError as error:
            raise Refused(error, locale_of(self)) from error
        if 0 < wait < SOON:
            self.set_header("Refresh", f"{wait + 1:.0f}")
        others = self._others(server_of(name)) if found["state"] == State.OPEN else []
        page = await self.render_template(
            "exam.html",
            course=course,
            others=[one.name for one in others],
            **found,
        )
        self.finish(page)


def _utc(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)


HANDLERS = [(r"/course/([a-z0-9._-]{1,64})/exam/([a-z0-9-]{1,40})", ExamPage)]
