"""What may be asked of a job, and what is refused with what would be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.errors import BadRequest
from jobs import asked


@given(st.sets(st.integers(0, 5000), min_size=1, max_size=60), st.integers(1, 9))
def test_an_array_has_each_task_once_in_order(tasks: set[int], at_once: int) -> None:
    text = ",".join(map(str, tasks)) + f"%{at_once}"
    assert asked.array(text) == (tuple(sorted(tasks)), at_once)


@pytest.mark.parametrize(
    "text", ["x", "3-1", "0-9%0", "1,,2", "-1", "0-9%", "1-2-3", "٣", "0-1000", "0-999999", "1 "]
)
def test_what_is_no_array_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        asked.array(text)


def test_overlapping_ranges_are_one() -> None:
    assert asked.array("0-3,2-5") == ((0, 1, 2, 3, 4, 5), None)


@pytest.mark.parametrize(
    "said",
    [
        {"command": []},
        {"command": [" "]},
        {"command": ["a\0b"]},
        {"command": ["x" * 5000]},
        {"command": ["x"] * 201},
        {"command": ["x" * 4000] * 20},
        {"command": ["\ud800"]},
        {"command": ["true"], "folder": "../bob"},
        {"command": ["true"], "folder": "/etc"},
        {"command": ["true"], "folder": "a//b"},
        {"command": ["true"], "folder": "a\nb"},
        {"command": ["true"], "time_limit": 0},
        {"command": ["true"], "retries": 11},
        {"command": ["true"], "after": ["1"] * 21},
        {"command": ["true"], "after": ["1_"]},
        {"command": ["true"], "gpus": -1},
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(BadRequest) as error:
        asked.parse(said)
    assert "{" not in str(error.value)


@pytest.mark.parametrize(("said", "folder"), [("~", ""), ("", ""), ("~/a/b/", "a/b"), (".", "")])
def test_a_folder_is_below_the_home(said: str, folder: str) -> None:
    assert asked.parse({"command": ["true"], "folder": said}).folder == folder
