"""REST of the site's own channels: lists, uploads as they come, withdrawals."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import Field
from tornado.log import app_log
from tornado.web import HTTPError, stream_request_body

from commons.errors import BadRequest, LabError, NotAvailable
from commons.rights import Action, can
from commons.scopes import Scope
from commons.web.operations import Count, Part, Query, Route, Sent, Time, Told, operation
from commons.web.origins import public_url
from commons.web.refused import Refused
from environments import own_channels as names
from environments.channels import taking
from environments.channels.shelf import Kept, Shelf, as_json
from environments.messages import channels as texts
from hub_ext.console.handlers import Api, Base

T = TypeVar("T")

UPLOAD_TIMEOUT = 3600.0  # seconds for one package to come
_PIECE = 2**20  # bytes that are written at once
_RETRY = 30  # seconds
# Each has a file and, at its end, a process that reads it.
UPLOADS = asyncio.Semaphore(4)
CHECKS = asyncio.Semaphore(2)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class PackageTold(Told):
    """A package of a channel."""

    file: str
    subdir: str
    name: str
    version: str
    build: str
    sha256: str
    size: Count
    by: str = Field(description="who put it there")
    at: Time
    license: str
    yanked: str | None = Field(description="why it is withdrawn")
    yanked_by: str | None
    yanked_at: Time | None


class ChannelTold(Told):
    """A channel that one may read."""

    channel: str
    url: str = Field(description="for a .condarc, with the token behind “/t/” or as a password")
    packages: Count
    bytes: Count
    upload: bool = Field(description="whether one may put packages into it")


class ChannelsTold(Told):
    """The channels that one may read."""

    channels: list[ChannelTold]


class PackagesTold(ChannelTold):
    """A channel with its packages, the newest first."""

    listed: list[PackageTold]


class Uploaded(Told):
    """A package that is there now."""

    package: PackageTold
    new: bool = Field(description="false: it was there already, byte for byte")


class Digest(Query):
    """What is sent."""

    sha256: str = Field("", description="of the package, in hex; it is compared")


class Yank(Sent):
    """A package to be withdrawn."""

    package: str = Field(description="SUBDIR/FILE")
    reason: str = Field(description="up to 500 characters; users read it")


class Restore(Sent):
    """A package whose withdrawal is taken back."""

    package: str = Field(description="SUBDIR/FILE")


class Channelled(Base):
    """What page and REST have in common."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """Called by tornado with what ``make_app`` gives."""
        super().initialize(**shared)
        self.data = data

    def scope(self, channel: str, action: Action = Action.READ_CHANNEL) -> Scope:
        """The scope of a channel with which the viewer may do something. Raises Refused."""
        try:
            found = names.known(channel, self.site)
        except BadRequest as error:
            error.status = 404
            raise Refused(error, self.reading) from error
        self.need(action, found)
        return found

    def shelf(self, channel: str) -> Shelf:
        """A channel's folder."""
        return taking.shelf(self.data, channel, self.site)

    async def on_disk(self, work: Callable[[], T]) -> T:
        """Do something with a channel's folder, in a thread. Raises Refused, HTTPError."""
        try:
            return await asyncio.to_thread(work)
        except LabError as error:
            raise Refused(error, self.reading, retry_after=_later(error)) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            app_log.error("channel: %s", error)
            raise HTTPError(500) from error

    async def told(self, scope: Scope) -> tuple[dict[str, Any], list[Kept]]:
        """What is said of a channel, and its packages."""
        channel = names.name_of(scope)
        kept = await self.on_disk(self.shelf(channel).packages)
        about = {
            "channel": channel,
            "url": f"{self.alias}/{channel}",
            "packages": len(kept),
            "bytes": sum(one.size for one in kept),
            "upload": bool(can(self.viewer, Action.FILL_CHANNEL, scope)),
        }
        return about, kept

    @property
    def alias(self) -> str:
        """The address above all channels, for a ``.condarc``."""
        return f"{public_url(self.site).rstrip('/')}{self.hub_auth.base_url}channels"


def _later(error: LabError) -> int:
    return _RETRY if error.code == texts.BUSY.code else 0


class ChannelsApi(Channelled, Api):
    """``GET api/v1/channels``."""

    @operation("The channels of packages that one may read", ChannelsTold)
    async def get(self) -> None:
        """The site's, those of one's teams and courses; of administrators, all."""
        found = [await self.told(scope) for scope in names.readable(self.viewer, self.site)]
        self.reply({"channels": [about for about, _ in found]})


class ChannelApi(Channelled, Api):
    """``GET api/v1/channels/CHANNEL``."""

    @operation("A channel’s packages, withdrawn ones too, the newest first", PackagesTold)
    async def get(self, channel: str) -> None:
        """For its members."""
        about, kept = await self.told(self.scope(channel))
        self.reply({**about, "listed": [as_json(one) for one in kept]})


