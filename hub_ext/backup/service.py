"""``labcommons backup serve``: a backup each night, and people's own earlier files for the console.

It alone reads every folder. What it answers is asked for by the console, which knows who somebody
is: that person's home or what a group of theirs shares, and a path in it, and nothing else of a
snapshot. Of what people share, only what the whole group could read then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler

from commons.audit import Outcome, record_command
from commons.scopes import FILES
from commons.site import Site
from commons.site.storage import AREAS
from hub_ext.backup import making
from hub_ext.backup.places import DATA, Room
from hub_ext.backup.repository import Nodes, Repository, Snapshot
from hub_ext.backup.trouble import BackupError

PORT = 8085
TOKEN = Path("/run/labcommons/backup-token")
ALIVE = Path("/tmp/labcommons-backup.alive")  # noqa: S108 - of its own container
TICK = 5.0  # seconds between two looks at what is due
PAUSE = 300.0  # seconds after a failure until it is looked again what is due
AGAIN = 3600.0  # seconds after one that failed
VERIFY = 7 * 86400.0  # seconds between two verifies
FRESH = 60.0  # seconds that the list of snapshots is believed
AT_ONCE = 3  # of restic, for people
MAX_ENTRIES = 2000  # of one folder
MAX_PATH = 4096  # characters

log = logging.getLogger("labcommons.backup")


def next_at(at: str, now: datetime) -> datetime:
    """The next moment of the schedule."""
    hour, minute = map(int, at.split(":"))
    today = now.astimezone(UTC).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return today if today > now else today + timedelta(days=1)


def is_due(at: str, state: making.State, now: datetime) -> bool:
    """Whether a backup should be made: none since the last moment of the schedule, or a failed one
    is to be tried again."""
    last = (next_at(at, now) - timedelta(days=1)).timestamp()
    if state.tried < last:
        return True
    return bool(state.problem) and state.tried + AGAIN < now.timestamp()


class Schedule:
    """Makes what is due, in a thread of its own."""

    def __init__(self, site: Site, room: Room) -> None:
        self.site, self.room = site, room
        self._work: asyncio.Future[None] | None = None
        self._not_before = 0.0  # after a failure

    async def look(self) -> None:
        """Begin what is due, if nothing is at work."""
        if not self.site.backup.target or not self.room.password.exists():
            return
        busy = self._work is not None and not self._work.done()
        if busy or time.monotonic() < self._not_before:
            return
        state = making.State.read(self.room.state)
        if is_due(self.site.backup.at, state, datetime.now(UTC)):
            self._work = self._begin("create", self._create)
        elif state.made and state.verified + VERIFY < time.time() and not state.problem:
            self._work = self._begin("verify", self._verify)

    def _begin(self, what: str, work: Callable[[], None]) -> asyncio.Future[None]:
        async def run() -> None:
            outcome: Outcome = "success"
            try:
                await asyncio.to_thread(work)
            except Exception as error:  # it is told, and tried again
                outcome = "failure"
                self._not_before = time.monotonic() + PAUSE
                log.error("backup %s: %s", what, error)
            record_command("command", outcome, {"command": f"backup {what}"}, user="schedule")

        return asyncio.ensure_future(run())

    def _create(self) -> None:
        made = making.create(self.site, _say, self.room)
        log.info("backup %s as of %s, %.1f s", made.snapshot[:8], made.moment, made.took)

    def _verify(self) -> None:
        making.verify(self.site, _say, room=self.room)


def _say(step: str, share: float | None) -> None:
    if share is None:
        log.info("%s", step)


class Files:
    """Homes, and what groups share, as they were. ``folder`` is such as ``homes/alice`` and
    ``teams/vision/files``.
    """

    def __init__(self, site: Site, room: Room) -> None:
        self.site, self.room = site, room
        self._known: tuple[float, list[Snapshot]] = (0.0, [])
        self.turns = asyncio.Semaphore(AT_ONCE)

    def repository(self) -> Repository:
        """Raises BackupError where there are no backups."""
        return Repository(self.site.backup, self.room)

    async def snapshots(self, folder: str) -> list[Snapshot]:
        """Those that have such folders in them, the newest first. Raises BackupError."""
        at, known = self._known
        if time.monotonic() - at > FRESH:
            async with self.turns:
                known = await asyncio.to_thread(self.repository().snapshots)
            self._known = (time.monotonic(), known)
        area = str(DATA / folder.partition("/")[0])
        return [one for one in known if area in one.paths]

    async def list(self, snapshot: str, folder: str, path: str) -> list[dict[str, Any]]:
        """A folder's entries: name, type (file, dir, other), size in bytes, time."""
        place = inside(folder, path)
        rows = await self._rows(snapshot, folder, place)
        kinds = {"file": "file", "dir": "dir"}
        found = [
            {
                "name": str(row["name"]),
                "type": kinds.get(row.get("type", ""), "other"),
                "size": int(row.get("size") or 0),
                "mtime": str(row.get("mtime", ""))[:19],
            }
            for row in rows[:MAX_ENTRIES]
        ]
        return sorted(found, key=lambda one: (one["type"] != "dir", str(one["name"]).lower()))

    async def _rows(self, snapshot: str, folder: str, place: str) -> Nodes:
        """What is in a folder, restic's nodes. Raises HTTPError for one that is not theirs."""
        if folder.startswith("homes/"):
            async with self.turns:
                return await asyncio.to_thread(self.repository().list, snapshot, place)
        # All on the way to it: who could not come through a folder could read nothing in it.
        top = PurePosixPath(DATA, folder)
        here = PurePosixPath(place)
        way = [one for one in (here, *here.parents) if one.is_relative_to(top)]
        async with self.turns:
            nodes = await asyncio.to_thread(
                self.repository().nodes, snapshot, *(str(one) for one in way)
            )
        known = {str(node.get("path")): node for node in nodes}
        if str(top) not in known:  # not there yet
            return []
        group = int(known[str(top)].get("gid") or 0)
        if not all(_open_to(group, known.get(str(one), {})) for one in way):
            raise HTTPError(404)
        return [
            node
            for path, node in known.items()
            if str(PurePosixPath(path).parent) == place and _open_to(group, node)
        ]

    async def check(self, snapshot: str, folder: str, place: str) -> None:
        """Raises HTTPError for what nobody but its owner has: of a group's, files alone."""
        if not folder.startswith("homes/"):
            rows = await self._rows(snapshot, folder, str(PurePosixPath(place).parent))
            if not any(one["path"] == place and one.get("type") == "file" for one in rows):
                raise HTTPError(404)


