"""What holds for every runtime: docs/runtime.md in tests, for each kind there is."""

from __future__ import annotations

import asyncio
import signal

import pytest

from commons.errors import LabError, RuntimeRefused, RuntimeSilent
from spawner.runtime import labels
from spawner.runtime.protocol import EventKind, Standing
from spawner.runtime.spec import (
    Account,
    Device,
    FetchMaterials,
    Gpus,
    JobRun,
    KeepFiles,
    ListFiles,
    MakeFolder,
    MakeHome,
    TakeFiles,
    task_key,
)

from .conftest import UID, World

NOBODY = "f" * 64
OUT_OF_REACH = 3


async def test_it_says_what_machine_it_is(world: World) -> None:
    (node,) = await world.runtime.nodes()
    assert node.cpu >= 1
    assert node.memory > 2**28


async def test_a_server_from_its_start_to_its_removal(world: World) -> None:
    runtime = world.runtime
    handle = await runtime.start(world.spec())
    state = (await runtime.inspect([handle]))[handle]
    assert state is not None
    assert (state.user, state.server, state.standing) == ("alice", "", Standing.RUNNING)
    assert state.address
    assert state.token == "a-token"
    assert state.labels[labels.ENVIRONMENT] == "data:1"
    await runtime.stop(handle, 5)
    state = (await runtime.inspect([handle]))[handle]
    assert state is not None
    assert state.standing is Standing.GONE
    # By how far the server had come when SIGTERM did: ready, or not, or not even its init.
    assert state.exit_code in (0, 128 + signal.SIGTERM, 128 + signal.SIGKILL)
    await runtime.remove(handle)
    assert await runtime.inspect([handle]) == {handle: None}
    assert await runtime.list() == []


async def test_an_attempt_of_a_job_is_started_once(world: World) -> None:
    """Kind: a program runs twice, since whoever had it started was killed before they knew."""
    program = {"server": "job:7", "args": (".", "sleep", "600")}
    first = world.spec(job=JobRun(id=7, attempt=1), **program)
    handle = await world.runtime.start(first)
    assert await world.runtime.start(first) == handle
    await world.end(handle)
    assert await world.runtime.start(first) == handle
    state = (await world.runtime.inspect([handle]))[handle]
    assert state is not None
    assert (state.runs, state.exit_code) == (False, 128 + signal.SIGKILL)
    assert state.labels[labels.JOB] == "7.1"
    again = await world.runtime.start(world.spec(job=JobRun(id=7, attempt=2), **program))
    assert again != handle
    assert await world.runtime.inspect([handle]) == {handle: None}
    await world.runtime.remove_server("alice", "job:7")
    assert await world.runtime.list() == []


async def test_the_list_has_servers_that_run_and_that_ended_and_no_secrets(world: World) -> None:
    first = await world.runtime.start(world.spec())
    second = await world.runtime.start(world.spec(server="two"))
    await world.end(second)
    found = {state.handle: state for state in await world.runtime.list()}
    assert found[first].standing is Standing.RUNNING
    assert found[second].standing is Standing.GONE
    assert (found[second].user, found[second].server) == ("alice", "two")
    assert not any(state.token for state in found.values())


async def test_what_a_lease_gave_stands_on_the_container(world: World) -> None:
    gpus = Gpus(
        lease="lease-1",
        devices=(Device(id="GPU-a0"), Device(id="GPU-b0", index=2)),
        account="team:vision",
        time_limit=3600,
    )
    handle = await world.runtime.start(world.spec(gpus=gpus))
    (listed,) = await world.runtime.list()
    assert listed.labels[labels.LEASE] == "lease-1"
    assert labels.read_devices(listed.labels[labels.GPUS]) == gpus.devices
    assert listed.labels[labels.ACCOUNT] == "team:vision"
    assert listed.labels[labels.TIME_LIMIT] == "3600"
    state = (await world.runtime.inspect([handle]))[handle]
    assert state is not None
    assert state.devices == ("GPU-a0", "GPU-b0")


async def test_a_start_takes_the_place_of_the_same_servers_old_container(world: World) -> None:
    first = await world.runtime.start(world.spec())
    other = await world.runtime.start(world.spec(server="two"))
    second = await world.runtime.start(world.spec())
    assert len({first, other, second}) == 3
    found = await world.runtime.inspect([first, other, second])
    assert found[first] is None
    assert found[other] is not None
    assert found[second] is not None


async def test_the_same_server_started_many_times_at_once_is_there_once(world: World) -> None:
    handles = await asyncio.gather(*(world.runtime.start(world.spec()) for _ in range(5)))
    (left,) = await world.runtime.list()
    assert left.handle in handles
    assert left.standing is Standing.RUNNING


