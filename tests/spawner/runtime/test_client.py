"""The client of an agent: whatever the other side does, a call ends, as silent or as refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from commons.errors import RuntimeRefused, RuntimeSilent
from rig.wire_server import WireServer, wire_server
from spawner.runtime import client, wire
from spawner.runtime.client import AgentRuntime, connect
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.messages import ENGINE_SILENT
from spawner.runtime.protocol import MAX_LINE, TaskEnd
from spawner.runtime.spec import CheckImage, CompileModules

from .conftest import MemoryWorld

Serve = Callable[..., Awaitable[AgentRuntime]]


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    async with wire_server(MemoryRuntime()) as server:
        yield server


@pytest.fixture
async def agent(server: WireServer) -> AsyncIterator[AgentRuntime]:
    agent = connect(server.url, timeout=5)
    yield agent
    await agent.close()


@pytest.fixture
async def answering() -> AsyncIterator[Serve]:
    """``await answering(raw)``: a client of something that says these bytes to everything, once
    ``when`` is set.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def serve(
            raw: bytes, when: asyncio.Event | None = None, timeout: float = 1
        ) -> AgentRuntime:
            async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await reader.readuntil(b"\r\n\r\n")
                    if when is not None:
                        await when.wait()
                    writer.write(raw)
                    await writer.drain()
                writer.close()

            listener = await asyncio.start_server(say, "127.0.0.1", 0)
            stack.callback(listener.close)
            port = listener.sockets[0].getsockname()[1]
            agent = connect(f"http://127.0.0.1:{port}", timeout=timeout)
            stack.push_async_callback(agent.close)
            return agent

        yield serve


async def test_an_agent_that_is_away_is_silent_and_is_found_again(
    server: WireServer, agent: AgentRuntime
) -> None:
    assert await agent.list() == []
    await server.down()
    with pytest.raises(RuntimeSilent, match="does not answer"):
        await agent.list()
    await server.up()
    assert await agent.list() == []


async def test_an_agent_that_began_anew_between_two_calls_is_not_noticed(
    server: WireServer, agent: AgentRuntime
) -> None:
    await agent.list()
    await server.down()
    await server.up()
    assert await agent.list() == []


async def test_an_agent_that_accepts_and_never_answers_costs_its_time(server: WireServer) -> None:
    agent = connect(server.url, timeout=0.1)
    server.runtime.faults["list"] = asyncio.Event()
    with pytest.raises(RuntimeSilent):
        await agent.list()
    await agent.close()


@pytest.mark.parametrize("work", ["check", "compile"])
async def test_what_an_environments_programs_do_may_take_longer_than_a_call(
    answering: Serve, work: str
) -> None:
    said = b'{"result": {"exit_code": 0, "output": "", "errors": ""}}'
    goes_on = asyncio.Event()
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
    agent = await answering(raw, when=goes_on, timeout=0.1)
    about: Any = {"image": f"sha256:{64 * '0'}", "program": ("true",)}
    task: Any = CheckImage(**about)
    if work == "compile":
        task = CompileModules(**about, prefix="p", work="w")
    asked = asyncio.ensure_future(getattr(agent, work)(task))
    done, _ = await asyncio.wait([asked], timeout=1)
    assert not done
    goes_on.set()
    assert (await asked).exit_code == 0


async def test_an_agent_of_another_version_is_waited_for_and_named(server: WireServer) -> None:
    server.version = "9.9.9+abc"
    agent = connect(server.url)
    with pytest.raises(RuntimeSilent, match="different versions") as caught:
        await agent.nodes()
    assert caught.value.message.params == {"agent": "9.9.9+abc", "hub": wire.protocol_version()}
    await agent.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnope!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"result": [1]}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 No\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 409 No\r\nContent-Length: 13\r\n\r\n{"error": "x"}',
    ],
)
async def test_whatever_answers_it_is_an_error_of_ours(answering: Serve, raw: bytes) -> None:
    agent = await answering(raw)
    with pytest.raises((RuntimeSilent, RuntimeRefused)):
        await agent.list()
    with pytest.raises((RuntimeSilent, RuntimeRefused)):
        _ = [event async for event in agent.events()]


async def test_a_line_without_end_is_not_read_for_ever(answering: Serve) -> None:
    raw = b">" + b"x" * (MAX_LINE + 100)
    agent = await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + raw)
    with pytest.raises(RuntimeSilent):
        _ = [event async for event in agent.events()]


async def test_a_log_goes_on_where_it_broke_off(
    wire_world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSE", 0)
    memory = wire_world.memory
    async with wire_server(memory) as server:
        agent = connect(server.url)
        handle = await agent.begin(wire_world.build("j1"))
        lines = agent.follow(handle)
        await memory.print(handle, b"one", b"two")
        assert [await anext(lines), await anext(lines)] == [b"one", b"two"]
        await server.down()
        await memory.print(handle, b"three", end=TaskEnd(exit_code=0))
        await server.up()
        assert [line async for line in lines] == [b"three"]
        await agent.close()


async def test_a_log_whose_agent_stays_away_is_given_up(
    wire_world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSE", 0)
    wire_world.memory.faults["follow"] = RuntimeSilent(ENGINE_SILENT(reason="no"))
    with pytest.raises(RuntimeSilent):
        _ = [line async for line in wire_world.runtime.follow("h")]
    assert wire_world.memory.calls["follow"] == client.TRIES + 1


async def test_arguments_that_do_not_fit_are_refused_before_they_are_sent(
    agent: AgentRuntime,
) -> None:
    with pytest.raises(ValueError, match="pattern"):
        await agent.stop("../../info", 3)


async def test_without_a_certificate_of_the_sites_nobody_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LABCOMMONS_AGENT_TLS", str(tmp_path))
    with pytest.raises(OSError, match="No such file"):
        client.from_environment()
