"""The ledger: exclusive leases, whatever happens, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from sqlalchemy.exc import IntegrityError

from hub_ext.store import Lease, LeaseDevice, LeaseState, Store
from spawner.errors import BadRequest, NotAvailable
from spawner.gpu import ledger
from spawner.gpu.devices import Device

DEVICES = [Device(f"GPU-a{n}", "A100", 80 * 2**30) for n in range(4)]


@pytest.fixture
def store(store: Store) -> Store:
    store.transact(lambda s: ledger.sync_inventory(s, DEVICES))
    return store


def hold(store: Store, user: str, count: int = 1, model: str = "") -> tuple[str, list[str]]:
    lease, devices = store.transact(lambda s: ledger.hold(s, user, "", count, model))
    return lease.id, [device.id for device in devices]


def free(store: Store) -> int:
    return store.transact(ledger.availability).free


def test_a_lease_takes_its_devices_and_gives_them_back(store: Store) -> None:
    lease, devices = hold(store, "alice", 3)
    assert len(set(devices)) == 3
    assert free(store) == 1
    assert store.transact(lambda s: ledger.end(s, lease, "stopped"))
    assert free(store) == 4


def test_ending_twice_is_harmless(store: Store) -> None:
    lease, _ = hold(store, "alice")
    assert store.transact(lambda s: ledger.end(s, lease, "stopped"))
    assert not store.transact(lambda s: ledger.end(s, lease, "again"))
    assert store.transact(lambda s: s.get_one(Lease, lease).ended_reason) == "stopped"


def test_more_than_are_free_leases_nothing(store: Store) -> None:
    hold(store, "alice", 3)
    with pytest.raises(NotAvailable) as caught:
        hold(store, "bob", 2)
    assert caught.value.code == "gpu_none_free"
    assert free(store) == 1


def test_more_than_exist_is_a_bad_request(store: Store) -> None:
    with pytest.raises(BadRequest, match="only 4"):
        hold(store, "alice", 5)


def test_a_second_start_of_one_server_ends_the_lease_of_the_first(store: Store) -> None:
    first, _ = hold(store, "alice")
    second, _ = hold(store, "alice")
    live = store.transact(lambda s: [lease.id for lease in ledger.live_leases(s)])
    assert live == [second] != [first]
    assert free(store) == 3


def test_many_at_once_never_share_a_device(store: Store) -> None:
    got: list[str] = []
    refused: list[str] = []
    start = threading.Barrier(12)

    def ask(user: str) -> None:
        start.wait()
        try:
            got.extend(hold(store, user)[1])
        except NotAvailable:
            refused.append(user)

    threads = [threading.Thread(target=ask, args=(f"s{n:02}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(got) == Counter(device.id for device in DEVICES)
    assert len(refused) == 8


def test_the_database_itself_refuses_a_device_leased_twice(store: Store) -> None:
    _lease, [device] = hold(store, "alice")
    other, _ = hold(store, "bob")
    with pytest.raises(IntegrityError):
        store.transact(lambda s: s.add(LeaseDevice(lease_id=other, device_id=device)))


def test_the_database_itself_refuses_two_live_leases_of_one_server(store: Store) -> None:
    hold(store, "alice")
    with pytest.raises(IntegrityError):
        store.transact(
            lambda s: s.add(Lease(id="x", username="alice", server_name="", state=LeaseState.HELD))
        )


def test_a_lease_moves_only_forwards(store: Store) -> None:
    lease, _ = hold(store, "alice")
    store.transact(lambda s: ledger.activate(s, lease, "c1"))
    with pytest.raises(ledger.LeaseMoveError):
        store.transact(lambda s: ledger.activate(s, lease, "c2"))
    store.transact(lambda s: ledger.end(s, lease, "stopped"))
    with pytest.raises(ledger.LeaseMoveError):
        store.transact(lambda s: ledger.activate(s, lease, "c3"))
    assert store.transact(lambda s: s.get_one(Lease, lease).container_id) == "c1"


def test_a_device_that_is_gone_is_no_longer_offered(store: Store) -> None:
    store.transact(lambda s: ledger.sync_inventory(s, DEVICES[:1]))
    assert store.transact(ledger.availability).total == 1
    store.transact(lambda s: ledger.sync_inventory(s, DEVICES))
    assert store.transact(ledger.availability).total == 4


def test_a_lost_device_stays_leased_until_its_lease_ends(store: Store) -> None:
    _, [device] = hold(store, "alice")
    store.transact(lambda s: ledger.sync_inventory(s, [d for d in DEVICES if d.id != device]))
    store.transact(lambda s: ledger.sync_inventory(s, DEVICES))
    assert free(store) == 3
