"""``labcommons gpu``, ``reservation`` and ``server warm``, as an administrator types them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.store import GpuNotice, GpuReservation, Lease, Store
from commons.store.models import utcnow
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.batches import run_pass
from spawner.gpu.policy.placement import Device
from spawner.gpu.quotas import quota_store
from spawner.warm import records

from .test_quota_cli import Terminal


@pytest.fixture
def terminal(store: Store, tmp_path: Path) -> Terminal:
    devices = [Device(f"GPU-{n}", "A100", 80 * 2**30, node=f"node{n}") for n in range(2)]
    store.transact(lambda s: sync_inventory(s, devices))
    return Terminal(store, tmp_path)


def ask(store: Store, user: str, account: str = "", time_limit: float | None = None) -> str:
    def work(session):  # type: ignore[no-untyped-def]
        lease = transitions.request(
            session,
            username=user,
            server_name="",
            account=account or f"user:{user}",
            gpus=1,
            time_limit=time_limit,
        )
        run_pass(session)
        return lease.id

    return str(store.transact(work))


def test_list_names_every_device_with_its_state(terminal: Terminal) -> None:
    ask(terminal.store, "alice")
    shown = terminal("gpu", "list").output
    assert "A100" in shown
    assert "1 of 2 free" in shown
    found = json.loads(terminal("gpu", "list", "--json").output)
    assert sorted(one["state"] for one in found["devices"]) == ["free", "leased"]


def test_a_shared_gpu_counts_by_its_slots(terminal: Terminal) -> None:
    shared = Device("GPU-s", "T4", 16 * 2**30, sharing="mps", slots=2, weight=0.5)
    terminal.store.transact(lambda s: sync_inventory(s, [shared]))
    for user, free in (("alice", 1), ("bob", 0)):
        ask(terminal.store, user)
        assert f"{free} of 2 free" in terminal("gpu", "list").output


def test_who_waits_is_listed_with_place_and_reason(terminal: Terminal) -> None:
    assert terminal("gpu", "queue").output == "Nobody waits for GPUs.\n"
    for user in ("alice", "bob", "eve"):
        ask(terminal.store, user)
    (row,) = json.loads(terminal("gpu", "queue", "--json").output)
    assert (row["user"], row["waiting"]["position"]) == ("eve", 1)
    assert "0 of 2 GPUs are free, 1 needed." in terminal("gpu", "queue").output
    assert len(json.loads(terminal("gpu", "leases", "--json").output)) == 2


def test_explain_says_what_somebody_waits_for_and_may_use(terminal: Terminal) -> None:
    terminal.apply("version: 1\nusers: {alice: {max_gpus: 1, budget: {gpu_hours: 5, window: day}}}")
    ask(terminal.store, "alice", time_limit=3600)
    found = json.loads(terminal("gpu", "explain", "alice", "--json").output)
    (account,) = found["accounts"]
    assert account["limits"][0] == {"key": "max_gpus", "value": 1, "source": "user:alice"}
    assert account["budgets"][0]["left"] == pytest.approx(4, abs=0.1)
    shown = terminal("gpu", "explain", "alice").output
    assert "holds GPU-0" in shown
    assert "max_gpus: 1  (from user:alice)" in shown
    assert "holds no GPU" in terminal("gpu", "explain", "nobody").output


def test_draining_and_returning_a_node(terminal: Terminal) -> None:
    assert "Drained: GPU-1." in terminal("gpu", "drain", "node1", "--reason", "fan").output
    found = json.loads(terminal("gpu", "list", "--json").output)["devices"]
    assert [(one["state"], one["reason"]) for one in found] == [("free", None), ("drained", "fan")]
    terminal("gpu", "undrain", "node1")
    assert "2 of 2 free" in terminal("gpu", "list").output
    assert "neither a GPU nor a node" in terminal("gpu", "drain", "node9", code=1).output


def test_cancelling_asks_first_and_takes_the_beginning_of_an_id(terminal: Terminal) -> None:
    leases = [ask(terminal.store, user) for user in ("alice", "bob", "eve")]
    terminal("gpu", "cancel", leases[2], typed="n\n", code=1)
    assert "Taken from the queue." in terminal("gpu", "cancel", leases[2][:12], typed="y\n").output
    assert "The hub stops it now." in terminal("gpu", "cancel", leases[0], "--yes").output
    assert terminal.store.transact(lambda s: s.get_one(Lease, leases[0]).stop_reason) == "cancelled"
    assert "no lease" in terminal("gpu", "cancel", "ffffffff", "--yes", code=1).output


def test_extending_says_why_not(terminal: Terminal) -> None:
    lease = ask(terminal.store, "alice", time_limit=3600)
    assert "It ends at" in terminal("gpu", "extend", lease, "--by", "1h").output
    terminal.store.transact(
        lambda s: quota_store.set_keys(s, "default", {"time_limit": "3h"}, "carol")
    )
    part = terminal("gpu", "extend", lease, "--by", "2h").output
    assert "1h longer, the most that is allowed: " in part
    refused = terminal("gpu", "extend", lease, "--by", "2h", code=1).output
    assert "not extended: " in refused
    assert "at most 3 h" in refused
    terminal("gpu", "extend", lease, "--by", "soon", code=2)


def test_check_finds_nothing_wrong(terminal: Terminal) -> None:
    ask(terminal.store, "alice")
    assert terminal("gpu", "check", "--deep").output == "All is as it must be.\n"


LAB = [
    "ML lab", "course:ml101", "--gpus", "1", "--duration", "2h", "--timezone", "Europe/Berlin",
]  # fmt: skip


def test_a_reservation_from_creation_to_its_end(terminal: Terminal) -> None:
    assert "Nothing is reserved." in terminal("reservation", "list").output
    weekly = ["--starts", "2034-11-28T10:00", "--repeat", "weekly", "--weekday", "tue"]
    made = json.loads(terminal("reservation", "create", *LAB, *weekly, "--json").output)
    assert "ML lab" in terminal("reservation", "list").output
    assert "timezone: Europe/Berlin" in terminal("reservation", "show", "ML lab").output
    terminal("reservation", "skip", "ML lab", "2034-12-05")
    assert "is not on" in terminal("reservation", "skip", "ML lab", "2034-12-06", code=1).output
    terminal("reservation", "cancel", made["id"], typed="n\n", code=1)
    terminal("reservation", "cancel", made["id"], "--yes")
    assert json.loads(terminal("reservation", "list", "--json").output) == []
    row = terminal.store.transact(lambda s: s.get_one(GpuReservation, made["id"]))
    assert row.cancelled_at is not None
    assert row.skipped == ["2034-12-05"]


def test_a_reservation_in_the_way_is_named(terminal: Terminal) -> None:
    once = ["--starts", "2034-11-28T10:00"]
    terminal("reservation", "create", *LAB, *once)
    other = ["Demo", "group:vision", "--gpus", "2", *LAB[4:], "--starts", "2034-11-28T11:00"]
    refused = terminal("reservation", "create", *other, code=1).output
    assert "“ML lab” (course:ml101) is in the way: from 2034-11-28 09:00" in refused


def test_a_reservation_that_cannot_be_kept_says_so_before_and_after(terminal: Terminal) -> None:
    once = ["--starts", "2034-11-28T10:00"]
    two = ["Demo", "group:vision", "--gpus", "2", *LAB[4:], *once]
    terminal("gpu", "drain", "GPU-1")
    refused = terminal("reservation", "create", *two, code=1).output
    assert "one of its GPUs is missing: it is drained or failing" in refused
    assert "Reserve it anyway?" in refused
    assert json.loads(terminal("reservation", "list", "--json").output) == []
    terminal("reservation", "create", *two, "--anyway")
    terminal("gpu", "undrain", "GPU-1")
    now = datetime.now(UTC)
    soon = ["--starts", f"{now + timedelta(hours=2):%Y-%m-%dT%H:%M}", "--timezone", "UTC"]
    terminal("reservation", "create", "Soon", *LAB[1:6], *soon)
    assert "cannot be kept" not in terminal("reservation", "list").output
    ask(terminal.store, "alice", time_limit=86400)
    drained = terminal("gpu", "drain", "GPU-0", "--reason", "fan").output
    assert "Reservations that cannot be kept now: “Soon”." in drained
    assert "cannot be kept" in terminal("reservation", "list").output
    assert (
        "leases that end later hold 1 of its GPUs" in terminal("reservation", "show", "Soon").output
    )
    # Who made it is told, once.
    for _ in range(2):
        terminal.store.transact(run_pass)
    query = select(GpuNotice.code, GpuNotice.username)
    [told] = terminal.store.transact(lambda s: list(s.execute(query)))
    assert told[0] == "reservation_unkept"


def test_servers_are_started_ahead_by_command_and_what_became_of_them_is_told(
    terminal: Terminal,
) -> None:
    assert "Nothing is started ahead of time." in terminal("server", "warm", "list").output
    at = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT09:50")
    asked = ["--at", at, "--timezone", "Asia/Shanghai", "--hold", "90m"]
    people = ["--user", "alice", "--user", "bob"]
    start = ("server", "warm", "start", "Lesson 3")
    refused = terminal(*start, *people, *asked, "--size", "huge", code=1).output
    assert "no size “huge”" in refused
    assert "or people" in terminal(*start, *asked, code=1).output
    made = json.loads(terminal(*start, *people, *asked, "--json").output)
    assert made["starts_at"] == at[:11] + "01:50:00Z"
    assert made["hold_until"] == at[:11] + "03:20:00Z"
    assert "planned" in terminal("server", "warm", "list").output

    def go_on(session: Session) -> None:
        records.begin(session, made["id"], None, utcnow())
        for held in records.live(session, "bob"):
            records.move(session, held, records.State.FAILED, records.NEVER_HERE())

    terminal.store.transact(go_on)
    shown = terminal("server", "warm", "show", "Lesson 3").output
    assert "alice  waiting" in shown
    assert "bob  failed: has never logged in here" in shown
    terminal("server", "warm", "cancel", "Lesson 3")
    [found] = json.loads(terminal("server", "warm", "list", "--json").output)
    assert (found["state"], found["counts"]) == ("cancelled", {"waiting": 1, "failed": 1})