@stream_request_body
class UploadApi(Channelled, Api):
    """``PUT api/v1/channels/CHANNEL/packages/FILE``: what is sent goes to the disk as it comes."""

    _file: IO[bytes] | None = None
    _buffer: bytearray
    _turn = _checked = False

    async def prepare(self) -> None:
        """Who asks, whether they may, and whether there is room: before anything is taken."""
        self._buffer, self._stack = bytearray(), ExitStack()
        await super().prepare()
        if self.request.method != "PUT":
            return
        channel, file = self.path_kwargs["channel"], self.path_kwargs["file"]
        self.scope(channel, Action.FILL_CHANNEL)
        said = self.request.headers.get("Content-Length", "")
        size = int(said) if said.isdecimal() and len(said) < 20 else None
        try:
            taking.check_name(file, size, self.site)
        except LabError as error:
            raise Refused(error, self.reading) from error
        if UPLOADS.locked():
            raise Refused(NotAvailable(texts.BUSY()), self.reading, 503, retry_after=_RETRY)
        await UPLOADS.acquire()
        self._turn = True
        connection: Any = self.request.connection
        connection.set_max_body_size(self.site.channels.largest_bytes)
        connection.set_body_timeout(UPLOAD_TIMEOUT)
        connection.streamed = True  # commons.web.proxied: nothing of it is held
        incoming = self.shelf(channel).incoming()
        self._file = await self.on_disk(lambda: self._stack.enter_context(incoming))

    async def data_received(self, chunk: bytes) -> None:
        """A piece has come; what comes after a refusal is let go."""
        if self._file is not None and not self._finished:
            self._buffer += chunk
            if len(self._buffer) >= _PIECE:
                await self._write()

    async def _write(self) -> None:
        file, piece = self._file, bytes(self._buffer)
        assert file is not None
        self._buffer.clear()
        try:
            await self.on_disk(lambda: taking.write(file, piece))
        except Refused as error:
            self._file = None
            self.send_error(error.status_code, exc_info=(type(error), error, None))

    @operation("Put a package into a channel, the body being the file", Uploaded, query=Digest,
               status=201, sends="application/octet-stream",
               refusals={413: "larger than the site takes", 507: "the disk is full"},
               also={200: "it was there, with the same bytes"})  # fmt: skip
    async def put(self, channel: str, file: str, query: Digest) -> None:
        """By who looks after the channel. It is checked first, and seen when this answers."""
        if query.sha256 and not _SHA256.fullmatch(query.sha256):
            raise Refused(BadRequest(texts.HASH_WRONG(found="?", wanted=query.sha256[:64])), self._)
        if self._file is not None and not self._finished:
            await self._write()
        if (sent := self._file) is None or self._finished:
            return  # it was refused as it came
        self._checked = True
        shelf, site, who = self.shelf(channel), self.site, self.viewer.name
        try:
            async with CHECKS:
                kept, new = await self.on_disk(
                    lambda: taking.take(shelf, sent, file, site, who, query.sha256)
                )
        except Refused as error:
            self.record("channel-refuse", channel=channel, file=file[:200], reason=error.code)
            raise
        if new:
            self.record("channel-upload", channel=channel, package=kept.path, sha256=kept.sha256)
        self.set_status(201 if new else 200)
        self.reply({"package": as_json(kept), "new": new})

    def on_finish(self) -> None:
        """What was not added goes."""
        super().on_finish()
        self._let_go()

    def on_connection_close(self) -> None:
        """Cut off."""
        super().on_connection_close()
        if not self._checked:  # who checks it has the file
            self._let_go()

    def _let_go(self) -> None:
        self._file = None
        stack, self._stack = getattr(self, "_stack", ExitStack()), ExitStack()
        asyncio.get_running_loop().run_in_executor(None, stack.close)
        if self._turn:
            self._turn = False
            UPLOADS.release()


class YankApi(Channelled, Api):
    """``POST api/v1/channels/CHANNEL/yank`` and ``…/restore``."""

    @operation("Withdraw a package; who has it in a lock still gets it", PackageTold, body=Yank)
    async def post(self, channel: str, body: Yank) -> None:
        """By who looks after the channel, and administrators."""
        await self.decide(channel, body.package, body.reason)

    async def decide(self, channel: str, path: str, reason: str | None) -> None:
        """Withdraw it, or, without a reason, take that back."""
        self.scope(channel, Action.YANK_PACKAGE)
        shelf, who = self.shelf(channel), self.viewer.name
        if reason is None:
            kept, changed = await self.on_disk(lambda: shelf.restore(path, who))
        else:
            kept, changed = await self.on_disk(lambda: shelf.yank(path, reason, who))
        if changed:
            action = "channel-restore" if reason is None else "channel-yank"
            self.record(action, channel=channel, package=kept.path, reason=kept.yanked)
        self.reply(as_json(kept))


class RestoreApi(YankApi):
    """``POST api/v1/channels/CHANNEL/restore``."""

    @operation("Take the withdrawal of a package back", PackageTold, body=Restore)
    async def post(self, channel: str, body: Restore) -> None:  # type: ignore[override]
        """By who looks after the channel, and administrators."""
        await self.decide(channel, body.package, None)


_CHANNEL = Part("site, team-NAME or course-NAME", "[a-z0-9._-]{1,80}")
_FILE = Part("the package’s name: NAME-VERSION-BUILD.conda or .tar.bz2", "[^/]{1,255}")
ROUTES = (
    Route("/api/v1/channels", ChannelsApi),
    Route("/api/v1/channels/{channel}", ChannelApi, {"channel": _CHANNEL}),
    Route("/api/v1/channels/{channel}/yank", YankApi, {"channel": _CHANNEL}),
    Route("/api/v1/channels/{channel}/restore", RestoreApi, {"channel": _CHANNEL}),
    Route(
        "/api/v1/channels/{channel}/packages/{file}",
        UploadApi,
        {"channel": _CHANNEL, "file": _FILE},
    ),
)
