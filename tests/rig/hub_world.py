"""What is around a hub, in a process of its own: agent, proxy and people's servers, all in memory.

``python hub_world.py FOLDER``: an agent over TLS (certificates in FOLDER/tls), CHP's API, and
servers that answer, call the hub as single-user servers do, and say now and then that they are
used. Writes FOLDER/world.json, and goes on until it is terminated.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import shutil
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from hub_ext import agent_tls
from rig.wire_server import WireServer
from spawner.runtime.agent.server import tls_context
from spawner.runtime.memory import MemoryRuntime
from spawner.server_mounts import ACTIVITY_INTERVAL

TAKES = 0.3  # seconds from a container's start until the server in it calls the hub


class Servers(MemoryRuntime):
    """Servers with addresses at which this process answers, that call the hub."""

    def __init__(self, hub: str) -> None:
        super().__init__()
        self._hub, self._numbers = hub, itertools.count(2)
        self._lives: set[asyncio.Task[None]] = set()
        self._client: aiohttp.ClientSession | None = None

    def _become(self, handle: str, **changed: object) -> None:
        if changed.get("status") == "running":
            number = next(self._numbers)
            changed["address"] = f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
            life = asyncio.create_task(self._live(handle))
            self._lives.add(life)
            life.add_done_callback(self._lives.discard)
        super()._become(handle, **changed)

    async def _live(self, handle: str) -> None:
        self._client = self._client or aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0)
        )
        state = self.servers[handle]
        headers, pause = {"Authorization": f"token {state.token}"}, TAKES
        url, first = f"{self._hub}api/users/{state.user}/activity", True
        while True:
            await asyncio.sleep(pause)
            if not self._runs(handle):
                return
            now = datetime.now(UTC).isoformat()
            body = {"servers": {state.server: {"last_activity": now}}, "last_activity": now}
            with suppress(aiohttp.ClientError, OSError):
                if first:
                    async with self._client.get(f"{self._hub}api/") as answer:
                        await answer.read()
                async with self._client.post(url, json=body, headers=headers) as answer:
                    await answer.read()
            # As many servers as there are do not say so at one moment.
            pause, first = ACTIVITY_INTERVAL * (random.random() if first else 1), False


class ProxyApi:
    """CHP's REST API, without what it passes on."""

    def __init__(self) -> None:
        self.table: dict[str, Any] = {}

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/api/routes", self._all)
        app.router.add_get("/api/routes/", self._all)
        app.router.add_post("/api/routes/{path:.*}", self._add)
        app.router.add_delete("/api/routes/{path:.*}", self._delete)

    async def _all(self, _request: web.Request) -> web.Response:
        return web.json_response(self.table)

    async def _add(self, request: web.Request) -> web.Response:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        path = f"/{request.match_info['path']}"
        self.table[path] = await request.json() | {"last_activity": now}
        return web.Response(status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        found = self.table.pop(f"/{request.match_info['path']}", None)
        return web.Response(status=204 if found else 404)


async def _ok(_request: web.Request) -> web.Response:
    return web.json_response({"version": "0"})


async def serve(app: web.Application, address: str) -> int:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, 0).start()
    return int(runner.addresses[0][1])


async def main(folder: Path) -> None:
    agent_tls.init(folder / "tls")
    ours = folder / "tls" / "of-the-hub"
    ours.mkdir()
    for theirs, name in (
        ("ca.crt", "ca.crt"),
        ("hub.crt", "client.crt"),
        ("hub.key", "client.key"),
    ):
        shutil.copy(folder / "tls" / theirs, ours / name)
    proxy, answers = web.Application(), web.Application()
    ProxyApi().add_to(proxy)
    answers.router.add_route("*", "/{path:.*}", _ok)
    runtime = Servers(os.environ["LABCOMMONS_HUB_URL"] + "/hub/")
    agent = WireServer(runtime, tls=tls_context(folder / "tls"))
    await agent.up()
    servers = await serve(answers, "0.0.0.0")
    found = {
        "LABCOMMONS_LABCOMMONS_URL": f"http://127.0.0.1:{servers}",
        "LABCOMMONS_KERNELS_URL": f"http://127.0.0.1:{servers}",
        "LABCOMMONS_AGENT_URL": agent.url,
        "LABCOMMONS_AGENT_TLS": str(ours),
        "LABCOMMONS_PROXY_API_URL": f"http://127.0.0.1:{await serve(proxy, '127.0.0.1')}",
        "SERVERS_PORT": str(servers),
    }
    (folder / "world.new").write_text(json.dumps(found))
    (folder / "world.new").rename(folder / "world.json")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
