"""The end of a course's term: the forms of its page, REST, and archives to download."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from sqlalchemy.orm import Session
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.rights import Action, can
from commons.store.models import Course
from commons.web.operations import Count, Part, Route, Sent, Time, Told, operation
from commons.web.refused import Refused
from courses import archives, term
from hub_ext.console.course_api import Changing, of
from hub_ext.console.course_pages import CoursePage
from hub_ext.console.handlers import Api, Page

PIECE = 2**20  # bytes
AT_ONCE = asyncio.Semaphore(2)

BUSY = Text("archive_download_busy", N_("Others download just now. Try again in a minute."))


class ArchiveTold(Told):
    """An archive of the course, or its removal."""

    id: str
    kind: str = Field(description="archive or remove")
    state: str = Field(description="asked, packed, kept (whole) or failed")
    asked_at: Time
    asked_by: str
    ended_at: Time | None
    message: str | None = Field(description="why it failed, or what is in its way")
    all_bytes: Count = Field(description="of what is read")
    bytes: Count = Field(description="read so far")
    files: Count
    left_out: Count = Field(description="links, and what may not be read; listed in the archive")
    size: Count = Field(description="of the file")
    name: str


class RemovedTold(Told):
    """What would go with the course."""

    folder: str
    bytes: Count | None = Field(description="null: not measured yet")
    on_roster: Count
    handed_in: Count
    marks: Count
    exams: Count
    environments: Count
    shared_servers: Count


class EndTold(Told):
    """The end of its term."""

    frozen_at: Time | None = Field(description="since when nobody writes; null: it is not frozen")
    changed_by: str = Field(description="who froze or thawed it last")
    freezes_at: Time | None = Field(description="when it is frozen by itself")
    archives: list[ArchiveTold] = Field(description="the newest first; for its instructors")
    removed: RemovedTold | None = Field(description="what would be removed; for administrators")


class Do(Sent):
    """What is to be done."""

    do: Literal["freeze", "thaw", "archive", "erase"] = "archive"
    confirm: str = Field("", description="to erase it with its files: the course’s name")
    without_archive: bool = Field(False, description="erase it also where it was not archived")


class Ending(Changing):
    """What page and API do."""

    async def told_of(self, name: str) -> dict[str, Any]:
        """For who is in it."""
        runs = bool(can(self.viewer, Action.RUN_COURSE, of(name)))
        admin, locale = self.viewer.admin, self.reading

        def work(session: Session) -> dict[str, Any]:
            return archives.shown(session, name, session.get(Course, name), locale, runs, admin)

        return await self.read(work)

    async def do(self, name: str, what: Do) -> None:
        """Raises Refused."""
        by, site, now = self.viewer.name, self.site, time.time()
        if what.do == "erase":
            self.need_admin()
        self.need(Action.RUN_COURSE, of(name))

        def work(session: Session) -> bool:
            match what.do:
                case "freeze":
                    return term.freeze(session, name, by, site, now)
                case "thaw":
                    return term.thaw(session, name, by, site, now)
                case "archive":
                    archives.ask(session, name, by)
                case "erase":
                    archives.ask_removal(
                        session, name, by, what.confirm, without_archive=what.without_archive
                    )
            return True

        if await self.change(work):
            self.record("course-change", done=what.do, course=name)


class EndApi(Ending, Api):
    """``api/v1/courses/NAME/end``: GET and POST."""

    @operation("Whether it is frozen, and its archives", EndTold)
    async def get(self, course: str) -> None:
        """For who is in it."""
        self.need_in(course)
        self.reply(await self.told_of(course))

    @operation(
        "Freeze or thaw it, or have it archived, for its instructors; erase it, for administrators",
        EndTold,
        status=202,
        body=Do,
        refusals={409: "it is not so that this can be done"},
    )
    async def post(self, course: str, body: Do) -> None:
        """Archives and removal are done by the hub; GET tells how far they have come."""
        await self.do(course, body)
        self.reply(await self.told_of(course))


class EndPage(Ending, CoursePage):
    """``POST courses/NAME/end``: the forms of the course's page."""

    async def get(self, name: str) -> None:
        """The page itself has the forms."""
        self.need_in(name)
        self.redirect(f"{self.hub_auth.base_url}courses/{name}#end")

    async def post(self, name: str) -> None:
        """Do it, and come back; what was wrong is said beside the form."""
        self.need(Action.RUN_COURSE, of(name))
        sent = {
            "do": self.get_body_argument("do", ""),
            "confirm": self.get_body_argument("confirm", "")[:80].strip(),
            "without_archive": bool(self.get_body_argument("without_archive", "")),
        }
        try:
            await self.do(name, Do.model_validate(sent))
        except ValidationError as error:
            raise HTTPError(400) from error
        except Refused as error:
            if error.status_code in (403, 404):
                raise
            await self._show(name, status=error.status_code, end_problem=error.sentence)
            return
        self.redirect(f"{self.hub_auth.base_url}courses/{name}#end")


class ArchiveFile(Changing, Page):
    """``GET courses/NAME/archives/ID``."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """With the data folder."""
        super().initialize(**shared)
        self.data = data

    async def get(self, name: str, one: str) -> None:
        """For its instructors; as it is taken, and no faster."""
        self.need(Action.RUN_COURSE, of(name))
        row = await self.read(lambda s: archives.find(s, name, one))
        if AT_ONCE.locked():
            raise Refused(NotAvailable(BUSY()), self.reading, retry_after=60)
        try:
            file = await asyncio.to_thread(archives.path(self.data, row).open, "rb")
        except OSError as error:
            raise HTTPError(404) from error
        self.record("course-download", course=name, archive=row.id)
        self.set_header("Content-Type", "application/gzip")
        self.set_header("Content-Length", str(row.size))
        self.set_header("Content-Disposition", f'attachment; filename="{archives.file_name(row)}"')
        async with AT_ONCE:
            with file:
                try:
                    while piece := await asyncio.to_thread(file.read, PIECE):
                        self.write(piece)
                        await self.flush()
                except StreamClosedError:
                    return
        self.finish()


ROUTES = (
    Route("/api/v1/courses/{course}/end", EndApi, {"course": Part("its name in the site file")}),
)
