"""The ledger: exclusive leases and true accounts, whatever happens, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from commons.leases import LeaseState
from commons.store import GpuQuota, GpuUsage, Lease, LeaseDevice, Store
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import batches, invariants, recovery, transitions
from spawner.gpu.ledger.batches import Ask, Standing
from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.state import Slot
from spawner.gpu.quotas import quota_store

DEVICES = [Device(f"GPU-a{n}", "A100", 80 * 2**30) for n in range(4)]
HOUR = 3600
NOW = datetime(2040, 1, 10, 12)  # later than any clock these tests run under


@pytest.fixture
def store(store: Store) -> Store:
    store.transact(lambda s: sync_inventory(s, DEVICES))
    return store


def ask(
    store: Store, user: str, count: int = 1, now: datetime | None = None, **more: object
) -> Standing:
    usual = {"account": f"user:{user}", "time_limit": HOUR}
    request = Ask(user, "", gpus=count, **(usual | more))  # type: ignore[arg-type]
    return store.transact(lambda s: batches.admit(s, [request], now)).standings[0]


def free(store: Store) -> int:
    return store.transact(transitions.availability).free


def lease_of(store: Store, lease: str) -> Lease:
    return store.transact(lambda s: s.get_one(Lease, lease))


def everything_holds(store: Store, now: datetime | None = None) -> None:
    assert store.transact(lambda s: invariants.check(s, deep=True, patience=0, now=now)) == ()


def test_a_lease_takes_its_devices_and_gives_them_back(store: Store) -> None:
    held = ask(store, "alice", 3)
    assert held.held
    assert len(set(held.slots)) == 3
    assert free(store) == 1
    assert store.transact(lambda s: transitions.end(s, held.lease, "stopped"))
    assert free(store) == 4
    everything_holds(store)


def test_ending_twice_is_harmless(store: Store) -> None:
    lease = ask(store, "alice").lease
    assert store.transact(lambda s: transitions.end(s, lease, "stopped"))
    assert not store.transact(lambda s: transitions.end(s, lease, "again"))
    assert lease_of(store, lease).ended_reason == "stopped"


def test_more_than_are_free_wait_with_a_reason_and_start_when_there_is_room(store: Store) -> None:
    first = ask(store, "alice", 3)
    second = ask(store, "bob", 2)
    assert second.state is LeaseState.QUEUED
    assert second.verdict is not None
    assert second.verdict.position == 1
    assert second.reasons
    assert lease_of(store, second.lease).verdict == transitions.as_json(second.verdict)
    store.transact(lambda s: transitions.end(s, first.lease, "stopped"))
    store.transact(batches.run_pass)
    assert lease_of(store, second.lease).state is LeaseState.HELD
    everything_holds(store)


def test_who_asks_in_one_moment_is_served_in_the_order_of_asking(store: Store) -> None:
    """A batch has one time; so has all that comes while a clock that was set back stands still."""
    ask(store, "zoe", 4, NOW)
    names = [f"u{number}" for number in range(12)]
    batch = [Ask(name, "", f"user:{name}", 4, time_limit=HOUR) for name in names[:6]]
    store.transact(lambda s: batches.admit(s, batch, NOW))
    for name in names[6:]:
        ask(store, name, 4, NOW - timedelta(minutes=1))
    leases = store.transact(transitions.live_leases)
    assert [lease.username for lease in leases] == ["zoe", *names]
    assert len({lease.requested_at for lease in leases}) == 1
    places = {lease.username: (lease.verdict or {}).get("position") for lease in leases[1:]}
    assert places == {name: place for place, name in enumerate(names, 1)}


def test_who_does_not_want_to_wait_is_told_why_and_leaves_nothing(store: Store) -> None:
    ask(store, "alice", 4)
    refused = ask(store, "bob", wait=False)
    assert (refused.lease, refused.state) == ("", LeaseState.ENDED)
    assert [reason.code for reason in refused.reasons] == ["gpus_busy"]
    assert [lease.username for lease in store.transact(transitions.live_leases)] == ["alice"]


def test_what_can_never_be_is_refused_at_the_door(store: Store) -> None:
    assert [reason.code for reason in ask(store, "alice", 5).reasons] == ["more_than_exist"]
    assert store.transact(transitions.live_leases) == []


def test_what_is_charged_by_worth_is_written_down_and_counts_against_budgets(store: Store) -> None:
    """Slurm TRESBillingWeights: an hour of an A100 is three of the team's six GPU-hours."""
    store.transact(lambda s: sync_inventory(s, [*DEVICES, Device("GPU-t0", "T4", 16 * 2**30)]))
    specs = {
        "settings": {"worth": {"A100": 3}, "charge_by_worth": True},
        "group:vision": {"grp_budget": {"gpu_hours": 6, "window": "total"}},
    }
    store.transact(lambda s: quota_store.apply(s, specs, "carol"))
    team = {"account": "group:vision"}
    first = ask(store, "alice", gpu_type="A100", now=NOW, **team)
    assert lease_of(store, first.lease).weight == 3.0
    long = ask(store, "bob", gpu_type="T4", now=NOW, time_limit=4 * HOUR, **team)
    [reason] = long.reasons
    assert (reason.code, reason.params["promised"], reason.params["need"]) == ("group_budget", 3, 4)
    assert ask(store, "eve", gpu_type="T4", now=NOW, time_limit=3 * HOUR, **team).held
    end = NOW + timedelta(minutes=20)
    store.transact(lambda s: transitions.end(s, first.lease, "stopped", end))
    used = store.transact(lambda s: s.get_one(GpuUsage, first.lease).gpu_seconds)
    assert used == 3 * 20 * 60
    everything_holds(store, end)


