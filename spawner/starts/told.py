"""Where somebody stands in line, as the pages and REST tell it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from commons.i18n import N_
from commons.messages import Locale, Message, Text, listed, verbatim
from spawner.starts.line import Place

SMALLER_FITS = Text(
    "smaller_fits",
    N_("There is room now for: {sizes}. Cancel this start and choose that to have it sooner."),
)


def place_json(place: Place, locale: Locale, fitting: Sequence[str] = ()) -> dict[str, Any]:
    """For programs, with sentences for people. ``fitting``: sizes that there is room for."""
    why = _why(place, fitting)
    return {
        "position": place.position,
        "expected_start": place.expected,
        "reasons": [one.as_json(locale) for one in why],
    }


def turn_event(place: Place, fitting: Sequence[str], locale: Locale) -> dict[str, Any]:
    """A progress event, of the kind that the queue for GPUs has; ``of``: what is waited for."""
    gettext = locale.gettext
    said = gettext(N_("Number {position} in line to start.")).format(position=place.position)
    if place.expected is not None:
        seconds = max(2, round(place.expected - time.time()))
        said = gettext(
            N_("Number {position} in line to start, in about {seconds} seconds.")
        ).format(position=place.position, seconds=seconds)
    return {
        "progress": 16,
        "message": listed([verbatim(said), *_why(place, fitting)], locale),
        "queue": {"of": "turn", **place_json(place, locale, fitting)},
    }


def _why(place: Place, fitting: Sequence[str]) -> list[Message]:
    if place.reason is None:
        return []
    return [place.reason, *([SMALLER_FITS(sizes=[*fitting])] if fitting else [])]
