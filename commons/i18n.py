"""Words of the interface: English and Simplified Chinese, through gettext.

Catalogues are ``locale/<lang>/LC_MESSAGES/labcommons.po``, read as they are (no
compiled copies to forget). English is what the code says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LANGUAGES = ("en", "zh_CN")
LANGUAGE_NAMES = {"en": "English", "zh_CN": "简体中文"}
# not yet kept with the person's name.
LANGUAGE_COOKIE = "labcommons-lang"
JUST_CHOSEN = ".new"
# The reader's IANA time zone, as page.js finds it in their browser.
TIMEZONE_COOKIE = "labcommons-tz"
_LONGEST_ZONE = 64

Gettext = Callable[[str], str]


# Between a context and a message in the key of a catalogue, as GNU gettext has it.
_CONTEXT = "\4"


def N_(message: str) -> str:
    """Mark a message for the catalogue; it is translated where it is shown."""
    return message


def NP_(context: str, message: str) -> str:
    """Mark a message of which one English word has several translations; for ``in_context``."""
    return f"{context}{_CONTEXT}{message}"


def NN_(one: str, many: str) -> tuple[str, str]:
    """Mark a message for one and for many."""
    return one, many


def in_context(gettext: Gettext, message: str) -> str:
    """Translate a message that may have been marked with a context."""
    translated = gettext(message)
    return translated.rpartition(_CONTEXT)[2] if translated == message else translated


@cache
def _catalogue(lang: str) -> dict[str, str]:
    # Here alone: what only marks messages needs no Babel.
    from babel import Locale
    from babel.messages.pofile import read_po

    path = Path(__file__).parent / "locale" / lang / "LC_MESSAGES" / "labcommons.po"
    if not path.exists():
        return {}
    with path.open("rb") as file:
        catalogue = read_po(file, locale=Locale.parse(lang))
    found: dict[str, str] = {}
    for message in catalogue:
        # Of one and many each has its translation: the first form and the last.
        ids = message.id if isinstance(message.id, tuple | list) else (message.id,)
        strings = message.string if isinstance(message.string, tuple | list) else (message.string,)
        context = f"{message.context}{_CONTEXT}" if message.context else ""
        first, last = strings[0], strings[-1]
        if ids[0] and first and last and not message.fuzzy:
            found |= {f"{context}{ids[0]}": first, f"{context}{ids[-1]}": last}
    return found


def gettext_for(lang: str) -> Gettext:
    """The translating function of a language; a message without translation stays English."""
    catalogue = _catalogue(lang)
    return lambda message: catalogue.get(message, message)


@dataclass(frozen=True)
class Reader:
    """What is kept of how a person reads (``commons.readers``); empty where it is not known.

    Attributes:
        chosen: one of LANGUAGES, by the switch of a page.
        directory: what the directory says, such as ``zh-CN``.
        timezone: IANA name, as a browser said it last.
    """

    chosen: str = ""
    directory: str = ""
    timezone: str = ""


def language_for(
    reader: Reader,
    cookie: str | None = None,
    accepted: str | None = None,
    *,
    by_token: bool = False,
    site: str = "en",
) -> str:
    """The language that a person gets, one of LANGUAGES: the one rule, for hub, console, kernels
    service, REST, mails and servers. The first of these that says one of ours:

    1. what they chose with the switch of any page, kept with their name
    2. the cookie of that switch in this browser: of who has not signed in
    3. the directory's ``preferredLanguage``
    4. the browser's Accept-Language
    5. the site's ``site.language``

    A program that comes with a token asks for itself: cookie, Accept-Language, 1, 3, 5.
    """
    shown = (cookie or "").removesuffix(JUST_CHOSEN)
    kept = (reader.chosen, shown, reader.directory, accepted)
    order = (shown, accepted, reader.chosen, reader.directory) if by_token else kept
    return next(filter(None, map(_best_language, order)), site)


def choose_language(cookie: str | None, accept_language: str | None) -> str:
    """One of LANGUAGES: the cookie's, else the best of an Accept-Language header, else English."""
    return language_for(Reader(), cookie, accept_language)


def _best_language(accepted: str | None) -> str:
    """The best of an Accept-Language header that is one of LANGUAGES, or empty."""
    if accepted in LANGUAGES:
        return accepted
    ranked: list[tuple[float, str]] = []
    for part in (accepted or "")[:400].split(","):
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
    return ""


def terminal_language(environ: Mapping[str, str] = os.environ) -> str:
    """One of LANGUAGES: the terminal's locale, such as ``zh_CN.UTF-8``; else English."""
    locales = (environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    chosen = next((locale for locale in locales if locale), "")
    return choose_language(None, chosen.partition(".")[0].replace("_", "-"))


class ForeignZone(ZoneInfo):
    """A time zone that may not be the reader's: ``zone_after`` names it behind its times."""


def choose_timezone(*names: str | None, kind: type[ZoneInfo] = ZoneInfo) -> tzinfo:
    """The first time zone that is known, such as a cookie's, then the site's; else UTC."""
    for name in names:
        with suppress(ValueError, OSError, ZoneInfoNotFoundError):
            if name and len(name) <= _LONGEST_ZONE:
                return kind(name)
    return UTC


def timezone_for(reader: Reader, cookie: str | None = None, site: str = "") -> tzinfo:
    """The time zone in which a person reads: their browser's; where none is there, the one that it
    said last, then the site's, both named behind their times; else UTC.
    """
    own = choose_timezone(cookie)
    return own if own is not UTC else choose_timezone(reader.timezone, site, kind=ForeignZone)


def zone_after(there: datetime) -> str:
    """What stands behind a time of day: ``" UTC+8"``, or nothing in the reader's own time zone."""
    if isinstance(there.tzinfo, ZoneInfo) and not isinstance(there.tzinfo, ForeignZone):
        return ""
    minutes = (there.utcoffset() or timedelta()) // timedelta(minutes=1)
    hours, rest = divmod(abs(minutes), 60)
    if not minutes:
        return " UTC"
    return f" UTC{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02}" if rest else "")
