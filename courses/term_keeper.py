"""Sees to the end of terms, in the hub's process: freezes courses whose time has come, makes
archives, and removes what an administrator said.

A work is a row that says how far it has come, and its container is found again by its name: a hub,
an agent or a container that is killed anywhere leaves what the next one goes on from, and an
archive has no name before it is whole.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.audit import AuditTrail, make_event
from commons.errors import LabError, NotAvailable
from commons.i18n import N_
from commons.messages import Message, Text
from commons.scopes import Scope
from commons.site import Site
from commons.store import Store, StoreError
from commons.store.models import CourseWork
from commons.work import Keyed, Log, Periodic
from courses import ahead, archives, receipts, records, term
from courses.archives import State
from spawner import storage
from spawner.gpu.views import iso
from spawner.runtime.protocol import Runtime
from spawner.runtime.spec import CourseStep, MakeFolder

INTERVAL = 3.0  # seconds between two looks at what waits
CLOCK = 60.0  # seconds between two looks at whose time has come
TOLD = 2.0  # seconds between two figures of how far one has come
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # between two tries of one that is held up
TRIES = 5  # of a container that somebody kills

HELD_UP = Text("course_work_held_up", N_("It waits and is tried again: {reason}"))
KILLED = Text(
    "course_work_killed",
    N_("What makes it was ended {times} times. Ask an administrator whether the machine is full."),
)
REASONS: Mapping[str, Text] = {
    "disk": Text(
        "archive_disk",
        N_("There is not enough room on the disk for the archive. Ask an administrator for more."),
    ),
    "files": Text(
        "archive_files", N_("The course has more files than an archive takes. Remove some.")
    ),
    "time": Text("archive_time", N_("It took longer than an archive may. Ask an administrator.")),
    "changed": Text(
        "archive_changed",
        N_(
            "What was written is not what was read again: the disk may be damaged. Tell an "
            "administrator, and make another."
        ),
    ),
    "failed": Text("archive_failed", N_("It could not be made: {detail}. Tell an administrator.")),
}


class FailedError(Exception):
    """It cannot be done as things are, and is not tried again by itself."""

    def __init__(self, message: Message) -> None:
        super().__init__(str(message))
        self.message = message


class TermKeeper:
    """Of one site.

    Args:
        answerable: who is told of a course, beside its roster's instructors.
        members: whom the directory's groups put into a course, by position.
        site_name: what archives call the site: its address.
        key: what signs them; asked each time, and may raise OSError.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        site: Site,
        audit: AuditTrail,
        log: Log,
        answerable: Callable[[Scope], Collection[str]],
        members: Callable[[Scope], Mapping[str, Collection[str]]],
        site_name: str = "",
        key: Callable[[], Any] = receipts.site_key,
    ) -> None:
        self.runtime, self.store, self.site = runtime, store, site
        self.audit, self.log = audit, log
        self.answerable, self.members = answerable, members
        self.site_name, self.key = site_name, key
        self._works = Keyed("ends of terms", log, at_once=1)
        self._pauses: dict[str, tuple[float, float]] = {}  # by id: not before; the pause
        self._killed: dict[str, int] = {}
        self._limits: dict[str, int] = {}  # that the runtime was told, by course

    async def run(self) -> None:
        """For ever."""
        expected = (LabError, StoreError)
        works = Periodic("ends of terms", self.look, INTERVAL, self.log, expected=expected)
        clock = Periodic("ends of terms: clock", self.tick, CLOCK, self.log, expected=expected)
        async with asyncio.TaskGroup() as both:
            both.create_task(works.run())
            both.create_task(clock.run())

    async def close(self) -> None:
        """Leave what is under way to the next hub."""
        await self._works.close()

    # -- the clock -------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Freeze what is due, tell whose turn comes, and what each course may have of the disk."""
        now = time.time()
        for name in await self.store.read(lambda s: term.due(s, now)):
            try:
                await self.store.run(partial(self._freeze, name, now))
            except LabError as error:  # somebody is in an exam: the next round tries again
                self.log.warning("course %s is not frozen yet: %s", name, error)
                continue
            self._record("course-change", ahead.author(name), done="freeze", course=name)
        await self.store.run(lambda s: term.warn(s, now, self.answerable))
        await self._limit()

    async def _limit(self) -> None:
        """What course.yaml says of the disk, once to each runtime that this hub has met."""
        limits, names = await self.store.read(
            lambda s: (storage.own_limits(s, self.site.storage), records.names(s))
        )
        for name in names:
            wanted = limits.get(name, 0)
            if self._limits.get(name) != wanted:
                await self.runtime.limit_folder("courses", name, wanted)
                self._limits[name] = wanted

    def _freeze(self, name: str, now: float, session: Session) -> None:
        by = ahead.author(name)
        term.freeze(session, name, by, self.site, now)
        end = records.spec_of(records.get(session, name)).end
        if end is not None and end.archive:
            with suppress(NotAvailable):  # one is made already
                archives.ask(session, name, by)

    # -- works -----------------------------------------------------------------------------------

    async def look(self) -> None:
        """Begin what waits and is not under way, the earliest first."""
        waiting = await self.store.read(_waiting)
        for one in waiting:
            if self._pauses.get(one, (0.0, 0.0))[0] <= time.monotonic():
                self._works.start(one, partial(self._go_on, one))

    async def _go_on(self, one: str) -> None:
        row = await self.store.read(lambda s: s.get(CourseWork, one))
        if row is None or row.state not in archives.WAITING:
            return
        try:
            if row.kind == "remove":
                await self._remove(row)
                return
            if row.state == State.ASKED:
                row = await self._pack(row)
            await self._seal(row)
        except FailedError as error:
            await self._end(row, State.FAILED, message=error.message.as_json())
            self._record(_ACTION[row.kind], row.asked_by, row, "failure", str(error))
        except (LabError, StoreError, OSError, ValueError) as error:
            reason = error.message if isinstance(error, LabError) else None
            await self._held_up(row, reason or Message("", plain=str(error)[:300]))

    async def _pack(self, row: CourseWork) -> CourseWork:
        scope = Scope("course", row.course)
        members = self.members(scope)

        def read(session: Session) -> dict[str, Any]:
            spec = records.spec_of(records.get(session, row.course))
            return {
                "texts": archives.texts(session, spec, members),
                "environments": archives.environments(session, spec),
            }

        await self.runtime.run_task(MakeFolder(scope=scope.source))
        done = await self._step(row, "pack", await self.store.read(read))
        statement = {
            "version": 1,
            "kind": "course-archive",
            "site": self.site_name,
            "course": row.course,
            "id": row.id,
            "asked_by": row.asked_by,
            "asked_at": iso(row.asked_at),
            **{key: done[key] for key in ("files", "bytes", "left_out", "sums")},
        }
        signed = receipts.sign(await asyncio.to_thread(self.key), statement)
        await self._end(
            row,
            State.PACKED,
            statement=signed,
            message=None,
            **{key: done[key] for key in ("packed", "files", "bytes", "left_out")},
        )
        found = await self.store.read(lambda s: s.get(CourseWork, row.id))
        assert found is not None
        return found

    async def _seal(self, row: CourseWork) -> None:
        assert row.statement is not None
        words = {
            "name": archives.file_name(row),
            "packed": row.packed,
            "statement": receipts.canonical(row.statement["receipt"]).decode("ascii"),
            "signature": row.statement["signature"],
        }
        done = await self._step(row, "seal", words)
        await self._end(row, State.KEPT, size=done["size"], message=None)
        self._record("course-archive", row.asked_by, row)

    async def _remove(self, row: CourseWork) -> None:
        await self._step(row, "remove", {})

        def write(session: Session) -> None:
            archives.forget(session, row.course)
            archives.end(session, row.id, State.KEPT, message=None)

        await self.store.run(write)
        self._record("course-remove", row.asked_by, row)

    async def _step(self, row: CourseWork, step: Any, words: Mapping[str, Any]) -> dict[str, Any]:
        """What came of one. Raises FailedError, LabError."""
        job = {
            "do": step,
            "id": row.id,
            "course": row.course,
            "top": archives.file_name(row).removesuffix(".tar.gz"),
            **words,
        }
        scope = Scope("course", row.course).source
        task = CourseStep(job_id=row.id, step=step, scope=scope, job=json.dumps(job))
        handle = await self.runtime.begin(task)
        said: dict[str, Any] = {}
        told = 0.0
        async for line in self.runtime.follow(handle):
            said = _plain(line) or said
            if "all" in said:
                await self._end(row, State(row.state), all_bytes=said["all"])
            elif "bytes" in said and time.monotonic() - told > TOLD:
                told = time.monotonic()
                await self._end(row, State(row.state), bytes=said["bytes"], files=said["files"])
        end = await self.runtime.task_end(handle)
        await self.runtime.remove(handle)
        if failure := said.get("failure"):
            detail = str(said.get("detail", failure))[:200]
            raise FailedError(REASONS.get(failure, REASONS["failed"])(detail=detail))
        if end is None or end.exit_code or (step != "remove" and "done" not in said):
            # Somebody killed it, or the machine had no memory: it is begun anew, some times.
            self._killed[row.id] = self._killed.get(row.id, 0) + 1
            if self._killed[row.id] >= TRIES:
                raise FailedError(KILLED(times=TRIES))
            raise ValueError((end.output if end else "")[-200:] or "it was ended")
        return dict(said.get("done") or {})

    async def _end(self, row: CourseWork, state: State, **changed: Any) -> None:
        await self.store.run(lambda s: archives.end(s, row.id, state, **changed))

    async def _held_up(self, row: CourseWork, reason: Message) -> None:
        _, pause = self._pauses.get(row.id, (0.0, FIRST_PAUSE / 2))
        pause = min(2 * pause, LONGEST_PAUSE)
        self._pauses[row.id] = (time.monotonic() + pause, pause)
        self.log.warning("%s of course %s: %s", row.kind, row.course, reason)
        said = HELD_UP(reason=reason).as_json()

        def write(session: Session) -> None:
            found = session.get(CourseWork, row.id, with_for_update=True)
            if found is not None and found.message != said:
                found.message = said

        await self.store.run(write)

    def _record(
        self,
        action: str,
        user: str,
        row: CourseWork | None = None,
        outcome: Any = "success",
        reason: str = "",
        **details: Any,
    ) -> None:
        if row is not None:
            details |= {"course": row.course, "archive": row.id, "bytes": row.bytes}
        self.audit.record(
            make_event(action, outcome, user=user, reason=reason[:200], details=details)
        )


_ACTION = {"archive": "course-archive", "remove": "course-remove"}


def _waiting(session: Session) -> list[str]:
    query = select(CourseWork.id).where(CourseWork.state.in_(archives.WAITING))
    return list(session.scalars(query.order_by(CourseWork.asked_at, CourseWork.id)))


def _plain(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
