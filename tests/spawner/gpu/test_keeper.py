"""What happens to leases as time goes by, and through the hub's own start and stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.leases import LeaseState
from commons.store import GpuNotice, GpuQuota, Lease, Store
from commons.store.ends import Ending
from commons.store.models import utcnow
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import recovery, transitions
from spawner.gpu.ledger.batches import Admission, Ask
from spawner.gpu.policy import lifetime
from spawner.gpu.policy.lifetime import Running, Stop, Warn, plan
from spawner.gpu.policy.placement import Device
from spawner.gpu.watch.lease_controller import LeaseController

HOUR = 3600.0
LEASE = Running("l1", "alice", "", LeaseState.ACTIVE, 0, 0, 0, opened_at=1, ends_at=8 * HOUR)


def actions(lease: Running, now: float) -> list[tuple[str, str]]:
    found = plan([lease], now, hold_time=600, warn_before=900, up_since=0)
    return [
        ("warn", action.code) if isinstance(action, Warn) else ("stop", action.reason)
        for action in found
    ]


def change(lease: Running, **changes: Any) -> Running:
    return Running(**(vars(lease) | changes))


def test_a_lease_is_warned_before_its_end_and_then_stopped() -> None:
    assert actions(LEASE, 7.7 * HOUR) == []
    assert actions(LEASE, 7.76 * HOUR) == [("warn", "ends_soon")]
    warned = change(LEASE, warned_at=7.76 * HOUR)
    assert actions(warned, 7.9 * HOUR) == []
    assert actions(warned, 8.01 * HOUR) == [("stop", "time_limit")]


def test_after_a_long_outage_nobody_is_stopped_without_a_warning() -> None:
    [warning] = plan([LEASE], 20 * HOUR, 600, 900, 0)
    assert isinstance(warning, Warn)
    assert warning.data == {"ends_at": 20 * HOUR + 900}
    warned = change(LEASE, warned_at=20 * HOUR)
    assert actions(warned, 20 * HOUR + 899) == []
    assert actions(warned, 20 * HOUR + 900) == [("stop", "time_limit")]


def test_what_nobody_opens_goes_to_the_next() -> None:
    lease = change(LEASE, opened_at=None, active_at=100.0)
    assert actions(lease, 650) == []
    assert actions(lease, 700) == [("stop", "not_opened")]
    assert [a for a in plan([lease], 700, 600, 900, up_since=690) if isinstance(a, Stop)] == []


def test_who_waited_long_is_told_by_when_to_open_it() -> None:
    lease = change(LEASE, opened_at=None, active_at=510.0, held_at=500.0)
    [warning] = plan([lease], 520, 600, 900, 0)
    assert isinstance(warning, Warn)
    assert (warning.code, warning.data) == ("granted", {"open_by_at": 1110.0})


def test_a_planned_stop_comes_when_it_was_planned_for() -> None:
    lease = change(LEASE, stop_at=50.0, stop_reason="preempted")
    assert actions(lease, 49) == []
    assert actions(lease, 50) == [("stop", "preempted")]


@given(st.floats(60, 1e6), st.floats(0, 1e7))
def test_between_warning_and_end_is_always_the_notice(limit: float, seen: float) -> None:
    lease = change(LEASE, ends_at=limit)
    if ("warn", "ends_soon") in actions(lease, seen):
        warned = change(lease, warned_at=seen)
        assert actions(warned, seen + min(900, limit / 2) - 1) == []


# -- through the hub --------------------------------------------------------------------------


class Hub:
    """Servers that start and stop at once, except where they are told to fail."""

    def __init__(self, store: Store, gate: Admission) -> None:
        self.store, self.gate = store, gate
        self.running: set[tuple[str, str]] = set()
        self.started: list[tuple[str, str, Mapping[str, Any]]] = []
        self.failures = 0

    def known(self) -> set[tuple[str, str]]:
        return set(self.running)

    async def start(self, user: str, server: str, options: Mapping[str, Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no")
        self.started.append((user, server, options))
        self.running.add((user, server))

    async def stop(self, user: str, server: str, ending: Ending | None = None) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("Docker is silent")
        lease = await self.store.read(lambda s: transitions.of_server(s, user, server))
        if lease:
            await self.gate.end(lease.id, "stopped")
        self.running.discard((user, server))


class Lab:
    def __init__(self, store: Store) -> None:
        self.store, self.gate = store, Admission(store)
        self.hub = Hub(store, self.gate)
        self.steady = 0.0
        self.keeper = LeaseController(
            self.gate, self.hub, logging.getLogger("test"), clock=lambda: self.steady
        )

    async def running(self, user: str, **more: Any) -> str:
        standing = await self.gate.submit(Ask(user, "", f"user:{user}", 1, **more))
        await self.store.run(lambda s: transitions.activate(s, standing.lease, "c"))
        self.hub.running.add((user, ""))
        return standing.lease

    async def look(self) -> None:
        await self.keeper.look()
        while self.keeper.busy:
            await asyncio.sleep(0.01)

    async def lease(self, lease: str) -> Lease:
        return await self.store.read(lambda s: s.get_one(Lease, lease))

    async def notices(self) -> list[str]:
        return await self.store.read(
            lambda s: [notice.code for notice in s.query(GpuNotice).order_by(GpuNotice.id)]
        )


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    store.transact(lambda s: sync_inventory(s, [Device("GPU-a", "A100", 2**30)]))
    lab = Lab(store)
    yield lab
    await lab.keeper.close()
    await lab.gate.close()
    store.close()


async def test_a_stop_that_fails_is_tried_again_and_the_end_says_why(lab: Lab) -> None:
    lease = await lab.running("alice")
    await lab.store.run(lambda s: transitions.cancel(s, lease))
    lab.hub.failures = 2
    for _look in range(2):
        await lab.look()
        assert (await lab.lease(lease)).state is LeaseState.ACTIVE
    await lab.look()
    assert (await lab.lease(lease)).ended_reason == "cancelled"
    assert lab.hub.running == set()
    assert await lab.notices() == ["stopped"]


async def test_a_warning_is_given_once_and_again_after_an_extension(lab: Lab) -> None:
    lease = await lab.running("alice", time_limit=60)
    for _look in range(3):
        await lab.store.run(lambda s: transitions.opened(s, lease))
        await lab.store.run(lambda s: _end_in(s, lease, 25))
        await lab.look()
    assert await lab.notices() == ["ends_soon"]
    assert await lab.store.run(lambda s: transitions.extend(s, lease, 3600)) == (3600, ())
    await lab.look()
    assert await lab.notices() == ["ends_soon"]
    await lab.store.run(lambda s: _end_in(s, lease, 30))
    await lab.look()
    assert await lab.notices() == ["ends_soon", "ends_soon"]


@pytest.mark.parametrize("warned", [True, False])
async def test_what_is_extended_at_the_last_second_goes_on_to_its_new_end_and_a_new_warning(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, warned: bool
) -> None:
    """Kind: what a look has decided is over when somebody was promised something else since."""
    lease = await lab.running("alice", time_limit=3600)

    def nearly_over(session: Any) -> None:
        row, now = session.get_one(Lease, lease), utcnow()
        row.opened_at, row.held_at = now, now - timedelta(hours=1)
        row.ends_at = now + timedelta(seconds=-1 if warned else 60)
        row.warned_at = now - timedelta(minutes=20) if warned else None

    await lab.store.run(nearly_over)

    def decided(*given: Any) -> Any:
        found = plan(*given)
        assert found, "it is to be stopped, or warned"
        lab.store.transact(lambda s: transitions.extend(s, lease, 7200))
        return found

    monkeypatch.setattr(lifetime, "plan", decided)
    await lab.look()
    monkeypatch.undo()
    row = await lab.lease(lease)
    assert (row.state, row.stop_at, row.warned_at) == (LeaseState.ACTIVE, None, None)
    assert await lab.notices() == []
    await lab.store.run(lambda s: _end_in(s, lease, 30))
    await lab.look()
    assert await lab.notices() == ["ends_soon"]


def _end_in(session: Any, lease: str, seconds: float) -> None:
    row = session.get_one(Lease, lease)
    if row.warned_at is None:
        row.held_at = utcnow() - timedelta(hours=1)
        row.ends_at = utcnow() + timedelta(seconds=seconds)


async def test_what_nobody_opens_is_given_to_who_waits(lab: Lab) -> None:
    await lab.store.run(lambda s: s.add(GpuQuota(subject="settings", spec={"hold_time": 1})))
    lease = await lab.running("alice", time_limit=3600)
    waits = await lab.gate.submit(Ask("bob", "", "user:bob", 1, time_limit=3600))
    assert not waits.held
    before = utcnow() - timedelta(seconds=2)
    await lab.store.run(lambda s: setattr(s.get_one(Lease, lease), "active_at", before))
    lab.keeper.up_since = before
    await lab.look()
    assert (await lab.lease(lease)).ended_reason == "not_opened"
    assert (await lab.lease(waits.lease)).state is LeaseState.HELD


async def test_what_the_proxy_passes_on_is_somebody_who_came(lab: Lab) -> None:
    """Kind: who was there only between two looks was there."""
    lease = await lab.running("alice")
    made = 1_000.0
    await lab.keeper.note_activity({("alice", ""): (made, made + 0.2)})
    assert (await lab.lease(lease)).opened_at is None
    # At the first look already: she opened it at once, and left.
    await lab.keeper.note_activity({("alice", ""): (made, made + 4)})
    assert (await lab.lease(lease)).opened_at is not None


async def test_of_an_older_hubs_route_the_first_word_is_its_making(lab: Lab) -> None:
    lease = await lab.running("alice")
    for last, opened in ((1_000.0, False), (1_000.0, False), (1_060.0, True)):
        await lab.keeper.note_activity({("alice", ""): (None, last)})
        assert ((await lab.lease(lease)).opened_at is not None) is opened


async def test_after_a_restart_waiting_servers_are_started_again(lab: Lab) -> None:
    first = await lab.gate.submit(Ask("alice", "", "user:alice", 1, user_options={"gpus": 1}))
    second = await lab.gate.submit(Ask("bob", "x", "user:bob", 1, user_options={"size": "s"}))
    next_hub = Lab(lab.store)
    next_hub.hub.failures = 1
    for _look in range(2):
        await next_hub.look()
    assert sorted(next_hub.hub.started) == [
        ("alice", "", {"gpus": 1}),
        ("bob", "x", {"size": "s"}),
    ]
    assert {(await lab.lease(x.lease)).state for x in (first, second)} == {"held", "queued"}
    await next_hub.gate.close()


async def test_what_cannot_be_started_again_is_given_up(lab: Lab) -> None:
    held = await lab.gate.submit(Ask("alice", "", "user:alice", 1))
    next_hub = Lab(lab.store)
    next_hub.hub.failures = 99
    for _look in range(4):
        await next_hub.look()
    await next_hub.gate.change(lambda _session: None)
    assert (await lab.lease(held.lease)).ended_reason == "not started again"
    await next_hub.gate.close()


@pytest.mark.parametrize("hours", [-5, 7])
async def test_a_clock_that_is_set_ends_nobody(
    lab: Lab, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await lab.running("alice", time_limit=3600)
    await lab.store.run(lambda s: transitions.opened(s, lease))
    await lab.look()
    before = (await lab.lease(lease)).ends_at
    later = timedelta(hours=hours)
    for module in ("watch.lease_controller", "ledger.transitions"):
        monkeypatch.setattr(f"spawner.gpu.{module}.utcnow", lambda: utcnow() + later)
    for _look in range(2):
        await lab.look()
    after = (await lab.lease(lease)).ends_at
    assert before is not None
    assert after is not None
    assert abs((after - before - later).total_seconds()) < 30
    assert (await lab.lease(lease)).state is LeaseState.ACTIVE


def test_a_lease_asked_again_keeps_its_age(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    old = store.transact(
        lambda s: transitions.request(
            s, username="alice", server_name="", account="user:alice", gpus=1, user_options={"a": 1}
        )
    )
    new = store.transact(lambda s: recovery.again(s, old.id, "restarted"))
    assert (new.requested_at, new.user_options) == (old.requested_at, {"a": 1})
    assert store.transact(lambda s: s.get_one(Lease, old.id).ended_reason) == "restarted"
    store.close()