def test_asking_again_for_the_same_keeps_the_place(store: Store) -> None:
    ask(store, "alice", 4)
    first, other = ask(store, "bob"), ask(store, "carol")
    again = ask(store, "bob", user_options={"gpus": 1})
    assert again.lease == first.lease
    assert lease_of(store, first.lease).user_options == {"gpus": 1}
    changed = ask(store, "bob", 2)
    assert changed.lease not in (first.lease, other.lease)
    assert lease_of(store, first.lease).ended_reason == "replaced"


def test_many_at_once_never_share_a_device(store: Store) -> None:
    with ThreadPoolExecutor(12) as pool:
        standings = list(pool.map(lambda n: ask(store, f"s{n:02}"), range(12)))
    slots = [
        (device.device_id, device.slot)
        for lease in store.transact(transitions.live_leases)
        for device in lease.devices
    ]
    assert Counter(slots) == Counter((device.id, 0) for device in DEVICES)
    assert sum(not standing.held for standing in standings) == 8
    everything_holds(store)


def test_the_database_itself_refuses_a_device_leased_twice(store: Store) -> None:
    [slot] = ask(store, "alice").slots
    other = ask(store, "bob").lease
    with pytest.raises(IntegrityError):
        store.transact(lambda s: s.add(LeaseDevice(lease_id=other, device_id=slot.device)))


def test_the_database_itself_refuses_two_live_leases_of_one_server(store: Store) -> None:
    ask(store, "alice")
    with pytest.raises(IntegrityError):
        store.transact(
            lambda s: s.add(Lease(id="x", username="alice", server_name="", state=LeaseState.HELD))
        )


def test_a_lease_moves_only_forwards(store: Store) -> None:
    lease = ask(store, "alice").lease
    for _twice in range(2):
        store.transact(lambda s: transitions.activate(s, lease, "c1"))
    with pytest.raises(transitions.LeaseMoveError):
        store.transact(lambda s: transitions.activate(s, lease, "c2"))
    store.transact(lambda s: transitions.end(s, lease, "stopped"))
    with pytest.raises(transitions.LeaseMoveError):
        store.transact(lambda s: transitions.activate(s, lease, "c3"))
    assert lease_of(store, lease).container_id == "c1"


def test_a_planned_stop_comes_only_sooner_and_says_why(store: Store) -> None:
    lease = ask(store, "alice", now=NOW).lease
    soon, later = NOW + timedelta(minutes=5), NOW + timedelta(minutes=9)
    assert store.transact(lambda s: transitions.plan_stop(s, lease, "idle", later))
    assert store.transact(lambda s: transitions.plan_stop(s, lease, "preempted", soon))
    assert not store.transact(lambda s: transitions.plan_stop(s, lease, "idle", later))
    store.transact(lambda s: transitions.end(s, lease, "stopped", later))
    assert lease_of(store, lease).ended_reason == "preempted"


