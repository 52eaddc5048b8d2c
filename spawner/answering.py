"""Wait for a server's first answer, or say why its container ended."""

from __future__ import annotations

import asyncio
import logging
from typing import NoReturn

from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.simple_httpclient import HTTPStreamClosedError

from hub_ext.i18n import N_
from spawner.container import SERVER_PORT
from spawner.engine import ContainerState, Engine
from spawner.errors import NotAvailable

log = logging.getLogger(__name__)


async def wait(engine: Engine, container: str, network: str, base_url: str) -> str:
    """The address of a server once it answers there. Raises NotAvailable when it ended."""
    client = AsyncHTTPClient()
    while True:
        state = await engine.inspect(container)
        if state is None or not state.running:
            await _explain_end(engine, container, state)
        url = url_of(state, network)
        # Docker is asked again about once a second, the server far more often.
        for _attempt in range(20):
            try:
                await client.fetch(f"{url}{base_url}api", request_timeout=2)
                return url
            except (OSError, HTTPClientError, HTTPStreamClosedError):
                await asyncio.sleep(0.05)


def url_of(state: ContainerState, network: str) -> str:
    """Where a container's server listens, as the hub and the proxy reach it."""
    address = state.addresses.get(network)
    if not address:
        raise NotAvailable(
            "no_address",
            N_("The server has no address on the network “{network}”. Tell an administrator."),
            {"network": network},
        )
    return f"http://{address}:{SERVER_PORT}"


async def _explain_end(engine: Engine, container: str, state: ContainerState | None) -> NoReturn:
    output = await engine.logs(container)
    log.error("container %s ended while starting: %r", container[:12], output)
    if state is not None and state.oom_killed:
        raise NotAvailable(
            "out_of_memory",
            N_("The server needed more memory than its size gives. Choose a larger size."),
        )
    raise NotAvailable(
        "server_ended",
        N_(
            "The server ended while it was starting (exit code {code}). If files in your "
            "home may be the reason, ask an administrator for the hub's log."
        ),
        {"code": state.exit_code if state else "?"},
    )
