"""The way from here to a server: a websocket through the proxy, bytes of SSH in it.

The server's extension (``labcommons_ssh``) is the person's: what it says is hostile. First it sends
its host key; it gets a certificate for that, for the name of this server alone, and the keys that
may come in. Then the bytes of one connection go to and fro.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from commons.errors import BadRequest
from jump.authority import Authority

CONNECT, FIRST = 10.0, 15.0  # seconds: to be there, and to say its first word
MOST = 256 * 1024  # bytes of a message
CHUNK = 64 * 1024  # bytes that are sent at once


class NoServer(Exception):
    """The server cannot be reached, or does not speak as it should."""


class Link:
    """One connection to one server."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self._socket = socket
        self.read_bytes = self.written_bytes = 0

    @classmethod
    async def open(
        cls,
        proxy: str,
        place: Mapping[str, Any],
        name: str,
        authority: Authority,
        keys: Sequence[str],
    ) -> Link:
        """A link that is ready for bytes. Raises NoServer.

        Args:
            proxy: the proxy's origin, such as ``http://chp-front:8000``.
            place: what the hub says: ``path``, ``host``, ``token``.
            name: of the server, as clients know it, such as ``alice.main``.
        """
        url = "ws" + proxy.removeprefix("http") + str(place["path"])
        headers = {"Authorization": f"token {place['token']}"}
        if place.get("host"):
            headers["Host"] = str(place["host"])
        request = HTTPRequest(url, headers=headers, connect_timeout=CONNECT, request_timeout=FIRST)
        try:
            async with asyncio.timeout(FIRST):
                socket = await websocket_connect(request, max_message_size=MOST)
        except (OSError, HTTPClientError, TimeoutError, WebSocketError, ValueError) as error:
            raise NoServer(str(error) or type(error).__name__) from error
        try:
            async with asyncio.timeout(FIRST):
                said = json.loads(await socket.read_message() or "")
            certificate = authority.sign(str(said["host_key"]), name)
            answer = {"certificate": certificate, "keys": list(keys), "name": name}
            await socket.write_message(json.dumps(answer))
        except (
            *(ValueError, TypeError, KeyError, RecursionError),
            *(TimeoutError, WebSocketError, BadRequest),
        ) as error:
            socket.close()
            raise NoServer(f"no host key: {type(error).__name__}") from error
        return cls(socket)

    async def read(self) -> bytes:
        """The next bytes; none at the end."""
        message = await self._socket.read_message()
        found = message if isinstance(message, bytes) else b""
        self.read_bytes += len(found)
        return found

    async def write(self, data: bytes) -> None:
        """Send bytes; returns when there is room for more. Raises WebSocketError."""
        self.written_bytes += len(data)
        await self._socket.write_message(data, binary=True)

    def close(self) -> None:
        """Also what waits to be read ends."""
        with suppress(WebSocketError):
            self._socket.close()
