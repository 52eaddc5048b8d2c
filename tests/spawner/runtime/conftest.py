"""Worlds: a runtime of each kind, and what a test can do to it from outside."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol

import docker
import pytest

from commons.site import GpuSharing, Site
from rig import agent
from rig.images import ours
from rig.own_engine import OwnEngine, sleeper
from rig.wire_server import wire_server
from spawner.runtime.client import connect
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import Runtime, TaskEnd
from spawner.runtime.spec import Account, BuildStep, Fetched, Limits, ServerSpec

UID = 20003


class World(Protocol):
    """A runtime, and whatever else happens on its machine."""

    runtime: Runtime

    def spec(self, user: str = "alice", server: str = "", **changed: Any) -> ServerSpec:
        """A server that can be started."""

    def build(self, job: str, *lines: bytes, exit_code: int = 0) -> BuildStep:
        """A long task that says these lines, and ends."""

    async def play(self) -> None:
        """Let the long tasks that were begun go on to their ends, where they wait for that."""

    async def end(self, handle: str) -> None:
        """A server's process is killed from outside."""

    async def break_events(self) -> None:
        """The stream of events breaks off."""

    def made(self, key: str) -> int | None:
        """How often a short task was carried out; None where that cannot be counted."""

    def put(self, path: str, data: bytes) -> None:
        """A file in alice's home."""

    def give(self, name: str, data: bytes) -> None:
        """A file in what the instructors of ml101 give out."""


LIMITS = Limits(cpu=1, memory=2**28, pids=100, shared_memory=2**24, tmp=2**24)


class MemoryWorld:
    """Servers in a dictionary."""

    def __init__(self) -> None:
        self.memory = MemoryRuntime("here")
        self.memory.images.add(f"sha256:{'0' * 64}")
        self.runtime: Runtime = self.memory
        self._lines: dict[str, tuple[tuple[bytes, ...], int]] = {}

    def spec(self, user: str = "alice", server: str = "", **changed: Any) -> ServerSpec:
        return ServerSpec(
            user=user,
            server=server,
            account=Account(uid=UID, gid=20000),
            image=f"sha256:{'0' * 64}",
            environment="data",
            version="1",
            limits=LIMITS,
            env={"JUPYTERHUB_API_TOKEN": "a-token"},
        ).model_copy(update=changed)

    def build(self, job: str, *lines: bytes, exit_code: int = 0) -> BuildStep:
        step = BuildStep(
            job_id=job,
            step="look",
            scope="shared",
            account=Account(uid=990, gid=990),
            limits=LIMITS,
            job="{}",
        )
        self._lines[job] = (lines, exit_code)
        return step

    async def play(self) -> None:
        for handle, task in self.memory.long.items():
            lines, code = self._lines.pop(task.job.job_id, ((), 0))
            if task.end is None:
                await self.memory.print(handle, *lines, end=TaskEnd(exit_code=code))

    async def end(self, handle: str) -> None:
        self.memory.finish(handle, 137)

    async def break_events(self) -> None:
        self.memory.break_events()

    def made(self, key: str) -> int | None:
        return self.memory.made[key]

    def put(self, path: str, data: bytes) -> None:
        self.memory.files["alice", path] = data

    def give(self, name: str, data: bytes) -> None:
        fetched = Fetched(revision="1" * 40, files=1, bytes=len(data))
        self.memory.materials["course-ml101"] = fetched


@pytest.fixture
async def memory_world() -> AsyncIterator[MemoryWorld]:
    world = MemoryWorld()
    yield world
    await world.runtime.close()


@pytest.fixture
async def wire_world() -> AsyncIterator[MemoryWorld]:
    """The same, seen through a client."""
    world = MemoryWorld()
    async with wire_server(world.memory) as server:
        world.runtime = connect(server.url, timeout=10)
        yield world
        await world.runtime.close()