def test_giving_up_leaves_the_queue_and_stops_what_runs(store: Store) -> None:
    runs = ask(store, "alice", 4).lease
    waits = ask(store, "bob").lease
    assert store.transact(lambda s: transitions.cancel(s, waits))
    assert store.transact(lambda s: transitions.cancel(s, runs))
    assert lease_of(store, waits).ended_reason == "cancelled"
    assert lease_of(store, runs).stop_reason == "cancelled"


# -- what it costs ------------------------------------------------------------------------------


def test_a_lease_is_charged_from_its_grant_to_its_end(store: Store) -> None:
    lease = ask(store, "alice", 2, NOW).lease
    store.transact(lambda s: transitions.end(s, lease, "stopped", NOW + timedelta(minutes=30)))
    charged = store.transact(lambda s: s.get_one(GpuUsage, lease))
    assert (charged.gpu_seconds, charged.closed) == (2 * 1800, True)
    everything_holds(store, NOW + timedelta(minutes=31))


def test_a_clock_that_runs_backwards_stands_still(store: Store) -> None:
    lease = ask(store, "alice", now=NOW).lease
    store.transact(lambda s: transitions.end(s, lease, "stopped", NOW - timedelta(days=1)))
    assert store.transact(lambda s: s.get_one(GpuUsage, lease)).gpu_seconds == 0
    assert lease_of(store, lease).ended_at == NOW


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_jumps_takes_leases_with_it(store: Store, hours: int) -> None:
    lease = ask(store, "alice", now=NOW).lease
    store.transact(lambda s: recovery.shift(s, hours * HOUR))
    assert lease_of(store, lease).ends_at == NOW + timedelta(hours=hours + 1)
    end = NOW + timedelta(hours=hours, minutes=10)
    store.transact(lambda s: transitions.end(s, lease, "stopped", end))
    assert store.transact(lambda s: s.get_one(GpuUsage, lease)).gpu_seconds == 600
    everything_holds(store, end)


def set_quota(store: Store, subject: str, now: datetime = NOW, **spec: object) -> None:
    store.transact(lambda s: s.merge(GpuQuota(subject=subject, spec=spec, changed_at=now)))


def test_a_budget_counts_what_was_used_and_what_is_promised(store: Store) -> None:
    set_quota(store, "user:alice", budget={"gpu_hours": 2, "window": "day"}, time_limit="8h")
    first = ask(store, "alice", now=NOW, time_limit=HOUR)
    store.transact(lambda s: transitions.end(s, first.lease, "stopped", NOW + timedelta(hours=1)))
    too_long = ask(store, "alice", now=NOW + timedelta(hours=1), time_limit=2 * HOUR)
    assert [reason.code for reason in too_long.reasons] == ["person_budget"]
    # Midnight begins a new window.
    store.transact(lambda s: batches.run_pass(s, datetime(2040, 1, 11, 0, 0, 1)))
    assert lease_of(store, too_long.lease).state is LeaseState.HELD
    everything_holds(store, datetime(2040, 1, 11, 0, 0, 2))


def test_another_time_zone_begins_the_window_at_its_own_midnight(store: Store) -> None:
    set_quota(store, "user:alice", budget={"gpu_hours": 1, "window": "day"}, time_limit="8h")
    first = ask(store, "alice", now=NOW, time_limit=HOUR)
    later = NOW + timedelta(hours=1)
    store.transact(lambda s: transitions.end(s, first.lease, "stopped", later))
    waits = ask(store, "alice", now=later, time_limit=HOUR)
    assert [reason.code for reason in waits.reasons] == ["person_budget"]
    begins = datetime(2040, 1, 10, 16)  # midnight in Shanghai
    set_quota(store, "settings", timezone="Asia/Shanghai")
    store.transact(lambda s: batches.run_pass(s, begins - timedelta(seconds=1)))
    assert lease_of(store, waits.lease).state is LeaseState.QUEUED
    store.transact(lambda s: batches.run_pass(s, begins + timedelta(seconds=1)))
    assert lease_of(store, waits.lease).state is LeaseState.HELD
    everything_holds(store, begins + timedelta(seconds=2))


