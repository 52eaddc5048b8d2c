"""LabSpawner's life on the memory runtime: what it starts, refuses, survives and leaves behind.

What only a real Engine can show is in ``test_on_engine.py``.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from tornado import web
from traitlets.config import Config

from commons.leases import LeaseState
from commons.site import Servers, Site, Size, Sums
from commons.store import GpuNotice, GpuUsage, Lease, LeaseDevice, Store, ends
from rig.answering import Here
from spawner import readiness
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.batches import Admission, Ask, admit
from spawner.gpu.watch.monitor import refresh
from spawner.reconcile import Reconciler
from spawner.resources import Resources
from spawner.runtime.memory import MemoryRuntime
from spawner.starts.turns import Turns

from .conftest import NewSpawner, add_versions, serving
from .life import containers, free, start


@pytest.fixture
def runtime() -> MemoryRuntime:
    return MemoryRuntime()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Where something answers as a server does."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def resources(
    runtime: MemoryRuntime, store: Store, site: Site, tmp_path: Path
) -> AsyncIterator[Resources]:
    await refresh(store, site.gpus, runtime)
    add_versions(store, {version: f"sha256:{version * 64}" for version in ("1", "2")})
    async with serving(Resources(site, store, runtime, tmp_path)) as shared:
        yield shared


@pytest.fixture
def new_spawner(new_spawner: NewSpawner, port: int) -> NewSpawner:
    return partial(new_spawner, config=Config({"Spawner": {"port": port}}))


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


async def test_an_older_version_can_be_pinned(
    new_spawner: NewSpawner, runtime: MemoryRuntime
) -> None:
    spawner = new_spawner("alice", environment="data:1")
    await start(spawner)
    labels = runtime.servers[spawner.container_ref].labels
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
        for found in await resources.store.read(transitions.live_leases):
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
    other.transact(lambda s: transitions.cancel(s, lease.id))
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


async def test_a_class_starts_in_turns_and_each_sees_their_place(
    new_spawner: NewSpawner, resources: Resources, runtime: MemoryRuntime
) -> None:
    resources.turns = Turns(resources.watch, Servers(concurrent_starts=1))
    here = runtime.faults["start:created"] = Here()
    first, second, third = (new_spawner(f"s{n:02}", uid=21000 + n) for n in range(3))
    starts = [asyncio.create_task(start(first))]
    await here.reached.wait()
    for one in (second, third):  # each is in line before the next one comes
        starts.append(asyncio.create_task(start(one)))
        event = await anext(one.progress())
    assert (event["queue"]["of"], event["queue"]["position"]) == ("turn", 2)
    assert event["queue"]["expected_start"] > time.time()
    assert "Number 2 in line to start, in about " in event["message"]
    assert len(runtime.servers) == 1
    here.set()
    await asyncio.gather(*starts)
    assert await containers(resources) == 3
    assert not resources.turns._starting


async def test_what_one_person_or_the_machine_may_hold_is_kept(
    new_spawner: NewSpawner, resources: Resources, runtime: MemoryRuntime
) -> None:
    settings = Servers(machine=Sums(memory="17G"), person=Sums(memory="9G"))
    resources.site.sizes["large"] = Size(cpu=4, memory="8G")  # all of it counts
    resources.turns = Turns(resources.watch, settings)
    resources.watch.changed = resources.turns.look
    first = new_spawner("alice", size="large")
    await start(first)
    with pytest.raises(web.HTTPError, match="Your servers have 8 GiB of memory together") as caught:
        await start(new_spawner("alice", server="two", size="large"))
    assert caught.value.status_code == 409
    await start(new_spawner("bob", uid=20002, size="large"))
    later = new_spawner("carol", uid=20004, size="large")
    waits = asyncio.create_task(start(later))
    event = await anext(later.progress())
    reason, instead = event["queue"]["reasons"]
    assert (reason["code"], instead["code"]) == ("machine_memory", "smaller_fits")
    assert "There is room now for: small." in event["message"]
    assert event["queue"]["expected_start"] is None
    # Room for a small one there is: it passes.
    await start(new_spawner("dave", uid=20005, size="small"))
    last = new_spawner("fred", uid=20007, size="large")
    waits_too = asyncio.create_task(start(last))
    [reason] = (await anext(last.progress()))["queue"]["reasons"]
    assert reason["code"] == "machine_memory"
    waits_too.cancel()
    await asyncio.wait([waits_too])
    with pytest.raises(web.HTTPError, match="17 GiB of memory for servers: 17 GiB are taken"):
        await start(new_spawner("erin", uid=20006, size="small", wait=False))
    # What is taken is what runs, whoever has started it: a hub that is killed forgets nothing.
    resources.turns = again = Turns(resources.watch, settings)
    assert sum(need.memory for need in again.held().values()) == 17 * 2**30
    waits.cancel()
    await asyncio.wait([waits])


async def test_who_waits_for_memory_starts_when_a_server_ends(
    new_spawner: NewSpawner, resources: Resources, runtime: MemoryRuntime
) -> None:
    resources.turns = Turns(resources.watch, Servers(machine=Sums(servers=1)))
    resources.watch.changed = resources.turns.look
    first, second = new_spawner("alice"), new_spawner("bob", uid=20002)
    await start(first)
    waits = asyncio.create_task(start(second))
    assert "1 of 1 servers run" in (await anext(second.progress()))["message"]
    runtime.finish(first.container_ref)
    await waits
    assert await containers(resources) == 2  # the ended one is there until it is looked at


async def known_to_have_ended(resources: Resources, handle: str) -> None:
    """Return when the local copy of what runs has heard of it."""
    while (state := await resources.watch.look(handle)) is not None and state.runs:
        await asyncio.sleep(0)


async def test_a_server_that_ends_while_starting_says_so_and_leaves_nothing(
    new_spawner: NewSpawner, resources: Resources, runtime: MemoryRuntime
) -> None:
    here = runtime.faults["start:started"] = Here()
    task = asyncio.create_task(start(new_spawner("alice", gpus=1)))
    await here.reached.wait()
    [handle] = runtime.servers
    runtime.finish(handle, 3)
    await known_to_have_ended(resources, handle)
    here.set()
    with pytest.raises(web.HTTPError) as caught:
        await task
    assert "exit code 3" in caught.value.jupyterhub_message
    assert free(resources) == 3
    assert await containers(resources) == 0


@pytest.mark.parametrize(
    "step",
    ["remove_server", "run_task", "run_task:doing", "start", "start:created", "start:started"],
)
async def test_a_start_that_is_cancelled_leaves_nothing(
    new_spawner: NewSpawner, resources: Resources, runtime: MemoryRuntime, step: str
) -> None:
    here = runtime.faults[step] = Here()
    task = asyncio.create_task(start(new_spawner("alice", gpus=1)))
    await here.reached.wait()
    task.cancel()
    here.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await containers(resources) == 0
    assert free(resources) == 3


async def test_a_start_that_is_cancelled_while_nothing_answers_leaves_nothing(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawner = new_spawner("alice", gpus=1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        spawner.port = silent.getsockname()[1]
        task = asyncio.create_task(start(spawner))
        async for event in spawner.progress():
            if event["progress"] == 60:
                break
        assert await containers(resources) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await containers(resources) == 0
    assert free(resources) == 3


async def test_a_server_that_has_called_the_hub_is_asked_at_once(
    new_spawner: NewSpawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "FIRST", 3600.0)
    monkeypatch.setattr(readiness, "LONGEST", 3600.0)
    spawner, asked = new_spawner("alice"), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = b"200 OK" if spawner.called.is_set() or asked.is_set() else b"503 Not yet"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        asked.set()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        spawner.port = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(start(spawner))
        await asked.wait()
        spawner.called.set()
        await task


async def test_a_server_that_never_answers_is_given_up_with_the_reason(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    spawner = new_spawner("alice")
    spawner.start_timeout = 1
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        spawner.port = silent.getsockname()[1]
        with pytest.raises(web.HTTPError) as caught:
            await start(spawner)
    assert "did not answer within 1 seconds" in caught.value.jupyterhub_message
    assert await containers(resources) == 0
    end = await resources.store.read(lambda s: ends.last(s, "alice", ""))
    assert end is not None
    assert end.cause == "start_failed"


async def test_a_server_that_ends_by_itself_gives_its_gpus_back_at_the_next_poll(
    new_spawner: NewSpawner, resources: Resources, runtime: MemoryRuntime
) -> None:
    spawner = new_spawner("alice", gpus=2)
    await start(spawner)
    lease = spawner.lease_id
    runtime.finish(spawner.container_ref, 137)
    await known_to_have_ended(resources, spawner.container_ref)
    assert await spawner.poll() == 137
    # JupyterHub asks once more before it says how it ended.
    assert await spawner.poll() == 137
    assert free(resources) == 3
    assert await containers(resources) == 0
    [notice] = await resources.store.read(
        lambda s: list(s.scalars(select(GpuNotice).where(GpuNotice.lease_id == lease)))
    )
    assert (notice.username, notice.code) == ("alice", "killed")
    assert notice.data["exit_code"] == 137


async def test_what_a_killed_hub_leaves_is_put_right_by_the_next(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    kept, forgotten = new_spawner("alice", gpus=1), new_spawner("bob", uid=20002, gpus=1)
    await start(kept)
    await start(forgotten)
    ask = Ask("carol", "", "user:carol", 1)
    resources.store.transact(lambda s: admit(s, [ask]))  # and killed right after
    resources.store.transact(
        lambda s: [transitions.opened(s, x.id) for x in transitions.live_leases(s)]
    )
    assert free(resources) == 0
    # The next hub knows alice's server, from its own database.
    reconciler = Reconciler(resources.runtime, resources.store, lambda: {("alice", "")}, kept.log)
    await reconciler.once()
    assert reconciler.findings == ()
    # Carol's request is taken up again; bob's server was his, and is nobody's now.
    assert free(resources) == 1
    assert await kept.poll() is None
    await known_to_have_ended(resources, forgotten.container_ref)
    assert await forgotten.poll() == 137
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
        resources.runtime, resources.store, lambda: {("alice", "")}, spawner.log
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
    async with asyncio.timeout(30):
        while len(seen) < 6:
            await asyncio.sleep(0)
    watcher.cancel()
    assert [event["progress"] for event in seen] == [5, 15, 20, 30, 60, 90]
    assert seen[1]["message"] == "Got T4 (simulated)"
