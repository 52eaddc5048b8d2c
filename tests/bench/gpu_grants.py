"""How many GPU grants a second: policy, queue and accounts included, 16 writers at once.

Each writer asks, is granted (or waits until it is), and ends, again and again; no device may
ever be leased twice. Once as the hub does it (16 coroutines, one group commit after the other),
once as 16 processes that all write for themselves. SQLite and PostgreSQL, side by side.
``python tests/bench/gpu_grants.py`` writes tests/bench/results/gpu_grants.md.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sqlalchemy import select

from commons.store import GpuQuota, Lease, Store
from rig.postgres import Postgres
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import batches, invariants, transitions
from spawner.gpu.ledger.batches import Admission, Ask
from spawner.gpu.policy.placement import Device

WRITERS = 16
SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
DEVICES = [Device(f"GPU-{n:03}", "A100", 80 * 2**30) for n in range(12)]  # fewer than writers


def furnish(store: Store) -> None:
    """GPUs, a hundred quotas, and a queue that is never empty."""
    store.migrate()
    store.transact(lambda s: sync_inventory(s, DEVICES))
    store.transact(
        lambda s: s.add_all(
            GpuQuota(
                subject=f"user:w{n}",
                spec={
                    "time_limit": "8h",
                    "budget": {"gpu_hours": 1000, "window": "month"},
                    "shares": n + 1,
                },
            )
            for n in range(100)
        )
    )


def ask(writer: int) -> Ask:
    return Ask(f"w{writer}", "", f"user:w{writer}", 1, time_limit=3600)


async def coroutines(store: Store) -> int:
    """Grants in SECONDS, all through one Admission."""
    gate = Admission(store)
    granted = 0
    end = time.monotonic() + SECONDS

    async def write(writer: int) -> None:
        nonlocal granted
        while time.monotonic() < end:
            standing = await gate.submit(ask(writer))
            watch = gate.watch(standing.lease)
            while not standing.held:
                standing = await watch.next()
            gate.unwatch(standing.lease)
            granted += 1
            await gate.end(standing.lease, "stopped")

    await asyncio.gather(*(write(n) for n in range(WRITERS)))
    await gate.close()
    return granted


def process(url: str, writer: int, start: float, results: multiprocessing.Queue[int]) -> None:
    """One process that asks and ends for itself."""
    store = Store(url)
    granted = 0
    time.sleep(max(0.0, start - time.time()))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        lease = (
            store.transact(
                lambda s: batches.admit(s, [ask(writer)], all_verdicts=False), attempts=50
            )
            .standings[0]
            .lease
        )

        def held(session: object, lease: str = lease) -> bool:
            state = session.scalar(select(Lease.state).where(Lease.id == lease))  # type: ignore[attr-defined]
            return state in ("held", "active")

        while not store.transact(held, read=True):
            time.sleep(0.005)
        granted += 1
        store.transact(lambda s, lease=lease: transitions.end(s, lease, "stopped"), attempts=50)  # type: ignore[misc]
    # Whoever waited for what ended last is granted by the next pass.
    store.transact(batches.run_pass, attempts=50)
    results.put(granted)


def processes(url: str) -> int:
    results: multiprocessing.Queue[int] = multiprocessing.Queue()
    start = time.time() + 6
    running = [
        multiprocessing.Process(target=process, args=(url, n, start, results))
        for n in range(WRITERS)
    ]
    for one in running:
        one.start()
    granted = sum(results.get(timeout=SECONDS * 6 + 60) for _one in running)
    for one in running:
        one.join()
    return granted


def sound(store: Store) -> str:
    """Whether every invariant holds afterwards."""
    found = store.transact(lambda s: invariants.check(s, deep=True), read=True)
    return "all hold" if not found else f"{len(found)} findings"


def main() -> None:
    logging.disable(logging.INFO)
    rows = []
    with tempfile.TemporaryDirectory(prefix="lcpg") as folder:
        Path(folder).chmod(0o755)
        with Postgres(Path(folder, "pg")) as server:
            urls = {
                "SQLite": lambda name: f"sqlite:///{folder}/{name}.sqlite",
                "PostgreSQL": server.database,
            }
            for engine, url in urls.items():
                for kind in ("coroutines", "processes"):
                    address = url(f"grants_{kind}")
                    store = Store(address)
                    furnish(store)
                    began = time.monotonic()
                    granted = (
                        asyncio.run(coroutines(store))
                        if kind == "coroutines"
                        else processes(address)
                    )
                    took = SECONDS if kind == "processes" else time.monotonic() - began
                    rows.append(
                        (engine, f"{WRITERS} {kind}", granted, granted / took, sound(store))
                    )
                    print(rows[-1], flush=True)
                    store.close()
    write(rows)


def write(rows: list[tuple[str, str, int, float, str]]) -> None:
    load = os.getloadavg()[0]
    lines = [
        "# Grants a second",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, load {load:.1f}. {len(DEVICES)} GPUs, {WRITERS} writers, "
        f"100 quotas with budgets, {SECONDS:g} s each. A grant is: asked, decided with policy and "
        "queue, held, charged, ended, each written to disk. Made by `tests/bench/gpu_grants.py`.",
        "",
        "| database | writers | grants | grants/s | invariants afterwards |",
        "|---|---|---|---|---|",
        *(f"| {e} | {w} | {n} | {r:.0f} | {s} |" for e, w, n, r, s in rows),
        "",
    ]
    (HERE / "results" / "gpu_grants.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
