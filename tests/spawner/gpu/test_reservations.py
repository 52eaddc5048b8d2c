"""Reservations keep their wall time when clocks change, and clashes are named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.lab import machine
from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.reservations import Reservation, clashes, occurrences
from spawner.gpu.policy.state import HOUR

DAY = 24 * HOUR
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Shanghai", "UTC"]


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def begins(reservation: Reservation, start: str, days: float) -> list[str]:
    zone = ZoneInfo(reservation.timezone)
    found = occurrences(reservation, at(start), at(start) + days * DAY)
    return [f"{datetime.fromtimestamp(w.start, zone):%d %H:%M %z}" for w in found]


LECTURE = Reservation(
    "r", "Lecture", "course:ml101", 4, datetime(2026, 3, 2, 10), 7200, "Europe/Berlin"
)  # fmt: skip


def test_ten_stays_ten_when_clocks_change() -> None:
    daily = replace(LECTURE, repeat="daily")
    assert begins(daily, "2026-03-28T00:00", 2.9) == [
        "28 10:00 +0100",
        "29 10:00 +0200",
        "30 10:00 +0200",
    ]


def test_a_time_that_spring_leaves_out_moves_forward() -> None:
    night = replace(LECTURE, starts=datetime(2026, 3, 29, 2, 30))
    assert begins(night, "2026-03-28T00:00", 3) == ["29 03:30 +0200"]


def test_of_a_time_that_comes_twice_it_is_the_first() -> None:
    night = replace(LECTURE, starts=datetime(2026, 10, 25, 2, 30))
    assert begins(night, "2026-10-24T00:00", 3) == ["25 02:30 +0200"]


@pytest.mark.parametrize(("repeat", "days"), [("daily", 1), ("weekly", 7)])
def test_one_that_goes_on_day_and_night_never_overlaps_itself(repeat: str, days: int) -> None:
    """Kind: of the day in spring that has 23 hours, two windows want the same GPUs for one."""
    begins = datetime(2027, 3, 22, 10)
    always = Reservation(
        "r", "r", "group:v", 2, begins, days * 86_400, "Europe/Berlin", repeat=repeat
    )
    start = datetime(2027, 3, 20, tzinfo=UTC).timestamp()
    devices = [Device(f"GPU-{n}", "A100", 1) for n in range(2)]
    assert clashes(always, [], devices, start, 400 * 86_400) == ()
    windows = occurrences(always, start, start + 30 * 86_400)
    assert all(one.end == two.start for one, two in pairwise(windows))
    # In autumn there is an hour more, which it was not asked for.
    autumn = occurrences(always, start + 210 * 86_400, start + 235 * 86_400)
    assert {two.start - one.end for one, two in pairwise(autumn)} == {0.0, 3600.0}
    # However it is asked, a window is the same.
    for window in windows:
        assert window in occurrences(always, window.start, window.start + 1)


def test_weekdays_last_day_and_days_left_out() -> None:
    weekly = replace(
        LECTURE, repeat="weekly", weekdays=(1, 3), until="2026-03-12", skipped=("2026-03-05",)
    )
    assert begins(weekly, "2026-03-01T00:00", 30) == [
        "03 10:00 +0100",
        "10 10:00 +0100",
        "12 10:00 +0100",
    ]


def test_an_occurrence_that_has_begun_is_found() -> None:
    assert len(occurrences(LECTURE, at("2026-03-02T10:30"), at("2026-03-02T10:31"))) == 1
    assert not occurrences(LECTURE, at("2026-03-02T11:00"), at("2026-03-03T00:00"))


@given(
    st.sampled_from(ZONES),
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)),
    st.integers(600, 3 * 24 * 3600),
    st.integers(0, 400),
    st.integers(1, 20),
)
def test_daily_once_a_day_at_its_time_and_the_same_however_it_is_asked(
    zone: str, starts: datetime, duration: int, day: int, span: int
) -> None:
    starts = starts.replace(second=0, microsecond=0)
    daily = Reservation("r", "r", "group:g", 1, starts, duration, zone, "daily")
    begin = at("2026-01-01T00:00") + day * DAY
    found = occurrences(daily, begin, begin + span * DAY)
    tz = ZoneInfo(zone)
    for window in found:
        local = datetime.fromtimestamp(window.start, tz).replace(tzinfo=None)
        late = timedelta(hours=local.hour, minutes=local.minute) - timedelta(
            hours=starts.hour, minutes=starts.minute
        )
        # In the gap of a clock change it is late by as much as the clock, else on time.
        assert late % timedelta(days=1) in (timedelta(0), timedelta(minutes=30), timedelta(hours=1))
    for window, later in pairwise([*found, None]):
        # It ends where the next one begins, where clocks make the day shorter than it is.
        cut = later is not None and later.start < window.start + duration
        length = later.start - window.start if cut and later else duration
        assert window.end - window.start == length or (later is None and duration > 22 * HOUR)
    days = [datetime.fromtimestamp(window.start, tz).date() for window in found]
    assert len(days) == len(set(days))
    # Asked day by day, the same windows come out.
    parts = {
        window
        for n in range(span)
        for window in occurrences(daily, begin + n * DAY, begin + (n + 1) * DAY)
    }
    assert parts == set(found)


def test_two_that_want_the_same_device_clash() -> None:
    devices = machine("n", 4)
    one = replace(LECTURE, devices=("n-A100-0",), repeat="daily")
    other = replace(LECTURE, id="o", devices=("n-A100-0", "n-A100-1"), repeat="weekly")
    found = clashes(one, [other], devices, at("2026-03-02T00:00"), 14 * DAY)
    assert [(a.reservation, b.reservation) for a, b in found] == [("r", "o")] * 2


@pytest.mark.parametrize(("gpus", "clash"), [(2, False), (3, True)])
def test_counts_clash_where_more_is_reserved_than_there_is(gpus: int, clash: bool) -> None:
    devices = machine("n", 4)
    one = replace(LECTURE, gpus=2)
    other = replace(LECTURE, id="o", gpus=gpus, starts=datetime(2026, 3, 2, 11))
    assert bool(clashes(one, [other], devices, at("2026-03-01T00:00"), 7 * DAY)) is clash
    after = replace(other, starts=datetime(2026, 3, 2, 12))
    assert not clashes(one, [after], devices, at("2026-03-01T00:00"), 7 * DAY)


def test_types_clash_apart() -> None:
    devices = machine("n", 2) + machine("n", 2, "T4", 16)
    one = replace(LECTURE, gpus=2, gpu_type="A100")
    span = (at("2026-03-01T00:00"), 7 * DAY)
    assert not clashes(one, [replace(one, id="o", gpu_type="T4")], devices, *span)
    assert not clashes(one, [replace(one, id="o", gpu_type="")], devices, *span)
    assert clashes(one, [replace(one, id="o", gpus=3, gpu_type="")], devices, *span)


def test_more_than_exists_clashes_with_itself() -> None:
    found = clashes(LECTURE, [], machine("n", 2), at("2026-03-01T00:00"), 7 * DAY)
    assert found[0][0] == found[0][1]
