"""course.yaml: what may stand in it, and that what is exported says the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.site import Site
from commons.site.storage import Storage
from courses.document import (
    CourseError,
    CourseSpec,
    check_course,
    check_granted,
    read_course,
    to_plain,
    to_yaml,
)

from .conftest import DOCUMENT

Make = Callable[..., CourseSpec]


def problem(error: pytest.ExceptionInfo[CourseError]) -> tuple[str, int | None, str]:
    (found,) = error.value.problems
    return found.path, found.line, found.sentence()


def test_what_is_exported_says_the_same(course: Make) -> None:
    spec = course()
    assert read_course(to_yaml(spec)) == spec
    assert to_plain(read_course(to_yaml(spec))) == to_plain(spec)
    assert "机器学习" in to_yaml(spec)


TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=30)
DAYS = st.dates(min_value=date(2026, 10, 12), max_value=date(2027, 2, 5)).map(str)
TIMES = st.times().map(lambda time: f"{time:%H:%M}")


@given(
    st.fixed_dictionaries(
        {"en": TEXT}, optional={"zh": TEXT}
    ),
    st.lists(DAYS, unique=True, max_size=5),
    st.lists(
        st.fixed_dictionaries(
            {
                "weekdays": st.lists(
                    st.sampled_from(["mon", "Tuesday", "sun"]), unique=True, min_size=1
                ),
                "starts": TIMES,
                "duration": st.integers(60, 43200),
            }
        ),
        max_size=3,
    ),
    st.lists(
        st.fixed_dictionaries({"day": DAYS, "starts": TIMES, "duration": st.just("1h30m")}),
        max_size=3,
    ),
)  # fmt: skip
def test_any_course_comes_back_from_its_export(
    title: object, days_off: object, sessions: object, extra: object
) -> None:
    spec = check_course(
        {**DOCUMENT, "title": title, "days_off": days_off, "sessions": sessions, "extra": extra}
    )
    assert read_course(to_yaml(spec)) == spec


@pytest.mark.parametrize(
    ("text", "path", "line", "said"),
    [
        ("version: 1\ncourse: ML\n", "course", 2, "short name"),
        ("sessions:\n  - weekdays: [tue]\n    starts: 25:00\n", "sessions.0.starts", 3, "10:00"),
        ("sessions:\n  - weekdays: [tuesnight, x]\n", "sessions.0.weekdays.1", 2, "mon, tue"),
        ("term: {first: 2026-10-12, last: 2026-10-11}\n", "term", 1, "before the first"),
        ("term: {first: 2026-10-12, last: 2028-10-11}\n", "term", 1, "400"),
        ("days_off: [2026-12-22, 2026-12-22]\n", "days_off", 1, "twice"),
        ("gpus: {each: 3, reserved: 2}\n", "gpus", 1, "gpus.reserved"),
        ("warm: {before: 5h}\n", "warm.before", 1, "four hours"),
        ("a: &a [1]\nb: *a\n", "", None, "alias"),
        ("sizze: small\n", "sizze", 1, ""),
    ],
)  # fmt: skip
def test_each_wrong_key_is_told_with_its_line(
    text: str, path: str, line: int | None, said: str
) -> None:
    with pytest.raises(CourseError) as error:
        read_course(text)
    found = [one for one in error.value.problems if one.path == path]
    assert found, error.value
    assert found[0].line == line or line is None
    assert any(said in one.sentence() for one in found), error.value


def test_what_is_outside_the_term_is_refused(course: Make) -> None:
    with pytest.raises(CourseError) as error:
        course(days_off=["2027-03-01"])
    assert problem(error)[2] == "2027-03-01 is not in the term"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"gpus": {"each": 1, "reserved": 3}}, "gpus.reserved"),
        ({"granted": {"gpus": 2, "sizes": ["large"]}}, "size"),
        ({"granted": {"gpus": 2, "environments": ["torch"]}}, "environment"),
        ({"course": "ml102"}, "course"),
    ],
)
def test_more_than_was_granted_is_refused(
    course: Make, lab: Site, changes: dict[str, object], path: str
) -> None:
    check_granted(course(), lab)
    with pytest.raises(CourseError) as error:
        check_granted(course(**changes), lab)
    assert problem(error)[0] == path


@given(st.binary(max_size=300))
def test_whatever_is_read_is_a_course_or_an_error(data: bytes) -> None:
    with pytest.raises(CourseError) as error:
        read_course(data.decode("utf-8", "replace"))
    assert error.value.problems


@pytest.mark.parametrize(
    ("asked", "granted", "everybody", "fits"),
    [
        ("5G", None, None, True),
        ("5G", None, "10G", True),
        ("5G", None, "4G", False),
        ("5G", "6G", "4G", True),
        ("7G", "6G", "10G", False),
    ],
)
def test_a_course_asks_for_no_more_of_the_disk_than_it_is_granted(
    course: Callable[..., CourseSpec],
    lab: Site,
    asked: str,
    granted: str | None,
    everybody: str | None,
    fits: bool,
) -> None:
    spec = course(storage=asked, granted={"gpus": 2, **({"storage": granted} if granted else {})})
    there = lab.model_copy(update={"storage": Storage(courses=everybody)})
    with nullcontext() if fits else pytest.raises(CourseError, match="of the disk at most"):
        check_granted(spec, there)


@pytest.mark.parametrize("wrong", ["much", "0", "5M", 7, -1, True])
def test_how_much_of_the_disk_is_a_size(course: Callable[..., CourseSpec], wrong: object) -> None:
    with pytest.raises(CourseError, match="such as 50G"):
        course(storage=wrong)
