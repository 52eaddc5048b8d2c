"""The least that speaks the protocol's wire, over any runtime: what a client is tried against."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from commons.errors import LabError
from spawner.runtime import wire


class WireServer:
    """``url`` while it is up. ``version``: of the agent that it plays; ``tls``: as an agent has."""

    def __init__(self, runtime: Any, version: str = "", tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.runtime, self.version = runtime, version or wire.protocol_version()
        self.url = ""
        self.streams: list[web.Request] = []
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def up(self) -> None:
        """Listen; at the same address as before where it was down."""
        app = web.Application(client_max_size=wire.MAX_MESSAGE)
        app.router.add_post("/v1/{name:.+}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self._port, reuse_address=True, ssl_context=self._tls
        )
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    async def down(self) -> None:
        """As if it were killed: every connection breaks off."""
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def cut(self) -> None:
        """Break the streams off."""
        for request in self.streams:
            if request.transport is not None:
                request.transport.abort()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        call = wire.CALLS[request.match_info["name"]]
        try:
            if request.headers.get(wire.VERSION_HEADER) != self.version:
                other = wire.other_version(self.version, request.headers[wire.VERSION_HEADER])
                return web.json_response({"error": wire.tell(other)[1]}, status=426)
            said = call.arguments.model_validate_json(await request.read())
            arguments = {name: getattr(said, name) for name in type(said).model_fields}
            if call.stream:
                return await self._stream(request, call, arguments)
            work = asyncio.create_task(getattr(self.runtime, call.method)(**arguments))
            value = await asyncio.shield(work)
            return web.json_response({"result": call.answer.dump_python(value, mode="json")})
        except ValidationError as error:
            body = {"code": "bad_message", "message": "{reason}", "params": {"reason": str(error)}}
            return web.json_response({"error": body}, status=400)
        except LabError as error:
            status, body = wire.tell(error)
            return web.json_response({"error": body}, status=status)

    async def _stream(
        self, request: web.Request, call: wire.Call, arguments: dict[str, Any]
    ) -> web.StreamResponse:
        answer = web.StreamResponse()
        self.streams.append(request)
        try:
            await answer.prepare(request)
            try:
                async for item in getattr(self.runtime, call.method)(**arguments):
                    raw = item if isinstance(item, bytes) else call.answer.dump_json(item)
                    await answer.write(b">%s\n" % raw)
                await answer.write(b".\n")
            except LabError as error:
                status, body = wire.tell(error)
                await answer.write(b"!%s\n" % json.dumps(body | {"status": status}).encode())
            await answer.write_eof()
            return answer
        finally:
            self.streams.remove(request)


@asynccontextmanager
async def wire_server(runtime: Any, version: str = "") -> AsyncIterator[WireServer]:
    """A server that is up until the end."""
    server = WireServer(runtime, version)
    await server.up()
    try:
        yield server
    finally:
        await server.down()
