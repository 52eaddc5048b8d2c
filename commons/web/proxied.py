"""The HTTP server of hub, console and kernels service: whose word it takes, and how much of it.

A request that a proxy passes on says in its headers where it came from. Anybody can write such
headers, so they are read only of requests whose TCP connection comes from our proxies: CHP, and
the gate through which users' servers come. Both put the true address into X-Real-IP, whatever was
there before (config/nginx).

A body is held in memory before anybody is asked who sends it. So one has a limit, and all that are
on their way at a moment have one together: whoever sends large bodies waits for nobody but others
who do.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable
from typing import Any

import tornado.httpserver
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from commons.work import Periodic

# Bytes of one body; of all that are held together, those of up to SMALL (a login) not counted.
MAX_BODY, MAX_BODIES, SMALL = 2**18, 2**26, 2**14
# Seconds for one body, and between two requests of a connection.
BODY_TIMEOUT, IDLE_TIMEOUT = 30, 75

log = logging.getLogger("labcommons.proxied")

# Names of our proxies in the network that they share with hub, console and kernels.
PROXIES = tuple(os.environ.get("LABCOMMONS_PROXIES", "chp-api gate-control").split())
# Seconds: a proxy that is made anew can have another address; a start waits so long at most.
INTERVAL, PATIENCE = 2, 2


class Proxies:
    """Addresses of our proxies, kept up to date off the requests' way."""

    def __init__(self, names: tuple[str, ...] = PROXIES) -> None:
        self._names = names
        self._addresses: dict[str, frozenset[str]] = {}

    def __contains__(self, address: object) -> bool:
        return any(address in found for found in self._addresses.values())

    async def look(self) -> None:
        """Find out the addresses now; of a name that does not resolve, the last ones stay."""
        await asyncio.gather(*(self._look(name) for name in self._names))

    async def _look(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError as error:
            log.debug("%s: %s", name, error)
        else:
            self._addresses[name] = frozenset(str(entry[4][0]) for entry in found)

    async def begin(self) -> None:
        """Look before the first request comes, unless that takes long."""
        await asyncio.wait({asyncio.create_task(self.look())}, timeout=PATIENCE)

    async def keep(self) -> None:
        """Look again and again; who is asked has a time-out, the resolver's own."""
        await Periodic("addresses of proxies", self.look, INTERVAL, log).run()


proxies = Proxies()


class _Counted(HTTPMessageDelegate):
    """One request; its body counts among all that are on their way until it is whole or gone.

    Not where its handler writes it down as it comes, and sets ``streamed`` of the connection.
    """

    def __init__(self, server: HTTPServer, inner: HTTPMessageDelegate, connection: object) -> None:
        self._server, self._inner, self._size = server, inner, 0
        self._connection = connection

    def headers_received(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
    ) -> Awaitable[None] | None:
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        if getattr(self._connection, "streamed", False):
            return self._inner.data_received(chunk)
        if self._size + len(chunk) > SMALL:
            if self._server.held + len(chunk) > MAX_BODIES:
                raise HTTPInputError("too many large bodies at once")
            self._server.held += len(chunk) + (self._size if self._size <= SMALL else 0)
        self._size += len(chunk)
        return self._inner.data_received(chunk)

    def _let_go(self) -> None:
        if self._size > SMALL:
            self._server.held -= self._size
        self._size = 0

    def finish(self) -> None:
        self._let_go()
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._let_go()
        self._inner.on_connection_close()


class HTTPServer(tornado.httpserver.HTTPServer):
    """Tornado's, which reads X-Real-IP and X-Scheme only of requests from our proxies.

    ``held``: bytes of large bodies that have not ended.
    """

    held = 0

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        """As tornado's; without ``max_body_size`` the limit is MAX_BODY."""
        limits = {
            "max_body_size": MAX_BODY,
            "body_timeout": BODY_TIMEOUT,
            "idle_connection_timeout": IDLE_TIMEOUT,
        }
        super().initialize(*args, **{**limits, **kwargs})

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Tornado decides by ``xheaders``; connections of different peers take turns with it."""
        context: Any = getattr(request_conn, "context", None)
        address = getattr(context, "address", None)
        self.xheaders = isinstance(address, tuple) and address[0] in proxies
        inner = super().start_request(server_conn, request_conn)
        return _Counted(self, inner, request_conn)
