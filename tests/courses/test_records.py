"""A course in the store, with the reservations and servers that follow of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, update

from commons.errors import BadRequest, NotAllowed
from commons.principal import Principal
from commons.scopes import Scope
from commons.site import Site
from commons.store import Store
from commons.store.models import CoursePerson, GpuReservation, WarmStart
from courses import ahead, people, records
from courses.document import CourseError, CourseSpec, to_plain
from spawner.gpu.ledger import reservations
from spawner.gpu.ledger.reservations import ReservationClash
from spawner.warm import records as warm

Make = Callable[..., CourseSpec]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


BEFORE = at("2026-10-12T12:00")  # the day before the first session


def apply(store: Store, lab: Site, spec: CourseSpec, now: float = BEFORE) -> list[records.Change]:
    return store.transact(lambda s: records.apply(s, spec, "dan", lab, now=now))


def reserved(store: Store) -> list[tuple[str, str, int, int]]:
    return store.transact(
        lambda s: [
            (one.name, f"{one.starts:%m-%d %H:%M}", one.duration, one.gpus)
            for one in reservations.standing(s)
        ],
        read=True,
    )


def planned(store: Store) -> list[tuple[str, str, str]]:
    return store.transact(
        lambda s: [
            (one.name, f"{one.starts_at:%m-%d %H:%M}", f"{one.hold_until:%m-%d %H:%M}")
            for one in s.scalars(select(WarmStart).order_by(WarmStart.starts_at))
        ],
        read=True,
    )


def test_a_course_has_its_gpus_and_its_servers_at_the_hour(
    filled: Store, lab: Site, course: Make
) -> None:
    changes = apply(filled, lab, course())
    assert "+ title.en: Machine learning" in map(str, changes)
    assert reserved(filled) == [("ml101 10:00", "10-13 09:50", 7800, 2)]
    assert planned(filled) == [("ml101 2026-10-13 10:00", "10-13 07:50", "10-13 08:30")]
    assert apply(filled, lab, course()) == []
    assert len(reserved(filled)) == len(planned(filled)) == 1
    shown = filled.transact(lambda s: records.show(s, records.get(s, "ml101"), BEFORE), read=True)
    assert [one["time"] for one in shown["sessions"]] == ["10:00", "10:00"]
    assert [bool(one["warm"]) for one in shown["sessions"]] == [True, False]


def test_a_change_moves_what_follows_of_it_and_no_more(
    filled: Store, lab: Site, course: Make
) -> None:
    apply(filled, lab, course())
    ids = filled.transact(lambda s: dict(records.get(s, "ml101").reservations), read=True)
    (change,) = apply(filled, lab, course(title={"en": "ML", "zh": "机器学习"}))
    assert str(change) == "~ title.en: Machine learning -> ML"
    assert filled.transact(lambda s: records.get(s, "ml101").reservations, read=True) == ids
    apply(
        filled, lab, course(sessions=[{"weekdays": ["tue"], "starts": "14:00", "duration": "2h"}])
    )
    assert reserved(filled) == [("ml101 14:00", "10-13 13:50", 7800, 2)]
    assert planned(filled) == [("ml101 2026-10-13 14:00", "10-13 11:50", "10-13 12:30")]
    apply(filled, lab, course(warm=None, gpus={"each": 0}))
    assert reserved(filled) == []
    assert planned(filled) == []


def test_each_session_is_planned_once_and_what_began_goes_on(
    filled: Store, lab: Site, course: Make
) -> None:
    apply(filled, lab, course())
    begin = datetime(2026, 10, 13, 7, 51)
    (start,) = filled.transact(lambda s: [one.id for one in warm.due(s, begin)], read=True)
    filled.transact(lambda s: warm.begin(s, start, ["s01"], begin))
    for now in ("2026-10-13T07:52", "2026-10-13T08:10", "2026-10-13T12:00"):
        filled.transact(lambda s, now=now: ahead.plan(s, lab, at(now)))  # type: ignore[misc]
    apply(filled, lab, course(size="large"), at("2026-10-13T07:53"))
    assert len(planned(filled)) == 1
    filled.transact(lambda s: ahead.plan(s, lab, at("2026-10-20T00:00")))
    assert [one[0] for one in planned(filled)] == [
        "ml101 2026-10-13 10:00", "ml101 2026-10-20 10:00",
    ]  # fmt: skip


def test_one_that_was_cancelled_by_hand_is_not_planned_again(
    filled: Store, lab: Site, course: Make
) -> None:
    apply(filled, lab, course())
    moment = datetime(2026, 10, 12, 13)
    filled.transact(lambda s: s.execute(update(WarmStart).values(cancelled_at=moment)))
    apply(filled, lab, course(title={"en": "ML"}))
    states = filled.transact(
        lambda s: [one.cancelled_at is None for one in s.scalars(select(WarmStart))], read=True
    )
    assert states == [False]


def test_a_reservation_that_cannot_be_changes_nothing(
    filled: Store, lab: Site, course: Make
) -> None:
    other = course(course="art7", granted={"gpus": 2})
    apply(filled, lab, other)
    with pytest.raises(ReservationClash, match="art7"):
        apply(filled, lab, course())
    with pytest.raises(BadRequest):
        filled.transact(lambda s: records.get(s, "ml101"), read=True)
    assert [name for name, *_ in reserved(filled)] == ["art7 10:00"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gpus": {"reserved": 3, "type": "A100"}, "granted": {"gpus": 9}}, "2 GPUs of type A100"),
        ({"gpus": {"reserved": 4}, "granted": {"gpus": 9}}, "has 3 GPUs; reserve"),
        ({"environment": "torch"}, "torch"),
        ({"size": "huge"}, "huge"),
        ({"gpus": {"each": 9}}, "9"),
    ],
)
def test_what_no_student_could_start_is_refused(
    filled: Store, lab: Site, course: Make, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(CourseError, match=said):
        apply(filled, lab, course(**changes))


def test_past_days_need_no_gpus(filled: Store, lab: Site, course: Make) -> None:
    extra = [{"day": "2026-10-14", "starts": "10:00", "duration": "1h"}]
    apply(filled, lab, course(extra=extra), at("2026-11-01T00:00"))
    assert [name for name, *_ in reserved(filled)] == ["ml101 10:00"]


def test_what_is_granted_only_an_administrator_changes(
    filled: Store, lab: Site, course: Make
) -> None:
    teacher = Principal("dan", positions={Scope("course", "ml101"): "instructor"})
    student = Principal("s01", positions={Scope("course", "ml101"): "student"})
    other = Principal("eve", positions={Scope("course", "art7"): "instructor"})
    admin = Principal("carol", admin=True)

    def may(spec: CourseSpec, who: Principal) -> None:
        filled.transact(lambda s: records.check_may(s, spec, who), read=True)

    may(course(), admin)
    with pytest.raises(NotAllowed, match="granted"):
        may(course(), teacher)
    apply(filled, lab, course())
    may(course(title={"en": "ML"}), teacher)
    for who in (student, other):
        with pytest.raises(NotAllowed, match="instructors"):
            may(course(), who)


def test_a_removed_course_leaves_nothing(filled: Store, lab: Site, course: Make) -> None:
    apply(filled, lab, course())
    filled.transact(lambda s: people.apply(s, "ml101", {"s01": "student"}, "dan", prune=True))
    filled.transact(lambda s: records.remove(s, "ml101"))
    assert reserved(filled) == planned(filled) == []
    left = filled.transact(lambda s: list(s.scalars(select(CoursePerson))), read=True)
    assert left == []
    cancelled = filled.transact(
        lambda s: [one.cancelled_at for one in s.scalars(select(GpuReservation))], read=True
    )
    assert all(cancelled)


async def test_a_roster_says_what_people_are(filled: Store) -> None:
    listed = {"s01": "student", "dan": "instructor"}
    changes = filled.transact(lambda s: people.apply(s, "ml101", listed, "dan", prune=True))
    assert list(map(str, changes)) == ["+ dan: instructor", "+ s01: student"]
    rosters = people.Rosters(filled)
    assert await rosters.of("s01") == {"ml101": "student"}
    later = {"s02": "student", "s01": "instructor"}
    changes = filled.transact(lambda s: people.apply(s, "ml101", later, "dan", prune=False))
    assert list(map(str, changes)) == ["~ s01: student -> instructor", "+ s02: student"]
    assert await rosters.of("s01") == {"ml101": "instructor"}
    filled.transact(lambda s: people.remove(s, "ml101", "s01"))
    assert await rosters.of("s01") == {}
    assert await rosters.of("dan") == {"ml101": "instructor"}
    with pytest.raises(BadRequest, match="s01"):
        filled.transact(lambda s: people.remove(s, "ml101", "s01"))
    with pytest.raises(BadRequest, match="owner"):
        filled.transact(lambda s: people.apply(s, "ml101", {"s01": "owner"}, "dan", prune=False))


def test_who_leaves_is_counted_by_whoever_takes_them_off(filled: Store) -> None:
    there = {"s01": "student", "s02": "student", "s03": "student"}
    filled.transact(lambda s: people.apply(s, "ml101", there, "dan", prune=False))

    def prune(said: int | None, **listed: str) -> list[str]:
        return list(
            map(
                str,
                filled.transact(lambda s: people.apply(s, "ml101", listed, "dan", True, said)),
            )
        )

    for wrong in (0, 1, 3):
        with pytest.raises(
            BadRequest, match=r"2 people would leave the course: s02, s03\."
        ) as told:
            prune(wrong, s01="student")
        assert told.value.status == 409
    assert len(filled.transact(lambda s: people.roster(s, "ml101"), read=True)) == 3
    assert prune(2, s01="assistant") == [
        "~ s01: student -> assistant", "- s02: student", "- s03: student",
    ]  # fmt: skip
    assert prune(0, s01="assistant") == []


def test_the_higher_position_counts() -> None:
    directory = {"ml101": "student", "art7": "instructor"}
    rosters = {"ml101": "instructor", "art7": "student", "bio2": "student"}
    assert people.joined(directory, rosters) == {
        "ml101": "instructor", "art7": "instructor", "bio2": "student",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", "a" * 65, "Ada", "../x", "a b", "a\n", "用户"])
def test_what_is_no_login_name_is_on_no_roster(filled: Store, name: str) -> None:
    with pytest.raises(BadRequest, match="is no login name"):
        filled.transact(lambda s: people.apply(s, "ml101", {name: "student"}, "dan", False))


def test_several_who_plan_at_once_plan_each_session_once(
    filled: Store, lab: Site, course: Make
) -> None:
    apply(filled, lab, course(warm=None))
    filled.transact(lambda s: records.get(s, "ml101").__setattr__("spec", to_plain(course())))
    with ThreadPoolExecutor(1) as pool:
        with filled.session() as first:
            ahead.plan(first, lab, BEFORE)
            first.flush()
            second = pool.submit(filled.transact, lambda s: ahead.plan(s, lab, BEFORE))
            with pytest.raises(TimeoutError):
                second.result(0.5)  # it waits for the first
        second.result(30)
    assert len(planned(filled)) == 1


MOMENT = datetime(2026, 10, 12, 12)


def test_a_link_lets_in_as_many_as_it_is_for_and_nobody_after_its_end(filled: Store) -> None:
    """Forty people who click at once, on a link for twenty-five."""
    made = filled.transact(lambda s: people.make_code(s, "ml101", "dan", 7, 25, MOMENT).code)

    def join(name: str, at: datetime = MOMENT) -> bool:
        try:
            return filled.transact(lambda s: people.join(s, made, name, at)) == "ml101"
        except BadRequest:
            return False

    with ThreadPoolExecutor(8) as pool:
        names = [f"s{number:02}" for number in range(40)]
        let_in = list(pool.map(join, names))
    there = filled.transact(lambda s: people.roster(s, "ml101"), read=True)
    assert sum(let_in) == len(there) == 25
    assert set(there.values()) == {"student"}
    assert not join("late")


def test_who_is_there_already_uses_nothing_and_a_link_ends(filled: Store) -> None:
    def made(**changes: int) -> str:
        asked = {"days": 7, "uses": 2} | changes
        return filled.transact(
            lambda s: people.make_code(s, "ml101", "dan", now=MOMENT, **asked).code
        )

    def left() -> list[int]:
        return filled.transact(
            lambda s: [one.uses_left for one in people.codes(s, "ml101", MOMENT)], read=True
        )

    code = made()
    filled.transact(lambda s: people.apply(s, "ml101", {"ta": "instructor"}, "dan", False))
    for name in ("s01", "s01", "ta"):
        filled.transact(lambda s, n=name: people.join(s, code, n, MOMENT))  # type: ignore[misc]
    assert left() == [1]
    assert filled.transact(lambda s: people.roster(s, "ml101"), read=True)["ta"] == "instructor"
    for late in (code, "unknown", ""):
        with pytest.raises(BadRequest, match="does not open a course any more"):
            filled.transact(lambda s, c=late: people.join(s, c, "s02", MOMENT.replace(day=20)))  # type: ignore[misc]
    filled.transact(lambda s: people.take_back(s, "art7", code))  # another course's instructors
    assert left() == [1]
    filled.transact(lambda s: people.take_back(s, "ml101", code))
    assert left() == []
    for wrong in ({"days": 0}, {"days": 181}, {"uses": 0}, {"uses": 5001}):
        with pytest.raises(BadRequest, match="1 to 180 days"):
            made(**wrong)
    for _ in range(20):
        made()
    with pytest.raises(BadRequest, match="20 links already"):
        made()


def test_who_is_on_the_roster_finds_a_server_at_the_hour(
    filled: Store, lab: Site, course: Make
) -> None:
    """Though the hub does not know yet that they are in the course."""
    apply(filled, lab, course())
    filled.transact(lambda s: people.apply(s, "ml101", {"s02": "student"}, "dan", prune=True))
    begin = datetime(2026, 10, 13, 7, 51)
    (start,) = filled.transact(lambda s: [one.id for one in warm.due(s, begin)], read=True)
    filled.transact(lambda s: warm.begin(s, start, ["s01"], begin))
    found = filled.transact(lambda s: [one.user for one in warm.live(s)], read=True)
    assert found == ["s01", "s02"]
