"""Notices: one for each cause, in sentences, as long as they are true."""

from __future__ import annotations

import itertools
import re
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.orm import Session

from commons import notices
from commons.leases import LeaseState
from commons.messages import MISSING
from commons.notice_kinds import KINDS
from commons.store import Lease, Store
from commons.store.models import utcnow

FIELD = re.compile(r"\{(\w+)\}")


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


def test_an_announced_stop_is_not_told_of_a_server_that_has_ended_since(store: Store) -> None:
    """Kind: news about what is over: a stop is announced for later, and done now."""
    later = utcnow().replace(tzinfo=UTC).timestamp() + 600
    add(store, "stops_soon", "1", lease="two", by="carol", stop_at=later)
    add(store, "stops_soon", "2", by="carol", stop_at=later)
    add(store, "stopped_by", "3", by="carol")
    add(store, "stops_soon", "4", by="carol", stop_at=later)  # of the next one
    assert shown(store) == ["stops_soon", "stopped_by", "stops_soon"]


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


def test_a_notice_about_a_server_without_a_lease_names_it(store: Store) -> None:
    """Kind: what happens to servers that hold no GPU is told, too."""
    told = {"username": "alice", "lease_id": None, "key": "k"}
    store.transact(lambda s: notices.add(s, **told, server="b", code="killed", data={}))
    [notice] = store.transact(lambda s: notices.show(s, "alice", english))
    assert (notice.server, notice.ended) == ("b", True)


SIZES = [({"en": "Small", "zh_CN": "小"}, 2**30), ({"en": "Medium", "zh_CN": "中"}, 2**32)]


def test_an_end_by_memory_has_figures_and_says_what_to_do(store: Store) -> None:
    """Kind: an end by memory says how much of how much was used, and which size has more."""
    more = notices.about_memory(2**30, SIZES, shared=2**29)
    told = {"username": "alice", "lease_id": None, "key": "k"}
    data = {"limit_bytes": 2**30}
    store.transact(
        lambda s: notices.add(s, **told, server="", code="out_of_memory", data=data, more=more)
    )
    [notice] = store.transact(lambda s: notices.show(s, "alice", english))
    assert "1.0 GiB of 1.0 GiB used" in notice.sentence
    assert "0.5 GiB were files in /tmp" in notice.more
    assert "“Medium”, which has 4.0 GiB" in notice.more


def test_who_has_the_largest_size_is_not_sent_to_a_larger_one() -> None:
    assert [str(one) for one in notices.about_memory(2**32, SIZES)] == [
        str(notices.NO_LARGER_SIZE())
    ]


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


# What whoever tells it always knows: it is what the telling follows from.
KNOWN = {
    "granted": {"open_by_at"},
    "ends_soon": {"ends_at"},
    "idle_warning": {"idle_for", "stop_at"},
    "kept": {"keep_until_at"},
    "cull_warning": {"idle_for", "stop_at"},
    "server_kept": {"keep_until_at"},
    "course_freezes": {"course", "freeze_at"},
    "exam_until": {"exam", "ends_at"},
    "exam_ends_soon": {"exam", "ends_at", "left_for"},
    "max_age_soon": {"age_for", "stop_at"},
    "preempted_soon": {"account", "stop_at"},
    "reservation_unkept": {"name", "start_at"},
    "stopping": {"stop_at"},
    "stops_soon": {"by", "stop_at"},
    "course_message": {"by", "course", "message"},
    "server_message": {"by", "message"},
    "look_asked": {"by", "course"},
    "look_on": {"by", "course", "path", "until_at"},
    "maintenance_soon": {"stop_at"},
    "folder_fills": {"folder"},
    "folder_full": {"folder"},
    "withdrawn": {"environment"},
    "process_out_of_memory": {"count"},
    "notebook_sent": {"sender", "name"},
    "handin_refused": {"handin", "course"},
    "feedback_given": {"handin", "course"},
    "folders_missing": {"folders"},
    "environment_holes": {"environment", "holes"},
    "job_done": {"job", "command"},
    "job_not_done": {"job", "command"},
    "jobs_over": {"job", "done", "count", "command"},
}


@pytest.mark.parametrize("code", KINDS)
def test_what_is_not_known_is_not_spoken_of(code: str) -> None:
    """Kind: a sentence with a dash in the place of what nobody knew (a notebook's name, a
    limit, a message, an exit code); whatever of it is missing.
    """
    kind = KINDS[code]
    texts = (kind.sentence, *kind.otherwise)
    fields = sorted({name for text in texts for name in FIELD.findall(text)})
    value = {name: 7200.0 if name.endswith(("_at", "_for", "_bytes")) else "x1" for name in fields}
    maybe = [name for name in fields if name not in KNOWN.get(code, ())]
    for count in range(len(maybe) + 1):
        for missing in itertools.combinations(maybe, count):
            for nothing in ("", None):
                data = {**value, **dict.fromkeys(missing, nothing)}
                said = notices.sentence(code, data, english, ZoneInfo("UTC"))
                assert MISSING not in said, (missing, said)
                assert "“”" not in said, (missing, said)
            assert notices.sentence(code, data, english) == notices.sentence(
                code, {name: each for name, each in data.items() if name not in missing}, english
            )
    if not maybe:
        assert not kind.otherwise


@pytest.mark.parametrize("code", KINDS)
def test_every_sentence_can_be_said_with_whatever_is_known(code: str) -> None:
    names = FIELD.findall(KINDS[code].sentence)
    assert "{" not in notices.sentence(code, dict.fromkeys(names, 3600.0), english)
    assert "{" not in notices.sentence(code, {}, english)
    hostile = dict.fromkeys(names, "{0.__class__}")
    assert "class 'str'" not in notices.sentence(code, hostile, english)
