"""REST about jobs: asked for, shown with what they print, cancelled."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from commons import frozen
from commons.errors import NotAllowed
from commons.rights import Action, Resource, check
from commons.scopes import personal
from commons.shared_accounts import scope_of
from commons.site import Site
from commons.store.models import Job
from commons.web.openapi import Reason
from commons.web.operations import Count, Part, Query, Route, Sent, Time, Told, operation
from hub_ext.console.handlers import Api, Base
from jobs import asked, output, records
from jobs.asked import Asked
from jobs.records import State
from spawner import exams, options


class JobTold(Told):
    """A job, or one task of an array."""

    id: str = Field(description="its number; of an array, with the task: 17_3")
    user: str
    state: State
    ending: bool = Field(description="it is being ended")
    reasons: list[Reason] = Field(description="why it waits, or how it ended")
    position: int | None = Field(description="in the queue of GPUs; 1 is next")
    expected_start: Time | None
    command: list[str]
    folder: str = Field(description="below the home")
    environment: str = Field(description="name:version, once it was taken on")
    size: str
    gpus: Count
    time_limit: int | None = Field(description="minutes")
    preemptible: bool
    retries: Count
    attempt: Count
    exit_code: int | None
    memory_peak: int | None = Field(description="bytes, as its container has said")
    gpu_peak: float | None = Field(description="percent, as was seen")
    submitted_at: Time
    started_at: Time | None
    ended_at: Time | None


class Jobs(Told):
    """Jobs, the newest first."""

    jobs: list[JobTold]


class Cancelled(Told):
    """What was said to end."""

    cancelled: Count = Field(description="how many were not over")
    jobs: list[JobTold]


class LogPart(Told):
    """A part of what a job printed."""

    job: JobTold
    log: str
    offset: Count = Field(description="from which to ask on")


class JobBody(Sent):
    """What is to be run."""

    command: list[str] = Field(description="a program and its words")
    environment: str | None = Field(None, description="NAME or NAME:VERSION")
    size: str | None = None
    gpus: int | None = None
    gpu_type: str | None = None
    account: str | None = Field(None, description="who is charged")
    course: str | None = None
    folder: str | None = Field(None, description="where it runs, below the home")
    time_limit: int | None = Field(None, description="minutes")
    array: str | None = Field(None, description="such as 0-9%3")
    after: list[str] | None = Field(None, description="jobs that have to be done first")
    retries: int | None = Field(None, description="how often it is run again where it was cut off")
    preemptible: bool | None = Field(None, description="it makes room for others")


class Which(Query):
    """Whose, and which."""

    user: str = Field("", description="of somebody; * for everybody's; without, one's own")
    open: bool = Field(False, description="only those that are not over")


class Where(Query):
    """Of a log."""

    offset: int | None = Field(None, ge=0, le=2**40, description="in bytes; without, its end")


class Asking(Base):
    """What page and API do."""

    async def submit(self, said: dict[str, Any]) -> list[dict[str, Any]]:
        """Ask for a job of the viewer's. Raises Refused."""
        viewer, site, reading = self.viewer, self.site, self.reading
        self.need(Action.RUN_JOB, personal(viewer.name))

        def work(session: Session) -> list[dict[str, Any]]:
            if scope_of(viewer.name) is not None:
                check(viewer, Action.RUN_JOB, personal(""))
            wanted = asked.parse(said)
            if (sitting := exams.begun(session, viewer.name)) is not None:
                raise NotAllowed(
                    exams.EXAM_ON(
                        exam=sitting.exam,
                        course=sitting.course,
                        ends_at=exams.seconds(sitting.ends_at),
                    )
                )
            # A server's token says nothing of teams: for it, the hub finds out, and says why not.
            pinned = "" if viewer.server is not None else self._pinned(session, wanted, site)
            rows = records.submit(session, wanted, viewer.name, pinned)
            return records.show_all(session, rows, reading)

        found = await self.change(work)
        about = {"job": found[0]["id"], "command": records.shown(said.get("command") or [])}
        self.record("job-submit", **about, count=len(found), gpus=found[0]["gpus"])
        return found

    def _pinned(self, session: Session, wanted: Asked, site: Site) -> str:
        entries = options.offered(session, self.viewer, packages=False)
        choice = options.resolve(options.parse(wanted.options), entries, site, self.viewer)
        frozen.check_account(choice.account, frozen.courses(session))
        return f"{choice.entry.name}:{choice.entry.version}"

    def rows(self, session: Session, job: str, action: Action) -> list[Job]:
        """A job that the viewer may see or end. Raises NotAllowed (404)."""
        rows = records.find(session, job)
        owner = rows[0].username
        check(self.viewer, action, Resource(personal(owner), holder=owner))
        return rows

    async def cancel(self, job: str) -> tuple[int, list[dict[str, Any]]]:
        """Have it, or all tasks of an array, ended; how many that concerns."""
        viewer, reading = self.viewer, self.reading

        def work(session: Session) -> tuple[int, list[dict[str, Any]]]:
            rows = self.rows(session, job, Action.END_JOB)
            count = records.cancel(session, rows, viewer.name)
            return count, records.show_all(session, rows, reading)

        count, found = await self.change(work)
        if count:
            self.record("job-cancel", job=job, of=found[0]["user"], count=count)
        return count, found

    async def log(
        self, data: Path, job: str, offset: int | None
    ) -> tuple[dict[str, Any], str, int]:
        """A job and a part of what it printed."""
        reading = self.reading

        def work(session: Session) -> tuple[int, int, dict[str, Any]]:
            row = self.rows(session, job, Action.SEE_JOB)[0]
            return row.id, row.attempt, records.show_all(session, [row], reading)[0]

        one, attempt, shown = await self.read(work)
        text, end = await asyncio.to_thread(output.part, data, one, attempt, offset)
        return shown, text, end


