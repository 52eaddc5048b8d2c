"""``python -m spawner.runtime.agent``: serve this machine's Engine to hub and builders."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path

from commons.errors import RuntimeSilent
from commons.site import SiteFileError
from spawner.runtime.agent.server import make_server, tls_context
from spawner.runtime.docker.revival import Revival
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.docker.settings import AgentSettings
from spawner.runtime.wire import protocol_version

log = logging.getLogger("labcommons.agent")
PORT = 8444
PULSE = 2.0  # seconds between two looks at the Engine's socket
# A socket that nobody is behind for so long is that of an Engine that was restarted: a new one has
# another, and only a new container gets that mounted.
DEAD_AFTER = 10.0
# Touched while the agent serves; the container's health check looks at its age.
ALIVE = Path("/tmp/labcommons-agent.alive")  # noqa: S108  (the container's own)


class SocketDead(Exception):
    """Nobody is behind the Engine's socket."""


async def serve(settings: AgentSettings, tls: Path, address: str, port: int) -> None:
    """Serve until SIGTERM. Raises SocketDead."""
    runtime = DockerRuntime(settings)
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    guard = asyncio.create_task(_guard(runtime))
    try:
        await _first_answer(runtime, guard)
        server = make_server(runtime, tls_context(tls))
        server.listen(port, address)
        log.info("serving %s on port %s, protocol %s", settings.site_id, port, protocol_version())
        rounds = [
            asyncio.create_task(work())
            for work in (
                runtime.quotas.forever, Revival(runtime.servers, settings.site_id).forever
            )
        ]  # fmt: skip
        ending = asyncio.create_task(over.wait())
        await asyncio.wait({guard, ending}, return_when=asyncio.FIRST_COMPLETED)
        for one in rounds:
            one.cancel()
        if guard.done():
            guard.result()
        server.stop()
        await server.close_all_connections()
    finally:
        guard.cancel()
        await runtime.close()


async def _first_answer(runtime: DockerRuntime, guard: asyncio.Task[None]) -> None:
    """Clear away what a killed agent left, and see the perimeter, before anything new is made."""
    said = False
    while True:
        try:
            if await runtime.apart():
                return await runtime.begin_watch()
            if not said:
                log.warning("waiting for the perimeter: no server without its rules")
                said = True
        except RuntimeSilent as error:
            log.warning("waiting for the Engine: %s", error)
            if guard.done():
                guard.result()
            await asyncio.sleep(PULSE)


async def _guard(runtime: DockerRuntime) -> None:
    """Look at the socket. Raises SocketDead where nobody is behind it."""
    since: float | None = None
    while True:
        try:
            await runtime.servers.ping()
        except RuntimeSilent as error:
            since = since or time.monotonic()
            if not _nobody_there(error):
                since = None  # an Engine that is slow, or stands still, comes back on this socket
            elif time.monotonic() - since > DEAD_AFTER:
                raise SocketDead(str(error)) from error
        else:
            since = None
            await asyncio.to_thread(ALIVE.touch)
        await asyncio.sleep(PULSE)


def _nobody_there(error: BaseException) -> bool:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ConnectionRefusedError | FileNotFoundError):
            return True
        found = found.__cause__ or found.__context__
    return False


def main() -> int:
    """The exit code: 1 where it should be started again."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        settings = AgentSettings.from_environment()
    except (SiteFileError, ValueError) as error:
        sys.exit(f"Error: {error}")
    tls = Path(os.environ.get("LABCOMMONS_AGENT_TLS", "/run/labcommons/agent"))
    address = os.environ.get("LABCOMMONS_AGENT_ADDRESS", "agent-control")
    port = int(os.environ.get("LABCOMMONS_AGENT_PORT", PORT))
    try:
        asyncio.run(serve(settings, tls, address, port))
    except SocketDead as error:
        log.error("nobody is behind the Engine's socket any more, so this agent ends: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
