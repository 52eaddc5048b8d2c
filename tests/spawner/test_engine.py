"""The Engine's calls, on a real Engine."""

from __future__ import annotations

import asyncio
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from spawner.engine import Engine, EngineRefused
from spawner.errors import EngineUnavailable

pytestmark = pytest.mark.docker


@pytest.fixture
def name() -> str:
    return f"lc-engine-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def engine(name: str) -> AsyncIterator[Engine]:
    engine = Engine(timeout=20)
    yield engine
    await engine.remove(name)
    engine.close()


def body(*command: str) -> dict[str, object]:
    return {
        "Image": "labcommons/base:latest",
        "Cmd": list(command),
        "Labels": {"lc.test": "engine"},
        "HostConfig": {"NetworkMode": "none"},
    }


async def test_a_life_from_created_to_removed(engine: Engine, name: str) -> None:
    assert await engine.inspect(name) is None
    container = await engine.create(name, body("sleep", "60"))
    state = await engine.inspect(name)
    assert state is not None
    assert (state.id, state.status, state.running) == (container, "created", False)
    await engine.start(container)
    state = await engine.inspect(container)
    assert state is not None
    assert state.running
    assert container in [found.id for found in await engine.list("lc.test=engine")]
    await engine.stop(container, 0)
    state = await engine.inspect(container)
    assert state is not None
    assert (state.running, state.exit_code) == (False, 137)
    await engine.remove(container)
    assert await engine.inspect(container) is None


async def test_creating_replaces_what_an_earlier_life_left(engine: Engine, name: str) -> None:
    first = await engine.create(name, body("true"))
    second = await engine.create(name, body("true"))
    assert first != second
    assert await engine.inspect(first) is None


async def test_exit_code_and_output_of_what_ended(engine: Engine, name: str) -> None:
    container = await engine.create(name, body("sh", "-c", "echo last words; exit 3"))
    await engine.start(container)
    assert await engine.wait(container) == 3
    assert await engine.logs(container) == "last words\n"


async def test_stopping_and_removing_what_is_gone_is_fine(engine: Engine, name: str) -> None:
    await engine.stop(name, 0)
    await engine.remove(name)


async def test_docker_refusing_gives_its_reason(engine: Engine, name: str) -> None:
    with pytest.raises(EngineRefused, match="no-such-image"):
        await engine.create(name, {**body("true"), "Image": "no-such-image"})


async def test_no_engine_is_unavailable_and_never_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await Engine(timeout=2).inspect("anything")


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """An Engine that accepts and never answers."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "silent.sock"))
    server.listen()
    kept: list[socket.socket] = []

    def accept() -> None:
        try:
            while True:
                kept.append(server.accept()[0])
        except OSError:
            return

    threading.Thread(target=accept, daemon=True).start()
    yield f"unix://{tmp_path}/silent.sock"
    server.close()
    for connection in kept:
        connection.close()


async def test_a_silent_engine_costs_its_time_out_and_blocks_nobody(
    monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", silent)
    engine = Engine(timeout=1)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    with pytest.raises(EngineUnavailable):
        await engine.inspect("anything")
    ticker.cancel()
    assert ticks > 10


async def test_a_cancelled_call_has_ended_when_its_caller_goes_on(
    engine: Engine, name: str
) -> None:
    task = asyncio.create_task(engine.create(name, body("true")))
    await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Nothing may appear after the clean-up that follows.
    await engine.remove(name)
    await asyncio.sleep(0.3)
    assert await engine.inspect(name) is None
