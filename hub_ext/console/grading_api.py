"""REST about grading by a program: asking for it, and what it gave."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from commons.messages import Message
from commons.rights import Action
from commons.store.models import HandedIn
from commons.web.operations import Part, Route, Sent, Time, Told, operation
from courses import grading, handins, records
from hub_ext.console.course_api import of
from hub_ext.console.handin_api import HandingIn
from hub_ext.console.handlers import Api


class GradedNotebookTold(Told):
    """What one notebook's tests gave."""

    name: str
    score: float
    most: float
    manual: bool = Field(description="something of it is for a person to mark")
    problem: str = Field(description="empty, missing, time, died, or what is wrong with it")


class GradingTold(Told):
    """What was handed in once, graded by a program."""

    id: str
    handed_in: str = Field(description="the id of what is graded")
    team: str = Field(description="a login name, or @ and the name of a group")
    asked_by: str
    asked_at: Time
    state: str = Field(description="asked, taken, kept or refused")
    message: str | None = Field(description="why it was refused, or what is in its way")
    score: float | None = Field(description="once it is graded: points of the tests")
    most: float | None = Field(description="of how many")
    manual: bool = Field(description="something of it is for a person to mark")
    kept: list[str] = Field(description="whose mark was given by a person, and stays")
    notebooks: list[GradedNotebookTold]


class GradingsTold(Told):
    """Of each team the last one."""

    gradings: list[GradingTold]


class Autograde(Sent):
    """What is graded."""

    team: str = Field("", description="a login name, or @ and the name of a group; empty: all")


class Grading(HandingIn):
    """What page and API do."""

    def graded(self, row: HandedIn) -> dict[str, Any]:
        """One, with what is said of it in the language of who reads."""
        found = grading.show(row)
        said = found["message"]
        found["message"] = Message.from_json(said).in_words(self.reading) if said else None
        return found

    async def gradings(self, course: str, name: str) -> dict[str, dict[str, Any]]:
        """By team."""

        def work(session: Session) -> dict[str, dict[str, Any]]:
            handins.find(records.spec_of(records.get(session, course)), name)
            found = grading.newest(session, course, name)
            return {team: self.graded(row) for team, row in sorted(found.items())}

        return await self.read(work)

    async def autograde(self, course: str, name: str, team: str) -> list[dict[str, Any]]:
        """Write down what is to be graded."""
        self.need(Action.GRADE, of(course))
        by, now = self.viewer.name, self.asked

        def work(session: Session) -> list[dict[str, Any]]:
            spec = records.spec_of(records.get(session, course))
            return [self.graded(r) for r in grading.ask(session, spec, name, team, by, now)]

        return await self.change(work)


class GradingApi(Grading, Api):
    """``api/v1/courses/NAME/handins/HANDIN/autograde``: GET and POST."""

    @operation("What grading by a program gave, for who grades", GradingsTold)
    async def get(self, course: str, handin: str) -> None:
        """Of each team the last time that it was asked for."""
        self.need(Action.GRADE, of(course))
        self.reply({"gradings": list((await self.gradings(course, handin)).values())})

    @operation(
        "Grade by a program what was handed in last",
        GradingsTold,
        status=202,
        described="written down; read it again to see what it gave",
        body=Autograde,
    )
    async def post(self, course: str, handin: str, body: Autograde) -> None:
        """With the notebooks of the instructors' area; marks and feedback are each student's."""
        self.reply({"gradings": await self.autograde(course, handin, body.team)})


ROUTES = (
    Route(
        "/api/v1/courses/{course}/handins/{handin}/autograde",
        GradingApi,
        {
            "course": Part("its name in the site file"),
            "handin": Part("its name in the course.yaml"),
        },
    ),
)