async def test_people_whose_names_look_alike_have_servers_of_their_own(world: World) -> None:
    names = [("a-b", "c"), ("a", "b-c"), ("a--b", ""), ("a", "-b"), ("A", "x"), ("a", "x")]
    handles = [await world.runtime.start(world.spec(user, server)) for user, server in names]
    found = await world.runtime.inspect(handles)
    assert [(s.user, s.server) for s in found.values() if s] == names


async def test_after_a_start_that_was_given_up_nothing_is_left(world: World) -> None:
    start = asyncio.create_task(world.runtime.start(world.spec()))
    await asyncio.sleep(0.01)
    start.cancel()
    await asyncio.wait([start])
    await world.runtime.remove_server("alice", "")
    assert await world.runtime.list() == []


async def test_a_start_that_is_refused_says_why_and_leaves_nothing(world: World) -> None:
    with pytest.raises(RuntimeRefused) as caught:
        await world.runtime.start(world.spec(image=f"sha256:{'9' * 64}"))
    assert str(caught.value)
    assert await world.runtime.list() == []


async def test_stopping_and_removing_what_is_gone_is_fine(world: World) -> None:
    handle = await world.runtime.start(world.spec())
    await world.runtime.remove(handle)
    for gone in (handle, NOBODY):
        await world.runtime.stop(gone, 0)
        await world.runtime.remove(gone)
        assert await world.runtime.logs(gone) == ""
    await world.runtime.remove_server("alice", "")
    await world.runtime.remove_server("nobody", "never")


async def test_a_server_that_ended_is_gone_and_its_exit_code_is_told(world: World) -> None:
    handle = await world.runtime.start(world.spec())
    await world.end(handle)
    state = (await world.runtime.inspect([handle]))[handle]
    assert state is not None
    assert (state.standing, state.exit_code, state.address) == (Standing.GONE, 137, "")


async def test_what_servers_use_leaves_out_those_that_ended(world: World) -> None:
    alive = await world.runtime.start(world.spec())
    ended = await world.runtime.start(world.spec(server="two"))
    await world.end(ended)
    used = await world.runtime.usage([alive, ended, NOBODY])
    assert set(used) == {alive}
    assert used[alive].memory >= 0
    assert await world.runtime.gpu_processes(alive) is not None
    with pytest.raises(RuntimeRefused):
        await world.runtime.gpu_processes(ended)
    # No GPU was given: nothing is there to be reached, or nothing is missing.
    assert await world.runtime.probe_gpus(alive) in (0, OUT_OF_REACH)
    assert await world.runtime.versions_in_use("shared", "", "data") == {}


# -- tasks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [MakeHome(user="alice", uid=UID, gid=20000), MakeFolder(scope="shared")],
    ids=lambda task: task.kind,
)
async def test_twenty_who_need_the_same_at_once_wait_for_one_task(
    world: World, task: MakeHome | MakeFolder
) -> None:
    await asyncio.gather(*(world.runtime.run_task(task) for _ in range(20)))
    assert world.made(task_key(task)) in (1, None)
    await world.runtime.run_task(task)
    assert await world.runtime.tasks() == {}
    assert await world.runtime.list() == []


async def test_who_goes_away_does_not_take_the_task_along(world: World) -> None:
    task = MakeHome(user="alice", uid=UID, gid=20000)
    first = asyncio.create_task(world.runtime.run_task(task))
    await asyncio.sleep(0)
    second = asyncio.create_task(world.runtime.run_task(task))
    await asyncio.sleep(0.01)
    first.cancel()
    await second


async def test_a_home_never_changes_hands(world: World) -> None:
    await world.runtime.run_task(MakeHome(user="alice", uid=UID, gid=20000))
    with pytest.raises(LabError) as caught:
        await world.runtime.run_task(MakeHome(user="alice", uid=UID + 1, gid=20000))
    assert (caught.value.code, caught.value.message.params["owner"]) == ("home_of_another", UID)


async def test_a_long_task_is_followed_from_its_first_line_to_its_end(world: World) -> None:
    runtime = world.runtime
    handle = await runtime.begin(world.build("j1", b"one", b"", "三 three".encode(), exit_code=4))
    assert await runtime.tasks() == {handle: "j1"}
    playing = asyncio.create_task(world.play())
    assert [line async for line in runtime.follow(handle)] == [b"one", b"", "三 three".encode()]
    await playing
    end = await runtime.task_end(handle)
    assert end is not None
    assert (end.exit_code, end.oom_killed) == (4, False)
    # Whoever comes later, or lost the line half-way, misses nothing and hears nothing twice.
    assert [line async for line in runtime.follow(handle, 2)] == ["三 three".encode()]
    await runtime.remove(handle)
    assert await runtime.tasks() == {}
    with pytest.raises(RuntimeRefused):
        await runtime.task_end(handle)


