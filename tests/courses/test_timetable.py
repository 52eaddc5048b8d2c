"""When a course is, over clock changes and days off."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courses.document import CourseError, CourseSpec, check_course
from courses.timetable import check_sessions, sessions, windows
from spawner.gpu.ledger.reservations import WEEKDAYS

from .conftest import DOCUMENT

Make = Callable[..., CourseSpec]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%m-%d %H:%M")


def test_ten_stays_ten_when_clocks_change(course: Make) -> None:
    found = sessions(course(), at("2026-10-13T00:00"), at("2026-11-04T00:00"))
    assert [utc(one.starts) for one in found] == [
        "10-13 08:00", "10-20 08:00", "10-27 09:00", "11-03 09:00",
    ]  # fmt: skip
    assert {one.wall.strftime("%H:%M") for one in found} == {"10:00"}


def test_days_off_are_left_out_and_extra_ones_are_not(course: Make) -> None:
    spec = course(extra=[{"day": "2026-12-22", "starts": "14:00", "duration": "1h"}])
    found = sessions(spec, at("2026-12-15T00:00"), at("2027-01-06T00:00"))
    assert [utc(one.starts) for one in found] == ["12-15 09:00", "12-22 13:00", "01-05 09:00"]


def test_nothing_is_before_or_after_the_term(course: Make) -> None:
    found = sessions(course(), at("2025-01-01T00:00"), at("2028-01-01T00:00"))
    assert (utc(found[0].starts), utc(found[-1].starts)) == ("10-13 08:00", "02-02 09:00")


def test_two_at_the_same_time_are_refused(course: Make) -> None:
    check_sessions(course())
    overlap = [{"weekdays": ["tue"], "starts": "11:30", "duration": "1h"}]
    with pytest.raises(CourseError, match="2026-10-13 10:00 and 2026-10-13 11:30 overlap"):
        check_sessions(course(sessions=[*DOCUMENT["sessions"], *overlap]))  # type: ignore[misc]


def test_servers_have_their_gpus_before_the_hour(course: Make) -> None:
    (window,) = windows(course())
    assert window.spec.starts == datetime(2026, 10, 13, 9, 50)
    assert window.spec.duration == 7800
    assert window.skipped == ("2026-12-22", "2026-12-29")
    (early,) = windows(
        course(sessions=[{"weekdays": ["tue"], "starts": "00:05", "duration": "1h"}])
    )
    assert early.spec.starts == datetime(2026, 10, 13, 0, 0)


def test_windows_are_the_same_where_nothing_of_theirs_changed(course: Make) -> None:
    (one,), (other,) = windows(course()), windows(course(title={"en": "ML"}))
    assert one.key == other.key
    (moved,) = windows(course(warm=None))
    assert moved.key != one.key
    assert windows(course(gpus={"each": 0})) == []


@given(
    st.lists(st.sampled_from(WEEKDAYS), unique=True, min_size=1),
    st.times(),
    st.integers(60, 43200),
    st.integers(0, 150),
    st.sampled_from(["Europe/Berlin", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe"]),
)
def test_sessions_are_where_the_timetable_says(
    weekdays: list[str], starts: object, duration: int, begin: int, zone: str
) -> None:
    """Whatever span is looked at: the same sessions, each on one of its weekdays, none twice."""
    row = {"weekdays": weekdays, "starts": f"{starts:%H:%M}", "duration": duration}
    spec = check_course({**DOCUMENT, "sessions": [row], "timezone": zone})
    every = sessions(spec, at("2026-01-01T00:00"), at("2028-01-01T00:00"))
    start = at("2026-10-01T00:00") + begin * 86400
    end = start + 5 * 86400
    some = sessions(spec, start, end)
    assert some == [one for one in every if one.starts < end and one.ends > start]
    assert len({one.wall for one in every}) == len(every)
    for one in every:
        assert WEEKDAYS[one.wall.weekday()] in weekdays
        assert one.wall.date().isoformat() not in DOCUMENT["days_off"]  # type: ignore[operator]
        assert timedelta(seconds=one.ends - one.starts) == timedelta(seconds=duration)
