"""How parameters of these texts are shown."""

from __future__ import annotations

from typing import Any

from commons.i18n import NP_, in_context
from commons.messages import Locale, listed

_OR = NP_("between two things", " or ")
_AND = NP_("between two things", " and ")


def quoted(value: Any, locale: Locale) -> str:
    """In quotes and with escapes, as what people wrote may have any character."""
    return repr(value)


def lines(value: Any, locale: Locale) -> str:
    """Each on a line of its own."""
    return "\n".join(listed((item,), locale) for item in value)


def indented(value: Any, locale: Locale) -> str:
    """Each on a line of its own, a little to the right."""
    return "\n".join(f"  {listed((item,), locale)}" for item in value)


def either(value: Any, locale: Locale) -> str:
    """Joined by "or"."""
    return in_context(locale.gettext, _OR).join(map(str, value))


def both(value: Any, locale: Locale) -> str:
    """Joined by "and"."""
    return in_context(locale.gettext, _AND).join(map(str, value))
