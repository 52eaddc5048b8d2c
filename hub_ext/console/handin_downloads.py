"""What was handed in, as zips that are made while they are sent: nothing is laid down for them."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.rights import Action
from commons.store.models import HandedIn
from commons.units import amount
from commons.web.refused import Refused
from courses import handins, records
from courses.handins import State
from hub_ext.console.course_api import of
from hub_ext.console.handin_api import HandingIn
from hub_ext.console.handlers import Page

PIECE = 256 * 1024  # bytes
LARGEST = 20 * 2**30  # bytes of one zip
MOST_MANIFEST = 16 * 2**20  # bytes
AT_ONCE = asyncio.Semaphore(4)

TOO_LARGE = Text(
    "handin_zip_large",
    N_("Together that is {size}; read it in the course’s folder handins in a server of yours."),
)
BUSY = Text("handin_zip_busy", N_("Others download just now. Try again in a minute."))
NOT_KEPT = Text("handin_not_kept", N_("It is not kept yet. Try again in a minute."))


class _Pieces:
    """What a zip is written to: it keeps no more than was written since it was last asked."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def taken(self) -> bytes:
        found, self._parts = b"".join(self._parts), []
        return found


def zipped(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """A zip of files by their names in it, piece by piece. Raises OSError.

    Not compressed: the console's processor is everybody's.
    """
    out = _Pieces()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # type: ignore[call-overload]
        for name, path in files:
            with path.open("rb") as file, archive.open(name, "w", force_zip64=True) as entry:
                while piece := file.read(PIECE):
                    entry.write(piece)
                    yield out.taken()
    yield out.taken()


def below(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """The files below a folder of ours, by the names that they have in a zip."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield f"{prefix}/{path.relative_to(folder)}", path


class WithFiles(HandingIn, Page):
    """What reads what is kept."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """With the data folder."""
        super().initialize(**shared)
        self.data = data

    def folder(self, row: HandedIn) -> Path:
        """Where one is kept."""
        return self.data / "courses" / row.course / "handins" / handins.place(row)

    async def one(self, course: str, handed: str) -> HandedIn:
        """One of their own, or of anybody for who grades. Raises Refused."""
        self.need_in(course)
        who = None if self.grades(course) else self.viewer.name
        return await self.read(lambda s: handins.get(s, course, handed, who))

    async def document(self, row: HandedIn) -> dict[str, Any]:
        """The receipt, with the manifest as it is kept. Raises Refused where it is not."""

        def load() -> dict[str, Any]:
            path = self.folder(row) / "receipt.json"
            if path.stat().st_size > MOST_MANIFEST:
                raise OSError("too large")
            found: dict[str, Any] = json.loads(path.read_bytes())
            return found

        if row.state != State.KEPT:
            raise Refused(NotAvailable(NOT_KEPT()), self.reading)
        try:
            return await asyncio.to_thread(load)
        except (OSError, ValueError) as error:
            raise HTTPError(404) from error

    async def send_zip(self, name: str, rows: list[tuple[str, HandedIn]]) -> None:
        """Of several, each in a folder of its own; as it comes, and no faster than it is taken."""
        if (size := sum(row.bytes for _, row in rows)) > LARGEST:
            raise Refused(NotAvailable(TOO_LARGE(size=amount(size))), self.reading)
        await self.send(
            name,
            (one for prefix, row in rows for one in below(self.folder(row) / "files", prefix)),
            course=rows[0][1].course,
            handed_in=[row.id for _, row in rows][:500],
            digests=[row.digest for _, row in rows][:500],
        )

    async def send(self, name: str, files: Iterable[tuple[str, Path]], **details: Any) -> None:
        """A zip, piece by piece; ``details`` are for the trail."""
        if AT_ONCE.locked():
            raise Refused(NotAvailable(BUSY()), self.reading, retry_after=60)
        self.set_header("Content-Type", "application/zip")
        self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name)}")
        self.record("hand-in-download", **details)
        pieces = zipped(files)
        async with AT_ONCE:
            try:
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    if piece:
                        self.write(piece)
                        await self.flush()
            except StreamClosedError:
                return
            except OSError:
                # What has begun is cut off, so that the browser sees that it is not whole.
                if stream := self.detach():
                    stream.close()
                return
        self.finish()


class Files(WithFiles):
    """``GET courses/NAME/handed-in/ID/files.zip``."""

    async def get(self, course: str, handed: str) -> None:
        """For whose it is, and who grades."""
        row = await self.one(course, handed)
        await self.document(row)
        name = f"{row.handin}-{row.team.removeprefix('@')}"
        await self.send_zip(f"{name}.zip", [(name, row)])


class Receipt(WithFiles):
    """``GET courses/NAME/handed-in/ID/receipt.json``."""

    async def get(self, course: str, handed: str) -> None:
        """As it is kept: signed, with the manifest."""
        row = await self.one(course, handed)
        found = await self.document(row)
        name = f"receipt-{row.course}-{row.handin}-{row.id}.json"
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        self.finish(json.dumps(found, ensure_ascii=False, indent=2))


class Feedback(WithFiles):
    """``GET courses/NAME/handins/HANDIN/feedback.zip``."""

    async def get(self, course: str, handin: str) -> None:
        """One's own, and nobody else's."""
        self.need_in(course)
        who = self.viewer.name
        given = await self.read(lambda s: handins.feedback_for(s, course, who))
        if handin not in given:
            raise HTTPError(404)
        folder = self.data / "courses" / course / "feedback" / who / handin / "files"
        name = f"feedback-{handin}"
        await self.send(f"{name}.zip", below(folder, name), course=course, feedback=handin)


class AllFiles(WithFiles):
    """``GET courses/NAME/handins/HANDIN/files.zip``."""

    async def get(self, course: str, handin: str) -> None:
        """The newest of each, for who grades."""
        self.need(Action.GRADE, of(course))

        def work(session: Any) -> dict[str, HandedIn]:
            one = handins.find(records.spec_of(records.get(session, course)), handin)
            groups = handins.groups(session, course, handin) if one.groups else {}
            rows = [
                row for row in handins.of_course(session, course, handin) if row.state == State.KEPT
            ]
            teams = {handins.team_in(one, groups, who).name for row in rows for who in row.members}
            newest: dict[str, HandedIn] = {}
            for row in rows:
                for team in handins.stands_with(row, one, groups, teams):
                    newest.setdefault(team, row)
            return newest

        rows = await self.read(work)
        if not rows:
            raise HTTPError(404)
        await self.send_zip(
            f"{course}-{handin}.zip",
            [(f"{handin}/{team}", row) for team, row in sorted(rows.items())],
        )
