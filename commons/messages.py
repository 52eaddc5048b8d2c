"""What people are told, as data: a code and parameters, put into words where it is read.

A ``Text`` is defined once, where its kind of message belongs, with its code and its English::

    TOO_MANY = Text("too_many_builds", N_("{count} of your builds wait already; cancel one."))
    raise NotAvailable(TOO_MANY(count=3))

and what is raised, stored or sent is ``Message("too_many_builds", {"count": 3})``. Nobody but the
edge (a page, REST, mail, a command) makes a sentence of it, in the language, the time zone and at
the moment of who reads. The JSON form of a message is the same in the store, between processes and
in REST: ``{"code": …, "data": {…}, "sentence": …}``.

Parameters are put in as text and never formatted again, so it does not matter what is in them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from commons.i18n import NP_, Gettext, in_context

# Of a message that is read back, whoever wrote it: characters of a text, parameters and items of
# lists in all, messages within messages, and characters of the sentence that comes of it.
MAX_TEXT, MAX_PARTS, MAX_DEPTH, MAX_SENTENCE = 8000, 500, 8, 100_000
MAX_NAME = 80
_FIELD = re.compile(r"\{(\w+)\}")
_CONTROLS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])  # all but tab and newline
_BETWEEN = NP_("between the names of a list", ", ")
_LABELLED = NP_("a label and its value", "{label}: {value}")
_AFTER_SENTENCE = NP_("two sentences, one after the other", "{first} {then}")
# What stands for a value that is not there, or that is none.
MISSING = "–"


@dataclass(frozen=True)
class Locale:
    """How somebody reads: language, time zone (UTC without) and the moment (seconds since 1970),
    without which times are shown with their day.
    """

    gettext: Gettext = str
    timezone: tzinfo | None = None
    now: float | None = None


ENGLISH = Locale()
# How one parameter is shown where it is more than a name or a number.
Show = Callable[[Any, Locale], str]


@dataclass(frozen=True)
class Message:
    """What somebody is told.

    Attributes:
        code: a stable name for programs, such as ``gpu_none_free``; empty for a foreign text.
        params: numbers, texts, messages, or tuples of those.
        plain: the words of a code that is not known here, or of another program.
    """

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)
    plain: str = ""

    def in_words(self, locale: Locale | Gettext = ENGLISH) -> str:
        """The sentence, in a language."""
        if not isinstance(locale, Locale):
            locale = Locale(locale)
        text = TEXTS.get(self.code)
        if text is None or self.plain:
            return self.plain or self.code
        return text.filled(self.params, locale)

    def __str__(self) -> str:
        return self.in_words()

    def __hash__(self) -> int:
        return hash((self.code, self.plain))

    def as_json(self, locale: Locale | Gettext = ENGLISH) -> dict[str, Any]:
        """The JSON form, with the sentence in a language."""
        return {
            "code": self.code,
            "data": {name: _as_json(value, locale) for name, value in self.params.items()},
            "sentence": self.in_words(locale),
        }

    @classmethod
    def from_json(cls, found: object) -> Message:
        """What a JSON form says, whoever wrote it, within limits; never raises.

        A code that is known here gets its words from here; of any other the sentence is taken, as
        plain text. A text alone is such a sentence.
        """
        return _Read().message(found, MAX_DEPTH)


@dataclass(frozen=True)
class Text:
    """One kind of message: its code, and its English with ``{fields}``, as the catalogue has it.

    Attributes:
        english: marked with ``N_``, ``NP_`` (with a context), or ``NN_``: one and many, chosen by
            the parameter ``count``.
        shown: how single parameters are shown, by their names.
        when: the text to take where the parameter of that name is known.
        otherwise: the texts to take, in this order, where a field of those before is not known.
        none: the text to take where ``count`` is 0.

    Raises ValueError for a code that another text has.
    """

    code: str
    english: str | tuple[str, str]
    shown: Mapping[str, Show] = field(default_factory=dict)
    when: Mapping[str, str] = field(default_factory=dict)
    none: str = ""
    otherwise: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if TEXTS.setdefault(self.code, self) != self:
            raise ValueError(f"two texts have the code {self.code!r}")

    def __call__(self, **params: object) -> Message:
        """A message of this kind. What is no number, text, message or list becomes its text."""
        return Message(self.code, {name: _param(value) for name, value in params.items()})

    def filled(self, params: Mapping[str, Any], locale: Locale) -> str:
        """The sentence for some parameters; a dash for what is missing or cannot be shown."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            found = params.get(name)
            if found is None and name not in self.shown:
                return MISSING
            try:
                return self.shown.get(name, _shown)(found, locale)
            except (TypeError, ValueError, ArithmeticError, AttributeError, OSError):
                return MISSING

        return _FIELD.sub(value, in_context(locale.gettext, self.chosen(params)))[:MAX_SENTENCE]

    def chosen(self, params: Mapping[str, Any]) -> str:
        """The English text for some parameters."""
        for name, english in self.when.items():
            if params.get(name) is not None:
                return english
        if self.none and params.get("count") == 0:
            return self.none
        if isinstance(self.english, str):
            *first, last = self.english, *self.otherwise
            whole = (text for text in first if _is_known(text, params))
            return next(whole, last)
        return self.english[0 if params.get("count") == 1 else 1]


