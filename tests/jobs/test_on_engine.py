"""A job on a real Engine, from the queue to what it printed; and one that forks without end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import docker
import pytest

from commons.site import Site
from commons.store import Store
from jobs import output
from jobs.records import State
from rig import agent
from spawner.runtime.docker.runtime import DockerRuntime
from tests.jobs.conftest import World
from tests.spawner.conftest import network, tiny_image  # noqa: F401

pytestmark = pytest.mark.docker

FORKS = "while :; do (sleep 60 &) || exit 9; done"


async def test_jobs_on_an_engine(
    quick_store: Store,
    site: Site,
    tiny_image: str,  # noqa: F811
    network: str,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.jobs.conftest.IMAGE", "")
    site = site.model_copy(update={"servers": site.servers.model_copy(update={"pids": 64})})
    settings = agent.settings(site, tmp_path / "data", network, "lctest/tiny-server:latest")
    runtime = DockerRuntime(settings)
    await runtime.begin_watch()
    try:
        image = await agent.publish(runtime, tmp_path / "environment")
        monkeypatch.setattr("tests.jobs.conftest.IMAGE", image)
        world = World(quick_store, site, tmp_path / "data")
        world.runtime = runtime  # type: ignore[assignment]
        agent.home(settings.data, "alice")
        script = "echo $LABCOMMONS_JOB; pwd; trap 'echo saved; exit 4' TERM; sleep 60 & wait"
        said = ["sh", "-c", "echo hello; ls -d ~; exit 3"]
        [plain] = world.ask(command=said, size="small")
        async with world.hub():
            row = await world.over(plain)
            assert (row.state, row.exit_code) == (State.FAILED, 3)
            text = output.part(world.data, plain, 1, 0)[0]
            assert text == "hello\n/home/alice\n"
            [stopped] = world.ask(command=["sh", "-c", script], gpus=1)
            [forks] = world.ask(command=["sh", "-c", FORKS], size="small")
            await world.runs(stopped)
            async with asyncio.timeout(30):
                while "alice" not in output.part(world.data, stopped, 1, 0)[0]:
                    await asyncio.sleep(0.05)
            handle = world.row(stopped).handle
        # Another hub finds it, and ends it with time to save.
        async with world.hub():
            assert world.row(stopped).handle == handle
            world.cancel(stopped)
            row = await world.over(stopped)
            assert (row.state, row.exit_code) == (State.CANCELLED, 4)
            assert output.part(world.data, stopped, 1, 0)[0].endswith("saved\n")
            row = await world.over(forks)
            assert row.state == State.FAILED
        assert world.live() == []
        assert await runtime.list() == []
        assert docker.from_env(timeout=30).ping()
    finally:
        await runtime.close()
        agent.sweep(settings.site_id)