class JobsApi(Asking, Api):
    """``api/v1/jobs``: GET and POST."""

    @operation(
        "Jobs, the newest first; of others for administrators", Jobs, query=Which, servers=True
    )
    async def get(self, query: Which) -> None:
        """At most 500."""
        viewer, reading = self.viewer, self.reading
        user = query.user or viewer.name
        if user != viewer.name:
            self.need_admin()
        whose = None if user == "*" else user
        found = await self.read(
            lambda s: records.show_all(s, records.mine(s, whose, not query.open), reading)
        )
        self.reply({"jobs": found})

    @operation("Have a program run without a server", Jobs, status=201, body=JobBody, servers=True)
    async def post(self, body: JobBody) -> None:
        """A job, or all tasks of an array."""
        self.reply({"jobs": await self.submit(body.model_dump(exclude_none=True))})


class JobApi(Asking, Api):
    """``api/v1/jobs/ID``: GET and DELETE."""

    @operation("A job, a task of an array, or all tasks of one", Jobs, servers=True)
    async def get(self, job: str) -> None:
        """For its owner and administrators."""
        reading = self.reading
        found = await self.read(
            lambda s: records.show_all(s, self.rows(s, job, Action.SEE_JOB), reading)
        )
        self.reply({"jobs": found})

    @operation("Cancel it; what runs is told to end, and has time to save", Cancelled, servers=True)
    async def delete(self, job: str) -> None:
        """Of an array, all tasks or one."""
        count, found = await self.cancel(job)
        self.reply({"cancelled": count, "jobs": found})


class JobLogApi(Asking, Api):
    """``GET api/v1/jobs/ID/log``."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """Called by tornado with what ``make_app`` gives."""
        super().initialize(**shared)
        self.data = data

    @operation("What a job has printed, as it comes", LogPart, query=Where, servers=True)
    async def get(self, job: str, query: Where) -> None:
        """Of its last attempt; of an array without a task, of its first."""
        shown, text, end = await self.log(self.data, job, query.offset)
        self.reply({"job": shown, "log": text, "offset": end})


_JOB = {"job": Part("its number: 17, or of an array 17_3")}
ROUTES = (
    Route("/api/v1/jobs", JobsApi),
    Route("/api/v1/jobs/{job}", JobApi, _JOB),
)
LOG_ROUTES = (Route("/api/v1/jobs/{job}/log", JobLogApi, _JOB),)
