"""The local copy of what runs: right while the stream holds, and never a guess."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from commons.errors import RuntimeSilent
from spawner.runtime import watch
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import ServerState
from spawner.runtime.watch import Watch

from .conftest import MemoryWorld


@pytest.fixture
def memory(memory_world: MemoryWorld) -> MemoryRuntime:
    return memory_world.memory


@pytest.fixture
def ended() -> asyncio.Queue[ServerState]:
    return asyncio.Queue()


@pytest.fixture
async def watching(
    memory: MemoryRuntime, ended: asyncio.Queue[ServerState], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Watch]:
    monkeypatch.setattr(watch, "PAUSE", 0)
    one = Watch(memory, logging.getLogger(), ended.put_nowait)
    task = asyncio.create_task(one.run())
    await one.whole()
    yield one
    task.cancel()


async def settle(one: Watch, memory: MemoryRuntime, handle: str) -> None:
    """Until the copy has the server."""
    while handle not in one._running:
        await asyncio.sleep(0)


async def test_looking_at_what_runs_asks_nobody(
    watching: Watch, memory: MemoryRuntime, memory_world: MemoryWorld
) -> None:
    handles = [await memory.start(memory_world.spec(server=f"s{n}")) for n in range(100)]
    for handle in handles:
        await settle(watching, memory, handle)
    before = dict(memory.calls)
    for handle in handles * 3:
        state = await watching.look(handle)
        assert state is not None
        assert state.standing == "running"
        assert state.token == "a-token"
    assert memory.calls == before


async def test_a_server_that_just_started_is_asked_for(
    watching: Watch, memory: MemoryRuntime, memory_world: MemoryWorld
) -> None:
    handle = await memory.start(memory_world.spec())
    memory.faults["events"] = memory.faults["list"] = asyncio.Event()
    state = await watching.look(handle)
    assert state is not None
    assert state.standing == "running"


async def test_the_end_of_a_server_is_told_with_its_exit_code(
    watching: Watch,
    memory: MemoryRuntime,
    memory_world: MemoryWorld,
    ended: asyncio.Queue[ServerState],
) -> None:
    handle = await memory.start(memory_world.spec())
    await settle(watching, memory, handle)
    memory.finish(handle, 3, oom_killed=True)
    told = await ended.get()
    assert (told.handle, told.exit_code, told.oom_killed) == (handle, 3, True)
    state = await watching.look(handle)
    assert state is not None
    assert (state.standing, state.exit_code) == ("gone", 3)


async def test_how_a_server_ended_is_known_though_its_container_is_gone(
    watching: Watch,
    memory: MemoryRuntime,
    memory_world: MemoryWorld,
    ended: asyncio.Queue[ServerState],
) -> None:
    handle = await memory.start(memory_world.spec())
    await settle(watching, memory, handle)
    await memory.remove(handle)
    assert (await ended.get()).exit_code == 137
    state = await watching.look(handle)
    assert state is not None
    assert (state.standing, state.exit_code) == ("gone", 137)


async def test_a_broken_stream_is_unknown_until_it_was_looked_at_again(
    watching: Watch, memory: MemoryRuntime, memory_world: MemoryWorld
) -> None:
    handle = await memory.start(memory_world.spec())
    await settle(watching, memory, handle)
    memory.silence()
    while watching._whole.is_set():
        await asyncio.sleep(0)
    with pytest.raises(RuntimeSilent):
        await watching.look(handle)
    # What happens meanwhile is told to nobody.
    memory.finish(handle, 9)
    memory.faults.clear()
    await watching.whole()
    state = await watching.look(handle)
    assert state is not None
    assert (state.standing, state.exit_code) == ("gone", 9)


async def test_who_ended_during_a_gap_is_told_after_it(
    watching: Watch,
    memory: MemoryRuntime,
    memory_world: MemoryWorld,
    ended: asyncio.Queue[ServerState],
) -> None:
    handle = await memory.start(memory_world.spec())
    await settle(watching, memory, handle)
    memory.silence()
    while watching._whole.is_set():
        await asyncio.sleep(0)
    await MemoryRuntime._step(memory, "x", count=False)
    memory.servers.pop(handle)
    memory.faults.clear()
    assert (await ended.get()).handle == handle


async def test_nobody_runs_whom_the_runtime_does_not_know(watching: Watch) -> None:
    assert await watching.look("never") is None
