"""Durations and amounts as people write them: ``90m``, ``2d12h``, or whole seconds; ``1.5 GB``."""

from __future__ import annotations

import re

from commons.errors import WrongValue
from commons.i18n import N_
from commons.messages import Text

NOT_A_DURATION = Text(
    "not_a_duration", N_("is not a duration; write for example 90m, 8h, 2d or whole seconds")
)
DURATION_TOO_LONG = Text(
    "duration_too_long", N_("must be longer than nothing and shorter than ten years")
)

LONGEST = 10 * 366 * 86400  # seconds; nothing here lasts ten years
_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_PARTS = re.compile(r"(\d{1,9})([wdhms])")
_WHOLE = re.compile(r"(?:\d{1,9}[wdhms])+")


def parse_duration(value: object) -> int:
    """Whole seconds of ``"90m"``, ``"8h"``, ``"1d12h"`` or of a whole number of seconds.

    Raises WrongValue, which says what would be right, for anything else, for nothing at all
    (0) and for ten years and more.
    """
    seconds = -1
    if isinstance(value, int) and not isinstance(value, bool):
        seconds = value
    elif isinstance(value, str):
        text = value.strip().lower()
        if _WHOLE.fullmatch(text):
            seconds = sum(int(count) * _UNITS[unit] for count, unit in _PARTS.findall(text))
        elif re.fullmatch(r"\d{1,9}", text):
            seconds = int(text)
    if seconds < 0:
        raise WrongValue(NOT_A_DURATION())
    if not 0 < seconds < LONGEST:
        raise WrongValue(DURATION_TOO_LONG())
    return seconds


def show_duration(seconds: float) -> str:
    """``5400`` -> ``"1h30m"``: what ``parse_duration`` reads as the same whole seconds."""
    left, text = round(seconds), ""
    for unit, size in _UNITS.items():
        if unit != "w" and left >= size:
            text += f"{left // size}{unit}"
            left %= size
    return text or "0s"


def amount(count: int) -> str:
    """Bytes for people, such as 1.5 GB."""
    for unit, factor in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
