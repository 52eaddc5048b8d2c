"""How long a pass of the reconciler takes with 1,000 containers: list, compare, check.

The store is real (SQLite and PostgreSQL, 1,000 active leases, 500 waiting, 100 quotas, ten
thousand leases of the past); Docker's answer is a list in memory. Writes
tests/bench/results/gpu_reconcile.md.
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
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sqlalchemy.orm import Session

from commons.leases import LeaseState
from commons.store import GpuQuota, GpuUsage, Lease, Store
from rig.lab_life import Containers
from rig.postgres import Postgres
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import batches, transitions
from spawner.gpu.ledger.batches import Ask
from spawner.gpu.ledger.snapshot import read_snapshot
from spawner.gpu.policy.placement import Device
from spawner.reconcile import Reconciler

CONTAINERS, WAITING, QUOTAS, PAST = 1000, 500, 100, 10_000
RUNS = int(os.environ.get("BENCH_RUNS", "7"))


def furnish(store: Store) -> Containers:
    store.migrate()
    now = transitions.utcnow()
    devices = [Device(f"GPU-{n:04}", "A100", 80 * 2**30) for n in range(CONTAINERS)]
    store.transact(lambda s: sync_inventory(s, devices))
    store.transact(lambda s: _past(s, now))
    spec = {"time_limit": "8h", "budget": {"gpu_hours": 1e6, "window": "month"}}
    store.transact(
        lambda s: s.add_all(GpuQuota(subject=f"user:u{n}", spec=spec) for n in range(QUOTAS))
    )
    asks = [
        Ask(f"u{n % 300}", f"s{n}", f"user:u{n % 300}", 1, time_limit=3600)
        for n in range(CONTAINERS + WAITING)
    ]
    store.transact(lambda s: batches.admit(s, asks))
    engine = Containers()
    for lease in store.transact(transitions.live_leases):
        if lease.state is LeaseState.HELD:
            engine.make(lease, now)
            container = engine.named[lease.username, lease.server_name].handle
            store.transact(lambda s, i=lease.id, c=container: transitions.activate(s, i, c))  # type: ignore[misc]
    return engine


def _past(session: Session, now: datetime) -> None:
    for n in range(PAST):
        at = now - timedelta(minutes=200 + n)
        user = f"u{n % 300}"
        session.add(
            Lease(
                id=f"past{n}",
                username=user,
                server_name="",
                account=f"user:{user}",
                state=LeaseState.ENDED,
                weight=1.0,
                requested_at=at,
                held_at=at,
                ended_at=at + timedelta(minutes=60),
            )
        )
    session.flush()
    session.add_all(
        GpuUsage(
            lease_id=f"past{n}",
            username=f"u{n % 300}",
            account=f"user:u{n % 300}",
            weight=1.0,
            started_at=now - timedelta(minutes=200 + n),
            charged_to=now - timedelta(minutes=140 + n),
            gpu_seconds=3600.0,
            closed=True,
        )
        for n in range(PAST)
    )


async def measure(store: Store) -> tuple[float, float, float, int]:
    engine = furnish(store)
    known = set(engine.named)
    log = logging.getLogger("bench")
    reconciler = Reconciler(engine, store, lambda: known, log)
    passes, snapshots = [], []
    began = time.perf_counter()
    await reconciler.once()
    first = time.perf_counter() - began
    while len(reconciler._slots) < CONTAINERS:  # each container is looked into once
        await reconciler.once()
    for _run in range(RUNS):
        began = time.perf_counter()
        await reconciler.once()
        passes.append(time.perf_counter() - began)
        began = time.perf_counter()
        store.transact(lambda s: read_snapshot(s, time.time()), read=True)
        snapshots.append(time.perf_counter() - began)
    return first, statistics.median(passes), statistics.median(snapshots), len(reconciler.findings)


def main() -> None:
    logging.disable(logging.CRITICAL)
    rows = []
    with tempfile.TemporaryDirectory(prefix="lcpg") as folder:
        Path(folder).chmod(0o755)
        with Postgres(Path(folder, "pg")) as server:
            for engine, url in (
                ("SQLite", f"sqlite:///{folder}/r.sqlite"),
                ("PostgreSQL", server.database("reconcile")),
            ):
                store = Store(url)
                rows.append((engine, *asyncio.run(measure(store))))
                print(rows[-1], flush=True)
                store.close()
    lines = [
        f"# The reconciler with {CONTAINERS:,} containers",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, load {os.getloadavg()[0]:.1f}. {CONTAINERS:,} active "
        f"leases, {WAITING} waiting, {QUOTAS} quotas with budgets, {PAST:,} leases of the past; "
        f"Docker's list is in memory. Median of {RUNS}. Made by `tests/bench/gpu_reconcile.py`.",
        "",
        "| database | first pass | a pass, all invariants | reading the snapshot | findings |",
        "|---|---|---|---|---|",
        *(f"| {e} | {a:.2f} s | {b:.2f} s | {c * 1000:.0f} ms | {f} |" for e, a, b, c, f in rows),
        "",
    ]
    (HERE / "results" / "gpu_reconcile.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
