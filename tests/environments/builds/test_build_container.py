"""A build's container is gone afterwards, whoever was away when it ended."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from commons.errors import LabError
from commons.scopes import personal
from commons.site import Builds
from commons.store import Store
from environments.builds import queue
from environments.builds.build_container import Builders
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import TaskEnd
from spawner.runtime.spec import ImageStep, Limits


@pytest.mark.parametrize("away", [("remove",), ("remove", "follow"), ("begin",)])
async def test_where_the_agent_is_away_it_is_removed_later(
    store: Store, tmp_path: Path, away: tuple[str, ...]
) -> None:
    """Kind: what is tried once, while who should do it is killed; with a result, without one, and
    where nobody was told that there is a container.
    """
    runtime = MemoryRuntime()
    builders = Builders(runtime, store, Builds(), tmp_path, logging.getLogger("test"))
    asked = queue.BuildRequest("create", personal("alice"), "one", "alice", spec="x")
    job = await store.run(lambda s: queue.enqueue(s, asked, Builds()))
    limits = Limits(cpu=1, memory=2**30, pids=128, shared_memory=2**26, tmp=2**30)
    handle = await runtime.begin(ImageStep(job_id=job.id, limits=limits, job="{}"))
    others = await runtime.begin(ImageStep(job_id="prune-1", limits=limits, job="{}"))
    await runtime.print(handle, b'{"result": {"version": "1"}}', end=TaskEnd(exit_code=0))
    for method in away:
        runtime.silence(method)
    step = ImageStep(job_id=job.id, limits=limits, job="{}")
    if away == ("remove",):
        assert await builders.run(job, step) == {"version": "1"}
    else:
        with pytest.raises(LabError):
            await builders.run(job, step)
    await builders.sweep()
    assert handle in await runtime.tasks(), "the job is not over"
    builders.over(job.id)
    if "remove" in away:
        with pytest.raises(LabError):
            await builders.sweep()
    runtime.faults.clear()
    await builders.sweep()
    assert list(await runtime.tasks()) == [others]
