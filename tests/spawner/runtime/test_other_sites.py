"""What is not provably this site's is neither stopped nor removed, whatever it is called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import docker
import pytest

from commons.errors import RuntimeRefused
from commons.site import Site
from rig import agent
from rig.own_engine import OwnEngine
from spawner.runtime import labels
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.spec import MakeHome

pytestmark = pytest.mark.docker
SITE = "copy"


def run(name: str, marks: dict[str, str], **more: Any) -> Any:
    return docker.from_env(timeout=30).containers.run(
        "sleeper", ["/bin/sleep", "600"], name=name, labels=marks, detach=True,
        network_mode="none", stop_signal="SIGKILL", **more,
    )  # fmt: skip


@pytest.fixture
async def runtime(
    own_engine: OwnEngine, site: Site, tmp_path: Path
) -> AsyncIterator[DockerRuntime]:
    found = DockerRuntime(agent.settings(site, tmp_path, "none", "lctest/none", site_id=SITE))
    yield found
    await found.close()


async def test_a_copy_leaves_the_originals_servers(runtime: DockerRuntime) -> None:
    """A restored database knows the original's containers by their ids; names can be the same."""
    marks = {labels.USER: "alice", labels.SERVER: "", "labcommons.build": "1" * 32}
    theirs = [run(f"{SITE}-home-alice--home", marks | {labels.SITE: "original"})]
    theirs.append(run(f"{SITE}-home-bob--home", marks))  # of nobody whom we know
    docker.from_env().images.get("sleeper").tag("labcommons/base")  # what makes homes
    await runtime.begin_watch()
    for one, user in zip(theirs, ("alice", "bob"), strict=True):
        assert await runtime.inspect([one.id]) == {one.id: None}
        await runtime.stop(one.id, 0)
        await runtime.remove(one.id)
        await runtime.remove_server(user, "")
        with pytest.raises(RuntimeRefused, match="is not of the site copy"):
            await runtime.run_task(MakeHome(user=user, uid=20003, gid=20000))
    assert await runtime.list() == []
    assert await runtime.tasks() == {}
    for one in theirs:
        one.reload()
        assert one.status == "running"


async def test_after_a_start_of_the_machine_the_perimeter_comes_first(
    runtime: DockerRuntime,
) -> None:
    assert await runtime.apart()  # of a site without one nobody says
    marks = {"com.docker.compose.project": SITE, "com.docker.compose.service": "perimeter"}
    broken = {"test": ["CMD", "/no/such/program"], "interval": 10**8, "retries": 1}
    one = run("perimeter", marks, healthcheck=broken)
    for _ in range(10):
        assert not await runtime.apart()
        await asyncio.sleep(0.05)
    one.remove(force=True)
    well = {"test": ["CMD", "/bin/sleep", "0"], "interval": 10**8}
    run("perimeter", marks, healthcheck=well)
    while not await runtime.apart():
        await asyncio.sleep(0.05)
