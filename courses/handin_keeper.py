"""Sees to what was handed in, in the hub's process, until each is kept or refused.

Two tasks of the runtime, and a row that says how far it has come: *asked*, then *taken* (read, with
the digest of all that was read), then *kept*. A hub, an agent or a task that is killed anywhere
leaves a row from which the next one goes on; each step can be done twice. What is in the way (an
agent that is away, a full disk) is said on the row, and tried again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import notices
from commons.audit import AuditTrail, make_event
from commons.errors import LabError, NotAllowed, RuntimeRefused
from commons.i18n import N_
from commons.messages import Message, Text
from commons.principal import Principal
from commons.site import Site
from commons.store import Store, StoreError
from commons.store.models import Course, HandedIn, utcnow
from commons.units import amount
from commons.work import Keyed, Log, Periodic
from courses import handins, receipts
from courses.deadlines import MINUTE
from courses.document import LARGEST, MOST_FILES, CourseSpec
from courses.handins import State
from spawner.gpu.views import iso
from spawner.runtime.messages import SNAPSHOT_GONE
from spawner.runtime.protocol import Runtime
from spawner.runtime.spec import Account, KeepFiles, MakeFolder, MakeHome, TakeFiles, Taken

AT_ONCE = 4
INTERVAL = 0.25  # seconds between two looks at SQLite's file, which tell whether to ask it
LOOK = 5.0  # seconds between two looks at the rows where nothing seems to have been written
MOST_OF_ZIP = (20_000, 2**30)  # files and bytes of feedback in a zip
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0  # seconds between two tries of one that is held up

NOT_ADMITTED = Text("handin_not_admitted", N_("The directory does not admit “{user}” any more."))
COURSE_GONE = Text("handin_course_gone", N_("The course is not there any more."))
NOBODYS = Text(
    "feedback_nobodys",
    N_("No folder in “{path}” has the login name of a student, or @ and the name of a group."),
)
HELD_UP = Text("handin_held_up", N_("It is kept waiting and tried again: {reason}"))
REASONS: Mapping[str, Text] = {
    "absent": Text("handin_absent", N_("There is no “{path}” in your home.")),
    "link": Text(
        "handin_link",
        N_("“{path}” is a link, or behind one. Hand in the folder that it leads to."),
    ),
    "special": Text("handin_special", N_("In “{path}” is no file that can be handed in.")),
    "denied": Text("handin_denied", N_("You may not read “{path}”; give yourself the right to.")),
    "empty": Text("handin_empty", N_("There is no file in “{path}”.")),
    "files": Text(
        "handin_many_files",
        N_("There are more than {most} files and folders. Leave out what is not asked for."),
    ),
    "bytes": Text(
        "handin_too_large",
        N_("It is more than {most}; with “{path}” it was too much. Leave out what is not needed."),
    ),
    "depth": Text("handin_deep", N_("The folders at “{path}” are too deep in each other.")),
    "name": Text(
        "handin_name",
        N_("The name “{path}” has characters that cannot be shown. Give the file another."),
    ),
    "zip": Text(
        "handin_zip",
        N_(
            "“{path}” cannot be read: the zip is damaged, locked with a password, or has a name "
            "twice. Make it anew."
        ),
    ),
    "time": Text("handin_slow", N_("Reading it took too long. Leave out what is not needed.")),
}

Identify = Callable[[str], Awaitable[Principal | None]]


class RefusedError(Exception):
    """It cannot be handed in as it is, whenever it is tried."""

    def __init__(self, message: Message) -> None:
        super().__init__(str(message))
        self.message = message


class HandInKeeper:
    """Of one site.

    Attributes:
        kinds: of rows that it sees to, ``at_once`` so many, by this ``name`` in the log.

    Args:
        identify: who a person is now; None for somebody who may no longer log in.
        site_name: what receipts call the site: its address.
        key: what signs them; asked each time, and may raise OSError.
    """

    kinds: tuple[str, ...] = handins.KINDS
    name = "hand-ins"
    at_once = AT_ONCE

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        site: Site,
        identify: Identify,
        audit: AuditTrail,
        log: Log,
        site_name: str = "",
        key: Callable[[], Any] = receipts.site_key,
    ) -> None:
        self.runtime, self.store, self.site = runtime, store, site
        self.identify, self.audit, self.log = identify, audit, log
        self.site_name, self.key = site_name, key
        self._works = Keyed(f"{self.name}: each", log, at_once=self.at_once)
        self._seen: object = None
        self._looked = 0.0
        self._pauses: dict[str, tuple[float, float]] = {}  # by id: not before; the pause

    async def run(self) -> None:
        """For ever."""
        expected = (LabError, StoreError)
        every = INTERVAL if self.store.is_sqlite else LOOK
        looks = Periodic(self.name, self.look, every, self.log, expected=expected)
        if self.store.is_sqlite:
            await looks.run()
            return

        async def listen() -> None:
            async for _ in self.store.news(handins.NEWS):
                looks.wake()

        listens = Periodic(f"{self.name}: news", listen, LOOK, self.log, expected=expected)
        async with asyncio.TaskGroup() as both:
            both.create_task(looks.run())
            both.create_task(listens.run())

    async def look(self) -> None:
        """Begin what waits and is not under way, the earliest first."""
        stamp, now = self.store.stamp(), time.monotonic()
        if stamp is not None and stamp == self._seen and now - self._looked < LOOK:
            return
        self._seen, self._looked = stamp, now
        waiting = await self.store.read(lambda s: _waiting(s, self.kinds))
        self._pauses = {one: pause for one, pause in self._pauses.items() if one in waiting}
        for one in waiting:
            if self._pauses.get(one, (0.0, 0.0))[0] <= now:
                self._works.start(one, partial(self._go_on, one))

    async def close(self) -> None:
        """Leave what is under way to the next hub."""
        await self._works.close()

    # -- one -----------------------------------------------------------------------------------

    async def _go_on(self, one: str) -> None:
        row = await self.store.read(lambda s: s.get(HandedIn, one))
        if row is None:
            return
        try:
            await self._do(row)
        except RefusedError as error:
            await self._end(one, State.REFUSED, error.message)
            self._record(row, "failure", str(error.message))
        except NotAllowed as error:  # the home is another's, or the directory has no numbers
            await self._end(one, State.REFUSED, error.message)
            self._record(row, "failure", str(error))
        except (LabError, StoreError, OSError, ValueError) as error:
            reason = error.message if isinstance(error, LabError) else None
            await self._held_up(row, reason or Message("", plain=str(error)[:300]))

    async def _do(self, row: HandedIn) -> None:
        """What is left to do of one."""
        if row.state == State.ASKED:
            row = await self._take(row)
        if row.state == State.TAKEN:
            await (self._keep(row) if row.kind == "handin" else self._give_back(row))

    async def _take(self, row: HandedIn) -> HandedIn:
        who = await self.identify(row.username)
        if who is None:
            raise RefusedError(NOT_ADMITTED(user=row.username))
        uid, gid, gids = who.numbers()
        await self.runtime.run_task(MakeHome(user=row.username, uid=uid, gid=gid))
        most_files, most_bytes = await self.store.read(lambda s: _limits(s, row))
        taken = await self.runtime.take(
            TakeFiles(
                id=row.id,
                user=row.username,
                account=Account(uid=uid, gid=gid, gids=tuple(gids)),
                path=row.path,
                most_files=most_files,
                most_bytes=most_bytes,
                unzip=row.handin if row.kind == "feedback" else "",
            )
        )
        if taken.refusal:
            raise RefusedError(_why(taken, row, most_files, most_bytes))
        folders = await self.store.read(lambda s: _folders(s, row, taken.top))
        if row.kind == "feedback" and not folders:
            raise RefusedError(NOBODYS(path=row.path))

        def write(session: Session) -> HandedIn:
            found = session.get(HandedIn, row.id, with_for_update=True)
            assert found is not None
            found.state, found.digest = State.TAKEN, taken.digest
            found.files, found.bytes, found.left_out = taken.files, taken.bytes, taken.left_out
            if row.kind == "feedback":
                found.receipt = folders
                found.members = sorted(folders)
            return found

        return await self.store.run(write)

    async def _keep(self, row: HandedIn) -> None:
        scope = f"course-{row.course}"
        # The same words each time it is tried: the key signs the same in the same way.
        receipt = receipts.sign(await asyncio.to_thread(self.key), self._statement(row))
        await self.runtime.run_task(MakeFolder(scope=scope))
        keep = KeepFiles(
            id=row.id,
            scope=scope,
            area="handins",
            place=handins.place(row),
            digest=row.digest,
            receipt=json.dumps(receipt),
        )
        await self._lay(row, keep)
        # Before the row says so: what is laid down is found again without what was taken.
        await self.runtime.drop(row.id)
        await self._end(row.id, State.KEPT, None, receipt)
        self._record(row, "success")

    async def _lay(self, row: HandedIn, keep: KeepFiles) -> bool:
        try:
            return await self.runtime.keep(keep)
        except RuntimeRefused as error:
            if error.code == SNAPSHOT_GONE.code:  # an agent's disk was lost: it is read anew
                await self._end(row.id, State.ASKED, None)
            raise

    async def _give_back(self, row: HandedIn) -> None:
        """Each student's folder of what was given."""
        scope = f"course-{row.course}"
        await self.runtime.run_task(MakeFolder(scope=scope))
        for name, folder in sorted((row.receipt or {}).items()):
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
                only=folder,
                reader=uid,
            )
            if not await self._lay(row, keep):
                self.log.warning("feedback for %s: this file system has no access lists", name)
        await self._end(row.id, State.KEPT, None, row.receipt)
        self._record(row, "success")
        await self.runtime.drop(row.id)

    def _statement(self, row: HandedIn) -> dict[str, Any]:
        return {
            "version": 1,
            "site": self.site_name,
            "course": row.course,
            "handin": row.handin,
            "id": row.id,
            "team": row.team,
            "members": list(row.members),
            "asked_by": row.username,
            "asked_at": iso(row.asked_at),
            # The last minute in time.
            "due": iso(handins.seconds(row.due_at) - MINUTE) if row.due_at else None,
            "late": handins.is_late(row),
            "digest": row.digest,
            "files": row.files,
            "bytes": row.bytes,
            "left_out": row.left_out,
        }

    async def _end(
        self, one: str, state: State, message: Message | None, receipt: dict[str, Any] | None = None
    ) -> None:
        def write(session: Session) -> None:
            row = session.get(HandedIn, one, with_for_update=True)
            if row is None:
                return
            row.state, row.receipt = state, receipt
            row.message = message.as_json() if message else None
            row.ended_at = utcnow() if state in (State.KEPT, State.REFUSED) else None
            tell_people(session, row, message)

        await self.store.run(write)
        self._pauses.pop(one, None)

    async def _held_up(self, row: HandedIn, reason: Message) -> None:
        _, pause = self._pauses.get(row.id, (0.0, FIRST_PAUSE / 2))
        pause = min(2 * pause, LONGEST_PAUSE)
        self._pauses[row.id] = (time.monotonic() + pause, pause)
        self.log.warning("hand-in %s of %s: %s", row.id, row.username, reason)
        said = HELD_UP(reason=reason).as_json()

        def write(session: Session) -> None:
            found = session.get(HandedIn, row.id, with_for_update=True)
            if found is not None and found.message != said:
                found.message = said

        await self.store.run(write)

    def _record(self, row: HandedIn, outcome: Any, reason: str = "", **more: Any) -> None:
        details = {
            "handed_in": row.id,
            "course": row.course,
            "handin": row.handin,
            "team": row.team,
            "people": list(row.members)[:500],
            "digest": row.digest,
            "late": handins.is_late(row),
            "asked": iso(row.asked_at),
            **more,
        }
        self.audit.record(
            make_event(
                {"handin": "hand-in"}.get(row.kind, row.kind),
                outcome,
                user=row.username,
                reason=reason[:200],
                details={key: value for key, value in details.items() if value not in ("", [])},
            )
        )


