"""Leases live through anything: random days of a lab, crashes between any two statements."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event

from commons.leases import LeaseState
from commons.store import GpuDevice, GpuQuota, GpuReservation, Lease, Store
from commons.store.models import Base, GpuState
from rig.lab_life import BEGINNING, DEFAULTS, DEVICES, Crash, Lab
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import invariants, recovery, transitions
from spawner.gpu.ledger.batches import Ask

STEPS = 2_000  # on SQLite (LIFE_STEPS: as many as wanted)
PEOPLE = {"alice": "vision", "bob": "vision", "carol": "nlp", "dan": "nlp"}

people = st.sampled_from(sorted(PEOPLE))
counts = st.integers(0, 5)
# At which statement (or commit) the hub is killed; mostly not at all.
crashes = st.one_of(st.just(0), st.just(0), st.integers(1, 40))
quota_specs: dict[str, Any] = {
    "settings": st.fixed_dictionaries(
        {"timezone": st.sampled_from(["Asia/Shanghai", "America/New_York"])}
    ),
    "user:alice": st.fixed_dictionaries({"max_gpus": st.integers(0, 3)}),
    "group:vision": st.fixed_dictionaries(
        {
            "grp_gpus": st.integers(0, 4),
            "grp_budget": st.fixed_dictionaries(
                {"gpu_hours": st.integers(1, 40), "window": st.sampled_from(["day", "total"])}
            ),
            "nominal": st.integers(1, 2),
            "cohort": st.just("lab"),
            "preempt_exempt": st.just("10m"),
        }
    ),
    "group:nlp": st.fixed_dictionaries(
        {
            "grp_budget": st.fixed_dictionaries(
                {"gpu_hours": st.integers(1, 40), "half_life": st.sampled_from(["1d", "7d"])}
            ),
            "nominal": st.integers(1, 3),
            "cohort": st.just("lab"),
        }
    ),
}


class Life(RuleBasedStateMachine):
    """Everything that can happen to leases, in any order."""

    store: ClassVar[Store]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        with self.store.engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
            connection.execute(
                GpuState.__table__.insert().values(id=1, version=0, latest=BEGINNING)
            )
        self.lab = Lab(self.store)
        # What is rare in life is rare here: it tells little twice in a row, and takes long.
        self.age = 0  # in steps
        self.next_kill = self.next_loss = 5

    def do(self, crash: int, work: Any, *arguments: Any) -> None:
        """Something happens, and the hub may be killed on the way."""
        self.age += 1
        Life.steps += 1
        self.lab.faults.countdown = crash
        try:
            work(*arguments)
        except Crash:
            self.lab.restart()
        self.lab.faults.countdown = 0

    def pick(self, number: int, *states: LeaseState) -> Lease | None:
        leases = [lease for lease in self.lab.live() if lease.state in states]
        return leases[number % len(leases)] if leases else None

    @rule(
        user=people,
        server=st.sampled_from(["", "train"]),
        group=st.booleans(),
        gpus=st.integers(1, 3),
        model=st.sampled_from(["", "", "A100", "T4"]),
        hours=st.one_of(st.none(), st.sampled_from([0.25, 1, 4, 9])),
        wait=st.sampled_from([True, True, True, False]),
        crash=crashes,
    )
    def ask(
        self,
        user: str,
        server: str,
        group: bool,
        gpus: int,
        model: str,
        hours: float | None,
        wait: bool,
        crash: int,
    ) -> None:
        account = f"group:{PEOPLE[user]}" if group else f"user:{user}"
        limit = None if hours is None else hours * 3600
        options = {"time_limit": limit, "wait": wait}
        request = Ask(user, server, account, gpus, model, limit, options, wait)
        self.do(crash, self.lab.ask, request)

    @rule(number=counts, crash=crashes)
    def start(self, number: int, crash: int) -> None:
        lease = self.pick(number, LeaseState.HELD)
        if lease:
            self.do(crash, self.lab.start, lease)

    @rule(number=counts, crash=crashes)
    def stop(self, number: int, crash: int) -> None:
        lease = self.pick(number, LeaseState.ACTIVE, LeaseState.HELD)
        if lease:
            self.do(crash, self.lab.stop, lease)

    @rule(number=counts, crash=crashes)
    def cancel(self, number: int, crash: int) -> None:
        lease = self.pick(number, LeaseState.QUEUED, LeaseState.ACTIVE)
        if lease:
            self.do(crash, self.lab.move, lambda s: transitions.cancel(s, lease.id))

    @rule(number=counts)
    def somebody_opens_it(self, number: int) -> None:
        lease = self.pick(number, LeaseState.ACTIVE)
        if lease:
            self.do(0, self.lab.move, lambda s: transitions.opened(s, lease.id))

    @rule(number=counts, minutes=st.sampled_from([10, 60, 600]), crash=crashes)
    def extend(self, number: int, minutes: int, crash: int) -> None:
        lease = self.pick(number, LeaseState.ACTIVE)
        if lease:
            self.do(crash, self.lab.move, lambda s: transitions.extend(s, lease.id, minutes * 60))

    @rule(minutes=st.sampled_from([1, 5, 20, 90, 1000]), crash=crashes)
    def time_goes_by(self, minutes: int, crash: int) -> None:
        # Nothing that was granted takes an hour to start.
        while lease := self.pick(0, LeaseState.HELD):
            self.lab.start(lease)
        # The keeper looks every few seconds; a thousand minutes is a hub that was down.
        for _look in range(1 if minutes == 1000 else 3):
            self.lab.tick(minutes / 3)
            self.do(crash, self.lab.look)

    @rule(hours=st.sampled_from([-30, -2, 3, 50]))
    def clock_is_set(self, hours: int) -> None:
        self.lab.clock.now += timedelta(hours=hours)
        self.do(0, self.lab.move, lambda s: recovery.shift(s, hours * 3600))

    @rule(minutes=st.integers(1, 90))
    def another_process_has_an_older_clock(self, minutes: int) -> None:
        then = self.lab.clock.now - timedelta(minutes=minutes)
        self.do(0, self.lab.transact, lambda s: transitions.lock(s, then))

    @rule(device=st.sampled_from(DEVICES), drained=st.booleans(), crash=crashes)
    def drain(self, device: Any, drained: bool, crash: int) -> None:
        def work(session: Any) -> None:
            row = session.get_one(GpuDevice, device.id)
            row.drained_at = self.lab.clock.now if drained else None

        self.do(crash, self.lab.move, work)

    @rule(lost=st.sets(st.sampled_from(DEVICES), max_size=2), crash=crashes)
    def gpus_vanish_and_come_back(self, lost: Any, crash: int) -> None:
        seen = [device for device in DEVICES if device not in lost]
        now = self.lab.clock.now
        self.do(crash, self.lab.move, lambda s: sync_inventory(s, seen, vanished="lost", now=now))

    @rule(subject=st.sampled_from(sorted(quota_specs)), data=st.data(), crash=crashes)
    def quota_is_set(self, subject: str, data: st.DataObject, crash: int) -> None:
        spec = data.draw(st.one_of(st.none(), quota_specs[subject]))

        def work(session: Any) -> None:
            row = session.get(GpuQuota, subject)
            if row is not None and spec is None:
                session.delete(row)
            elif spec is not None:
                row = row or GpuQuota(subject=subject)
                row.spec, row.changed_at = spec, self.lab.clock.now
                session.add(row)
            session.get_one(GpuQuota, "default").changed_at = self.lab.clock.now
            session.flush()

        self.do(crash, self.lab.move, work)

    @rule(hours=st.integers(0, 30), gpus=st.integers(1, 2), daily=st.booleans())
    def reserve(self, hours: int, gpus: int, daily: bool) -> None:
        def work(session: Any) -> None:
            session.merge(
                GpuReservation(
                    id="r",
                    name="class",
                    subject="group:nlp",
                    gpus=gpus,
                    gpu_type="A100",
                    starts=self.lab.clock.now + timedelta(hours=hours),
                    duration=7200,
                    timezone="Europe/Berlin",
                    repeat="daily" if daily else "once",
                )
            )
            session.flush()

        self.do(0, self.lab.move, work)

    @precondition(lambda self: self.age >= self.next_kill)
    @rule(after=st.integers(5, 20))
    def hub_is_killed(self, after: int) -> None:
        self.next_kill = self.age + after
        self.do(0, self.lab.restart)

    @precondition(lambda self: self.age % 5 == 0)
    @rule()
    def reconciler_passes(self) -> None:
        self.do(0, self.lab.reconcile)

    @precondition(lambda self: self.age >= self.next_loss)
    @rule(after=st.integers(10, 30))
    def leases_are_lost(self, after: int) -> None:
        """Somebody puts an old copy of the database back: running servers are not in it."""
        self.next_loss = self.age + after

        def work(session: Any) -> None:
            for lease in transitions.live_leases(session):
                if lease.state is LeaseState.ACTIVE:
                    for table in ("gpu_usage", "gpu_lease_devices", "gpu_leases"):
                        key = "id" if table == "gpu_leases" else "lease_id"
                        where = Base.metadata.tables[table]
                        session.execute(where.delete().where(where.c[key] == lease.id))

        self.do(0, self.lab.transact, work)
        self.do(0, self.lab.reconcile)
        self.lab.look()

    @invariant()
    def everything_holds(self) -> None:
        self.lab.check()

    def teardown(self) -> None:
        """Left alone, with nothing in the way, whoever waits is served, and everything ends."""
        lab = self.lab
        try:
            lab.move(self._make_way)
            for _hour in range(400):
                if not lab.servers():
                    break
                lab.look()
                for lease in lab.live():
                    if lease.state is LeaseState.HELD:
                        lab.start(lease)
                lab.tick(50)
                lab.check()
                Life.steps += 1
            assert not lab.servers(), "somebody starves, or does not end"
            assert not lab.engine.servers
            found = lab.store.transact(
                lambda s: invariants.check(s, deep=True, now=lab.clock.now), read=True
            )
            assert found == (), found
        finally:
            lab.close()

    def _make_way(self, session: Any) -> None:
        session.query(GpuReservation).delete()
        session.query(GpuQuota).delete()
        session.query(GpuDevice).update({"drained_at": None})
        sync_inventory(session, DEVICES, now=self.lab.clock.now)
        session.add(GpuQuota(subject="default", spec=dict(DEFAULTS), changed_at=self.lab.clock.now))
        session.flush()


@pytest.fixture
def quick_store(tmp_path: Path) -> Iterator[Store]:
    """SQLite in memory's file system, which nobody waits for."""
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=folder) as place:
        store = Store(f"sqlite:///{place}/labcommons.sqlite")
        event.listen(
            store.engine, "connect", lambda c, _record: c.execute("PRAGMA synchronous=OFF")
        )
        store.migrate()
        yield store
        store.close()


def live(store: Store, steps: int, examples: int = 20) -> None:
    """Run random lives until there were so many steps: the same ones each time, by LIFE_SEED."""
    Life.store, Life.steps = store, 0
    seeds = itertools.count(int(os.environ.get("LIFE_SEED", "0")))
    while Life.steps < steps:
        seed(next(seeds))(Life)
        run_state_machine_as_test(
            Life,
            settings=settings(
                max_examples=examples,
                stateful_step_count=200,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_leases_live_through_anything(quick_store: Store) -> None:
    live(quick_store, int(os.environ.get("LIFE_STEPS", STEPS)))


def test_leases_live_through_anything_on_postgresql(postgres: Any) -> None:
    store = Store(postgres.database("life"))
    event.listen(
        store.engine, "connect", lambda c, _record: c.execute("SET synchronous_commit=off")
    )
    store.migrate()
    live(store, 100, examples=2)  # each takes longer
    store.close()
