"""Notices: one for each cause, in sentences, as long as they are true."""

from __future__ import annotations

import string
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.orm import Session

from hub_ext.store import Lease, LeaseState, Store
from hub_ext.store.models import utcnow
from spawner.gpu import notices
from spawner.gpu.notices import KINDS


def english(message: str) -> str:
    return message


@pytest.fixture
def store(store: Store) -> Store:
    for name in ("one", "two"):
        lease = Lease(id=name, username="alice", server_name=name, state=LeaseState.ACTIVE)
        store.transact(lambda s, lease=lease: s.add(lease))
    return store


def add(store: Store, code: str, key: str, lease: str = "one", **data: object) -> bool:
    return store.transact(
        lambda s: notices.add(s, username="alice", lease_id=lease, code=code, data=data, key=key)
    )


def shown(store: Store, user: str = "alice") -> list[str]:
    return [n.code for n in store.transact(lambda s: notices.show(s, user, english))]


def test_one_cause_is_told_once_whoever_comes_by(store: Store) -> None:
    start, new = threading.Barrier(6), []

    def tell() -> None:
        start.wait()
        new.append(add(store, "gpu_lost", "cause"))

    threads = [threading.Thread(target=tell) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new) == [False] * 5 + [True]
    assert shown(store) == ["gpu_lost"]


def test_everybody_sees_their_own_and_marks_only_those(store: Store) -> None:
    add(store, "gpu_lost", "a")
    [notice] = store.transact(lambda s: notices.show(s, "alice", english))
    assert shown(store, "bob") == []
    assert store.transact(lambda s: notices.mark_seen(s, "bob", [notice.id])) == 0
    assert store.transact(lambda s: notices.mark_seen(s, "alice", [notice.id, 10**6])) == 1
    assert store.transact(lambda s: notices.show(s, "alice", english))[0].seen


def test_of_one_thing_only_the_newest_is_shown(store: Store) -> None:
    add(store, "idle_warning", "1")
    add(store, "idle_resumed", "2")
    add(store, "idle_warning", "3", lease="two")
    assert shown(store) == ["idle_warning", "idle_resumed"]


def test_what_was_going_to_happen_goes_with_its_lease(store: Store) -> None:
    add(store, "ends_soon", "1", ends_at=0)
    add(store, "time_limit", "2")

    def end(session: Session) -> None:
        session.get_one(Lease, "one").state = LeaseState.ENDED

    store.transact(end)
    assert shown(store) == ["time_limit"]


def test_an_end_that_was_put_off_is_no_longer_told(store: Store) -> None:
    end = utcnow() + timedelta(minutes=10)

    def ends(session: Session, at: datetime) -> None:
        session.get_one(Lease, "one").ends_at = at

    store.transact(lambda s: ends(s, end))
    add(store, "ends_soon", "1", ends_at=end.replace(tzinfo=UTC).timestamp())
    assert shown(store) == ["ends_soon"]
    store.transact(lambda s: ends(s, end + timedelta(hours=1)))
    assert shown(store) == []


def test_a_week_later_it_is_shown_no_more(store: Store) -> None:
    add(store, "time_limit", "1")
    later = utcnow() + timedelta(days=8)
    assert store.transact(lambda s: notices.show(s, "alice", english, now=later)) == []


def test_times_are_the_readers_and_durations_are_words() -> None:
    zone = ZoneInfo("Asia/Shanghai")
    at = datetime(2026, 3, 1, 20, 0, tzinfo=ZoneInfo("UTC")).timestamp()
    said = notices.sentence("idle_warning", {"idle_for": 2700, "stop_at": at}, english, zone)
    assert "for 45 min" in said
    assert "at 2026-03-02 04:00" in said


@pytest.mark.parametrize("code", KINDS)
def test_what_matters_is_within_what_jupyterlab_shows(code: str) -> None:
    data = {
        "devices": "NVIDIA A100-SXM4-80GB",
        "account": "group:vision",
        "reason": "",
        **dict.fromkeys(("stop_at", "ends_at", "open_by_at", "keep_until_at", "idle_for"), 7200.0),
    }
    assert len(notices.sentence(code, data, english, ZoneInfo("UTC"))) <= 140


@pytest.mark.parametrize("code", KINDS)
def test_every_sentence_can_be_said_with_whatever_is_known(code: str) -> None:
    names = [name for _, name, _, _ in string.Formatter().parse(KINDS[code].sentence) if name]
    assert "{" not in notices.sentence(code, dict.fromkeys(names, 3600.0), english)
    assert "{" not in notices.sentence(code, {}, english)
    hostile = dict.fromkeys(names, "{0.__class__}")
    assert "class 'str'" not in notices.sentence(code, hostile, english)
