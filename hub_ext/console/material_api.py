"""REST about a course's materials: what was fetched, and having it fetched now."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from commons.rights import Action
from commons.store.models import utcnow
from commons.web.operations import Count, Part, Route, Time, Told, operation
from courses import materials
from hub_ext.console.course_api import Changing, of
from hub_ext.console.handlers import Api


class LeftOutTold(Told):
    """Something of the materials that is not given out."""

    path: str
    why: str


class MaterialsTold(Told):
    """A course's materials."""

    source: str = Field(description="the repository and its branch, or folder")
    folder: str = Field(description="where each person finds their copy")
    fetched_at: Time | None = Field(description="the last time that it went well")
    tried_at: Time | None
    waits: bool = Field(description="whether they are to be fetched at once")
    files: Count
    bytes: Count
    left_out: list[LeftOutTold]
    more_left_out: Count
    problem: str | None = Field(description="why the last fetch failed; what was there stays")


class MaterialsApi(Changing, Api):
    """``api/v1/courses/NAME/materials``: GET and POST."""

    @operation("A course's materials, and when they were fetched", MaterialsTold)
    async def get(self, course: str) -> None:
        """For who is in it."""
        self.need_in(course)
        await self._told(course)

    @operation("Have them fetched now, for its instructors", MaterialsTold, status=202)
    async def post(self, course: str) -> None:
        """In some seconds; GET tells when it is done."""
        self.need(Action.RUN_COURSE, of(course))
        await self.change(lambda s: materials.want(s, course, utcnow()))
        self.record("course-change", done="fetch", course=course)
        await self._told(course)

    async def _told(self, course: str) -> None:
        found: dict[str, Any] = await self.read(lambda s: materials.of(s, course))
        self.reply(materials.in_words(found, self.reading))


ROUTES = (
    Route(
        "/api/v1/courses/{course}/materials",
        MaterialsApi,
        {"course": Part("its name in the site file")},
    ),
)
