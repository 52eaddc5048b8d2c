"""Sees to what is to be graded by a program, in the hub's process, as hand-ins are seen to.

*Asked*, then *taken* (graded, with what it gave and the feedback's digest), then *kept*: feedback
lies in each student's folder, and marks are rows. Whoever is killed on the way, the next one goes
on from the row. It has turns of its own: those who hand in do not wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.store.models import Course, HandedIn, utcnow
from courses import grading, handins
from courses.document import CourseSpec
from courses.handin_keeper import COURSE_GONE, HandInKeeper, RefusedError, tell_people
from courses.handins import State
from spawner.runtime.spec import Graded, GradeFiles, KeepFiles, Limits, MakeFolder

SECONDS = 600  # for a student's code
MOST_MEMORY, MOST_CPU = 4 * 2**30, 2.0

GONE = Text("autograde_gone", N_("What was handed in is not there any more."))
FAILURES: Mapping[str, Text] = {
    "source": Text(
        "autograde_source",
        N_(
            "There are no notebooks to grade by, or they cannot be used: put them into "
            "“source/{handin}” of the instructors’ area. ({detail})"
        ),
    ),
    "many": Text("autograde_many", N_("More than {detail} notebooks cannot be graded at once.")),
    "nbgrader": Text(
        "autograde_no_nbgrader",
        N_(
            "The environment “{environment}” has no nbgrader. Add it to its environment.yml, or "
            "name another environment in the course.yaml."
        ),
    ),
    "size": Text("autograde_size", N_("What was handed in, or what it printed, is too large.")),
    "memory": Text("autograde_memory", N_("Running it took more memory than it may have.")),
    "time": Text("autograde_time", N_("Running it took too long.")),
    "failed": Text("autograde_failed", N_("nbgrader could not grade it: {detail}")),
}


class GradeKeeper(HandInKeeper):
    """Of one site."""

    kinds = (grading.KIND,)
    name = "autograding"
    at_once = 2

    async def _do(self, row: HandedIn) -> None:
        if row.state == State.ASKED:
            row = await self._grade(row)
        if row.state == State.TAKEN:
            await self._give(row)

    async def _grade(self, row: HandedIn) -> HandedIn:
        def look(session: Session) -> GradeFiles:
            course, one = session.get(Course, row.course), session.get(HandedIn, row.path)
            if course is None:
                raise RefusedError(COURSE_GONE())
            if one is None or one.state != State.KEPT:
                raise RefusedError(GONE())
            spec = CourseSpec.model_validate(course.spec)
            try:
                choice = grading.starts(session, spec, self.site)
            except BadRequest as error:
                raise RefusedError(error.message) from error
            entry = choice.entry.runs_in
            memory = min(choice.size.memory_bytes, MOST_MEMORY)
            return GradeFiles(
                id=row.id,
                scope=f"course-{row.course}",
                handin=row.handin,
                place=handins.place(one),
                image=entry.image_id,
                environment=entry.name,
                version=entry.version,
                limits=Limits(
                    cpu=min(choice.size.cpu, MOST_CPU),
                    memory=memory,
                    pids=min(self.site.servers.pids, 512),
                    shared_memory=0,
                    tmp=0,
                ),
                seconds=SECONDS,
            )

        task = await self.store.read(look)
        graded = await self.runtime.grade(task)
        if graded.failure:
            named = f"{task.environment}:{task.version}"
            text = FAILURES[graded.failure]
            params = {"handin": row.handin, "detail": graded.detail, "environment": named}
            english = str(text.english)
            raise RefusedError(text(**{k: v for k, v in params.items() if f"{{{k}}}" in english}))

        def write(session: Session) -> HandedIn:
            found = session.get(HandedIn, row.id, with_for_update=True)
            assert found is not None
            found.state, found.digest = State.TAKEN, graded.digest
            found.files, found.bytes = graded.files, graded.bytes
            found.receipt = _result(graded)
            return found

        return await self.store.run(write)

    async def _give(self, row: HandedIn) -> None:
        scope = f"course-{row.course}"
        await self.runtime.run_task(MakeFolder(scope=scope))
        for name in row.members if row.files else ():
            who = await self.identify(name)
            if who is None:
                continue  # whoever left reads nothing any more
            uid, _, _ = who.numbers()
            keep = KeepFiles(
                id=row.id,
                scope=scope,
                area="feedback",
                place=f"{name}/{row.handin}",
                digest=row.digest,
                reader=uid,
            )
            if not await self._lay(row, keep):
                self.log.warning("feedback for %s: this file system has no access lists", name)

        def write(session: Session) -> list[str]:
            found = session.get(HandedIn, row.id, with_for_update=True)
            if found is None:
                return []
            changes, kept = grading.set_marks(session, found, time.time())
            found.receipt = {**(found.receipt or {}), "kept": kept}
            found.state, found.message, found.ended_at = State.KEPT, None, utcnow()
            if found.files:
                tell_people(session, found, None)
            return [str(change)[:300] for change in changes]

        changes = await self.store.run(write)
        self._pauses.pop(row.id, None)
        self._record(row, "success", changes=changes)
        await self.runtime.drop(row.id)


def _result(graded: Graded) -> dict[str, Any]:
    return {
        "score": sum(one.score for one in graded.notebooks),
        "most": sum(one.most for one in graded.notebooks),
        "manual": any(one.manual for one in graded.notebooks),
        "notebooks": [one.model_dump() for one in graded.notebooks],
    }
