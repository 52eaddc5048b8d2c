"""A site's jobs on a runtime in memory, with a hub that can be killed at any step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from commons.leases import LeaseState, job_server
from commons.principal import Principal
from commons.site import Site
from commons.store import Store
from commons.store.models import EnvironmentVersion, GpuDevice, GpuUsage, Job, Lease
from jobs import asked, records
from jobs.keeper import JobKeeper
from jobs.records import State
from spawner.resources import Resources
from spawner.runtime import labels
from spawner.runtime.memory import MemoryRuntime
from spawner.settings.server import ServerSettings
from spawner.settings.values import Ceiling

LOG = logging.getLogger("test")
IMAGE = f"sha256:{'1' * 64}"
SETTINGS = ServerSettings((), Ceiling(), "", None, "{prefix}-{imagename}", "server")


def version(name: str = "data", number: str = "1") -> EnvironmentVersion:
    return EnvironmentVersion(
        name=name,
        version=number,
        image=f"site/{name}:{number}",
        image_id=IMAGE,
        prefix=f"/opt/conda/envs/{name}",
        python="3.13.5",
        lock_digest="sha256:2",
        channels=[],
        words={},
        main_packages=[],
        packages=[],
        kernelspecs={},
        tag=None,
        revision=None,
    )


@pytest.fixture
def quick_store(tmp_path: Path) -> Iterator[Store]:
    """SQLite alone: what differs between databases is tested with the records."""
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    yield store
    store.close()


class World:
    def __init__(self, store: Store, site: Site, data: Path) -> None:
        self.store, self.site, self.data = store, site, data
        self.runtime = MemoryRuntime()
        self.people = {"alice": 20003, "bob": 20002}
        self.keeper: JobKeeper

        def fill(session: Any) -> None:
            for device in site.gpus.devices:
                session.add(
                    GpuDevice(id=device.id, model=device.model, memory=8 << 30, simulated=True)
                )
            session.add(version())

        store.transact(fill)

    async def identify(self, name: str) -> Principal | None:
        uid = self.people.get(name)
        return Principal(name, uid=uid, gid=20000) if uid else None

    async def settings_of(self, _name: str, _who: Principal) -> ServerSettings:
        return SETTINGS

    @asynccontextmanager
    async def hub(self, crash: Crash | None = None) -> AsyncIterator[JobKeeper]:
        """Of one life; ``crash``: where that ends, without a word to anybody."""
        shared = Resources(self.site, self.store, self.runtime, self.data)
        self.shared = shared
        keeper = self.keeper = JobKeeper(shared, self.identify, self.settings_of, LOG)
        shared.watch.ended = lambda _: keeper.wake()
        if crash is not None:
            crash.put(shared)
        watching = asyncio.create_task(shared.watch.run())
        await keeper.load()
        running = asyncio.create_task(keeper.run())
        try:
            yield keeper
        finally:
            shared.admission.stopping = True
            for task in (running, watching):
                task.cancel()
            await asyncio.wait([running, watching])
            await keeper.close()
            await shared.turns.close()
            await shared.admission.close()
            if crash is not None:
                crash.undo()

    def ask(self, user: str = "alice", **said: Any) -> list[int]:
        said.setdefault("command", ["python", "train.py"])
        wanted = asked.parse(said)
        return self.store.transact(lambda s: [one.id for one in records.submit(s, wanted, user)])

    def cancel(self, job: int, by: str = "alice") -> None:
        self.store.transact(lambda s: records.cancel(s, [s.get_one(Job, job)], by))

    def row(self, job: int) -> Job:
        return self.store.transact(lambda s: s.get_one(Job, job), read=True)

    def leases(self, job: int) -> list[Lease]:
        server = job_server(job)
        return self.store.transact(
            lambda s: s.query(Lease).filter(Lease.server_name == server).all(), read=True
        )

    def live(self) -> list[str]:
        return self.store.transact(
            lambda s: [
                one.id for one in s.query(Lease).filter(Lease.state != LeaseState.ENDED).all()
            ],
            read=True,
        )

    def charged(self) -> int:
        return self.store.transact(lambda s: s.query(GpuUsage).count(), read=True)

    async def until(self, job: int, *states: State, settled: bool = False) -> Job:
        async with asyncio.timeout(20):
            while (row := await asyncio.to_thread(self.row, job)).state not in states or (
                settled and not row.settled
            ):
                await asyncio.sleep(0.01)
        return row

    async def runs(self, job: int) -> Job:
        return await self.until(job, State.RUNNING)

    async def over(self, job: int) -> Job:
        ends = [one for one in State if one not in records.UNFINISHED]
        return await self.until(job, *ends, settled=True)

    async def finish(self, job: int, code: int = 0, *lines: bytes, **how: Any) -> None:
        handle = (await self.runs(job)).handle
        if lines:
            await self.runtime.print(handle, *lines)
        self.runtime.finish(handle, code, **how)

    def containers(self) -> list[str]:
        return [state.labels[labels.JOB] for state in self.runtime.servers.values()]


class Crash:
    """The hub is gone at its n-th step: a transaction, or a call of the runtime.

    ``done``: the step itself is carried out, and its answer reaches nobody.
    """

    def __init__(self, number: int, done: bool) -> None:
        self.number, self.done, self.count = number, done, 0
        self.dead = asyncio.Event()
        self._undo: list[Callable[[], None]] = []

    CALLS = ("run_task", "start", "remove", "remove_server", "stop", "follow")

    def put(self, shared: Resources) -> None:
        self._wrap(shared.store, "run")
        for name in self.CALLS:
            if name != "follow":
                self._wrap(shared.runtime, name)

    def _wrap(self, owner: Any, name: str) -> None:
        real: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def step(*args: Any, **more: Any) -> Any:
            self.count += 1
            if self.count < self.number:
                return await real(*args, **more)
            if self.count == self.number and self.done:
                await real(*args, **more)
            self.dead.set()
            await asyncio.Event().wait()

        setattr(owner, name, step)
        self._undo.append(lambda: delattr(owner, name))

    def undo(self) -> None:
        for one in self._undo:
            one()


@pytest.fixture
def world(quick_store: Store, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("jobs.keeper.BUSY", 0.05)
    monkeypatch.setattr("jobs.keeper.YIELD", 0.05)
    monkeypatch.setattr("jobs.keeper.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("jobs.keeper.GRACE", 5)
    monkeypatch.setattr("spawner.gpu.ledger.batches.POLL", 0.05)
    return World(quick_store, site, tmp_path)
