"""Servers in memory that answer: each is a real one, on an address of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any, Literal

from aiohttp import web

from spawner.runtime.memory import MemoryRuntime

# Apart from those of other processes that test at the same moment.
_NUMBERS = itertools.count(os.getpid() % 2**16 * 200 + 2)


class Here(asyncio.Event):
    """A step of the runtime that waits here until it is set; ``reached``: somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.reached.set()
        return await super().wait()


class AnsweringRuntime(MemoryRuntime):
    """``http://127.x.y.z:8888`` says 200 to everything, for as long as the server runs.

    ``inside``: people with open sockets, of all servers; those that the hub does not let in leave.
    """

    def __init__(self, site: str = "memory") -> None:
        super().__init__(site)
        self.inside: set[str] = set()
        self._sites: dict[str, web.AppRunner] = {}

    def _become(self, handle: str, **changed: object) -> None:
        if changed.get("status") == "running":
            number = next(_NUMBERS)
            changed["address"] = f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        super()._become(handle, **changed)

    async def _step(self, name: str, count: bool = True) -> None:
        await super()._step(name, count)
        if name == "start:started":
            for handle, state in list(self.servers.items()):
                if state.runs and handle not in self._sites:
                    await self._answer(handle, state.address)

    async def _answer(self, handle: str, address: str) -> None:
        async def ok(request: Any) -> web.Response:
            if request.path.endswith("labcommons/together"):
                may = set((await request.json())["may"])
                closed, self.inside = sorted(self.inside - may), self.inside & may
                return web.json_response({"in": dict.fromkeys(self.inside, 1), "closed": closed})
            return web.json_response({"version": "0"})

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", ok)
        self._sites[handle] = runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, address, 8888).start()

    async def close(self) -> None:
        await super().close()
        for runner in self._sites.values():
            await runner.cleanup()