class DockerWorld:
    """Containers on a real Engine."""

    def __init__(self, docker_runtime: DockerRuntime, image: str) -> None:
        self.docker, self.image = docker_runtime, image
        self.runtime: Runtime = docker_runtime

    def spec(self, user: str = "alice", server: str = "", **changed: Any) -> ServerSpec:
        agent.home(self.docker.settings.data, user)
        return ServerSpec(
            user=user,
            server=server,
            account=Account(uid=UID, gid=20000),
            image=self.image,
            environment="data",
            version="1",
            limits=LIMITS,
            env={"JUPYTERHUB_API_TOKEN": "a-token"},
        ).model_copy(update=changed)

    def build(self, job: str, *lines: bytes, exit_code: int = 0) -> BuildStep:
        said = "".join(f"printf '%b\\n' '{octal(line)}'\n" for line in lines)
        return BuildStep(
            job_id=job,
            step="look",
            scope="shared",
            account=Account(uid=990, gid=990),
            limits=LIMITS,
            job=f"{said}exit {exit_code}\n",
        )

    async def play(self) -> None:
        """They do by themselves."""

    async def end(self, handle: str) -> None:
        def kill() -> None:
            client = docker.from_env(timeout=30)
            client.api.kill(handle, "KILL")
            client.api.wait(handle)
            client.close()

        await asyncio.to_thread(kill)

    async def break_events(self) -> None:
        self.docker.watch.break_off()

    def made(self, key: str) -> int | None:
        return None

    def put(self, path: str, data: bytes) -> None:
        file = agent.home(self.docker.settings.data, "alice") / path
        file.write_bytes(data)
        os.chown(file, UID, 20000)

    def give(self, name: str, data: bytes) -> None:
        folder = self.docker.settings.data / "courses" / "ml101" / "staff" / "materials"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(data)


def octal(line: bytes) -> str:
    """Bytes as printf's %b takes them."""
    return "".join(f"\\0{byte:03o}" for byte in line)


@pytest.fixture(scope="session")
def tiny_builder(base_image: str) -> str:
    return agent.tiny_builder()


@pytest.fixture
async def docker_world(
    site: Site, tiny_image: str, tiny_builder: str, network: str, tmp_path: Path
) -> AsyncIterator[DockerWorld]:
    ours("agent")
    gpus = site.gpus.model_copy(
        update={"sharing": [GpuSharing(model="T4", method="time-slicing", slots=4)]}
    )
    directory = site.directory.model_dump() | {"courses": {"ml101": {}}}
    site = Site.model_validate(site.model_dump() | {"directory": directory})
    site = site.model_copy(update={"gpus": gpus})
    settings = agent.settings(site, tmp_path / "data", network, "lctest/tiny-server:latest")
    runtime = DockerRuntime(settings)
    await runtime.begin_watch()
    yield DockerWorld(runtime, await agent.publish(runtime, tmp_path / "environment"))
    await runtime.close()
    agent.sweep(settings.site_id)


@pytest.fixture
async def agent_world(docker_world: DockerWorld, tmp_path: Path) -> AsyncIterator[DockerWorld]:
    """The same, through the agent's own server and certificates."""
    async with agent.served(docker_world.docker, tmp_path / "tls") as url:
        docker_world.runtime = agent.connected(url, tmp_path / "tls")
        yield docker_world
        await docker_world.runtime.close()


@pytest.fixture(
    params=[
        "memory",
        "wire",
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("agent", marks=pytest.mark.docker),
    ]
)
def world(request: pytest.FixtureRequest) -> World:
    """Every test that takes it runs on each kind of runtime."""
    found: World = request.getfixturevalue(f"{request.param}_world")
    return found


@pytest.fixture
def own_engine(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OwnEngine]:
    # Not below a test's own folder: a socket's path may have 107 characters.
    own = OwnEngine(tmp_path_factory.mktemp("d"))
    own.begin()
    monkeypatch.setenv("DOCKER_HOST", own.url)
    docker.from_env(timeout=30).api.import_image_from_data(sleeper(), repository="sleeper")
    yield own
    own.close()