def tell_people(session: Session, row: HandedIn, reason: Message | None) -> None:
    """Who may have gone away since: what was not taken, and feedback."""
    told = {
        ("handin", State.REFUSED): "handin_refused",
        ("feedback", State.KEPT): "feedback_given",
        ("autograde", State.KEPT): "feedback_given",
    }.get((row.kind, State(row.state)))
    for who in row.members if told else ():
        notices.add(
            session,
            username=who,
            lease_id=None,
            code=str(told),
            data={"handin": row.handin, "course": row.course},
            key=f"{told}:{row.id}:{who}"[:160],
            more=[reason] if reason else (),
        )


def _waiting(session: Session, kinds: tuple[str, ...]) -> list[str]:
    query = select(HandedIn.id).where(HandedIn.state.in_(handins.WAITING), HandedIn.kind.in_(kinds))
    return list(session.scalars(query.order_by(HandedIn.asked_at, HandedIn.id)))


def _limits(session: Session, row: HandedIn) -> tuple[int, int]:
    """Files and bytes; those of feedback are the most that there are."""
    course = session.get(Course, row.course)
    if course is None:
        raise RefusedError(COURSE_GONE())
    if row.kind != "handin":
        return MOST_OF_ZIP if row.path.lower().endswith(".zip") else (100_000, 4 * LARGEST)
    for one in CourseSpec.model_validate(course.spec).handins:
        if one.name == row.handin:
            return one.files, one.bytes
    return MOST_FILES, LARGEST  # taken out of the course meanwhile: it was asked in time


def _folders(session: Session, row: HandedIn, top: Iterable[str]) -> dict[str, str]:
    """Of feedback: whose each folder is, of those whom it may go to."""
    there = set(top)
    groups = handins.groups(session, row.course, row.handin)
    found: dict[str, str] = {}
    for name in row.members:
        for folder in (name, f"@{groups[name]}" if name in groups else name):
            if folder in there:
                found.setdefault(name, folder)
    return found


def _why(taken: Taken, row: HandedIn, most_files: int, most_bytes: int) -> Message:
    text = REASONS["absent" if taken.refusal == "gone" else str(taken.refusal)]
    path = taken.path or row.path
    if taken.refusal == "files":
        return text(most=most_files)
    return text(path=path, most=amount(most_bytes)) if taken.refusal == "bytes" else text(path=path)
