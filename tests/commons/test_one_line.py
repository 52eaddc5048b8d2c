"""Words that people write for others to read."""

from __future__ import annotations

import pytest

from commons.one_line import is_one_line, one_line

FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
SCOTLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
NEW_IN_UNICODE_17 = "\U0001fac8"


@pytest.mark.parametrize(
    "text",
    [
        FAMILY,
        SCOTLAND,
        NEW_IN_UNICODE_17,
        "\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}\N{ZERO WIDTH JOINER}\N{FIRE}",
        "می\N{ZERO WIDTH NON-JOINER}خواهم",
        "备份到 12:00",
        "a b",
    ],
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert one_line(text) == text
    assert is_one_line(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a\nb\tc  d", "a b c d"),
        ("a\u2028b", "a b"),
        ("\x00a\x1b[31m", "a[31m"),
        ("a\u202ecba", "acba"),
        ("a\u2066b\u2069", "ab"),
        ("\ufeffa\u200b", "a"),
        ("a\ud83d", "a"),
        ("\x7f", ""),
        ("a\N{ZERO WIDTH JOINER}b", "ab"),  # what looks like another label
        ("a\N{ZERO WIDTH NON-JOINER}", "a"),
        ("维\N{ZERO WIDTH JOINER}\N{ZERO WIDTH JOINER}护", "维护"),
        ("a\U000e0068\U000e0069\U000e007f", "a"),  # a text that nobody sees
    ],
)
def test_what_hides_or_turns_a_line_around_goes(text: str, left: str) -> None:
    assert not is_one_line(text)
    assert one_line(text) == left
