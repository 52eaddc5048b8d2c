"""Many at once: requests and ends become a few transactions, and nobody's news is lost."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from commons.leases import LeaseState
from commons.store import GpuQuota, Lease, Store, StoreError
from commons.store.models import utcnow
from commons.work import ROUNDS
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import invariants, transitions
from spawner.gpu.ledger.batches import Admission, Ask
from spawner.gpu.policy.placement import Device

DEVICES = [Device(f"GPU-a{n}", "A100", 80 * 2**30) for n in range(4)]


@pytest.fixture
def store(store: Store) -> Store:
    store.transact(lambda s: sync_inventory(s, DEVICES))
    return store


@pytest.fixture
async def gate(store: Store) -> AsyncIterator[Admission]:
    gate = Admission(store)
    yield gate
    await gate.close()


def ask(user: str, gpus: int = 1, **more: Any) -> Ask:
    return Ask(user, "", f"user:{user}", gpus, **({"time_limit": 3600} | more))


async def live(store: Store) -> list[Lease]:
    return await store.read(transitions.live_leases)


async def test_five_hundred_requests_of_one_moment(store: Store, gate: Admission) -> None:
    commits: list[None] = []
    event.listen(store.engine, "commit", lambda _connection: commits.append(None))
    standings = await asyncio.gather(*(gate.submit(ask(f"u{n}")) for n in range(500)))
    assert sum(standing.held for standing in standings) == 4
    positions = Counter(s.verdict.position for s in standings if s.verdict)
    assert sum(positions.values()) == 496
    assert len(commits) < 20
    assert store.transact(lambda s: invariants.check(s, deep=True), read=True) == ()


async def test_every_end_lets_the_next_one_start(store: Store, gate: Admission) -> None:
    served: list[str] = []

    async def person(name: str) -> None:
        standing = await gate.submit(ask(name, 2))
        watch = gate.watch(standing.lease)
        while not standing.held:
            standing = await asyncio.wait_for(watch.next(), 30)
        gate.unwatch(standing.lease)
        served.append(name)
        await gate.end(standing.lease, "stopped")

    await asyncio.gather(*(person(f"u{n}") for n in range(40)))
    assert len(served) == 40
    assert await live(store) == []
    assert store.transact(lambda s: invariants.check(s, deep=True), read=True) == ()


async def test_what_another_process_changes_has_its_effect_soon(
    store: Store, gate: Admission
) -> None:
    store.transact(lambda s: s.add(GpuQuota(subject="user:alice", spec={"max_gpus": 1})))
    await gate.submit(ask("alice"))
    waits = await gate.submit(Ask("alice", "second", "user:alice", 1, time_limit=3600))
    assert [reason.code for reason in waits.reasons] == ["person_gpus"]
    watch = gate.watch(waits.lease)

    def raise_it(session: Any) -> None:
        transitions.lock(session)
        quota = GpuQuota(subject="user:alice", spec={"max_gpus": 2}, changed_at=utcnow())
        session.merge(quota)

    Store(store.url).transact(raise_it)
    standing = await asyncio.wait_for(watch.next(), 10)
    assert standing.held


async def test_one_that_fails_does_not_cost_the_others_anything(
    store: Store, gate: Admission
) -> None:
    def defect(_session: Any) -> None:
        raise ZeroDivisionError

    results = await asyncio.gather(
        gate.submit(ask("alice")), gate.change(defect), gate.submit(ask("bob")),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(results[1], ZeroDivisionError)
    assert {lease.username for lease in await live(store)} == {"alice", "bob"}


async def test_whoever_leaves_before_the_answer_holds_nothing(
    store: Store, gate: Admission
) -> None:
    for pause in (0, 0.001, 0.01, 0.05):
        task = asyncio.create_task(gate.submit(ask("alice")))
        await asyncio.sleep(pause)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            gate.give_up(task.result().lease)
        await gate.change(lambda _session: None)  # what was under way is through
        while gate.ending:
            await asyncio.sleep(0.01)
        assert await live(store) == []


async def test_a_lease_ends_even_where_nothing_can_be_decided(
    store: Store, gate: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await gate.submit(ask("alice"))

    def broken(_snapshot: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("spawner.gpu.ledger.allocation.decide", broken)
    assert await gate.end(held.lease, "stopped")
    assert await live(store) == []


# -- a database that is locked or full, a process that is killed ------------------------------


@pytest.fixture
def quick(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    event.listen(store.engine, "connect", lambda c, _record: c.execute("PRAGMA busy_timeout=50"))
    store.migrate()
    store.transact(lambda s: sync_inventory(s, DEVICES))
    return store


async def test_a_locked_database_is_an_error_and_an_end_is_made_up_for(quick: Store) -> None:
    gate = Admission(quick)
    held = await gate.submit(ask("alice"))
    other = sqlite3.connect(quick.engine.url.database or "", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        await gate.submit(ask("bob"))
    gate.end_soon(held.lease, "stopped")
    tried = ROUNDS.labels("GPU ledger")._value.get()
    while ROUNDS.labels("GPU ledger")._value.get() == tried:
        await asyncio.sleep(0.01)
    other.execute("ROLLBACK")
    while gate.ending:
        await asyncio.sleep(0.05)
    assert await live(quick) == []
    await gate.close()


async def test_a_full_database_is_an_error_and_leaves_nothing_half_done(quick: Store) -> None:
    gate = Admission(quick)

    def fill(connection: Any, _record: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    quick.engine.dispose()
    event.listen(quick.engine, "connect", fill)
    asks = [ask(f"u{n}", user_options={"profile": "x" * 4000}) for n in range(200)]
    results = await asyncio.gather(*map(gate.submit, asks), return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
    assert "full" in str(results[0])
    assert await live(quick) == []
    await gate.close()


async def test_a_read_only_database_is_an_error_until_it_can_be_written_again(
    quick: Store,
) -> None:
    gate = Admission(quick)
    held = await gate.submit(ask("before"))

    def forbid(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA query_only=ON")

    quick.engine.dispose()
    event.listen(quick.engine, "connect", forbid)
    for refused in (gate.submit(ask("alice")), gate.end(held.lease, "stopped")):
        with pytest.raises(StoreError, match="readonly"):
            await refused
    assert [lease.id for lease in await live(quick)] == [held.lease]

    event.remove(quick.engine, "connect", forbid)
    quick.engine.dispose()
    await gate.end(held.lease, "stopped")
    assert (await gate.submit(ask("alice"))).held
    await gate.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be killed")
def test_a_process_killed_at_any_statement_leaves_all_or_nothing(quick: Store) -> None:
    """kill -9 between any two statements of a request, a decision and an end."""
    from spawner.gpu.ledger.allocation import admit

    quick.transact(lambda s: admit(s, [ask("bob", 3)]))
    quick.engine.dispose()
    for point in range(1, 60):
        child = os.fork()
        if child == 0:
            left = point

            def count(*_arguments: Any) -> None:
                nonlocal left
                left -= 1
                if not left:
                    os.kill(os.getpid(), 9)

            event.listen(quick.engine, "before_cursor_execute", count)
            event.listen(quick.engine, "commit", count)
            try:
                [standing] = quick.transact(lambda s: admit(s, [ask("alice")])).standings
                lease = standing.lease
                quick.transact(lambda s, lease=lease: transitions.end(s, lease, "stopped"))
            finally:
                os._exit(0)
        _pid, status = os.waitpid(child, 0)
        found = quick.transact(lambda s: invariants.check(s, deep=True, patience=0), read=True)
        assert found == ()
        leases = quick.transact(transitions.live_leases, read=True)
        assert [x.state for x in leases if x.username == "alice"] in ([], [LeaseState.HELD])
        quick.engine.dispose()
        if status == 0:
            break
    else:
        pytest.fail("more statements than were tried")
