"""What is offered: as the inventory saw it, without what is drained, lost or failing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.errors import BadRequest
from commons.leases import LeaseState
from commons.store import GpuDevice, GpuNotice, Lease, LeaseDevice, Store
from spawner.gpu.devices import health
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.snapshot import read_devices
from spawner.gpu.policy.placement import Device

NOW = datetime(2026, 11, 21, 12, 0)
A, B, C = (Device(f"GPU-{n}", "A100", 80 * 2**30) for n in "abc")


@pytest.fixture
def store(store: Store) -> Store:
    store.transact(lambda s: health.sync_inventory(s, [A, B, C], now=NOW))
    return store


def sync(store: Store, *devices: Device) -> health.Changes:
    return store.transact(lambda s: health.sync_inventory(s, devices, vanished="lost", now=NOW))


def offered(store: Store) -> set[str]:
    return {device.id for device in store.transact(read_devices) if device.offered}


def lease(session: Session, user: str, *devices: str) -> None:
    session.add(
        Lease(
            id=f"lease-{user}",
            username=user,
            state=LeaseState.ACTIVE,
            held_at=NOW,
            devices=[LeaseDevice(device_id=device) for device in devices],
        )
    )


def told(store: Store) -> list[tuple[str, str]]:
    return store.transact(
        lambda s: [(n.username, n.code) for n in s.scalars(select(GpuNotice).order_by("id"))]
    )


def version(store: Store) -> int:
    return store.transact(transitions.version)


def test_a_drained_gpu_is_not_offered_and_stays_drained(store: Store) -> None:
    before = version(store)
    store.transact(lambda s: lease(s, "alice", A.id))
    done = store.transact(lambda s: health.drain(s, A.id, "carol", "fan is loud"))
    assert (done.kind, done.running) == ("device", 1), "what runs there goes on"
    assert offered(store) == {B.id, C.id}
    sync(store, A, B, C)
    assert offered(store) == {B.id, C.id}
    store.transact(lambda s: health.undrain(s, A.id))
    assert offered(store) == {A.id, B.id, C.id}
    assert version(store) > before, "every process decides anew"


def test_a_drained_node_offers_none_of_its_gpus(store: Store) -> None:
    far = replace(C, node="gpu2")
    sync(store, A, B, far)
    assert store.transact(lambda s: health.drain(s, "gpu2", "carol")).devices == (C.id,)
    assert offered(store) == {A.id, B.id}
    store.transact(lambda s: health.undrain(s, "gpu2"))
    assert offered(store) == {A.id, B.id, C.id}


def test_what_is_neither_gpu_nor_node_is_refused_with_what_there_is(store: Store) -> None:
    with pytest.raises(BadRequest, match=r"“GPU-z”.*Nodes: local"):
        store.transact(lambda s: health.drain(s, "GPU-z", "carol"))


def test_a_lost_gpu_is_not_offered_and_its_holder_is_told_once(store: Store) -> None:
    store.transact(lambda s: lease(s, "alice", A.id, B.id))
    assert sync(store, B, C).lost == (A.id,)
    assert not sync(store, B, C)
    assert offered(store) == {B.id, C.id}
    assert told(store) == [("alice", "gpu_lost")]
    row = store.transact(lambda s: s.get_one(Lease, "lease-alice"))
    assert row.state is LeaseState.ACTIVE, "the lease says what is true: its server runs"
    assert sync(store, A, B, C).recovered == (A.id,)
    sync(store, B, C)
    assert len(told(store)) in (1, 2)


def test_a_failing_gpu_is_not_offered_and_its_holder_is_told(store: Store) -> None:
    store.transact(lambda s: lease(s, "alice", A.id))
    bad = replace(A, health="failing", health_reason="3 uncorrected memory errors")
    assert sync(store, bad, B, C).failing == (A.id,)
    assert offered(store) == {B.id, C.id}
    assert told(store) == [("alice", "gpu_failing")]
    assert sync(store, A, B, C).recovered == (A.id,)


def test_a_gpu_that_was_drained_before_it_was_taken_out_is_not_lost(store: Store) -> None:
    store.transact(lambda s: health.drain(s, A.id, "carol", "goes to repair"))
    assert not sync(store, B, C).lost


def test_a_gpu_cut_into_parts_is_not_lost_nor_are_parts_put_together(store: Store) -> None:
    parts = [Device(f"MIG-{n}", "A100 MIG 3g.40gb", 1, parent=A.id) for n in range(2)]
    assert not sync(store, *parts, B, C).lost
    assert not sync(store, A, B, C).lost
    store.transact(lambda s: lease(s, "alice", A.id))
    assert sync(store, *parts, B, C).lost == (A.id,), "but who held it has lost it"


def test_what_the_site_file_no_longer_lists_is_removed_not_lost(store: Store) -> None:
    changes = store.transact(lambda s: health.sync_inventory(s, [B]))
    assert not changes.lost
    assert offered(store) == {B.id}


def test_a_gpu_becomes_shared_only_when_who_has_it_alone_is_gone(store: Store) -> None:
    def slots() -> int:
        return store.transact(lambda s: s.get_one(GpuDevice, A.id).slots)

    shared = replace(A, sharing="time-slicing", slots=4, weight=0.25)
    store.transact(lambda s: lease(s, "alice", A.id))
    sync(store, shared, B, C)
    assert slots() == 1
    store.transact(lambda s: transitions.end(s, "lease-alice", "stopped"))
    sync(store, shared, B, C)
    assert slots() == 4


def test_a_critical_error_drains_the_gpu_until_somebody_returns_it(store: Store) -> None:
    store.transact(lambda s: lease(s, "alice", A.id))
    assert store.transact(lambda s: health.critical_error(s, A.id, 79, NOW))
    assert not store.transact(lambda s: health.critical_error(s, A.id, 79, NOW))
    sync(store, A, B, C)
    assert offered(store) == {B.id, C.id}
    assert told(store) == [("alice", "gpu_failing")]
    store.transact(lambda s: health.undrain(s, A.id))
    assert A.id in offered(store)
