"""The channels themselves, as conda, mamba, pixi and rattler read them: index, shards, packages.

These programs send a token as ``Authorization``, as a password (HTTP Basic), or in the address
(``…/channels/t/TOKEN/CHANNEL/…``). A browser that is logged in may follow a link, too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from commons.errors import NotAvailable
from commons.rights import Action
from commons.web.refused import Refused
from environments import own_channels as names
from environments.channel_names import SUBDIR
from environments.channels.inspect import FILE
from environments.messages import channels as texts
from hub_ext.console.channel_api import Channelled
from hub_ext.console.handlers import Page

PIECE = 2**18  # bytes
READERS = asyncio.Semaphore(64)
_INDEX = re.compile(r"repodata\.json(\.zst)?|repodata_shards\.msgpack\.zst")
_SHARD = re.compile(r"shards/[0-9a-f]{64}\.msgpack\.zst")
_RANGE = re.compile(r"bytes=(\d{1,15})?-(\d{1,15})?")
_MASK = "***"
_FOR_EVER = "private, max-age=31536000, immutable"
# Asked again each time, which costs nothing where it is the same (ETag).
_SHORT = "private, max-age=0, must-revalidate"


class ChannelFile(Channelled, Page):
    """``GET channels/[t/TOKEN/]CHANNEL/SUBDIR/FILE``."""

    async def prepare(self) -> None:
        """A token, wherever it is, becomes the hub's; programs are told, and not led to a login."""
        if secret := self.path_kwargs.pop("secret", None):
            # Of addresses, logs and the trail keep a part.
            for name in ("path", "uri"):
                setattr(self.request, name, getattr(self.request, name).replace(secret, _MASK))
        token = secret or _basic(self.request.headers.get("Authorization", ""))
        if token:
            self.request.headers["Authorization"] = f"token {token}"
        if not token and self.request.headers.get("Sec-Fetch-Mode") == "navigate":
            await super().prepare()
            return
        viewer = await self.identify()
        if viewer is None:
            raise HTTPError(401)
        self.viewer = viewer

    async def get(self, channel: str, subdir: str, file: str) -> None:
        """For its members, as it is taken and no faster."""
        self.scope(channel, Action.READ_CHANNEL)
        index = bool(_INDEX.fullmatch(file))
        if not SUBDIR.fullmatch(subdir) or not (
            index or _SHARD.fullmatch(file) or FILE.fullmatch(file)
        ):
            raise HTTPError(404)
        path = names.place(self.data, channel) / subdir / file
        self.set_header("Cache-Control", _SHORT if index else _FOR_EVER)
        self.set_header("Accept-Ranges", "bytes")
        try:
            opened, size, tag = await asyncio.to_thread(_open, path)
        except OSError as error:
            if file != "repodata.json":
                self.set_header("Cache-Control", "no-store")
                raise HTTPError(404) from error
            self._none(subdir)
            return
        with opened:
            await self._send(opened, size, tag, file)

    head = get

    def _none(self, subdir: str) -> None:
        """Of a machine's kind that nobody has uploaded for, no packages."""
        self.set_header("Content-Type", "application/json")
        self.finish(
            json.dumps({"info": {"subdir": subdir}, "packages": {}, "packages.conda": {},
                        "removed": [], "repodata_version": 1})
        )  # fmt: skip

    async def _send(self, opened: IO[bytes], size: int, tag: str, file: str) -> None:
        self.set_header("ETag", tag)
        json_file = file.endswith(".json")
        self.set_header(
            "Content-Type", "application/json" if json_file else "application/octet-stream"
        )
        if not _INDEX.fullmatch(file):
            self.set_header("Content-Disposition", "attachment")
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
            return
        first, end = self._part(size, tag)
        self.set_header("Content-Length", str(end - first))
        if self.request.method == "HEAD":
            self.finish()
            return
        if READERS.locked():
            for name in ("Content-Length", "ETag", "Content-Range"):
                self.clear_header(name)
            raise Refused(NotAvailable(texts.BUSY()), self.reading, 503, retry_after=10)
        async with READERS:
            with suppress(StreamClosedError):
                await asyncio.to_thread(opened.seek, first)
                while first < end:
                    piece = await asyncio.to_thread(opened.read, min(PIECE, end - first))
                    if not piece:
                        break
                    first += len(piece)
                    self.write(piece)
                    await self.flush()
                self.finish()

    def _part(self, size: int, tag: str) -> tuple[int, int]:
        """The part that is asked for; anything but one plain range is all of it."""
        asked = _RANGE.fullmatch(self.request.headers.get("Range", ""))
        same = self.request.headers.get("If-Range", tag) == tag
        if asked is None or not same or not any(asked.groups()):
            return 0, size
        if asked[1] is None:
            first, end = max(size - int(asked[2]), 0), size
        else:
            first = int(asked[1])
            end = min(int(asked[2]) + 1, size) if asked[2] else size
        if first >= end:
            self.set_header("Content-Range", f"bytes */{size}")
            raise HTTPError(416)
        self.set_status(206)
        self.set_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        return first, end

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A line: programs show it as it is."""
        error = self.refused(status_code, kwargs.get("exc_info", (None, None, None))[1])
        self.answer_refusal(error)
        if error.status_code == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="labcommons"')
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{error.sentence}\n")


def _open(path: Path) -> tuple[IO[bytes], int, str]:
    """A file, its size, and a tag that another file of this name does not have."""
    opened = path.open("rb")
    found = os.fstat(opened.fileno())
    return opened, found.st_size, f'"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}"'


def _basic(header: str) -> str:
    """The token in a login by HTTP Basic, whatever the name before it; else nothing."""
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        name, _, secret = base64.b64decode(value, validate=True).decode("ascii").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    token = secret or name
    return token if re.fullmatch(r"[\w.~-]{1,300}", token) else ""
