"""The pages of hand-ins: what is due and what one has handed in; receipts; for who grades, all."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session
from tornado.web import HTTPError

from commons import frozen
from commons.errors import BadRequest, LabError
from commons.i18n import N_
from commons.messages import Text
from commons.rights import Action, can
from commons.store.models import HandedIn
from commons.units import amount
from commons.web.pages import language_of
from commons.web.refused import Refused
from courses import handins, marks, records
from courses.document import CourseSpec
from courses.grading import points
from courses.handins import State
from courses.roster_text import decoded
from hub_ext.console.course_api import of
from hub_ext.console.grading_api import Grading
from hub_ext.console.handin_api import HandingIn
from hub_ext.console.handin_downloads import WithFiles
from hub_ext.console.handlers import Page
from spawner.gpu.views import iso

NOT_TEXT = Text("marks_not_text", N_("The file is no text. Save it as CSV, in UTF-8."))
SHOWN = 500  # files of a manifest


def named(spec: CourseSpec, lang: str) -> dict[str, str]:
    """Titles of hand-ins."""
    return {one.name: one.called(lang) for one in spec.handins}


class HandIns(HandingIn, Page):
    """``courses/NAME/handins``: GET, and POST of the form."""

    async def get(self, course: str) -> None:
        """For who is in it."""
        self.need_in(course)
        chosen = (self.get_query_argument("handin", ""), self.get_query_argument("path", "")[:500])
        await self._show(course, chosen=chosen)

    async def post(self, course: str) -> None:
        """Hand in, and come back; what was wrong is said on the page."""
        name = self.get_body_argument("handin", "")[:64]
        path = self.get_body_argument("path", "")[:600].strip()
        try:
            await self.hand_in(course, name, path)
        except Refused as error:
            if error.status_code in (403, 404):
                raise
            await self._show(course, error.status_code, wrong=(name, path, error.sentence))
            return
        self.redirect(f"{self.hub_auth.base_url}courses/{course}/handins#handed-in")

    async def _show(
        self,
        course: str,
        status: int = 200,
        wrong: tuple[str, str, str] | None = None,
        chosen: tuple[str, str] = ("", ""),
    ) -> None:
        lang = language_of(self)

        def work(session: Session) -> dict[str, Any]:
            spec = records.spec_of(records.get(session, course))
            rows = handins.of_person(session, course, self.viewer.name)
            return {
                "title": spec.called(lang),
                "due": [self.due(session, spec, one, lang) for one in spec.handins],
                "rows": [self.told(session, row) for row in rows],
                "titles": named(spec, lang),
                "marks": marks.of_person(session, course, self.viewer.name),
                "feedback": {
                    handin: iso(at)
                    for handin, at in handins.feedback_for(
                        session, course, self.viewer.name
                    ).items()
                },
                "frozen": frozen.is_frozen(session, course),
                "most": {one.name: amount(one.bytes) for one in spec.handins},
            }

        found = await self.read(work)
        self.set_status(status)
        self.render_page(
            "handins.html",
            course=course,
            grades=self.grades(course),
            hands_in=bool(can(self.viewer, Action.HAND_IN, of(course))),
            wrong=wrong,
            chosen=chosen,
            bytes_words=amount,
            **found,
        )


class OneHandIn(Grading, Page):
    """``courses/NAME/handins/HANDIN``: GET, and POST of the forms, for who grades."""

    async def get(self, course: str, handin: str) -> None:
        """Who handed in, and who did not."""
        self.need(Action.GRADE, of(course))
        chosen = self.get_query_argument("path", "")[:500]
        await self._show(course, handin, sent={"path": chosen} if chosen else None)

    async def post(self, course: str, handin: str) -> None:
        """Do what one of the forms is for; what was wrong is said on the page."""
        self.need(Action.GRADE, of(course))
        sent = {
            key: self.get_body_argument(key, "")[:1_000_000]
            for key in ("team", "until", "groups", "path", "marks")
        }
        done = self.get_body_argument("do", "")
        try:
            if done == "groups":
                await self.group(course, handin, _groups(sent["groups"]))
            elif done == "autograde":
                await self.autograde(course, handin, sent["team"].strip())
            elif done == "feedback":
                await self.give_back(course, handin, sent["path"].strip())
            elif done in ("look", "save"):
                changes = await self._marks(course, handin, sent, done == "look")
                if done == "look":
                    await self._show(course, handin, 200, sent, changes=changes)
                    return
            elif done != "extend":
                raise HTTPError(400)
            else:
                until = sent["until"].strip().replace("T", " ")
                await self.extend(course, handin, sent["team"].strip(), until)
        except Refused as error:
            if error.status_code in (403, 404):
                raise
            lines = [
                (one["line"], one["message"]) for one in error.details.get("problems", ())
            ] or [(None, error.sentence)]
            await self._show(course, handin, error.status_code, sent, lines)
            return
        self.redirect(f"{self.hub_auth.base_url}courses/{course}/handins/{handin}")

    async def _show(
        self,
        course: str,
        handin: str,
        status: int = 200,
        sent: dict[str, str] | None = None,
        problems: list[tuple[int | None, str]] | None = None,
        **more: Any,
    ) -> None:
        lang = language_of(self)

        spec = await self.read(lambda s: records.spec_of(records.get(s, course)))
        found = await self.overview(course, handin)
        found |= {"course_title": spec.called(lang), "zone": spec.timezone}
        teams, graded = found["teams"], await self.gradings(course, handin)
        kept = [row for team in teams for row in team["handed_in"][:1] if row["state"] == "kept"]
        self.set_status(status)
        self.render_page(
            "handin.html",
            course=course,
            handin=handin,
            found=found,
            runs=bool(can(self.viewer, Action.RUN_COURSE, of(course))),
            came=sum(any(r["state"] != "refused" for r in team["handed_in"]) for team in teams),
            late=sum(row["late"] for row in kept),
            any_kept=bool(kept),
            sent=sent or {},
            problems=problems or [],
            csv=(sent or {}).get("marks") or await self._csv(course, handin, found),
            bytes_words=amount,
            graded=graded,
            graded_ended=sum(one["state"] not in handins.WAITING for one in graded.values()),
            short=points,
            **more,
        )

    async def _csv(self, course: str, handin: str, found: dict[str, Any]) -> str:
        given = await self.read(lambda s: marks.marks(s, course, handin))
        everybody = {who for team in found["teams"] for who in team["members"]}
        return marks.to_csv(given, everybody).replace("\r\n", "\n")

    async def _marks(
        self, course: str, handin: str, sent: dict[str, str], dry_run: bool
    ) -> list[marks.Change]:
        """Of a file, where one was sent; it is then in the text, to be looked at and saved."""
        files = self.request.files.get("file", [])
        if files and files[0]["body"]:
            try:
                sent["marks"] = decoded(files[0]["body"])
            except UnicodeDecodeError as error:
                raise Refused(BadRequest(NOT_TEXT()), self.reading) from error
        known = await self.students(course)
        try:
            wanted = marks.read_csv(sent["marks"].replace("\r\n", "\n"), known)
        except LabError as error:
            raise Refused(error, self.reading) from error
        return await self.set_marks(course, handin, wanted, dry_run)


class MarksFile(HandingIn, Page):
    """``GET courses/NAME/handins/HANDIN/marks.csv``."""

    async def get(self, course: str, handin: str) -> None:
        """For who grades: who has no mark yet has an empty one."""
        self.need(Action.GRADE, of(course))
        found = await self.overview(course, handin)
        given = await self.read(lambda s: marks.marks(s, course, handin))
        everybody = {who for team in found["teams"] for who in team["members"]}
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        name = f"marks-{course}-{handin}.csv"
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        # Without the mark, Excel takes it for another encoding.
        self.finish("\ufeff" + marks.to_csv(given, everybody))


def _groups(text: str) -> dict[str, str]:
    """Lines of a group's name and its people: ``pair1: alice, bob``."""
    found: dict[str, str] = {}
    for line in text.replace("\r", "").split("\n"):
        name, _, people = line.partition(":")
        for who in people.replace(",", " ").split():
            found[who] = name.strip()
        if line.strip() and not people.strip():
            found[line.strip()[:80]] = ""
    return found


class OneHandedIn(WithFiles):
    """``GET courses/NAME/handed-in/ID``: what was handed in once, with its receipt."""

    async def get(self, course: str, handed: str) -> None:
        """For whose it is, and who grades."""
        row: HandedIn = await self.one(course, handed)
        lang = language_of(self)

        def work(session: Session) -> tuple[dict[str, Any], CourseSpec]:
            return self.told(session, row), records.spec_of(records.get(session, course))

        found, spec = await self.read(work)
        document = await self.document(row) if row.state == State.KEPT else None
        manifest = document["manifest"] if document else {"files": [], "left_out": []}
        self.render_page(
            "handed_in.html",
            course=course,
            course_title=spec.called(lang),
            title=named(spec, lang).get(row.handin, row.handin),
            row=found,
            document=document,
            files=manifest["files"][:SHOWN],
            left_out=manifest["left_out"][:SHOWN],
            more=max(0, len(manifest["files"]) - SHOWN),
            bytes_words=amount,
        )
