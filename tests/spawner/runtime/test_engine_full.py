"""A full disk of Docker's: what is refused, and who starts again what Docker gives up."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from commons import reserve
from commons.errors import RuntimeRefused
from commons.site import Site
from rig import agent
from rig.own_engine import OwnEngine, sleeper
from spawner.runtime.docker import free
from spawner.runtime.docker.engine import Engine
from spawner.runtime.docker.revival import Revival
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.spec import MakeHome

pytestmark = pytest.mark.docker
SITE = "full"


@pytest.fixture
def disk(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An Engine's own, of 96 MB."""
    own = OwnEngine(tmp_path_factory.mktemp("d"))
    folder = own.folder / "data"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "none", folder], check=True)
    own.begin()
    monkeypatch.setenv("DOCKER_HOST", own.url)
    docker.from_env(timeout=30).api.import_image_from_data(sleeper(), repository="sleeper")
    yield folder
    (folder / "filler").unlink(missing_ok=True)
    own.close()


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass


def service(name: str) -> Any:
    """One of the site's, as compose makes them."""
    marks = {"com.docker.compose.project": SITE, "com.docker.compose.oneoff": "False"}
    return docker.from_env(timeout=30).containers.run(
        "sleeper", ["/bin/sleep", "600"], name=name, labels=marks, detach=True,
        network_mode="none", stop_signal="SIGKILL", restart_policy={"Name": "always"},
    )  # fmt: skip


def state(container: Any) -> tuple[str, bool]:
    container.reload()
    return container.status, bool(container.attrs["State"]["Error"])


async def test_a_service_that_docker_had_no_room_to_start_again_is_started(disk: Path) -> None:
    kept = disk / "kept"
    kept.mkdir()
    reserve.keep(kept, 8 * 2**20)
    ended, stopped = service("hub"), service("console")
    stopped.stop()
    fill(disk)
    subprocess.run(["kill", "-9", str(pid(ended))], check=True)
    while state(ended) != ("exited", True):  # Docker has tried
        time.sleep(0.1)
    engine = Engine()
    try:
        await Revival(engine, SITE, kept).once()
    finally:
        engine.close()
    assert state(ended) == ("running", False)
    assert not (kept / reserve.FILE).exists()
    assert state(stopped) == ("exited", False), "somebody has stopped it"


def pid(container: Any) -> int:
    container.reload()
    return int(container.attrs["State"]["Pid"])


async def test_on_a_full_disk_nothing_is_begun(
    disk: Path, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker.from_env().images.get("sleeper").tag("labcommons/base")  # what makes homes
    runtime = DockerRuntime(agent.settings(site, tmp_path, "none", "lctest/none", site_id=SITE))
    fill(disk)

    async def refusal() -> str:
        with pytest.raises(RuntimeRefused) as caught:
            await runtime.run_task(MakeHome(user="alice", uid=20003, gid=20000))
        assert caught.value.status == 503
        assert docker.from_env().containers.list(all=True) == []
        return caught.value.code

    try:
        assert await refusal() == "engine_full"  # the Engine says it
        monkeypatch.setattr(free, "ENGINE", (disk,))
        assert await refusal() == "engine_full"  # it is not even asked
    finally:
        await runtime.close()


def test_what_the_machine_has_left_is_told_of_the_data_and_not_of_the_agents_own_disk(
    tmp_path: Path,
) -> None:
    """In the agent's container the data folder is an empty one, on the Engine's disk."""
    folder = tmp_path / "agent"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], check=True)
    try:
        found = free.look("here", tmp_path)
    finally:
        subprocess.run(["umount", folder], check=True)
    assert found.disk <= 4 * 2**20 < found.engine
