"""What the spawn form says to a person: accounts, limits, and when it would start."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from commons.errors import BadRequest
from commons.i18n import gettext_for
from commons.site import Site
from commons.store import Store
from spawner import options
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import reservations, transitions
from spawner.gpu.ledger.batches import run_pass
from spawner.gpu.ledger.snapshot import read_snapshot
from spawner.gpu.offer import Offer, make_offers
from spawner.gpu.policy.forecast import probe
from spawner.gpu.policy.placement import Availability, Device, GpuType
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.document import read_document

QUOTAS = """
version: 1
default: {max_gpus: 2, time_limit: 8h, default_time_limit: 1h}
groups:
  vision: {grp_gpus: 2, grp_budget: {gpu_hours: 6, window: total}}
"""
ACCOUNTS = ("group:vision", "user:alice")


@pytest.fixture
def store(store: Store) -> Store:
    devices = [Device(f"GPU-{n}", "A100", 80 * 2**30) for n in range(2)]
    store.transact(lambda s: sync_inventory(s, devices))
    specs = read_document(QUOTAS)
    store.transact(lambda s: quota_store.apply(s, specs, "carol"))
    return store


def ask(store: Store, user: str, account: str, hours: float) -> None:
    def work(session: Any) -> None:
        transitions.request(
            session,
            username=user,
            server_name="",
            account=account,
            gpus=1,
            time_limit=hours * 3600,
        )
        run_pass(session)

    store.transact(work)


def offers(store: Store, *models: str) -> dict[str, Offer]:
    now = time.time()
    probes = tuple(probe("alice", account, now) for account in ACCOUNTS)
    snapshot = store.transact(lambda s: read_snapshot(s, now, probes=probes), read=True)
    found = make_offers(snapshot, "alice", ACCOUNTS, 2, gettext_for("en"), UTC, models)
    return {offer.account: offer for offer in found}


def test_what_is_free_starts_at_once(store: Store) -> None:
    vision = offers(store)["group:vision"]
    assert (vision.title, vision.most, vision.usual) == ("Team vision", 480, 60)
    assert vision.outlooks == {1: ("now", "starts at once"), 2: ("now", "starts at once")}
    assert "All together may still use 6.0 of 6 GPU-hours." in vision.facts
    assert offers(store)["user:alice"].title == "Yourself"


def test_what_is_in_use_says_how_many_are_ahead_and_when(store: Store) -> None:
    ask(store, "bob", "user:bob", 4)
    ask(store, "eve", "user:eve", 2)
    ask(store, "dan", "user:dan", 1)
    state, text = offers(store)["user:alice"].outlooks[1]
    assert state == "wait"
    assert text.startswith("waits; ")
    assert "about " in text


def test_before_a_reservation_the_longest_time_that_starts_now_is_offered(
    store: Store, site: Site
) -> None:
    lesson = {
        "name": "lesson",
        "subject": "user:carol",
        "gpus": 2,
        "starts": f"{datetime.now(UTC) + timedelta(minutes=30):%Y-%m-%dT%H:%M}",
        "duration": "2h",
        "timezone": "UTC",
    }
    spec = reservations.check(lesson, site)
    store.transact(lambda s: reservations.create(s, spec, "carol"))
    vision = offers(store)["group:vision"]
    state, text = vision.outlooks[1]
    clock = lesson["starts"][-5:]
    assert state == "now"
    assert f"until {clock} UTC; then the GPUs are reserved: longer starts later" in text
    gap = vision.as_json(True)["outlooks"]["1"]["until"]
    assert clock in gap["text"]
    minutes = options.parse(options.from_form({"time_limit": [gap["value"]]})).minutes
    assert minutes in (28, 29)
    ask(store, "alice", "group:vision", minutes / 60)
    [lease] = store.transact(transitions.live_leases, read=True)
    assert lease.state == "held"


def test_the_longest_time_that_starts_now_is_offered_of_each_model(
    store: Store, site: Site
) -> None:
    devices = [Device(f"T4-{n}", "T4", 16 * 2**30) for n in range(2)]
    both = [Device(f"GPU-{n}", "A100", 80 * 2**30) for n in range(2)] + devices
    store.transact(lambda s: sync_inventory(s, both))
    lesson = {
        "name": "lesson",
        "subject": "user:carol",
        "gpus": 2,
        "gpu_type": "A100",
        "starts": f"{datetime.now(UTC) + timedelta(minutes=30):%Y-%m-%dT%H:%M}",
        "duration": "2h",
        "timezone": "UTC",
    }
    spec = reservations.check(lesson, site)
    store.transact(lambda s: reservations.create(s, spec, "carol"))
    vision = offers(store, "T4", "A100")["group:vision"]
    assert vision.outlooks[1] == vision.outlooks_of("T4")[1] == ("now", "starts at once")
    state, text = vision.outlooks_of("A100")[1]
    assert state == "now"
    clock = lesson["starts"][-5:]
    assert f"until {clock} UTC; then the GPUs are reserved: longer starts later" in text
    seen = vision.as_json(True)
    assert clock in seen["types"]["A100"]["1"]["until"]["text"]
    assert "until" not in seen["types"]["T4"]["1"] | seen["outlooks"]["1"]


def test_where_no_time_starts_now_the_usual_one_stays(store: Store) -> None:
    ask(store, "bob", "user:bob", 4)
    ask(store, "eve", "user:eve", 4)
    assert offers(store)["user:alice"].gaps == {}


def test_what_can_never_be_says_why(store: Store) -> None:
    store.transact(lambda s: quota_store.set_keys(s, "user:alice", {"max_gpus": 1}, "carol"))
    state, text = offers(store)["user:alice"].outlooks[2]
    assert state == "never"
    assert "one person may hold 1" in text


def test_a_used_up_budget_is_said_for_the_account_that_has_it(store: Store) -> None:
    ask(store, "bob", "group:vision", 6)
    found = offers(store)
    assert found["group:vision"].outlooks[1][0] == "wait"
    assert "All together may still use 0.0 of 6 GPU-hours." in found["group:vision"].facts
    assert found["user:alice"].outlooks[1] == ("now", "starts at once")


def test_the_form_offers_waiting_instead_of_refusing(site: Site) -> None:
    busy = Availability((GpuType("A100", 80 * 2**30, 2, 0),), False)
    waits = Offer("user:alice", "Yourself", 480, 60, (), {1: ("wait", "waits"), 2: ("never", "x")})
    model = options.form_model({}, site, busy, {"gpus": 1}, "en", gettext_for("en"), [waits])
    none, one, two = model["gpus"]["choices"]
    assert one == {"count": 1, "disabled": None, "note": "waits", "selected": True}
    assert (none["selected"], two["disabled"]) == (False, "x")
    (account,) = model["gpus"]["accounts"]
    assert account["minutes"] == [30, 60, 120, 240, 480]


def test_a_count_that_cannot_be_had_any_more_is_not_chosen_again(site: Site) -> None:
    busy = Availability((GpuType("A100", 80 * 2**30, 2, 0),), False)
    never = Offer("user:alice", "Yourself", None, None, (), {2: ("never", "x")})
    model = options.form_model({}, site, busy, {"gpus": 2}, "en", gettext_for("en"), [never])
    assert [choice["selected"] for choice in model["gpus"]["choices"]] == [False, True, False]


def test_the_account_of_the_last_start_is_chosen_beforehand(site: Site) -> None:
    free = Availability((GpuType("A100", 80 * 2**30, 2, 2),), False)
    both = [Offer(name, name, None, None, ()) for name in ("user:alice", "group:vision")]
    last = {"account": "group:vision", "time_limit": 60, "wait": False}
    gpus = options.form_model({}, site, free, last, "en", gettext_for("en"), both)["gpus"]
    assert [one["selected"] for one in gpus["accounts"]] == [False, True]
    assert (gpus["time_limit"], gpus["wait"]) == (60, False)


@pytest.mark.parametrize(
    ("form", "wait"),
    [
        ({}, True),
        ({"wait_shown": ["true"]}, False),
        ({"wait_shown": ["true"], "wait": ["true"]}, True),
        ({"wait": ["false"]}, False),
    ],
)
def test_a_box_that_is_not_ticked_is_a_no(form: dict[str, list[str]], wait: bool) -> None:
    assert options.parse(options.from_form(form)).wait is wait


@pytest.mark.parametrize("minutes", ["0", "-5", "1.5", "1e9", "9999999", "soon"])
def test_a_time_limit_is_whole_minutes(minutes: str) -> None:
    with pytest.raises(BadRequest):
        options.parse(options.from_form({"time_limit": [minutes]}))
