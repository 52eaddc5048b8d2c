"""Words of the interface: English and Simplified Chinese, through gettext.

Catalogues are ``locale/<lang>/LC_MESSAGES/labcommons.po``, read as they are (no
compiled copies to forget). English is what the code says.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, tzinfo
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale
from babel.messages.pofile import read_po

LANGUAGES = ("en", "zh_CN")
LANGUAGE_NAMES = {"en": "English", "zh_CN": "简体中文"}
# The cookie that remembers what a person chose; it wins over Accept-Language.
LANGUAGE_COOKIE = "labcommons-lang"
# The reader's IANA time zone, as page.js finds it in their browser.
TIMEZONE_COOKIE = "labcommons-tz"

Gettext = Callable[[str], str]


def N_(message: str) -> str:
    """Mark a message for the catalogue; it is translated where it is shown."""
    return message


@cache
def _catalogue(lang: str) -> dict[str, str]:
    path = Path(__file__).parent / "locale" / lang / "LC_MESSAGES" / "labcommons.po"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        catalogue = read_po(file, locale=Locale.parse(lang))
    return {
        message.id: message.string
        for message in catalogue
        if isinstance(message.id, str) and message.id and isinstance(message.string, str)
        if message.string and not message.fuzzy
    }


def gettext_for(lang: str) -> Gettext:
    """The translating function of a language; a message without translation stays English."""
    catalogue = _catalogue(lang)
    return lambda message: catalogue.get(message, message)


def choose_language(cookie: str | None, accept_language: str | None) -> str:
    """One of LANGUAGES: the cookie's, else the best of an Accept-Language header, else English."""
    if cookie in LANGUAGES:
        return cookie
    ranked: list[tuple[float, str]] = []
    for part in (accept_language or "")[:400].split(","):
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        if tag:
            ranked.append((-weight, tag.strip()))
    for _, tag in sorted(ranked, key=lambda pair: pair[0]):
        # zh, zh-Hans and zh-SG read Simplified; zh-TW and zh-HK do so better than English.
        language = {"zh": "zh_CN", "en": "en"}.get(tag.lower().split("-")[0])
        if language:
            return language
    return "en"


def choose_timezone(cookie: str | None) -> tzinfo:
    """The time zone of a cookie; UTC without one that is known."""
    try:
        return ZoneInfo(cookie or "UTC")
    except (ValueError, OSError, ZoneInfoNotFoundError):
        return UTC
