"""Forty hand-ins of 5 MB: in one minute, and all in the last second before a deadline.

A real agent with its own server and certificates, containers on a real Engine, the hub's keeper and
a SQLite store; without the console's page, whose answer comes before anything is read. A time is
from the moment at which the server was asked until the receipt is there.

Run in the test bed, as ``make bench`` does; writes tests/bench/results/handins.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import docker
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from commons.audit import AuditTrail
from commons.principal import Principal
from commons.site import Site
from commons.store import Store
from commons.store.models import Course, HandedIn
from courses import handins
from courses.document import CourseSpec, check_course, to_plain
from courses.handin_keeper import AT_ONCE, HandInKeeper
from courses.handins import State
from rig import agent
from rig.images import ours
from spawner.runtime.docker.runtime import DockerRuntime

STUDENTS = int(os.environ.get("BENCH_STUDENTS", "40"))
FILES, SIZE = 10, 512 * 1024
SITE = Site.model_validate(
    {
        **agent.SITE.model_dump(),
        "directory": {**agent.SITE.directory.model_dump(), "courses": {"ml101": {}}},
    }
)
NAMES = [f"s{n:02}" for n in range(STUDENTS)]
UIDS = {name: 20100 + n for n, name in enumerate(NAMES)}


def spec(works: int) -> CourseSpec:
    return check_course(
        {
            "version": 1, "course": "ml101", "title": {"en": "ML"}, "timezone": "UTC",
            "term": {"first": "2026-10-12", "last": "2027-02-05"},
            "handins": [
                {"name": f"hw{n}", "due": "2126-01-01 12:00", "path": "hw"} for n in range(works)
            ],
        }
    )  # fmt: skip


def homes(data: Path) -> None:
    for name, uid in UIDS.items():
        folder = agent.home(data, name, uid) / "hw"
        folder.mkdir()
        os.chown(folder, uid, 20000)
        for n in range(FILES):
            (folder / f"{n}.bin").write_bytes(os.urandom(SIZE))
            os.chown(folder / f"{n}.bin", uid, 20000)


async def identify(name: str) -> Principal | None:
    return Principal(name, uid=UIDS[name], gid=20000)


async def measured(store: Store, course: CourseSpec, work: str, pause: float) -> list[float]:
    """Seconds from each being asked until it is kept."""
    seconds: list[float] = []

    async def one(name: str, after: float) -> None:
        await asyncio.sleep(after)
        asked = time.time()
        row = await store.run(lambda s: handins.ask(s, course, work, name, "", asked))
        while True:
            found = await store.read(lambda s: s.get(HandedIn, row.id))
            assert found is not None
            if found.state == State.KEPT:
                break
            assert found.state != State.REFUSED, found.message
            await asyncio.sleep(0.1)
        assert found.receipt is not None
        seconds.append(time.time() - asked)

    await asyncio.gather(*(one(name, pause * n) for n, name in enumerate(NAMES)))
    return seconds


async def run(folder: Path) -> str:
    ours("agent")
    client = docker.from_env()
    network = client.networks.create("bench-handins")
    settings = agent.settings(SITE, folder / "data", str(network.name), "labcommons/server:latest")
    homes(settings.data)
    runtime, store, course = DockerRuntime(settings), Store(f"sqlite:///{folder}/s"), spec(3)
    store.migrate()
    store.transact(lambda s: s.add(Course(name="ml101", spec=to_plain(course), changed_by="x")))
    key, log = Ed25519PrivateKey.generate(), logging.getLogger("bench")
    await runtime.begin_watch()
    rows, before = [], os.getloadavg()[0]
    try:
        async with agent.served(runtime, folder / "tls") as url:
            connected = agent.connected(url, folder / "tls")
            keeper = HandInKeeper(
                connected, store, SITE, identify, AuditTrail(), log, "bench", lambda: key
            )
            running = asyncio.create_task(keeper.run())
            await measured(store, course, "hw0", 0.5)  # folders are made, images are read
            for what, work, pause in (
                ("in one minute", "hw1", 60 / STUDENTS),
                ("in one second", "hw2", 1 / STUDENTS),
            ):
                found = await measured(store, course, work, pause)
                numbers = (statistics.median(found), max(found))
                rows.append(f"| {what} | {len(found)} of {STUDENTS} | "
                            + " | ".join(f"{one:.1f}" for one in numbers) + " |")  # fmt: skip
            running.cancel()
            await asyncio.wait([running])
            await keeper.close()
            await connected.close()
    finally:
        await runtime.close()
        agent.sweep(settings.site_id)
        network.remove()
        store.close()
    return "\n".join(
        [
            f"# {STUDENTS} hand-ins of {FILES * SIZE / 2**20:.0f} MB",
            "",
            f"{platform.platform()}, {os.cpu_count()} cores, load average {before:.1f} at the "
            f"beginning, {os.getloadavg()[0]:.1f} at the end; {AT_ONCE} at once, two containers "
            "each. Seconds from the moment of asking until the receipt.",
            "",
            "| asked | with a receipt | median | longest |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        text = asyncio.run(run(Path(name)))
    print(text)
    (HERE / "results" / "handins.md").write_text(text, "utf-8")
