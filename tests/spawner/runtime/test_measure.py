"""What a folder has of the disk, seen by a container that reads everything and changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import docker
import pytest

from commons.errors import RuntimeRefused
from commons.site import Site
from rig import agent
from rig.own_engine import OwnEngine, sleeper
from spawner.runtime.docker.runtime import DockerRuntime

pytestmark = pytest.mark.docker
PROGRAMS = ("/bin/sh", "/usr/bin/du", "/usr/bin/nice", "/usr/bin/timeout")


async def test_a_home_that_nobody_else_may_read(
    own_engine: OwnEngine, site: Site, tmp_path: Path
) -> None:
    client = docker.from_env(timeout=30)
    client.api.import_image_from_data(sleeper(*PROGRAMS), repository="labcommons/base")
    runtime = DockerRuntime(agent.settings(site, tmp_path, "none", "lctest/none"))
    home = agent.home(tmp_path, "alice")
    for name, size in (("data/old", 40), ("data/new", 20), ("small", 1)):
        (home / name).mkdir(parents=True)
        (home / name / "file\n").write_bytes(os.urandom(size * 2**20))
        (home / name).chmod(0)
    (tmp_path / "homes" / "link").symlink_to("/etc")
    (tmp_path / "homes" / ".part").mkdir()
    try:
        assert await runtime.list_folders("homes") == ["alice"]
        assert await runtime.list_folders("teams") == []
        use = await runtime.measure("homes", "alice")
        assert use is not None
        assert 61 * 2**20 <= use.bytes < 63 * 2**20
        assert [one.path for one in use.largest][-2:] == ["data/old", "data/new"]
        assert await runtime.measure("homes", "nobody") is None
        with pytest.raises(RuntimeRefused):
            await runtime.measure("homes", "link")
        assert client.containers.list(all=True) == []
    finally:
        client.close()
        await runtime.close()
