"""What other quotas would do: the very decision that is made once they are set, and nothing yet."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.leases import LeaseState
from commons.store import Lease, Store
from spawner.gpu import what_if
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.batches import run_pass
from spawner.gpu.policy.placement import Device
from spawner.gpu.quotas import quota_store

LIMITED: dict[str, Any] = {
    "default": {"max_gpus": 1, "time_limit": "8h"},
    "group:vision": {"grp_gpus": 2},
}


@pytest.fixture
def store(store: Store) -> Store:
    """Four GPUs; vision holds its two, and three more of it wait."""

    def fill(session: Session) -> None:
        sync_inventory(session, [Device(f"GPU-{n}", "A100", 80 * 2**30) for n in range(4)])
        quota_store.apply(session, LIMITED, "carol")
        for name in ("alice", "bob", "erin", "fred", "gina"):
            transitions.request(
                session,
                username=name,
                server_name="",
                account="group:vision",
                gpus=1,
                time_limit=3600,
            )
        run_pass(session)

    store.transact(fill)
    return store


def holders(session: Session) -> set[str]:
    return set(session.scalars(select(Lease.username).where(Lease.state == LeaseState.HELD)))


@pytest.mark.parametrize(
    ("changed", "starts"),
    [
        ({"group:vision": {"grp_gpus": 3}}, 1),
        ({"group:vision": {"grp_gpus": 9}}, 2),
        ({"group:vision": {}}, 2),
        ({"group:vision": {"grp_gpus": 1}}, 0),
        ({"user:nobody": {"max_gpus": 4}}, 0),
    ],
)
def test_who_it_says_starts_is_who_starts_once_it_is_set(
    store: Store, changed: dict[str, Any], starts: int
) -> None:
    new = {**LIMITED, **changed}
    before = store.transact(holders, read=True)
    version = store.transact(transitions.version, read=True)
    told = store.transact(lambda s: what_if.look(s, new, time.time()), read=True)
    assert store.transact(transitions.version, read=True) == version, "nothing is written"
    assert store.transact(quota_store.specs, read=True) == LIMITED
    assert len(told.starts) == starts

    def really(session: Session) -> None:
        quota_store.apply(session, new, "carol")
        run_pass(session)

    store.transact(really)
    assert store.transact(holders, read=True) - before == {one.user for one in told.starts}


def test_whose_limits_change_and_who_waits_longer_is_said(store: Store) -> None:
    new = {**LIMITED, "user:alice": {"max_gpus": 2}, "default": {"max_gpus": 0, "time_limit": "8h"}}
    told = store.transact(lambda s: what_if.look(s, new, time.time()), read=True)
    assert told.people == ("alice", "bob", "erin", "fred", "gina")
    lowered = {**LIMITED, "group:vision": {"grp_gpus": 1}}
    told = store.transact(lambda s: what_if.look(s, lowered, time.time()), read=True)
    assert told.moved
    assert not any(one.sooner for one in told.moved)
    assert told.as_json()["moved"][0]["after"] is not None
