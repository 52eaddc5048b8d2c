"""Servers that a restart of the Engine ended, which alone ends them: not killed by anybody.

On an Engine of its own, as a restart ends what runs on it.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from commons.errors import RuntimeSilent
from rig.own_engine import TRIES, OwnEngine
from spawner import endings
from spawner.runtime import labels
from spawner.runtime.docker.engine import Engine
from spawner.runtime.docker.watch import Watch
from spawner.runtime.protocol import ServerState

pytestmark = pytest.mark.docker
SITE = "restarts"
COMPOSE = Path(__file__).parents[3] / "docker-compose.yml"
[POLICY] = re.findall(r"^ +restart: (\S+)$", COMPOSE.read_text("utf-8"), re.MULTILINE)


def run(name: str, **more: Any) -> str:
    client = docker.from_env(timeout=30)
    marks = {labels.SITE: SITE, labels.USER: name, labels.SERVER: ""}
    made = client.containers.run(
        "sleeper", ["/bin/sleep", "600"], name=name, labels=marks, detach=True,
        network_mode="none", stop_signal="SIGKILL", **more,
    )  # fmt: skip
    return str(made.id)


@pytest.fixture
async def watch(own_engine: OwnEngine) -> AsyncIterator[Watch]:
    """What an agent that was not restarted knows."""
    one = await begun()
    yield one
    await one.close()


async def begun() -> Watch:
    one = Watch(Engine(timeout=10), SITE, "none")
    one.begin()
    await whole(one, True)
    return one


async def whole(one: Watch, wanted: bool) -> None:
    for _ in range(TRIES):
        if one.alive is wanted:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the stream of events")


async def cause(one: Watch, handle: str) -> tuple[str, ServerState | None]:
    state = await one.state(handle)
    return endings.of_state(state).cause, state


async def heard(one: Watch) -> list[str]:
    """The causes that are told while the Engine goes down."""
    causes = []
    with suppress(RuntimeSilent):
        async for event in one.events():
            with suppress(RuntimeSilent):
                if event.handle:
                    causes.append((await cause(one, event.handle))[0])
    return causes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_what_a_restart_of_the_engine_ended_is_told_as_that(
    own_engine: OwnEngine, watch: Watch, number: signal.Signals
) -> None:
    """Kind: ends that nobody meant. A restart as an administrator does it, and a crash; seen by who
    was there, and by who comes later, as in a container that it ended, too.
    """
    service = run("service", restart_policy={"Name": POLICY})
    killed, server = run("killed"), run("server")
    docker.from_env().api.kill(killed)
    docker.from_env().api.wait(killed)
    assert (await cause(watch, killed))[0] == "killed"
    assert (await cause(watch, server))[1].runs
    listening = asyncio.create_task(heard(watch))
    await asyncio.to_thread(own_engine.end, number)
    assert await listening == []
    await whole(watch, False)
    await asyncio.to_thread(own_engine.begin)
    await whole(watch, True)
    assert (await cause(watch, server))[0] == "engine"
    # A service of ours is there again by itself; `unless-stopped` was not, after the crash.
    for _ in range(TRIES):
        if (await cause(watch, service))[1].runs:
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("the service stays down")
    later = await begun()
    assert (await cause(later, server))[0] == "engine"

    # An agent that was restarted alone, with what runs since before.
    other = run("other")
    docker.from_env().api.kill(other)
    docker.from_env().api.wait(other)
    assert (await cause(later, other))[0] == "killed"
    await later.close()
    latest = await begun()
    assert (await cause(latest, other))[0] == "killed"
    await latest.close()
