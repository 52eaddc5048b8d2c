"""What is refused or cannot be had, as data for the person: the one hierarchy of such errors."""

from __future__ import annotations

from typing import Any

from commons.i18n import Gettext, gettext_for, terminal_language
from commons.messages import ENGLISH, Locale, Message


class LabError(Exception):
    """Base of the errors that people are told.

    Attributes:
        message: what it is and what to do.
        reasons: why, one by one, where there is more to say than the message does.
        status: the HTTP status that fits.
    """

    status = 500

    def __init__(self, message: Message, *reasons: Message) -> None:
        super().__init__(message, *reasons)
        self.message, self.reasons = message, reasons

    @property
    def code(self) -> str:
        """A stable name for programs."""
        return self.message.code

    def sentence(self, locale: Locale | Gettext = ENGLISH) -> str:
        """The message in a language."""
        return self.message.in_words(locale)

    def details(self, locale: Locale | Gettext) -> dict[str, Any]:
        """What REST answers tell beside code and sentence: ``reasons``, in some ``problems``."""
        return {"reasons": [one.as_json(locale) for one in self.reasons or (self.message,)]}

    def __str__(self) -> str:
        return self.sentence()


def in_terminal(told: object) -> str:
    """A message, or an error that has one, in the language of the terminal."""
    language = terminal_language()
    if language == "en":
        return str(told)
    if isinstance(told, LabError):
        return told.sentence(gettext_for(language))
    message = told if isinstance(told, Message) else getattr(told, "message", None)
    return message.in_words(gettext_for(language)) if isinstance(message, Message) else str(told)


class WrongValue(ValueError):
    """A value is not of its kind; ``message`` says what would be right, after the value's name."""

    def __init__(self, message: Message) -> None:
        super().__init__(str(message))
        self.message = message


class BadRequest(LabError):
    """The request is not one this site can fill: an unknown name, a wrong type."""

    status = 400


class NotAllowed(LabError):
    """The request is well-formed, but not for this person."""

    status = 403


class NotAvailable(LabError):
    """The request is fine and cannot be filled now."""

    status = 409


class RuntimeSilent(LabError):
    """What runs containers does not answer: nobody may take that for "it is gone"."""

    status = 503


class RuntimeRefused(LabError):
    """What runs containers answers, and will not do it; ``reason`` says why."""
