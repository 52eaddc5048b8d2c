"""The queue of jobs: how long a GPU is without one while others wait.

JOBS short jobs of PEOPLE people wait for three simulated GPUs; the hub's keeper, its ledger and
the store are real, containers are in memory and start at once. What is told is the time from a
job's end to the next one's start on the same GPU, which is all that is ours: a container's start
comes on top.

Run by ``make bench``; writes tests/bench/results/jobs.md.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[0] = str(HERE.parent)
sys.path.insert(0, str(ROOT))

from commons.site import Site
from commons.store import Store
from jobs import records
from tests.jobs.conftest import World

JOBS = int(os.environ.get("BENCH_JOBS", "200"))
PEOPLE = int(os.environ.get("BENCH_PEOPLE", "4"))
LASTS = 0.5  # seconds
SITE = {
    "version": 1,
    "directory": {"servers": ["ldaps://l"], "users": {"base_dn": "dc=example,dc=org"}},
    "sizes": {"small": {"cpu": 1, "memory": "1G", "default": True}},
    "gpus": {
        "source": "simulated",
        "devices": [{"id": f"GPU-{n}", "model": "T4", "memory": "16G"} for n in range(3)],
    },
}


async def measure() -> list[float]:
    """Seconds for which a GPU had nothing, between two jobs."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/labcommons.sqlite")
        store.migrate()
        world = World(store, Site.model_validate(SITE), Path(folder))
        world.people = {f"p{n}": 20_000 + n for n in range(PEOPLE)}
        jobs = [world.ask(f"p{n % PEOPLE}", gpus=1, time_limit=10)[0] for n in range(JOBS)]
        ended: dict[str, float] = {}
        gaps: defaultdict[str, list[float]] = defaultdict(list)
        seen: set[str] = set()
        async with world.hub():
            while len(seen) < JOBS or any(s.runs for s in world.runtime.servers.values()):
                for handle, state in [*world.runtime.servers.items()]:
                    if state.runs and handle not in seen:
                        seen.add(handle)
                        now, [gpu] = time.monotonic(), state.devices
                        if gpu in ended:
                            gaps[gpu].append(now - ended[gpu])
                        asyncio.get_running_loop().call_later(LASTS, end, world, handle, gpu, ended)
                await asyncio.sleep(0.002)
            for job in jobs:
                await world.over(job)
        assert len(world.runtime.ran) == len(set(world.runtime.ran)) == JOBS
        states = store.transact(lambda s: {row.state for row in records.mine(s, None)})
        assert states == {"done"}, states
        store.close()
    return [gap for found in gaps.values() for gap in found]


def end(world: World, handle: str, gpu: str, ended: dict[str, float]) -> None:
    """A job's program ends."""
    ended[gpu] = time.monotonic()
    world.runtime.finish(handle)


def main() -> None:
    """Measure, print and write."""
    began = time.monotonic()
    gaps = asyncio.run(measure())
    lines = [
        "# Jobs: GPUs between two of them",
        "",
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, SQLite; {JOBS} jobs of {LASTS} s, of {PEOPLE} people, on 3 "
        f"simulated GPUs, in {time.monotonic() - began:.0f} s.",
        "",
        "| seconds without a job, beyond the container's start | |",
        "|---|---|",
        f"| median | {statistics.median(gaps):.3f} |",
        f"| largest of {len(gaps)} | {max(gaps):.3f} |",
        "| wanted, at most | 1.000 |",
    ]
    print("\n".join(lines))
    (HERE / "results" / "jobs.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
