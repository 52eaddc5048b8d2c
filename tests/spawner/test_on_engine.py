"""LabSpawner on a real Engine: what only a container can show."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import docker
import pytest
from tornado.httpclient import AsyncHTTPClient

from spawner.resources import Resources
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.watch import Watch

from .conftest import NewSpawner
from .life import containers, free, start

pytestmark = pytest.mark.docker


async def test_a_server_starts_answers_and_goes(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawner = new_spawner("alice", environment="data", gpus=2)
    url = await start(spawner)
    assert (await AsyncHTTPClient().fetch(url)).code == 200
    assert await spawner.poll() is None
    assert free(resources) == 1
    assert await spawner.get_url() == url + "/user/alice/"
    assert await spawner.whereabouts() == (url + "/user/alice/", spawner.api_token)
    await spawner.stop()
    assert await spawner.poll() == 0
    assert free(resources) == 3
    assert await containers(resources) == 0


async def test_the_container_is_the_persons_and_bounded(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawner = new_spawner("alice", gpus=1, gpu_type="T4", size="small")
    await start(spawner)
    container = docker.from_env().containers.get(spawner.container_ref)
    _code, output = container.exec_run(
        ["sh", "-c", "id; grep -E 'CapEff|NoNewPrivs' /proc/self/status; env; touch /x; umask"]
    )
    text = output.decode()
    assert "uid=20003 gid=20000 groups=20000,21001" in text
    assert "CapEff:\t0000000000000000" in text
    assert "NoNewPrivs:\t1" in text
    assert "NVIDIA_VISIBLE_DEVICES=GPU-b0" in text
    assert "Read-only file system" in text
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["CpuQuota"], host["PidsLimit"]) == (2**30, 100_000, 1024)
    await spawner.stop(now=True)


async def test_files_in_the_home_outlive_the_server(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawner = new_spawner("alice")
    await start(spawner)
    container = docker.from_env().containers.get(spawner.container_ref)
    container.exec_run(["sh", "-c", "echo kept > ~/file"])
    await spawner.stop(now=True)
    assert (resources.data / "homes" / "alice" / "file").read_text() == "kept\n"


async def test_students_of_a_course_who_click_together_on_a_fresh_site_all_start(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawners = [new_spawner(f"s{n:02}", uid=21000 + n) for n in range(20)]
    for spawner in spawners:
        spawner._auth_state |= {"courses": {"bio2": "student"}}
    await asyncio.gather(*(start(spawner) for spawner in spawners))
    assert await containers(resources) == 20
    assert (resources.data / "courses" / "bio2" / "envs").is_dir()
    await asyncio.gather(*(spawner.stop(now=True) for spawner in spawners))


async def test_a_new_person_can_start_three_servers_at_once(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawners = [new_spawner("s30", uid=21030, server=name) for name in ("", "two", "three")]
    await asyncio.gather(*(start(spawner) for spawner in spawners))
    assert await containers(resources) == 3


async def test_a_silent_docker_does_not_cost_anybody_their_server(
    new_spawner: NewSpawner, resources: Resources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spawner = new_spawner("alice", gpus=1)
    url = await start(spawner)
    spawner.server.ip, spawner.server.port = url.split("//")[1].split(":")[0], 8888
    watch = resources.watch
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
        assert isinstance(resources.runtime, DockerRuntime)
        resources.watch = Watch(DockerRuntime(resources.runtime.settings, timeout=1), watch.log)
        assert await spawner.poll() is None
        assert await spawner.get_url() == url + "/user/alice/"
    resources.watch = watch
    assert await spawner.poll() is None
    assert free(resources) == 2


async def test_a_server_has_the_kernels_of_its_owners_sources_and_sees_new_ones(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    shelves = ("image/data/1", "image/data/2", "shared", "team-vision", "team-other")
    for shelf in shelves:
        (resources.data / "kernels" / shelf / "kernels" / "first").mkdir(parents=True)
    spawner = new_spawner("alice", environment="data:1")
    spawner._auth_state["teams"] = {"vision": "member"}
    await start(spawner)
    container = docker.from_env().containers.get(spawner.container_ref)

    def inside(*command: str) -> str:
        return container.exec_run(list(command)).output.decode()

    registry = "/opt/labcommons/registry"
    sources = ("image", "shared", "team-vision")
    assert inside("ls", registry).split() == list(sources)
    path = inside("printenv", "JUPYTER_PATH").strip()
    assert path == ":".join(f"{registry}/{source}" for source in sources)
    assert "gate:8000/services/kernels/" in inside("printenv", "LABCOMMONS_KERNELS_URL")
    settings = json.loads(inside("printenv", "LABCOMMONS_KERNEL_SETTINGS"))
    assert settings == resources.site.kernels.settings
    assert inside("printenv", "LABCOMMONS_LANGUAGE") == "en\n"
    # What is put on a shelf later is there at once, and nobody in the server can change it.
    (resources.data / "kernels/team-vision/kernels/second").mkdir()
    assert inside("ls", f"{registry}/team-vision/kernels").split() == ["first", "second"]
    assert "Read-only" in inside("touch", f"{registry}/team-vision/kernels/mine")
    await spawner.stop()