def inside(folder: str, path: str) -> str:
    """Where a path is in a snapshot. Raises HTTPError for what leads out of the folder."""
    area, *names = folder.split("/")
    right = len(names) == 1 if area == "homes" else area in AREAS and names[1:] == [FILES]
    if not right or names[0] in ("", ".", "..") or len(path) > MAX_PATH or "\0" in folder + path:
        raise HTTPError(400)
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", ".")]
    if ".." in parts:
        raise HTTPError(400)
    return str(PurePosixPath(DATA, area, *names, *parts))


def _open_to(group: int, row: dict[str, Any]) -> bool:
    """Whether who is of a group could read a file then, or look into a folder."""
    bits = 0o5 if row.get("type") == "dir" else 0o4
    granted = int(row.get("mode") or 0) >> (3 if row.get("gid") == group else 0)
    return granted & bits == bits


class _Handler(RequestHandler):
    def initialize(self, files: Files, token: str) -> None:
        self.files, self.token = files, token

    def prepare(self) -> None:
        given = self.request.headers.get("Authorization", "").removeprefix("token ")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            raise HTTPError(403)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        _, error, _ = kwargs.get("exc_info") or (None, None, None)
        if isinstance(error, BackupError):
            self.set_status(503)
            self.finish({"message": str(error)})
        else:
            self.finish({"message": self._reason})


class _Snapshots(_Handler):
    async def get(self) -> None:
        found = await self.files.snapshots(self.get_query_argument("folder"))
        self.write({"snapshots": [{"id": o.id, "time": o.time.isoformat()} for o in found]})


class _Of(_Handler):
    """About one snapshot that people may see."""

    async def snapshot(self) -> str:
        asked, folder = self.get_query_argument("snapshot"), self.get_query_argument("folder")
        if asked not in {one.id for one in await self.files.snapshots(folder)}:
            raise HTTPError(404)
        return asked


class _List(_Of):
    async def get(self) -> None:
        folder, path = self.get_query_argument("folder"), self.get_query_argument("path", "")
        self.write({"entries": await self.files.list(await self.snapshot(), folder, path)})


class _File(_Of):
    async def get(self) -> None:
        snapshot = await self.snapshot()
        folder = self.get_query_argument("folder")
        path = inside(folder, self.get_query_argument("path"))
        await self.files.check(snapshot, folder, path)
        self.set_header("Content-Type", "application/octet-stream")
        async with self.files.turns:
            chunks = self.files.repository().dump(snapshot, path)
            try:
                try:
                    chunk = await asyncio.to_thread(next, chunks, b"")
                except BackupError as error:
                    raise HTTPError(404) from error
                while chunk:
                    self.write(chunk)
                    await self.flush()
                    chunk = await asyncio.to_thread(next, chunks, b"")
            except StreamClosedError:
                return
            except BackupError as error:
                log.error("%s", error)
                # What has begun is cut off, so that nobody takes it for whole.
                self.detach().close()
            finally:
                chunks.close()


def application(site: Site, room: Room, token: str) -> Application:
    """What the console asks."""
    shared = {"files": Files(site, room), "token": token}
    return Application(
        [("/snapshots", _Snapshots, shared), ("/list", _List, shared), ("/file", _File, shared)]
    )


async def _run(site: Site, token: str) -> None:
    stop, room = asyncio.Event(), Room()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = HTTPServer(application(site, room, token))
    server.listen(PORT, address=os.environ.get("LABCOMMONS_BACKUP_BIND", "0.0.0.0"))  # noqa: S104
    schedule = Schedule(site, room)
    while not stop.is_set():
        await schedule.look()
        ALIVE.touch()  # noqa: ASYNC240 - in memory
        try:
            await asyncio.wait_for(stop.wait(), TICK)
        except TimeoutError:
            continue


def serve(site: Site) -> None:
    """Until SIGTERM. A backup that is at work then ends with it; the next one goes on."""
    logging.basicConfig(level=logging.INFO, format="[%(levelname).1s %(asctime)s] %(message)s")
    asyncio.run(_run(site, TOKEN.read_text("ascii").strip()))
    os._exit(0)  # what restic does in a thread is not waited for
