"""Marks as a table: out and in again is the same, and no spreadsheet runs what a student wrote."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courses.marks import Mark, MarksError, checked, diff, guarded, plain, read_csv, to_csv

KNOWN = {"s01", "s02", "s03"}
TEXT = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp", "Zs", "Cn", "Co"]), max_size=40
) | st.sampled_from(
    ["=1+1", "+1", "-1", "@x", "'=1", "''", "1,3", "-2.5 %", "=cmd|' /C calc'!A0", ""]
)


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), st.builds(Mark, TEXT, TEXT)))
def test_what_goes_out_and_comes_in_again_changes_nothing(marks: dict[str, Mark]) -> None:
    marks = {name: mark for name, mark in marks.items() if mark != Mark("")}
    assert diff(marks, read_csv(to_csv(marks, KNOWN), KNOWN)) == []


@given(TEXT)
def test_no_cell_is_a_formula(text: str) -> None:
    [_, row] = csv.reader(io.StringIO(to_csv({"s01": Mark(text, text)})))
    for cell in row[1:]:
        assert not cell.startswith(("=", "@", "\t", "\r"))
        if cell.startswith(("+", "-")):
            float(cell.strip("% ").replace(",", "."))
    assert plain(guarded(text)) == text


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [("", "marks_columns", None), ("name,mark\ns01,1", "marks_columns", None),
     ("username,mark\nzoe,1", "marks_unknown", 2),
     ("username,mark\ns01,1\nS01,2", "marks_twice", 3),
     (f"username,mark\ns01,{'1' * 41}", "marks_long", 2),
     ("username,mark\ns01,a\x07b", "marks_controls", 2), ("username,mark\ns01,\0", "", 2),
     ("username,mark\n" + "s01,1\n" * 5001, "marks_many", None)],
)  # fmt: skip
def test_a_table_that_cannot_be_used_says_where(text: str, code: str, line: int | None) -> None:
    if not code:
        assert read_csv(text, KNOWN)
        return
    with pytest.raises(MarksError) as caught:
        read_csv(text, KNOWN)
    assert (caught.value.problems[0].message.code, caught.value.problems[0].line) == (code, line)


def test_tables_of_any_separator_and_of_more_columns_are_read() -> None:
    for mark in ",;\t":
        text = (
            mark.join(("Name", "username", "MARK")) + "\n" + mark.join(("Ada", "s01", "2")) + "\n"
        )
        assert read_csv(text, KNOWN) == {"s01": Mark("2")}
    assert read_csv("username,mark\n\ns02,\n", KNOWN) == {"s02": None}


def test_what_rest_sends_is_checked_as_well() -> None:
    assert checked({"s01": "1", "s02": {"comment": "x"}, "s03": None}, KNOWN) == {
        "s01": Mark("1"), "s02": Mark("", "x"), "s03": None,
    }  # fmt: skip
    for wrong in ({"s01": 1}, {"s01": {"mark": 1}}, {"s01": {"points": "1"}}, {"zoe": "1"}):
        with pytest.raises(MarksError):
            checked(wrong, KNOWN)
