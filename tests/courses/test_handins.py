"""When what is due for whom, who may still hand in, and what receipts prove."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from commons.errors import BadRequest, NotAvailable
from commons.store import Store
from courses import handins, receipts
from courses.deadlines import MINUTE, Timing, deadline, moment
from courses.document import CourseError, CourseSpec, check_course, read_course, to_yaml
from courses.handins import State

from .conftest import DOCUMENT

HW1 = {"name": "hw1", "due": "2026-11-03 23:59", "late": "2d"}
PAIRS = {"name": "pairs", "due": "2026-11-10 12:00", "groups": True, "again": False}
Make = Callable[..., CourseSpec]


@pytest.fixture
def ml(course: Make) -> CourseSpec:
    return course(handins=[HW1, PAIRS])


def at(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


# -- the document ---------------------------------------------------------------------------------


def test_what_is_written_as_people_do_is_read_and_written_again(course: Make) -> None:
    text = to_yaml(course()) + (
        "handins:\n"
        "  - {name: hw1, due: 2026-11-03 23:59, late: 2d, path: ~/ml/hw1/, size: 100M, files: 50}\n"
        "  - {name: hw2, due: 2026-11-10, title: {en: Trees, zh: 树}, groups: true}\n"
    )
    spec = read_course(text)
    one, two = spec.handins
    assert (one.due, one.late, one.path, one.bytes, one.files) == (
        "2026-11-03 23:59", "2d", "ml/hw1", 100 * 2**20, 50,
    )  # fmt: skip
    assert (two.due, two.called("zh_CN"), two.called("en")) == ("2026-11-10 23:59", "树", "Trees")
    assert read_course(to_yaml(spec)) == spec


def test_a_day_alone_is_to_its_end_however_it_comes(course: Make) -> None:
    """YAML has days; JSON has texts."""
    assert course(handins=[HW1 | {"due": "2026-11-10"}]).handins[0].due == "2026-11-10 23:59"


@pytest.mark.parametrize(
    ("changed", "key"),
    [({"due": "tomorrow"}, "due"), ({"due": "2026-11-31"}, "due"),
     ({"path": "../bob/hw1"}, "path"), ({"path": "/etc"}, "path"), ({"path": "a//b"}, "path"),
     ({"path": "a\u202eb"}, "path"), ({"size": "3G"}, "size"), ({"size": "-1"}, "size"),
     ({"size": 7}, "size"), ({"files": 0}, "files"), ({"files": 10**6}, "files"),
     ({"files": True}, "files"), ({"late": "100d"}, "late"), ({"name": "HW 1"}, "name"),
     ({"name": "../x"}, "name"), ({"more": 1}, "more")],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_key(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(CourseError) as caught:
        check_course({**DOCUMENT, "handins": [HW1 | changed]})
    assert [problem.path for problem in caught.value.problems] == [f"handins.0.{key}"]


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(CourseError):
        check_course({**DOCUMENT, "handins": [HW1, HW1]})


# -- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "timing"),
    [("2026-11-03 23:59:59", Timing.IN_TIME), ("2026-11-04 00:00", Timing.LATE),
     ("2026-11-05 23:59:59", Timing.LATE), ("2026-11-06 00:00", Timing.OVER)],
)  # fmt: skip
def test_due_is_to_that_minutes_end_in_the_courses_zone(
    ml: CourseSpec, asked: str, timing: Timing
) -> None:
    assert deadline(ml, ml.handins[0]).timing(at(asked)) is timing


@pytest.mark.parametrize(
    ("zone", "due", "utc"),
    [("Asia/Shanghai", "2026-11-03 23:59", "2026-11-03 16:00"),
     ("America/New_York", "2026-11-01 01:30", "2026-11-01 05:31"),  # there twice: the first
     ("Europe/Berlin", "2027-03-28 02:30", "2027-03-28 01:31"),  # not there: an hour later
     ("Europe/Berlin", "2026-10-25 23:59", "2026-10-25 23:00")],
)  # fmt: skip
def test_a_deadline_is_a_wall_time_also_where_clocks_change(zone: str, due: str, utc: str) -> None:
    assert moment(due, zone) == at(utc, "UTC")


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
    st.sampled_from(
        ["UTC", "Europe/Berlin", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu"]
    ),
    st.lists(st.integers(-(10**6), 10**6), max_size=4),
    st.integers(0, 60),
)
def test_an_extension_only_ever_gives_more(
    due: datetime, zone: str, extensions: list[int], late: int
) -> None:
    handin = HW1 | {"due": f"{due:%Y-%m-%d %H:%M}", "late": f"{late}d" if late else None}
    spec = check_course({**DOCUMENT, "timezone": zone, "handins": [handin]})
    plain = deadline(spec, spec.handins[0])
    given = deadline(spec, spec.handins[0], [plain.due + one for one in extensions])
    assert given.due == max([plain.due, *(plain.due + one for one in extensions)])
    assert given.extended == (given.due > plain.due)
    assert given.until - given.due == plain.until - plain.due == late * 86400
    assert given.timing(given.due - 1) is Timing.IN_TIME
    assert given.timing(given.until) is Timing.OVER


# -- asking ---------------------------------------------------------------------------------------


def hand_in(
    store: Store, spec: CourseSpec, name: str, user: str, asked: float, path: str = ""
) -> Any:
    def work(session: Session) -> dict[str, Any]:
        row = handins.ask(session, spec, name, user, path, asked)
        session.flush()
        return handins.show(session, row)

    return store.transact(work)


def become(store: Store, one: str, state: State) -> None:
    def work(session: Session) -> None:
        row = handins.get(session, "ml101", one, None)
        row.state = state

    store.transact(work)


def test_who_asks_in_time_has_the_time_of_asking(store: Store, ml: CourseSpec) -> None:
    row = hand_in(store, ml, "hw1", "alice", at("2026-11-03 23:59:58"))
    assert (row["asked_at"], row["late"], row["path"]) == ("2026-11-03T22:59:58Z", False, "hw1")
    assert hand_in(store, ml, "hw1", "bob", at("2026-11-04 00:00:01"))["late"]
    with pytest.raises(NotAvailable) as caught:
        hand_in(store, ml, "hw1", "carol", at("2026-11-06 00:00"))
    assert (caught.value.code, "2026-11-03 22:59 UTC" in str(caught.value)) == ("handin_over", True)


def test_an_extension_is_for_one_or_for_all_and_can_be_taken_back(
    store: Store, ml: CourseSpec
) -> None:
    late = at("2026-11-20 10:00")

    def extend(team: str, until: str) -> None:
        store.transact(
            lambda s: handins.extend(s, ml, ml.handins[0], team, until, "ida", late - 100)
        )

    extend("alice", "2026-11-20 12:00")
    assert not hand_in(store, ml, "hw1", "alice", late)["late"]
    with pytest.raises(NotAvailable):
        hand_in(store, ml, "hw1", "bob", late)
    extend("", "2026-11-19 12:00")
    assert hand_in(store, ml, "hw1", "bob", late)["late"]
    extend("alice", "")
    assert hand_in(store, ml, "hw1", "alice", late)["late"]
    for team, until in (("alice", "2026-11-01 10:00"), ("alice", "soon"), ("@none", "2026-12-01")):
        with pytest.raises(BadRequest):
            extend(team, until)


def test_a_group_hands_in_once_for_all_of_it(store: Store, ml: CourseSpec) -> None:
    pairs, asked = ml.handins[1], at("2026-11-10 11:00")
    wanted = {"alice": "p1", "bob": "p1"}
    moved = store.transact(lambda s: handins.set_groups(s, ml, pairs, wanted))
    assert moved == {"alice": ("", "p1"), "bob": ("", "p1")}
    row = hand_in(store, ml, "pairs", "alice", asked)
    assert (row["team"], row["members"]) == ("@p1", ["alice", "bob"])
    with pytest.raises(NotAvailable, match="once"):
        hand_in(store, ml, "pairs", "bob", asked + 1)
    assert hand_in(store, ml, "pairs", "carol", asked)["team"] == "carol"
    mine = store.transact(lambda s: [one.id for one in handins.of_person(s, "ml101", "bob")])
    assert mine == [row["id"]]
    # Who leaves the group keeps what was handed in; what is refused does not count.
    store.transact(lambda s: handins.set_groups(s, ml, pairs, {"alice": "p1"}))
    assert store.transact(lambda s: len(handins.of_person(s, "ml101", "bob"))) == 1
    become(store, row["id"], State.REFUSED)
    assert hand_in(store, ml, "pairs", "alice", asked + 2)["members"] == ["alice"]
    for wrong in ({"alice": "no name"}, {"../x": "p1"}):
        with pytest.raises(BadRequest):
            store.transact(lambda s, w=wrong: handins.set_groups(s, ml, pairs, w))
    with pytest.raises(BadRequest):
        store.transact(lambda s: handins.set_groups(s, ml, ml.handins[0], wanted))


def test_who_handed_in_alone_and_joined_a_group_stands_with_it(
    store: Store, ml: CourseSpec
) -> None:
    pairs = handins.find(ml, "pairs")

    def stands(groups: dict[str, str]) -> dict[str, list[str]]:
        def work(session: Session) -> dict[str, list[str]]:
            handins.set_groups(session, ml, pairs, groups)
            teams = {handins.team_in(pairs, groups, who).name for who in ("alice", "bob", "eve")}
            return {
                row.team: handins.stands_with(row, pairs, groups, teams)
                for row in handins.of_course(session, "ml101", "pairs")
            }

        return store.transact(work)

    now = at("2026-11-01 10:00")
    store.transact(lambda s: handins.ask(s, ml, "pairs", "alice", "", now).id)
    assert stands({}) == {"alice": ["alice"]}
    assert stands({"alice": "p1", "bob": "p1"}) == {"alice": ["@p1"]}
    store.transact(lambda s: handins.ask(s, ml, "pairs", "bob", "", now).id)
    # A group that is no more: each of it has handed in.
    assert stands({}) == {"alice": ["alice"], "@p1": ["alice", "bob"]}


def test_an_extension_lets_in_once_more_what_is_handed_in_once(
    store: Store, ml: CourseSpec
) -> None:
    asked = at("2026-11-10 11:00")
    hand_in(store, ml, "pairs", "alice", asked)
    given = asked + 60
    store.transact(
        lambda s: handins.extend(s, ml, ml.handins[1], "alice", "2026-11-12 12:00", "ida", given)
    )
    hand_in(store, ml, "pairs", "alice", asked + 120)
    with pytest.raises(NotAvailable, match="once"):
        hand_in(store, ml, "pairs", "alice", asked + 180)


def test_nobody_fills_the_queue_or_the_disk(store: Store, ml: CourseSpec) -> None:
    asked = at("2026-11-01 10:00")
    rows = [hand_in(store, ml, "hw1", "alice", asked + n) for n in range(handins.MOST_WAITING)]
    assert [row["before"] for row in rows] == [0, 1, 2]
    with pytest.raises(NotAvailable, match="still to be read"):
        hand_in(store, ml, "hw1", "alice", asked + 9)
    for row in rows:
        become(store, row["id"], State.KEPT)
    for n in range(handins.MOST_KEPT - len(rows)):
        become(store, hand_in(store, ml, "hw1", "alice", asked + n)["id"], State.KEPT)
    with pytest.raises(NotAvailable, match="50 times"):
        hand_in(store, ml, "hw1", "alice", asked + 99)


def test_anothers_hand_in_is_as_if_it_were_not_there(store: Store, ml: CourseSpec) -> None:
    row = hand_in(store, ml, "hw1", "alice", at("2026-11-01 10:00"))
    for course, who in (("ml101", "bob"), ("art7", "alice"), ("art7", None)):
        with pytest.raises(BadRequest) as caught:
            store.transact(lambda s, c=course, w=who: handins.get(s, c, row["id"], w))
        assert caught.value.status == 404
    with pytest.raises(BadRequest):
        hand_in(store, ml, "hw9", "alice", at("2026-11-01 10:00"))
    for path in ("/etc", "..", "a/../b", "a\nb"):
        with pytest.raises(BadRequest):
            hand_in(store, ml, "hw1", "alice", at("2026-11-01 10:00"), path)


# -- receipts -------------------------------------------------------------------------------------


def signed() -> tuple[Ed25519PrivateKey, dict[str, Any]]:
    manifest = {
        "version": 1,
        "files": [{"path": "a.txt", "bytes": 3, "sha256": hashlib.sha256(b"one").hexdigest()}],
        "folders": [],
        "left_out": [],
    }
    key = Ed25519PrivateKey.generate()
    digest = hashlib.sha256(receipts.canonical(manifest)).hexdigest()
    statement = {"course": "ml101", "asked_at": "2026-11-03T22:59:58Z", "digest": digest}
    return key, {**receipts.sign(key, statement), "manifest": manifest}


def test_a_receipt_is_checked_with_the_public_key_alone() -> None:
    key, document = signed()
    document = json.loads(json.dumps(document))
    assert receipts.problems(document, key.public_key()) == []
    del document["manifest"]
    assert receipts.problems(document, key.public_key()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["receipt"].update(asked_at="2026-11-03T20:00:00Z"),
        lambda d: d["receipt"].update(more=1),
        lambda d: d["manifest"]["files"][0].update(sha256="0" * 64),
        lambda d: d["manifest"]["files"].append(d["manifest"]["files"][0]),
        lambda d: d.update(signature="00" * 64),
        lambda d: d.update(signature=None),
        lambda d: d.update(receipt=None),
    ],
)
def test_a_receipt_that_was_changed_is_found_out(change: Any) -> None:
    key, document = signed()
    change(document)
    assert receipts.problems(document, key.public_key())
    _, other = signed()
    assert receipts.problems(other, key.public_key())  # somebody else's key, whatever it says


def test_receipts_and_manifests_are_written_the_same_way() -> None:
    from spawner.runtime.docker import snapshot

    for plain in ({"b": 1, "a": ["ä", {"z": None}]}, [], "深"):
        assert receipts.canonical(plain) == snapshot.canonical(plain)
    assert MINUTE == 60
