"""Wait for a server's first answer, or say why its container ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.simple_httpclient import HTTPStreamClosedError

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Text
from spawner.runtime.protocol import Runtime, ServerState

log = logging.getLogger(__name__)


SERVER_ENDED = Text(
    "server_ended",
    N_(
        "The server ended while it was starting (exit code {code}). The end of its own log, on the "
        "page of the server, may say why: files in your home may be the reason."
    ),
)
NO_ANSWER = Text(
    "server_no_answer",
    N_(
        "The server did not answer within {seconds} seconds. Try again; the end of its own log, on "
        "the page of the server, may say why. If it stays so, tell an administrator."
    ),
)
NO_ADDRESS = Text(
    "no_address", N_("The server has no address on the network of servers. Tell an administrator.")
)
OUT_OF_MEMORY = Text(
    "out_of_memory", N_("The server needed more memory than its size gives. Choose a larger size.")
)


# Seconds until a server that has not called the hub is asked again: at first, and at most.
FIRST, LONGEST = 0.3, 1.0


async def wait(
    runtime: Runtime,
    look: Callable[[], Awaitable[ServerState | None]],
    port: int,
    base_url: str,
    called: asyncio.Event,
    within: float,
) -> str:
    """The address of a server once it answers there.

    Raises NotAvailable when it ended, or did not answer ``within`` these seconds.

    ``look``: the server as it is now. ``called``: set when the server calls the hub, which the
    single-user server does as soon as it listens. Whoever makes it call earlier is asked earlier.
    """
    client, pause = AsyncHTTPClient(), FIRST
    until = time.monotonic() + within
    while True:
        called.clear()
        state = await look()
        if state is None or not state.runs:
            await _explain_end(runtime, state)
        url = url_of(state, port)
        with suppress(OSError, HTTPClientError, HTTPStreamClosedError):
            await client.fetch(f"{url}{base_url}api", request_timeout=2)
            return url
        if time.monotonic() >= until:
            raise NotAvailable(NO_ANSWER(seconds=round(within)))
        with suppress(TimeoutError):
            await asyncio.wait_for(called.wait(), pause)
        pause = min(1.3 * pause, LONGEST)


def url_of(state: ServerState, port: int) -> str:
    """Where a server listens, as the hub and the proxy reach it."""
    if not state.address:
        raise NotAvailable(NO_ADDRESS())
    return f"http://{state.address}:{port}"


async def _explain_end(runtime: Runtime, state: ServerState | None) -> NoReturn:
    output = await runtime.logs(state.handle) if state else ""
    log.error("container %s ended while starting: %r", state and state.handle[:12], output)
    if state is not None and state.oom_killed:
        raise NotAvailable(OUT_OF_MEMORY())
    raise NotAvailable(SERVER_ENDED(code=state.exit_code if state else "?"))
