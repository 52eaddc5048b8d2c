"""Jobs run once, to their end, whoever is killed on the way; on a runtime in memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from commons import notices
from commons.errors import RuntimeRefused
from commons.site import Site
from commons.store import Store
from commons.store.models import DiskUse, EnvironmentVersion, ExamSitting, Job, utcnow
from jobs import output, records
from jobs.records import State
from spawner.gpu.ledger.batches import Ask
from spawner.runtime.memory import silent
from spawner.runtime.messages import ENGINE_REFUSED
from tests.jobs.conftest import Crash, World


async def test_a_job_runs_as_its_owners_server_and_what_it_said_is_kept(world: World) -> None:
    [job] = world.ask(command=["python", "train.py", "--lr", "1"], folder="work/run", size="large")
    async with world.hub():
        row = await world.runs(job)
        spec = world.runtime.specs[row.handle]
        await world.finish(job, 0, b"epoch 1", b"labcommons: exit code 0; memory peak 123456 bytes")
        row = await world.over(job)
    assert (row.state, row.exit_code, row.memory_peak) == (State.DONE, 0, 123456)
    assert row.environment == "data:1"
    assert spec.args == ("work/run", "python", "train.py", "--lr", "1")
    assert (spec.account.uid, spec.limits.cpu, spec.job) == (20003, 4, spec.job)
    assert spec.job is not None
    assert not [name for name in spec.env if "TOKEN" in name]
    assert output.part(world.data, job, 1, 0)[0].startswith("epoch 1\n")
    assert world.containers() == []
    told = world.store.transact(lambda s: notices.show(s, "alice", str))
    assert [one.code for one in told] == ["job_done"]


@pytest.mark.parametrize(
    ("code", "how", "reason"),
    [
        (3, {}, "job_exited"),
        (137, {"oom_killed": True}, "job_out_of_memory"),
        (139, {}, "job_signalled"),
    ],
)
async def test_why_it_failed_is_said(
    world: World, code: int, how: dict[str, bool], reason: str
) -> None:
    [job] = world.ask()
    async with world.hub():
        await world.finish(job, code, **how)
        row = await world.over(job)
    assert (row.state, row.exit_code) == (State.FAILED, code)
    assert row.reason is not None
    assert row.reason["code"] == reason


async def test_gpus_are_leased_and_charged_as_a_servers(world: World) -> None:
    jobs = [world.ask(gpus=1, gpu_type="T4", time_limit=60)[0] for _ in range(3)]
    async with world.hub():
        for job in jobs:
            await world.finish(job)
            assert (await world.over(job)).state == State.DONE
    assert [len(world.leases(job)) for job in jobs] == [1, 1, 1]
    assert (world.live(), world.charged()) == ([], 3)
    assert world.leases(jobs[0])[0].time_limit == 3600


async def test_on_either_database_a_job_is_begun_as_soon_as_it_is_asked_for_and_taken_up_again(
    store: Store, site: Site, tmp_path: Path
) -> None:
    world = World(store, site, tmp_path)
    async with world.hub():
        [first] = world.ask(gpus=1, gpu_type="T4")
        await world.finish(first, 0, b"said")
        await world.over(first)
        [second] = world.ask(gpus=1, gpu_type="T4")
        await world.runs(second)
    async with world.hub():
        await world.finish(second)
        assert (await world.over(second)).state == State.DONE
    assert len(world.runtime.ran) == len(set(world.runtime.ran)) == 2
    assert (world.live(), world.charged()) == ([], 2)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, 15))
async def test_a_hub_that_is_killed_at_any_step_loses_and_doubles_nothing(
    world: World, number: int, done: bool
) -> None:
    """Each transaction and each call of the runtime in turn is the last that the hub makes."""
    [job] = world.ask(gpus=1, gpu_type="T4", time_limit=60)
    crash = Crash(number, done)
    async with world.hub(crash):
        async with asyncio.timeout(20):
            while not crash.dead.is_set():
                for handle, state in [*world.runtime.servers.items()]:
                    if state.runs and world.row(job).state == State.RUNNING:
                        world.runtime.finish(handle, 7)
                if world.row(job).state == State.FAILED and world.row(job).settled:
                    break
                await asyncio.sleep(0.01)
    async with world.hub():
        async with asyncio.timeout(20):
            while world.row(job).state in records.UNFINISHED:
                for handle, state in [*world.runtime.servers.items()]:
                    if state.runs:
                        world.runtime.finish(handle, 7)
                await asyncio.sleep(0.01)
        row = await world.over(job)
    assert (row.state, row.exit_code, row.attempt) == (State.FAILED, 7, 1)
    assert world.runtime.ran == [f"{job}.1"]
    assert (world.containers(), world.live()) == ([], [])
    assert world.charged() == 1


@pytest.mark.parametrize("step", ["start", "start:created", "start:started", "run_task", "remove"])
async def test_an_agent_that_is_silent_is_waited_for(world: World, step: str) -> None:
    world.runtime.faults[step] = silent()
    [job] = world.ask()
    async with world.hub():
        if step == "remove":
            await world.finish(job)
        await asyncio.sleep(0.3)
        assert world.row(job).state in (*records.UNFINISHED, State.DONE)
        world.runtime.faults.clear()
        if step != "remove":
            await world.finish(job)
        row = await world.over(job)
    assert (row.state, row.attempt) == (State.DONE, 1)


async def test_unknown_is_not_over(world: World) -> None:
    [job] = world.ask(gpus=1)
    async with world.hub():
        await world.runs(job)
        world.runtime.silence()
        await asyncio.sleep(0.4)
        assert world.row(job).state == State.RUNNING
        assert len(world.live()) == 1
        world.runtime.faults.clear()
        await world.finish(job)
        assert (await world.over(job)).state == State.DONE


async def test_a_restarted_machine_is_told_and_tried_again_as_often_as_was_asked(
    world: World,
) -> None:
    [job] = world.ask(retries=1)
    async with world.hub():
        for attempt in (1, 2):
            async with asyncio.timeout(20):
                while (row := await world.runs(job)).attempt != attempt:
                    await asyncio.sleep(0.01)
            world.runtime._become(row.handle, machine_restarted=True)
            world.runtime.finish(row.handle, 137)
        row = await world.over(job)
    assert (row.state, row.attempt) == (State.LOST, 2)
    assert world.runtime.ran == [f"{job}.1", f"{job}.2"]


async def test_a_version_that_was_withdrawn_is_not_run(world: World) -> None:
    [job] = world.ask(environment="data:1")

    def withdraw(session: object) -> None:
        [row] = session.query(EnvironmentVersion).all()  # type: ignore[attr-defined]
        row.withdrawn_at, row.withdrawn_reason = utcnow(), "wrong numbers"

    world.store.transact(withdraw)
    async with world.hub():
        row = await world.over(job)
    assert row.state == State.FAILED
    assert row.reason is not None
    assert row.attempt == 0
    assert world.runtime.ran == []


async def test_what_cannot_be_started_fails_with_the_engines_words(world: World) -> None:
    world.runtime.faults["start"] = RuntimeRefused(ENGINE_REFUSED(reason="no such file"))
    [job] = world.ask(gpus=1)
    async with world.hub():
        row = await world.over(job)
    assert (row.state, world.live()) == (State.FAILED, [])


async def test_a_home_that_is_too_full_is_said(world: World) -> None:
    storage = world.site.storage.model_copy(update={"homes": "1G"})
    world.site = world.site.model_copy(update={"storage": storage})
    full = DiskUse(area="homes", name="alice", bytes=2**31, largest=[], whole=True)
    world.store.transact(lambda s: s.add(full))
    [large], [small] = world.ask(size="large"), world.ask(size="small")
    async with world.hub():
        row = await world.over(large)
        assert (row.state, row.reason["code"]) == (State.FAILED, "home_over_limit")  # type: ignore[index]
        await world.finish(small)
        assert (await world.over(small)).state == State.DONE


async def test_whoever_may_not_log_in_any_more_runs_nothing(world: World) -> None:
    [job] = world.ask("mallory")
    async with world.hub():
        row = await world.over(job)
    assert row.reason is not None
    assert row.reason["code"] == "job_not_admitted"


async def test_nothing_begins_while_its_owner_sits_an_exam(world: World) -> None:
    sitting = ExamSitting(
        course="ml101",
        exam="mid",
        username="alice",
        options={},
        ends_at=utcnow() + timedelta(hours=1),
    )
    world.store.transact(lambda s: s.add(sitting))
    [job] = world.ask()
    async with world.hub():
        async with asyncio.timeout(20):
            while (row := world.row(job)).reason is None:
                await asyncio.sleep(0.01)
        assert (row.state, row.reason["code"]) == (State.PENDING, "exam_on")
        world.store.transact(lambda s: setattr(s.query(ExamSitting).one(), "ended_at", utcnow()))
        await world.finish(job)
        assert (await world.over(job)).state == State.DONE


async def test_one_that_waits_leaves_the_queue_when_it_is_cancelled(world: World) -> None:
    first = [world.ask(gpus=1, gpu_type="T4")[0] for _ in range(2)]
    async with world.hub():
        await world.runs(first[0])
        async with asyncio.timeout(20):
            while not any(lease.verdict for lease in world.leases(first[1])):
                await asyncio.sleep(0.01)
        world.cancel(first[1])
        row = await world.over(first[1])
        assert (row.state, row.attempt) == (State.CANCELLED, 0)
        world.cancel(first[0], by="carol")
        row = await world.over(first[0])
        assert (row.state, row.reason["data"]) == (State.CANCELLED, {"by": "carol"})  # type: ignore[index]
    assert world.live() == []


async def test_its_time_limit_ends_it(world: World) -> None:
    [job] = world.ask(time_limit=1)
    world.store.transact(lambda s: setattr(s.get_one(Job, job), "time_limit", 0))
    async with world.hub():
        row = await world.over(job)
    assert (row.state, row.reason["code"]) == (State.FAILED, "job_time_over")  # type: ignore[index]


async def test_an_array_runs_as_many_at_once_as_was_said(world: World) -> None:
    jobs = world.ask(array="0-6%2")

    def states() -> list[str]:
        return world.store.transact(lambda s: [row.state for row in s.query(Job)], read=True)

    most = 0
    async with world.hub():
        await world.runs(jobs[0])
        await world.runs(jobs[1])
        await asyncio.sleep(0.3)
        async with asyncio.timeout(30):
            while {*records.UNFINISHED} & {*(now := states())}:
                most = max(most, sum(state in records.AT_WORK for state in now))
                for handle, state in [*world.runtime.servers.items()]:
                    if state.runs:
                        world.runtime.finish(handle, int(state.server == f"job:{jobs[3]}"))
                await asyncio.sleep(0.01)
    assert most == 2
    assert sorted(one.env["LABCOMMONS_TASK"] for one in world.runtime.specs.values()) == [
        str(number) for number in range(7)
    ]
    told = world.store.transact(lambda s: notices.show(s, "alice", str))
    assert [(one.code, "6 of 7" in one.sentence) for one in told] == [("jobs_over", True)]


async def test_what_comes_after_waits_and_is_cancelled_where_that_fails(world: World) -> None:
    [first] = world.ask()
    [second] = world.ask(after=[str(first)])
    [third] = world.ask(after=[str(second)])
    async with world.hub():
        await world.runs(first)
        async with asyncio.timeout(20):
            while (row := world.row(second)).reason is None:
                await asyncio.sleep(0.01)
        assert (row.state, row.reason["code"]) == (State.PENDING, "job_waits_after")
        await world.finish(first)
        await world.finish(second, 1)
        row = await world.over(third)
    assert (row.state, row.reason["code"]) == (State.CANCELLED, "job_never_after")  # type: ignore[index]
    assert world.runtime.ran == [f"{first}.1", f"{second}.1"]


async def test_a_preemptible_one_makes_room_for_whoever_asks(world: World) -> None:
    [job] = world.ask(gpus=1, gpu_type="T4", preemptible=True, retries=1)
    async with world.hub() as keeper:
        await world.runs(job)
        asking = Ask("bob", "", "user:bob", 1, "T4")
        standing = await keeper.shared.admission.submit(asking)
        assert not standing.held
        watch = keeper.shared.admission.watch(standing.lease)
        async with asyncio.timeout(20):
            while not standing.held:
                standing = await watch.next()
        row = await world.until(job, State.PENDING)
        assert row.reason is not None
        assert row.reason["code"] == "job_tried_again"
        await keeper.shared.admission.end(standing.lease, "done")
        async with asyncio.timeout(20):
            while (await world.runs(job)).attempt != 2:
                await asyncio.sleep(0.01)
        await world.finish(job)
        assert (await world.over(job)).state == State.DONE


async def test_nobody_makes_room_in_vain(world: World) -> None:
    """Whoever waits for another model is not helped by it."""
    [job] = world.ask(gpus=1, gpu_type="T4", preemptible=True)
    async with world.hub() as keeper:
        await world.runs(job)
        for server in ("", "second"):
            await keeper.shared.admission.submit(Ask("bob", server, "user:bob", 2, "A100"))
        await asyncio.sleep(0.5)
        assert (world.row(job).state, world.row(job).stop) == (State.RUNNING, "")
