"""A build's container is gone afterwards, whoever was away when it ended."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from commons.errors import LabError
from commons.scopes import personal
from commons.site import Builds
from commons.store import Store
from environments.builds import build_container, queue
from environments.builds.build_container import Builders
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.protocol import TaskEnd
from spawner.runtime.spec import ImageStep, Limits


@pytest.mark.parametrize("away", [("remove",), ("remove", "follow")])
async def test_where_the_agent_is_away_it_is_removed_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: tuple[str, ...]
) -> None:
    """Kind: what is tried once, while who should do it is killed; with and without a result."""
    monkeypatch.setattr(build_container, "AGAIN", 0.01)
    runtime = MemoryRuntime()
    builders = Builders(runtime, store, Builds(), tmp_path, logging.getLogger("test"))
    asked = queue.BuildRequest("create", personal("alice"), "one", "alice", spec="x")
    job = await store.run(lambda s: queue.enqueue(s, asked, Builds()))
    limits = Limits(cpu=1, memory=2**30, pids=128, shared_memory=2**26, tmp=2**30)
    step = ImageStep(job_id=job.id, limits=limits, job="{}")
    handle = await runtime.begin(step)
    for method in away:
        runtime.silence(method)
    running = asyncio.ensure_future(builders.run(job, step))
    await runtime.print(handle, b'{"result": {"version": "1"}}', end=TaskEnd(exit_code=0))
    if "follow" in away:
        with pytest.raises(LabError):
            await running
    else:
        assert await running == {"version": "1"}
    tried = runtime.calls["remove"]
    while runtime.calls["remove"] < tried + 2:
        await asyncio.sleep(0)
    assert handle in await runtime.tasks()
    runtime.faults.clear()
    while await runtime.tasks():
        await asyncio.sleep(0)
