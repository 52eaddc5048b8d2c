"""The choice of a language."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub_ext.i18n import LANGUAGES, choose_language, choose_timezone, gettext_for


@pytest.mark.parametrize(
    ("cookie", "header", "language"),
    [
        (None, None, "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh_CN"),
        (None, "de,en-US;q=0.7,zh;q=0.3", "en"),
        (None, "zh-TW", "zh_CN"),
        (None, "fr", "en"),
        (None, "en;q=0.1,zh;q=0.9", "zh_CN"),
        ("en", "zh-CN", "en"),
        ("klingon", "zh-CN", "zh_CN"),
    ],
)
def test_the_cookie_wins_then_the_browsers_wish(
    cookie: str | None, header: str | None, language: str
) -> None:
    assert choose_language(cookie, header) == language


@given(st.none() | st.text(), st.none() | st.text())
def test_whatever_a_browser_sends_there_is_a_language(cookie: str, header: str) -> None:
    assert choose_language(cookie, header) in LANGUAGES


def test_times_are_in_the_zone_that_the_browser_says() -> None:
    assert choose_timezone("Asia/Shanghai") == ZoneInfo("Asia/Shanghai")
    for wrong in ("Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "\0", "x" * 9999):
        assert choose_timezone(wrong) == UTC


@given(st.none() | st.text())
def test_whatever_a_browser_sends_there_is_a_time_zone(cookie: str | None) -> None:
    assert datetime.now(choose_timezone(cookie)).utcoffset() is not None


def test_an_unknown_message_stays_as_it_is() -> None:
    assert gettext_for("zh_CN")("no such message") == "no such message"
