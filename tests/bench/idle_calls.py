"""How often the Engine is asked while servers run and nothing happens.

As many servers as SERVERS says, polled as the hub does (each every 20 seconds, a look at all every
30), first with an inspect for each poll, then from the local copy that events keep; with the
agent's own looks at its socket. Run in the test bed; writes tests/bench/results/idle_calls.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import docker
import requests

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # not this folder: it has an environments.py

from commons.site import Site
from rig import agent
from spawner.runtime.agent.__main__ import PULSE
from spawner.runtime.client import AgentRuntime
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.spec import Account, Limits, ServerSpec
from spawner.runtime.watch import Watch

SERVERS = int(os.environ.get("BENCH_SERVERS", "100"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "60"))
POLL, RECONCILE = 20.0, 30.0
SITE = {
    "version": 1,
    "directory": {"servers": ["ldaps://none.example.org"], "users": {"base_dn": "dc=none"}},
    "sizes": {"small": {"cpu": 1, "memory": "256M"}},
}
START = "#!/bin/sh\nexec sleep 100000\n"
Look = Callable[[str], Awaitable[Any]]


class Counted:
    """Requests of Docker clients in this process."""

    def __init__(self) -> None:
        self.calls = 0
        send = requests.Session.send

        def counted(session: Any, request: Any, **more: Any) -> Any:
            self.calls += isinstance(session, docker.APIClient)
            return send(session, request, **more)

        requests.Session.send = counted  # type: ignore[method-assign]


async def every(seconds: float, first: float, work: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.sleep(first)
    while True:
        await work()
        await asyncio.sleep(seconds)


async def idle(runtime: DockerRuntime, handles: list[str], look: Look, counted: Counted) -> float:
    """Calls a second."""
    tasks = [
        asyncio.create_task(every(POLL, n * POLL / len(handles), lambda h=handle: look(h)))  # type: ignore[misc]
        for n, handle in enumerate(handles)
    ]
    tasks.append(asyncio.create_task(every(RECONCILE, 0, runtime.list)))
    tasks.append(asyncio.create_task(every(PULSE, 0, runtime.servers.ping)))
    before, began = counted.calls, time.monotonic()
    await asyncio.sleep(SECONDS)
    found = (counted.calls - before) / (time.monotonic() - began)
    for task in tasks:
        task.cancel()
    return found


async def measure(folder: Path, network: str, image: str) -> list[tuple[str, float, float]]:
    counted = Counted()
    settings = agent.settings(Site.model_validate(SITE), folder, network, image)
    runtime = DockerRuntime(settings)
    await runtime.begin_watch()
    published = await agent.publish(runtime, folder / "environment")
    handles = []
    for n in range(SERVERS):
        user = f"s{n:03}"
        agent.home(folder, user)
        handles.append(
            await runtime.start(
                ServerSpec(
                    user=user,
                    server="",
                    account=Account(uid=20003, gid=20000),
                    image=published,
                    environment="data",
                    version="1",
                    limits=Limits(cpu=1, memory=2**26, pids=32, shared_memory=2**20, tmp=2**20),
                )
            )
        )

    async def inspect(handle: str) -> object:
        return await runtime.servers.call(lambda api: api.inspect_container(handle))

    found = []
    try:
        async with agent.served(runtime, folder / "tls") as url:
            client = agent.connected(url, folder / "tls")
            asked = 0
            call = AgentRuntime._call

            async def counting(self: AgentRuntime, *arguments: Any) -> Any:
                nonlocal asked
                asked += 1
                return await call(self, *arguments)

            AgentRuntime._call = counting  # type: ignore[method-assign]
            found.append(
                ("an inspect for each poll", await idle(runtime, handles, inspect, counted), 0.0)
            )
            watch = Watch(client, logging.getLogger())
            watching = asyncio.create_task(watch.run())
            await watch.whole()
            asked = 0
            calls = await idle(runtime, handles, watch.look, counted)
            found.append(("the local copy", calls, asked / SECONDS))
            watching.cancel()
            await client.close()
    finally:
        await runtime.close()
        agent.sweep(settings.site_id)
    return found


def main() -> int:
    image = agent.derived("lctest/idle-server:latest", {"opt/labcommons/bin/start": START})
    engine: Any = docker.from_env(timeout=60)
    network = engine.networks.create(f"lcbench-{uuid.uuid4().hex[:8]}", driver="bridge")
    version = engine.version()["Version"]
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = asyncio.run(measure(Path(folder), str(network.name), image))
    finally:
        network.remove()
    lines = [
        "# Calls of an idle site",
        "",
        f"{SERVERS} servers that do nothing, {SECONDS:.0f} seconds each; polls every {POLL:.0f} s, "
        f"a look at all every {RECONCILE:.0f} s, the agent's at its socket every {PULSE:.0f} s.",
        f"Engine {version}, {os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        "| polls are answered from | Engine calls a second | calls to the agent a second |",
        "|---|---|---|",
        *(f"| {name} | {calls:.2f} | {asked:.2f} |" for name, calls, asked in rows),
    ]
    text = "\n".join(lines) + "\n"
    (HERE / "results" / "idle_calls.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
