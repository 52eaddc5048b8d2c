"""A runtime that is an agent, on this machine or another: typed calls over TLS, kept open.

The methods are made from the table of calls (``wire``). Each has its time; an agent that is away,
of another version, or not the one that the site's authority knows is as silent as an Engine that
does not answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import ValidationError

from commons.errors import RuntimeRefused, RuntimeSilent
from spawner.runtime import wire
from spawner.runtime.messages import AGENT_NOT_UNDERSTOOD, AGENT_SILENT
from spawner.runtime.packing import pack
from spawner.runtime.protocol import (
    CHECK_SECONDS,
    COMPILE_SECONDS,
    IMAGES_SECONDS,
    MAX_LINE,
    PUBLISH_SECONDS,
    Event,
    ImageStore,
    Runtime,
    output_limits,
)

CONNECT = 5.0  # seconds
# Seconds for which a connection is kept for the next call: a new one costs the hub's loop some
# milliseconds. The agent keeps it for an hour.
KEPT = 300.0
# Seconds beyond one call to the Engine, for what takes several of them or has to be waited for.
MORE = {
    "start": 120,
    "run_task": 120,
    "begin": 120,
    "take": 700,
    "keep": 700,
    "images/publish": PUBLISH_SECONDS,
    "images/check": CHECK_SECONDS + 120,
    "images/compile": COMPILE_SECONDS + 120,
    "images/discard": IMAGES_SECONDS,
    "images/prune_dangling": IMAGES_SECONDS,
    "fetch_materials": 900,
    "grade": 1500,
    "read_gpus": 30,
    "measure": 700,
    "limit_folder": 700,
}
PIECE = 2**18  # bytes of files at a time
TRIES, PAUSE = 20, 3.0  # of a task's output; seconds between two
_DROPPED = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


class AgentRuntime(Runtime, ImageStore):
    """An agent as hub and builders call it; also what it publishes.

    Args:
        url: ``https://agent-control:8444``.
        tls: with our certificate and the site's authority; None for ``http`` (tests).
        timeout: seconds for one call to the Engine, as the site file has it.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None, timeout: float = 30) -> None:
        self.url, self._tls, self.timeout = url.rstrip("/"), tls, timeout
        self._open: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        # Made late: it belongs to the loop that is running.
        if self._open is None:
            self._open = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, ssl=self._tls or True, keepalive_timeout=KEPT
                ),
                headers={wire.VERSION_HEADER: wire.protocol_version()},
                trust_env=False,
            )
        return self._open

    async def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            await self._open.close()
            self._open = None

    # -- one call ------------------------------------------------------------------------------

    async def _call(self, call: wire.Call, body: bytes, seconds: float) -> Any:
        """Ask and wait for the answer. Raises RuntimeRefused, RuntimeSilent."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT)
        try:
            try:
                return await self._ask(call, body, timeout)
            except _DROPPED:
                # A connection that was kept while the agent began anew. Every call can be done
                # twice.
                return await self._ask(call, body, timeout)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _silent(error) from error

    async def _ask(
        self, call: wire.Call, body: bytes | AsyncIterator[bytes], limits: aiohttp.ClientTimeout
    ) -> Any:
        async with self._session.post(self._address(call), data=body, timeout=limits) as answer:
            raw = await _read(answer, wire.MAX_MESSAGE)
        if answer.status != 200:
            raise wire.told(answer.status, _error_in(raw))
        try:
            return call.whole.validate_json(raw)["result"]
        except (KeyError, ValidationError) as error:
            raise _nonsense(call) from error

    def _address(self, call: wire.Call) -> str:
        return f"{self.url}{wire.PREFIX}{call.name}"

    async def publish(
        self,
        name: str,
        version: str,
        base: str,
        folder: Path,
        prefix: str,
        labels: Mapping[str, str],
    ) -> str:
        call = wire.CALLS["images/publish"]
        arguments = call.arguments(
            name=name, version=version, base=base, folder=folder, prefix=prefix, labels=labels
        )
        first = arguments.model_dump_json(exclude={"folder"}).encode() + b"\n"
        timeout = aiohttp.ClientTimeout(total=MORE[call.name], sock_connect=CONNECT)
        try:
            return str(await self._ask(call, _with_files(first, folder), timeout))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _silent(error) from error

    # -- streams -------------------------------------------------------------------------------

    async def _lines(self, call: wire.Call, body: bytes) -> AsyncIterator[bytes]:
        """The items of a stream that ends whole. Raises RuntimeRefused, RuntimeSilent."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT, sock_read=3 * wire.HEARTBEAT
        )
        try:
            async with self._session.post(
                self._address(call), data=body, timeout=timeout
            ) as answer:
                if answer.status != 200:
                    raw = await _read(answer, wire.MAX_MESSAGE)
                    raise wire.told(answer.status, _error_in(raw))
                async for line in _split(answer.content.iter_any()):
                    if line.startswith(b">"):
                        yield line[1:]
                    elif line.startswith(b"!"):
                        error = _json(line[1:])
                        status = error.get("status")
                        raise wire.told(status if isinstance(status, int) else 500, error)
                    elif line == b".":
                        return
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _silent(error) from error
        raise RuntimeSilent(AGENT_SILENT(reason="broken off"))

    async def events(self) -> AsyncIterator[Event]:
        call = wire.CALLS["events"]
        async for line in self._lines(call, b"{}"):
            try:
                yield call.answer.validate_json(line)
            except ValidationError as error:
                raise _nonsense(call) from error

    async def follow(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        call, limits, tries = wire.CALLS["follow"], output_limits(), 0
        while True:
            body = call.arguments(handle=handle, after=after).model_dump_json().encode()
            try:
                async for line in self._lines(call, body):
                    after, tries = after + 1, 0
                    yield line[: limits.longest]
                return
            except RuntimeSilent:
                tries += 1
                if tries > TRIES:
                    raise
            await asyncio.sleep(PAUSE)


def connect(url: str, tls: ssl.SSLContext | None = None, timeout: float = 30) -> AgentRuntime:
    """The runtime behind an agent's address; nothing is asked yet."""
    return AgentRuntime(url, tls, timeout)  # type: ignore[abstract]  # its methods: see below


def from_environment(timeout: float = 30) -> AgentRuntime:
    """As LABCOMMONS_AGENT_URL and LABCOMMONS_AGENT_TLS (ca.crt, client.crt, client.key) say."""
    url = os.environ.get("LABCOMMONS_AGENT_URL", "https://agent-control:8444")
    folder = Path(os.environ.get("LABCOMMONS_AGENT_TLS", "/run/labcommons/agent"))
    tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.load_cert_chain(folder / "client.crt", folder / "client.key")
    return connect(url, tls, timeout)


def _method(call: wire.Call) -> Callable[..., Any]:
    names = list(call.arguments.model_fields)

    async def method(self: AgentRuntime, *args: Any, **kwargs: Any) -> Any:
        arguments = dict(zip(names, args, strict=False)) | kwargs
        body = call.arguments(**arguments).model_dump_json().encode()
        seconds = 2 * self.timeout + MORE.get(call.name, 0)
        seconds += arguments.get("grace", 0) + arguments.get("seconds", 0)
        return await self._call(call, body, seconds)

    return method


for _call in wire.CALLS.values():
    if _call.method not in vars(AgentRuntime):
        setattr(AgentRuntime, _call.method, _method(_call))
AgentRuntime.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


async def _with_files(first: bytes, folder: Path) -> AsyncIterator[bytes]:
    """A line, then the files of a folder as a tar, made while it is sent."""
    yield first
    source, target = os.pipe()

    def write() -> None:
        with os.fdopen(target, "wb") as pipe:
            pack(folder, pipe)

    writing = asyncio.create_task(asyncio.to_thread(write))
    with os.fdopen(source, "rb", buffering=0) as pipe:
        while piece := await asyncio.to_thread(pipe.read, PIECE):
            yield piece
    await writing


# -- what comes back, which may be anything -----------------------------------------------------


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > most:
            raise aiohttp.ClientPayloadError("too long an answer")
        parts.append(part)
    return b"".join(parts)


async def _split(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines without their ends; the last one only where it has one."""
    parts: list[bytes] = []
    size = 0
    async for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for line in whole:
            yield b"".join((*parts, line))
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > MAX_LINE + 1:
            raise aiohttp.ClientPayloadError("too long a line")


def _json(raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _error_in(raw: bytes) -> Any:
    return _json(raw).get("error")


def _silent(error: BaseException) -> RuntimeSilent:
    return RuntimeSilent(AGENT_SILENT(reason=str(error)[:120] or type(error).__name__))


def _nonsense(call: wire.Call) -> RuntimeRefused:
    return RuntimeRefused(AGENT_NOT_UNDERSTOOD(call=call.name))
