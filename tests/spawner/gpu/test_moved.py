"""What an administrator makes of places in the queue, in the store and by command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from commons.errors import BadRequest, NotAvailable
from commons.leases import LeaseState
from commons.store import Lease, Store
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import invariants, transitions
from spawner.gpu.ledger.batches import run_pass
from spawner.gpu.ledger.transitions import Place
from spawner.gpu.policy.placement import Device

from .test_quota_cli import Terminal


@pytest.fixture
def store(store: Store) -> Store:
    store.transact(lambda s: sync_inventory(s, [Device("GPU-0", "A100", 80 * 2**30)]))
    return store


def ask(store: Store, user: str) -> str:
    def work(session: Session) -> str:
        lease = transitions.request(
            session, username=user, server_name="", account=f"user:{user}", gpus=1, time_limit=3600
        )
        run_pass(session)
        return lease.id

    return store.transact(work)


def state(store: Store, lease: str) -> LeaseState:
    return store.transact(lambda s: s.get_one(Lease, lease).state, read=True)


def move(store: Store, lease: str, to: Place, reason: str = "so it is") -> None:
    store.transact(lambda s: transitions.place(s, lease, to, "carol", reason))


def end(store: Store, lease: str) -> None:
    def work(session: Session) -> None:
        transitions.end(session, lease, "stopped")
        run_pass(session)

    store.transact(work)


def test_who_is_moved_to_the_front_starts_next_and_who_is_held_not_at_all(store: Store) -> None:
    holds, second, third = (ask(store, name) for name in ("alice", "bob", "erin"))
    move(store, third, Place.FRONT)
    end(store, holds)
    assert state(store, third) is LeaseState.HELD
    move(store, second, Place.HOLD)
    end(store, third)
    assert state(store, second) is LeaseState.QUEUED
    found = store.transact(lambda s: invariants.check(s, patience=0, deep=True))
    assert found == (), "who is on hold starves nobody, and is not starved"
    verdict = store.transact(lambda s: s.get_one(Lease, second).verdict or {}, read=True)
    assert verdict["reasons"][0]["code"] == "queue_paused"
    move(store, second, Place.RELEASE, "")
    store.transact(run_pass)
    assert state(store, second) is LeaseState.HELD


def test_a_reason_is_wanted_and_what_does_not_wait_is_not_moved(store: Store) -> None:
    holds, waits = ask(store, "alice"), ask(store, "bob")
    with pytest.raises(BadRequest):
        move(store, waits, Place.HOLD, "  ")
    with pytest.raises(NotAvailable):
        move(store, holds, Place.FRONT)
    move(store, waits, Place.BACK, "x" * 900)
    move(store, waits, Place.USUAL, "")
    row = store.transact(lambda s: s.get_one(Lease, waits), read=True)
    assert (row.queue_rank, row.queue_by, row.queue_reason) == (0, "", "")


def test_by_command(store: Store, tmp_path: Path) -> None:
    terminal = Terminal(store, tmp_path)
    ask(store, "alice")
    waits = ask(store, "bob")
    said = ("--reason", "The review is on Monday.", "--by", "carol", "--json")
    found = json.loads(terminal("gpu", "place", waits, "front", *said).output)
    assert found["moved"] == {
        "to": "front",
        "held": False,
        "by": "carol",
        "reason": "The review is on Monday.",
    }
    assert "usual: the request of bob" in terminal("gpu", "place", waits[:20], "usual").output
    assert "Say why" in terminal("gpu", "place", waits, "hold", code=1).output
