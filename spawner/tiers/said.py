"""What builds say, in the language of who reads it: a text of the catalogue and its values.

The English message is always there beside it, for logs and programs. What a builder says is a
person's word: only texts that the catalogue has are used, and values are put in as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub_ext.i18n import N_, Gettext
from spawner.environments.errors import (
    BuildError,
    ChannelError,
    LockError,
    PolicyError,
    SpecError,
)

_MAX_VALUES, _MAX_VALUE = 8, 400
# What kind of failure it is, in a sentence with the remedy; the reason follows in English.
FAILURES = {
    "spec": N_("environment.yml or labcommons.yml is wrong. Correct the line that is named:"),
    "channel": N_("A channel does not answer. Try again later, or take another channel:"),
    "lock": N_("The packages cannot be had together. Change what the solver names:"),
    "policy": N_("The site's rules refuse it. Take what they would accept:"),
    "disk": N_("A file cannot be read or written. Make room, or ask an administrator:"),
    "build": N_("The build failed. The reason, and what to do:"),
}
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (SpecError, "spec"),
    (ChannelError, "channel"),
    (LockError, "lock"),
    (PolicyError, "policy"),
    (BuildError, "build"),
)


def kind_of(error: Exception) -> str:
    """Which of FAILURES an error is."""
    return next((kind for each, kind in _KINDS if isinstance(error, each)), "disk")


def said(text: object, values: object = None) -> dict[str, Any] | None:
    """What is kept of a text and its values, whoever said them; None for nothing."""
    if not isinstance(text, str) or not text:
        return None
    pairs = list(values.items())[:_MAX_VALUES] if isinstance(values, Mapping) else []
    return {
        "text": text[:_MAX_VALUE],
        "values": {str(key)[:40]: str(value)[:_MAX_VALUE] for key, value in pairs},
    }


def in_words(kept: Mapping[str, Any] | None, gettext: Gettext) -> str | None:
    """It in a language; None where the catalogue does not have it, as English does not."""
    text = str((kept or {}).get("text") or "")
    translated = gettext(text) if text else ""
    if translated == text:
        return None
    try:
        return translated.format_map((kept or {}).get("values") or {})
    except (KeyError, ValueError, IndexError, AttributeError):
        return None
