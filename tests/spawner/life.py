"""Few words for the life of a server in tests."""

from __future__ import annotations

from spawner.gpu.ledger import transitions
from spawner.resources import Resources
from spawner.spawner import LabSpawner


async def start(spawner: LabSpawner) -> str:
    await spawner.run_pre_spawn_hook()
    return await spawner.start()


def free(resources: Resources) -> int:
    return resources.store.transact(transitions.availability).free


async def containers(resources: Resources) -> int:
    return len(await resources.runtime.list())