def _is_known(text: str, params: Mapping[str, Any]) -> bool:
    """Whether each field of a text has a value."""
    return all(params.get(match[1]) not in (None, "") for match in _FIELD.finditer(text))


# All texts of this process by their codes; every module that defines some adds them.
TEXTS: dict[str, Text] = {}


def verbatim(text: str) -> Message:
    """Words that are not ours, such as another program's, as a message."""
    return Message("", {}, text)


def listed(items: Sequence[object], locale: Locale = ENGLISH) -> str:
    """Several names or sentences in one line."""
    sentences = all(isinstance(item, Message) for item in items)
    if sentences:
        words = in_context(locale.gettext, _AFTER_SENTENCE)
        between = words.removeprefix("{first}").removesuffix("{then}")
    else:
        between = in_context(locale.gettext, _BETWEEN)
    return between.join(_shown(item, locale) for item in items)


def labelled(label: object, value: object, gettext: Gettext) -> str:
    """A label and its value, with the colon of the language."""
    words = in_context(gettext, _LABELLED)
    return _FIELD.sub(lambda match: str({"label": label, "value": value}[match[1]]), words)


def _shown(value: Any, locale: Locale) -> str:
    if isinstance(value, Message):
        return value.in_words(locale)
    if isinstance(value, tuple | list):
        return listed(value, locale)
    return str(value)


def _param(value: object) -> Any:
    if value is None or isinstance(value, str | int | float | Message):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(map(_param, value))
    return str(value)


def _as_json(value: Any, locale: Locale | Gettext) -> Any:
    if isinstance(value, Message):
        return value.as_json(locale)
    if isinstance(value, tuple):
        return [_as_json(item, locale) for item in value]
    return value


class _Read:
    """Reads one message, and counts what there is of it."""

    def __init__(self) -> None:
        self._left = MAX_PARTS

    def message(self, found: object, depth: int) -> Message:
        if isinstance(found, str):
            return verbatim(_text(found) or MISSING)
        if not isinstance(found, Mapping) or depth <= 0:
            return verbatim(MISSING)
        code, sentence = _text(found.get("code"))[:MAX_NAME], _text(found.get("sentence"))
        params = dict(self._params(found.get("data"), depth - 1))
        return Message(code, params, "" if code in TEXTS else sentence or code or MISSING)

    def _params(self, found: object, depth: int) -> Iterator[tuple[str, Any]]:
        for name, value in found.items() if isinstance(found, Mapping) else ():
            self._left -= 1
            if self._left < 0:
                return
            yield _text(name)[:MAX_NAME], self._value(value, depth)

    def _value(self, value: object, depth: int) -> Any:
        if isinstance(value, str):
            return _text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if -(2**63) <= value < 2**63 else None
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, list | tuple) and depth > 0:
            return tuple(self._items(value, depth - 1))
        return self.message(value, depth)

    def _items(self, value: Iterable[object], depth: int) -> Iterator[Any]:
        for item in value:
            self._left -= 1
            if self._left < 0:
                return
            yield self._value(item, depth)


def _text(value: object) -> str:
    """A text within limits, without control characters and half characters."""
    if not isinstance(value, str):
        return ""
    return value[:MAX_TEXT].translate(_CONTROLS).encode("utf-8", "replace").decode()
