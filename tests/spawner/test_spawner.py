"""LabSpawner's life on a real Engine: what it starts, refuses, survives and leaves behind."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import docker
import pytest
from sqlalchemy.orm import Session
from tornado import web
from tornado.httpclient import AsyncHTTPClient

from hub_ext.store import GpuUsage, Lease, LeaseDevice, LeaseState, Store
from spawner.engine import Engine
from spawner.gpu import ledger
from spawner.gpu.admission import Admission, Ask, admit
from spawner.reconcile import Reconciler
from spawner.resources import Resources
from spawner.spawner import LabSpawner

from .conftest import NewSpawner

pytestmark = pytest.mark.docker


async def start(spawner: LabSpawner) -> str:
    await spawner.run_pre_spawn_hook()
    return await spawner.start()


def free(resources: Resources) -> int:
    return resources.store.transact(ledger.availability).free


async def containers(resources: Resources) -> int:
    return len(await resources.engine.list(f"labcommons.site={resources.site_id}"))


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


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"environment": "nope"}, 400, "“nope”. Environments: data"),
        ({"environment": "data:9"}, 400, "Versions: 2, 1"),
        ({"gpus": 3}, 400, "at most 2"),
        ({"gpus": -1}, 400, "whole number"),
        ({"gpus": 1.5}, 400, "whole number"),
        ({"gpus": float("nan")}, 400, "whole number"),
        ({"gpus": True}, 400, "whole number"),
        ({"gpus": "1"}, 400, "whole number"),
        ({"size": "huge"}, 400, "Sizes: small, large"),
        ({"image": "evil/image"}, 400, "no option “image”"),
        ({"environment": ["data"]}, 400, "short text"),
        ({"environment": "data\n"}, 400, "short text"),
        ({"size": "x" * 1000}, 400, "short text"),
        ({"course": "ml101"}, 400, "no course"),
        ({"account": "vision"}, 403, "cannot charge “vision”. You may charge: user:alice"),
        ({"time_limit": 0}, 400, "whole number of minutes"),
        ({"environment": "<script>%s{0}"}, 400, "<script>%s{0}"),
    ],
)
async def test_a_bad_request_is_refused_before_anything_is_made(
    new_spawner: NewSpawner,
    resources: Resources,
    options: dict[str, object],
    status: int,
    words: str,
) -> None:
    spawner = new_spawner("alice", **options)
    with pytest.raises(web.HTTPError) as caught:
        await start(spawner)
    assert caught.value.status_code == status
    assert words in caught.value.jupyterhub_message
    assert free(resources) == 3
    assert await containers(resources) == 0


async def test_an_older_version_can_be_pinned(new_spawner: NewSpawner) -> None:
    spawner = new_spawner("alice", environment="data:1")
    await start(spawner)
    labels = docker.from_env().containers.get(spawner.container_ref).labels
    assert labels["labcommons.environment"] == "data:1"
    assert spawner.user_options["environment"] == "data:1"
    assert spawner.user_options["profile"] == "data · large"


async def test_of_two_who_ask_for_the_last_gpu_one_is_told_why_not(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    wanted = {"gpus": 1, "gpu_type": "T4", "wait": False}
    first, second = new_spawner("alice", **wanted), new_spawner("bob", uid=20002, **wanted)
    results = await asyncio.gather(start(first), start(second), return_exceptions=True)
    [refusal] = [result for result in results if isinstance(result, BaseException)]
    assert isinstance(refusal, web.HTTPError)
    assert refusal.status_code == 409
    assert "0 of 1 T4 are free" in refusal.jupyterhub_message
    assert await containers(resources) == 1
    assert free(resources) == 2


async def queued(resources: Resources, lease: str = "") -> Any:
    """The lease that waits, as soon as there is one."""
    while True:
        for found in await resources.store.read(ledger.live_leases):
            if found.state is LeaseState.QUEUED:
                return found
        await asyncio.sleep(0.02)


async def test_who_waits_sees_place_and_reason_and_starts_when_there_is_room(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    first = new_spawner("alice", gpus=1, gpu_type="T4", time_limit=60)
    second = new_spawner("bob", uid=20002, gpus=1, gpu_type="T4")
    await start(first)
    task = asyncio.create_task(start(second))
    await queued(resources)
    events = second.progress()
    assert (await anext(events))["message"] == "Asking for 1 GPU"
    event = await anext(events)
    assert event["queue"]["position"] == 1
    assert event["queue"]["expected_start"] > time.time()
    assert [reason["code"] for reason in event["queue"]["reasons"]] == ["gpus_busy"]
    assert "Number 1 in the queue, expected to start: " in event["message"]
    assert "0 of 1 T4 are free" in event["message"]
    await first.stop(now=True)
    await asyncio.wait_for(task, 20)
    assert (await anext(events))["message"] == "Got T4 (simulated)"
    assert await second.poll() is None
    await second.stop(now=True)


async def test_who_gives_up_waiting_gives_the_place_back(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    await start(new_spawner("alice", gpus=1, gpu_type="T4"))
    task = asyncio.create_task(start(new_spawner("bob", uid=20002, gpus=1, gpu_type="T4")))
    lease = await queued(resources)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended(resources, lease.id, "cancelled")


async def ended(resources: Resources, lease: str, reason: str) -> None:
    while (
        await resources.store.read(lambda s: s.get_one(Lease, lease).state)
    ) is not LeaseState.ENDED:
        await asyncio.sleep(0.02)
    assert await resources.store.read(lambda s: s.get_one(Lease, lease).ended_reason) == reason


async def test_who_is_taken_from_the_queue_by_another_process_is_told(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    await start(new_spawner("alice", gpus=1, gpu_type="T4"))
    task = asyncio.create_task(start(new_spawner("bob", uid=20002, gpus=1, gpu_type="T4")))
    lease = await queued(resources)
    other = Store(resources.store.url)  # as the console or the command line would
    other.transact(lambda s: ledger.cancel(s, lease.id))
    with pytest.raises(web.HTTPError, match="taken from the queue"):
        await asyncio.wait_for(task, 10)
    assert free(resources) == 2


async def test_a_place_in_the_queue_survives_the_hub(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    holder = new_spawner("alice", gpus=1, gpu_type="T4")
    await start(holder)
    waits = new_spawner("bob", uid=20002, gpus=1, gpu_type="T4")
    task = asyncio.create_task(start(waits))
    lease = await queued(resources)
    resources.admission.stopping = True  # the hub goes down
    task.cancel()
    await asyncio.wait([task])
    await resources.admission.close()
    resources.admission = Admission(resources.store)
    again = new_spawner("bob", uid=20002, **lease.user_options)
    task = asyncio.create_task(start(again))
    await queued(resources)
    await holder.stop(now=True)
    await asyncio.wait_for(task, 20)
    assert again.lease_id == lease.id


async def test_a_class_starts_in_turns(new_spawner: NewSpawner, resources: Resources) -> None:
    resources.turns = asyncio.Semaphore(1)
    spawners = [new_spawner(f"s{n:02}", uid=21000 + n) for n in range(3)]
    await asyncio.gather(*(start(spawner) for spawner in spawners))
    assert await containers(resources) == 3
    assert not resources.turns.locked()


async def test_a_server_that_ends_while_starting_says_so_and_leaves_nothing(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawner = new_spawner("alice", gpus=1)
    await start(spawner)
    await spawner.stop(now=True)
    (resources.data / "homes" / "alice" / "fail-with").write_text("3")
    with pytest.raises(web.HTTPError) as caught:
        await start(spawner)
    assert "exit code 3" in caught.value.jupyterhub_message
    assert free(resources) == 3
    assert await containers(resources) == 0


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.6, 1.2])
async def test_a_start_that_is_cancelled_leaves_nothing(
    new_spawner: NewSpawner, resources: Resources, after: float
) -> None:
    spawner = new_spawner("alice", gpus=1)
    await start(spawner)
    await spawner.stop(now=True)
    (resources.data / "homes" / "alice" / "slow").touch()
    task = asyncio.create_task(start(spawner))
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await containers(resources) == 0
    assert free(resources) == 3


async def test_a_server_that_ends_by_itself_gives_its_gpus_back_at_the_next_poll(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawner = new_spawner("alice", gpus=2)
    await start(spawner)
    docker.from_env().containers.get(spawner.container_ref).kill()
    assert await spawner.poll() == 137
    assert free(resources) == 3
    assert await containers(resources) == 0


async def test_a_silent_docker_does_not_cost_anybody_their_server(
    new_spawner: NewSpawner, resources: Resources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spawner = new_spawner("alice", gpus=1)
    url = await start(spawner)
    spawner.server.ip, spawner.server.port = url.split("//")[1].split(":")[0], 8888
    engine = resources.engine
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
        resources.engine = Engine(timeout=1)
        assert await spawner.poll() is None
        assert await spawner.get_url() == url + "/user/alice/"
    resources.engine = engine
    assert await spawner.poll() is None
    assert free(resources) == 2


async def test_what_a_killed_hub_leaves_is_put_right_by_the_next(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    kept, forgotten = new_spawner("alice", gpus=1), new_spawner("bob", uid=20002, gpus=1)
    await start(kept)
    await start(forgotten)
    ask = Ask("carol", "", "user:carol", 1)
    resources.store.transact(lambda s: admit(s, [ask]))  # and killed right after
    resources.store.transact(lambda s: [ledger.opened(s, x.id) for x in ledger.live_leases(s)])
    assert free(resources) == 0
    # The next hub knows alice's server, from its own database.
    reconciler = Reconciler(
        resources.engine, resources.store, resources.site_id, lambda: {("alice", "")}, kept.log
    )
    await reconciler.once()
    assert reconciler.findings == ()
    # Carol's request is taken up again; bob's server was his, and is nobody's now.
    assert free(resources) == 1
    assert await kept.poll() is None
    assert await forgotten.poll() == 0
    assert await containers(resources) == 1


async def test_a_ledger_that_was_lost_is_written_again_from_the_containers(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawner = new_spawner("alice", gpus=2, time_limit=60)
    await start(spawner)
    lease = spawner.lease_id
    before = {slot.device_id for slot in await devices_of(resources, lease)}
    await resources.store.run(lose_leases)
    assert free(resources) == 3
    reconciler = Reconciler(
        resources.engine, resources.store, resources.site_id, lambda: {("alice", "")}, spawner.log
    )
    await reconciler.once()
    assert reconciler.findings == ()
    assert {slot.device_id for slot in await devices_of(resources, lease)} == before
    row = await resources.store.read(lambda s: s.get_one(Lease, lease))
    assert (row.state, row.time_limit) == (LeaseState.ACTIVE, 3600)
    assert await spawner.poll() is None
    await spawner.stop(now=True)
    assert free(resources) == 3


async def devices_of(resources: Resources, lease: str) -> list[LeaseDevice]:
    return await resources.store.read(lambda s: s.get_one(Lease, lease).devices)


def lose_leases(session: Session) -> None:
    for table in (GpuUsage, LeaseDevice, Lease):
        session.query(table).delete()


async def test_a_hub_that_restarts_takes_its_server_up_again(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    before = new_spawner("alice", gpus=1)
    url = await start(before)
    after = new_spawner("alice")
    after.load_state(before.get_state())
    assert await after.poll() is None
    assert await after.get_url() == url + "/user/alice/"
    await after.stop(now=True)
    assert free(resources) == 3


async def test_a_person_without_account_number_is_told_what_to_do(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawner = new_spawner("alice")
    spawner._auth_state = {}
    with pytest.raises(web.HTTPError) as caught:
        await start(spawner)
    assert "uidNumber" in caught.value.jupyterhub_message
    assert caught.value.status_code == 403


async def test_progress_tells_the_steps_in_order(new_spawner: NewSpawner) -> None:
    spawner = new_spawner("alice", gpus=1)
    seen: list[dict[str, object]] = []

    async def watch() -> None:
        async for event in spawner.progress():
            seen.append(event)

    watcher = asyncio.create_task(watch())
    await start(spawner)
    await asyncio.sleep(0.05)
    watcher.cancel()
    assert [event["progress"] for event in seen] == [5, 15, 20, 30, 60, 90]
    assert seen[1]["message"] == "Got T4 (simulated)"


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
