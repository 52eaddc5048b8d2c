"""Which address a request came from: what a proxy of ours says, and nobody else's word.

A request that a proxy passes on says in its headers where it came from. Anybody can write such
headers, so they are read only of requests whose TCP connection comes from our proxies: CHP, and
the gate through which users' servers come. Both put the true address into X-Real-IP, whatever was
there before (config/nginx).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Any

import tornado.httpserver
from tornado.httputil import HTTPConnection, HTTPMessageDelegate

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
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)


proxies = Proxies()


class HTTPServer(tornado.httpserver.HTTPServer):
    """Tornado's, which reads X-Real-IP and X-Scheme only of requests from our proxies."""

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Tornado decides by ``xheaders``; connections of different peers take turns with it."""
        context: Any = getattr(request_conn, "context", None)
        address = getattr(context, "address", None)
        self.xheaders = isinstance(address, tuple) and address[0] in proxies
        return super().start_request(server_conn, request_conn)
