"""Jobs among the hub's servers: what keeps leases and proves that nothing is lost sees both."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from commons.leases import ServerKey, job_of, job_server
from commons.store import StoreError
from commons.store.ends import Ending
from jobs.beside import ServersAndJobs
from jobs.records import State
from spawner.gpu.ledger import transitions
from spawner.gpu.watch.lease_controller import LeaseController
from spawner.reconcile import Reconciler
from tests.jobs.conftest import World

LOG = logging.getLogger("test")


class NoServers:
    """A hub without servers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def known(self) -> set[ServerKey]:
        return set()

    async def start(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        self.asked.append(("start", user, server))

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        self.asked.append(("stop", user, server))


@pytest.mark.parametrize("name", ["", "job:", "job:x", "job", "job:٣", "my job:1", "JOB:1"])
def test_no_servers_name_is_a_jobs(name: str) -> None:
    assert job_of(name) is None


def test_a_jobs_name_is() -> None:
    assert job_of(job_server(17)) == 17


async def test_the_reconciler_leaves_jobs_alone_and_removes_what_is_none_of_theirs(
    world: World,
) -> None:
    [job], [other] = world.ask(gpus=1), world.ask("bob")
    async with world.hub() as keeper:
        await world.runs(job)
        await world.runs(other)
        both = ServersAndJobs(NoServers(), keeper)
        once = Reconciler(world.runtime, world.store, both.known, LOG).once
        todo = await once()
        assert (todo.remove, todo.end, todo.again) == ((), (), ())
        assert len(world.runtime.servers) == 2
        stray = world.runtime.specs[world.row(other).handle]
        handle = await world.runtime.start(
            stray.model_copy(update={"server": "job:99", "job": None})
        )
        assert [one.handle for one in (await once()).remove] == [handle]
        assert world.row(job).state == State.RUNNING


async def test_until_jobs_are_read_nothing_is_taken_for_lost(world: World) -> None:
    async with world.hub() as keeper:
        keeper._known = None
        with pytest.raises(StoreError):
            ServersAndJobs(NoServers(), keeper).known()


async def test_whoever_ends_its_lease_ends_the_job(world: World) -> None:
    """On the page of GPUs, by the command, or since its GPU has failed."""
    [job], [lost] = world.ask(gpus=1), world.ask(gpus=1, retries=1)
    async with world.hub() as keeper:
        await world.runs(job)
        await world.runs(lost)
        both = ServersAndJobs(servers := NoServers(), keeper)
        controller = LeaseController(keeper.shared.admission, both, LOG)
        leases = [world.leases(one)[0].id for one in (job, lost)]
        await keeper.shared.admission.change(lambda s: transitions.cancel(s, leases[0]))
        await keeper.shared.admission.change(
            lambda s: transitions.plan_stop(s, leases[1], "gpu_lost", transitions.lock(s))
        )
        await controller.look()
        row = await world.over(job)
        assert (row.state, row.exit_code) == (State.CANCELLED, 0)
        async with asyncio.timeout(20):
            while (await world.runs(lost)).attempt != 2:
                await asyncio.sleep(0.01)
        await controller.close()
        assert servers.asked == []
        await both.stop("alice", "", None)
        assert servers.asked == [("stop", "alice", "")]
        with pytest.raises(LookupError):
            await both.start("alice", job_server(job), {})
