"""The agent's program, killed at every step of what it does: nothing is left, held or doubled."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from commons.errors import RuntimeSilent
from hub_ext import agent_tls
from rig import agent
from rig.images import ours
from spawner.runtime.client import AgentRuntime, connect
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.spec import (
    Account,
    BuildStep,
    KeepFiles,
    Limits,
    MakeFolder,
    MakeHome,
    ServerSpec,
    TakeFiles,
)

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[3]
LIMITS = Limits(cpu=1, memory=2**28, pids=100, shared_memory=2**24, tmp=2**24)
SITE = """
version: 1
directory:
  servers: ["ldaps://ldap.example.org"]
  users: {base_dn: "dc=example,dc=org"}
  teams: {vision: {gid: 21001, leads_gid: 21002}}
  courses: {ml101: {gid: 21003, leads_gid: 21004}}
sizes: {small: {cpu: 1, memory: 1G}}
gpus:
  source: simulated
  devices: [{id: GPU-a0, model: A100, memory: 80G}]
"""


class Program:
    """One agent's program after another, of one site."""

    def __init__(self, folder: Path, network: str, runtime: DockerRuntime) -> None:
        self.folder, self.network, self.near = folder, network, runtime
        self.site_id, self.data = runtime.site_id, runtime.settings.data
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[AgentRuntime] = []
        agent_tls.init(folder / "tls")

    async def begin(self, die_at: str = "", role: str = "hub", **more: str) -> AgentRuntime:
        """Start it; a client, once it answers or has died."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "LABCOMMONS_SITE_FILE": str(self.folder / "site.yaml"),
            "LABCOMMONS_SITE_ID": self.site_id,
            "LABCOMMONS_DATA": str(self.data),
            "LABCOMMONS_USERS_NETWORK": self.network,
            "LABCOMMONS_SERVER_IMAGE": "lctest/tiny-server:latest",
            "LABCOMMONS_BUILDER_IMAGE": "lctest/tiny-builder:latest",
            "LABCOMMONS_AGENT_TLS": str(self.folder / "tls"),
            "LABCOMMONS_AGENT_ADDRESS": "127.0.0.1",
            "LABCOMMONS_AGENT_PORT": str(port),
            "LCTEST_DIE_AT": die_at,
            **more,
        }
        command = [sys.executable, str(ROOT / "tests" / "rig" / "agent_program.py")]
        log = (self.folder / "agent.log").open("ab")
        self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        url = f"https://127.0.0.1:{port}"
        client = connect(url, agent.client_tls(self.folder / "tls", role), timeout=30)
        self.clients.append(client)
        while self.process.poll() is None:
            with suppress(RuntimeSilent):
                await (client.nodes() if role == "hub" else client.in_use())
                break
        return client

    async def died(self) -> None:
        assert self.process is not None
        assert await asyncio.to_thread(self.process.wait, 60) == -signal.SIGKILL, self.said()

    def said(self) -> str:
        return (self.folder / "agent.log").read_text()[-4000:]

    async def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
        for client in self.clients:
            await client.close()

    def containers(self) -> list[Any]:
        client = docker.from_env(timeout=30)
        filters = {"label": f"labcommons.site={self.site_id}"}
        found: list[Any] = client.containers.list(all=True, filters=filters)
        client.close()
        return found

    def spec(self, image: str, **more: Any) -> ServerSpec:
        agent.home(self.data, "alice")
        return ServerSpec(
            user="alice", server="", account=Account(uid=20003, gid=20000), image=image,
            environment="data", version="1", limits=LIMITS, **more,
        )  # fmt: skip


@pytest.fixture
async def program(tiny_image: str, network: str, tmp_path: Path) -> AsyncIterator[Program]:
    from commons.site import load_site

    agent.tiny_builder()
    (tmp_path / "site.yaml").write_text(SITE)
    site = load_site(tmp_path / "site.yaml")
    made = agent.settings(site, tmp_path / "data", network, "lctest/tiny-server:latest")
    runtime = DockerRuntime(made)
    found = Program(tmp_path, network, runtime)
    yield found
    await found.end()
    await runtime.close()
    agent.sweep(found.site_id)


@pytest.fixture
async def image(program: Program, tmp_path: Path) -> str:
    return await agent.publish(program.near, tmp_path / "environment")


async def test_killed_between_create_and_start_of_a_server(program: Program, image: str) -> None:
    client = await program.begin("create_container_from_config")
    with pytest.raises(RuntimeSilent):
        await client.start(program.spec(image))
    await program.died()
    assert [one.status for one in program.containers()] == ["created"]
    client = await program.begin()
    assert await client.list() == []
    handle = await client.start(program.spec(image))
    (state,) = await client.list()
    assert (state.handle, state.status) == (handle, "running")


async def test_killed_after_a_server_started_it_is_known_and_can_be_removed(
    program: Program, image: str
) -> None:
    client = await program.begin("start")
    with pytest.raises(RuntimeSilent):
        await client.start(program.spec(image))
    await program.died()
    assert [one.status for one in program.containers()] == ["running"], program.said()
    client = await program.begin()
    (state,) = await client.list()
    assert state.status == "running", program.said()
    await client.remove_server("alice", "")
    assert program.containers() == []


@pytest.mark.parametrize("step", ["create_container_from_config", "start", "wait"])
@pytest.mark.parametrize(
    "task", [MakeHome(user="new", uid=20009, gid=20000), MakeFolder(scope="team-vision")],
    ids=lambda task: task.kind,
)  # fmt: skip
async def test_killed_while_it_makes_a_folder(
    program: Program, step: str, task: MakeHome | MakeFolder
) -> None:
    client = await program.begin(step)
    with pytest.raises(RuntimeSilent):
        await client.run_task(task)
    await program.died()
    client = await program.begin()
    assert program.containers() == [], "cleared away before anything is asked"
    await asyncio.gather(*(client.run_task(task) for _ in range(20)))
    assert program.containers() == []
    if isinstance(task, MakeHome):
        found = os.stat(program.data / "homes" / "new")
        assert (found.st_uid, found.st_mode & 0o777) == (20009, 0o700)
    else:
        found = os.stat(program.data / "teams" / "vision" / "envs")
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (990, 21002, 0o2775)


@pytest.mark.parametrize("step", ["wait:1", "start:3"], ids=["reading", "writing"])
async def test_killed_while_something_is_handed_in(program: Program, step: str) -> None:
    """What waits for it asks again, and it is there once, whole."""
    ours("agent")
    folder = agent.home(program.data, "alice") / "hw1"
    folder.mkdir()
    (folder / "a.txt").write_text("alice's")
    os.chown(folder, 20003, 20000)
    take = TakeFiles(
        id="h1", user="alice", account=Account(uid=20003, gid=20000), path="hw1", most_files=9,
        most_bytes=99,
    )  # fmt: skip

    async def hand_in(client: AgentRuntime) -> None:
        taken = await client.take(take)
        await client.run_task(MakeFolder(scope="course-ml101"))
        keep = KeepFiles(
            id="h1", scope="course-ml101", area="handins", place="hw1/alice/1",
            digest=taken.digest, receipt='{"receipt": {}}',
        )  # fmt: skip
        await client.keep(keep)
        await client.drop("h1")

    client = await program.begin(step)
    with pytest.raises(RuntimeSilent):
        await hand_in(client)
    await program.died()
    client = await program.begin()
    assert program.containers() == [], "cleared away before anything is asked"
    await hand_in(client)
    place = program.data / "courses/ml101/handins/hw1/alice"
    assert [one.name for one in place.iterdir()] == ["1"]
    assert (place / "1/files/a.txt").read_text() == "alice's"
    assert program.containers() == []
    assert not any((program.data / "agent" / "snapshots").iterdir())


@pytest.mark.parametrize("step", ["create_container_from_config", "start"])
async def test_killed_at_the_start_of_a_build(program: Program, step: str) -> None:
    build = BuildStep(
        job_id="j1", step="look", scope="shared", account=Account(uid=990, gid=990),
        limits=LIMITS, job="echo once\n",
    )  # fmt: skip
    client = await program.begin(step)
    with pytest.raises(RuntimeSilent):
        await client.begin(build)
    await program.died()
    client = await program.begin()
    handle = await client.begin(build)
    assert [line async for line in client.follow(handle)] == [b"once"]
    assert len(program.containers()) == 1
    await client.remove(handle)
    assert program.containers() == []
    assert not any((program.data / "agent" / "tasks").iterdir())


async def test_a_build_goes_on_while_the_agent_is_away(program: Program) -> None:
    waits = "echo one\nwhile [ ! -e /opt/labcommons/shared/go ]; do :; done\necho two\n"
    build = BuildStep(
        job_id="j2", step="look", scope="shared", account=Account(uid=990, gid=990),
        limits=LIMITS, job=waits,
    )  # fmt: skip
    client = await program.begin()
    handle = await client.begin(build)
    assert program.process is not None
    program.process.kill()
    await program.died()
    client = await program.begin()
    assert await client.begin(build) == handle
    (program.data / "shared" / "go").write_text("")
    assert [line async for line in client.follow(handle)] == [b"one", b"two"]


@pytest.mark.parametrize("step", ["create_container_from_config", "put_archive", "commit"])
async def test_killed_while_it_publishes(program: Program, tmp_path: Path, step: str) -> None:
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "tool").write_text("x" * 100_000)
    arguments = ("data", "1", "lctest/tiny-server:latest", folder, "/opt/conda/envs/data", {})
    client = await program.begin(step, role="builder")
    with pytest.raises(RuntimeSilent):
        await client.publish(*arguments)
    await program.died()
    client = await program.begin(role="builder")
    assert program.containers() == []
    made = await client.publish(*arguments)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", made)
    assert program.containers() == []


async def test_an_agent_whose_socket_is_dead_ends(program: Program, tmp_path: Path) -> None:
    """As after a restart of the Engine that made a new socket: this agent's is nobody's."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "dead.sock"))
    listener.close()
    await program.begin(DOCKER_HOST=f"unix://{tmp_path}/dead.sock")
    assert program.process is not None
    assert await asyncio.to_thread(program.process.wait, 60) == 1
    assert "nobody is behind" in program.said()