def test_a_new_kind_of_budget_knows_the_past(store: Store) -> None:
    lease = ask(store, "alice", now=NOW).lease
    store.transact(lambda s: transitions.end(s, lease, "stopped", NOW + timedelta(hours=1)))
    set_quota(store, "user:alice", budget={"gpu_hours": 1.5, "half_life": "10d"}, time_limit="8h")
    later = NOW + timedelta(hours=1)
    waits = ask(store, "alice", now=later)
    assert [reason.code for reason in waits.reasons] == ["person_budget"]
    everything_holds(store, later)


# -- longer ---------------------------------------------------------------------------------------


def test_an_extension_is_granted_where_it_costs_nobody_anything(store: Store) -> None:
    lease = ask(store, "alice", now=NOW).lease
    assert store.transact(lambda s: transitions.extend(s, lease, HOUR, NOW)) == (HOUR, ())
    assert lease_of(store, lease).ends_at == NOW + timedelta(hours=2)
    assert lease_of(store, lease).time_limit == 2 * HOUR


def test_an_extension_is_refused_where_somebody_would_wait_longer(store: Store) -> None:
    lease = ask(store, "alice", 4, NOW).lease
    ask(store, "bob", 1, NOW)
    added, reasons = store.transact(lambda s: transitions.extend(s, lease, HOUR, NOW))
    assert (added, [reason.code for reason in reasons]) == (0, ["extend_delays"])
    assert lease_of(store, lease).ends_at == NOW + timedelta(hours=1)


def test_an_extension_stays_within_time_limit_and_budget(store: Store) -> None:
    lease = ask(store, "alice", now=NOW).lease
    budget = {"gpu_hours": 1.5, "window": "total"}
    set_quota(store, "user:alice", NOW - timedelta(days=1), time_limit="90m", budget=budget)
    added, reasons = store.transact(lambda s: transitions.extend(s, lease, HOUR, NOW))
    assert [reason.code for reason in reasons] == ["time_limit_most", "person_budget"]
    # As much as both allow, not all or nothing; and then nothing more.
    assert added == HOUR / 2
    assert lease_of(store, lease).ends_at == NOW + timedelta(minutes=90)
    assert store.transact(lambda s: transitions.extend(s, lease, HOUR, NOW))[0] == 0
    assert lease_of(store, lease).ends_at == NOW + timedelta(minutes=90)


# -- after a loss ---------------------------------------------------------------------------------


def restore(store: Store, lease: str, user: str, *slots: Slot) -> bool:
    return store.transact(
        lambda s: recovery.restore(
            s,
            lease,
            username=user,
            server_name="",
            account="group:vision",
            slots=slots,
            container_id=f"c-{lease}",
            held_at=NOW,
            time_limit=HOUR,
            now=NOW + timedelta(minutes=10),
        )
    )


def test_a_lost_lease_is_written_again_and_charged_from_its_beginning(store: Store) -> None:
    assert restore(store, "l1", "alice", Slot("GPU-a0"), Slot("GPU-gone"))
    lease = lease_of(store, "l1")
    assert (lease.state, lease.ends_at) == (LeaseState.ACTIVE, NOW + timedelta(hours=1))
    store.transact(lambda s: transitions.end(s, "l1", "stopped", NOW + timedelta(minutes=20)))
    assert store.transact(lambda s: s.get_one(GpuUsage, "l1")).gpu_seconds == 2 * 1200
    everything_holds(store, NOW + timedelta(minutes=20))


def test_of_two_who_claim_a_device_the_one_in_the_ledger_keeps_it(store: Store) -> None:
    assert restore(store, "l1", "alice", Slot("GPU-a0"))
    assert not restore(store, "l2", "bob", Slot("GPU-a0"))
    assert not restore(store, "l1", "alice", Slot("GPU-a0"))
    everything_holds(store, NOW + timedelta(minutes=10))
