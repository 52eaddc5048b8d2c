"""The choice of a language."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.errors import in_terminal
from commons.i18n import (
    LANGUAGES,
    Reader,
    choose_language,
    choose_timezone,
    gettext_for,
    language_for,
    terminal_language,
    timezone_for,
    zone_after,
)
from environments.errors import BuildError
from environments.messages.steps import COMPILING as STEP


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


ZH = "zh-CN,zh;q=0.9"


@pytest.mark.parametrize(
    ("reader", "cookie", "accepted", "page", "token"),
    [
        # What was chosen, then the browser's cookie, the directory, the browser, the site.
        (Reader("en", "zh-CN"), "zh_CN", ZH, "en", "zh_CN"),
        (Reader("", "zh-CN"), "en", ZH, "en", "en"),
        (Reader("", "zh-CN"), None, "en-US", "zh_CN", "en"),
        (Reader("", "de"), None, ZH, "zh_CN", "zh_CN"),
        (Reader("", "de"), None, "fr", "zh_CN", "zh_CN"),
        # A program that says nothing gets its person's language.
        (Reader("zh_CN", "en"), None, None, "zh_CN", "zh_CN"),
        (Reader("", "en"), None, None, "en", "en"),
        (Reader("klingon", "x"), "klingon", "*", "zh_CN", "zh_CN"),
        (Reader(), "en.new", ZH, "en", "en"),
    ],
)
def test_one_rule_says_which_language_somebody_gets(
    reader: Reader, cookie: str | None, accepted: str | None, page: str, token: str
) -> None:
    assert language_for(reader, cookie, accepted, site="zh_CN") == page
    assert language_for(reader, cookie, accepted, by_token=True, site="zh_CN") == token


@pytest.mark.parametrize(
    ("reader", "cookie", "site", "zone", "named"),
    [
        (Reader(timezone="Europe/Berlin"), "Asia/Shanghai", "UTC", "Asia/Shanghai", ""),
        (Reader(), "UTC", "", "UTC", ""),
        (Reader(timezone="Asia/Shanghai"), None, "Europe/Berlin", "Asia/Shanghai", " UTC+8"),
        (Reader(timezone="x"), "x", "Asia/Kolkata", "Asia/Kolkata", " UTC+5:30"),
        (Reader(), None, "America/Caracas", "America/Caracas", " UTC-4"),
        (Reader(), None, "", "UTC", " UTC"),
    ],
)
def test_a_time_zone_that_is_not_the_browsers_is_named(
    reader: Reader, cookie: str | None, site: str, zone: str, named: str
) -> None:
    found = timezone_for(reader, cookie, site)
    assert (str(found), zone_after(datetime(2026, 11, 26, tzinfo=found))) == (zone, named)


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


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh_CN"),
        ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_CN@x", "LANG": "en_US.UTF-8"}, "zh_CN"),
    ],
)
def test_a_terminal_speaks_its_locale(environ: dict[str, str], language: str) -> None:
    assert terminal_language(environ) == language


def test_an_error_in_the_terminal_is_in_the_terminals_language(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kind: what a command says is in the language of LC_ALL, LC_MESSAGES, LANG."""
    error = BuildError(STEP())
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert in_terminal(error) == "compiling and checking"
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert in_terminal(error) == "compiling and checking"
    monkeypatch.setenv("LC_MESSAGES", "zh_CN.UTF-8")
    assert in_terminal(error) == "正在编译和检查"