async def test_a_long_task_that_is_begun_again_is_found(world: World) -> None:
    step = world.build("j2", b"once")
    first = await world.runtime.begin(step)
    assert await world.runtime.begin(step) == first
    await world.play()
    assert [line async for line in world.runtime.follow(first)] == [b"once"]


async def test_there_is_nothing_to_follow_of_no_task(world: World) -> None:
    with pytest.raises(RuntimeRefused):
        _ = [line async for line in world.runtime.follow(NOBODY)]


# -- snapshots --------------------------------------------------------------------------------

ALICE = Account(uid=UID, gid=20000)


async def test_what_is_in_a_home_is_taken_kept_and_dropped(world: World) -> None:
    runtime = world.runtime
    world.put("n.txt", b"first")
    take = TakeFiles(
        id="h1", user="alice", account=ALICE, path="n.txt", most_files=10, most_bytes=100
    )
    taken, same = await asyncio.gather(runtime.take(take), runtime.take(take))
    assert (taken.files, taken.bytes, taken.refusal) == (1, 5, "")
    assert same == taken
    await runtime.run_task(MakeFolder(scope="course-ml101"))
    keep = KeepFiles(
        id="h1", scope="course-ml101", area="handins", place="hw1/alice/1", digest=taken.digest,
        receipt='{"receipt": {}}',
    )  # fmt: skip
    await runtime.keep(keep)
    await runtime.drop("h1")
    await runtime.keep(keep)  # it is there
    with pytest.raises(RuntimeRefused) as caught:
        await runtime.keep(keep.model_copy(update={"place": "hw1/alice/2"}))
    assert caught.value.code == "snapshot_gone"
    await runtime.drop("h1")
    assert await runtime.tasks() == {}


async def test_what_is_not_there_is_told_and_leaves_nothing(world: World) -> None:
    world.put("n.txt", b"first")
    gone = TakeFiles(
        id="h2", user="alice", account=ALICE, path="gone", most_files=10, most_bytes=100
    )
    assert (await world.runtime.take(gone)).refusal == "absent"
    look = ListFiles(user="alice", account=ALICE, path="")
    listed = await world.runtime.list_files(look)
    assert [(one.name, one.bytes) for one in listed.files] == [("n.txt", 5)]
    absent = await world.runtime.list_files(look.model_copy(update={"path": "gone"}))
    assert absent.refusal == "absent"
    keep = KeepFiles(
        id="h2", scope="course-ml101", area="handins", place="hw1/alice/1", digest="0" * 64
    )
    await world.runtime.run_task(MakeFolder(scope="course-ml101"))
    with pytest.raises(RuntimeRefused) as caught:
        await world.runtime.keep(keep)
    assert caught.value.code == "snapshot_gone"


# -- materials ---------------------------------------------------------------------------------


async def test_materials_are_given_out_once_for_all_who_ask(world: World) -> None:
    ml101 = "course-ml101"
    world.give("first.ipynb", b"{}")
    await world.runtime.run_task(MakeFolder(scope=ml101))
    asked = FetchMaterials(scope=ml101)
    first, same = await asyncio.gather(*(world.runtime.fetch_materials(asked) for _ in range(2)))
    assert (first.failure, first.files, first.bytes) == ("", 1, 2)
    assert same == first
    assert (await world.runtime.fetch_materials(asked)).revision == first.revision


async def test_materials_that_cannot_be_fetched_are_told_as_such(world: World) -> None:
    await world.runtime.run_task(MakeFolder(scope="course-ml101"))
    gone = FetchMaterials(scope="course-ml101", git="https://127.0.0.1:9/gone.git")
    told = await world.runtime.fetch_materials(gone)
    assert told.failure
    assert told.revision == ""


# -- events -----------------------------------------------------------------------------------


async def test_events_begin_with_resync_and_tell_starts_and_ends(world: World) -> None:
    events = world.runtime.events()
    assert (await anext(events)).kind is EventKind.RESYNC
    handle = await world.runtime.start(world.spec())
    started = await anext(events)
    assert (started.kind, started.handle) == (EventKind.STARTED, handle)
    await world.end(handle)
    ended = await anext(events)
    assert (ended.kind, ended.handle, ended.exit_code) == (EventKind.ENDED, handle, 137)
    await events.aclose()  # type: ignore[attr-defined]


async def test_events_that_break_off_are_not_taken_for_quiet(world: World) -> None:
    events = world.runtime.events()
    await anext(events)
    await world.break_events()
    with pytest.raises(RuntimeSilent):
        await anext(events)
    again = world.runtime.events()
    assert (await anext(again)).kind is EventKind.RESYNC
    await again.aclose()  # type: ignore[attr-defined]
