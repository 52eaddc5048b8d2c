"""What people are told of environments and kernels: a code and values, put into words where read.

``say("not_a_file", name="x")`` is a ``Message``. Its words are in ``locale/<language>.json`` by
code, English ones, too. It stays data in caches, in the store and in REST, where its JSON form is
``{"code": …, "data": {…}, "sentence": …}`` as everywhere in LabCommons; the rest of which this
package, installed alone in users' images, does not import.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ENGLISH, CHINESE = "en", "zh_CN"

# Where JupyterLab keeps the language that somebody chose in its menu.
_LAB = "@jupyterlab/translation-extension/plugin.jupyterlab-settings"
_LOCALE = re.compile(r'^[^/]*"locale"\s*:\s*"([A-Za-z_.-]{2,20})"', re.MULTILINE)
_FIELD = re.compile(r"\{(\w+)\}")
# Of a message that is read back: characters of a text, values in all, messages within messages.
_LONGEST, _MOST, _DEEPEST = 8000, 200, 5
# Messages in one line; of more, the first.
_TOGETHER = 10
# Characters of a sentence.
_SENTENCE = 100_000


@dataclass(frozen=True)
class Message:
    """What somebody is told.

    ``params`` are numbers, texts, messages, or tuples of those. ``plain`` are the words of what
    has no code here: another program's, or those of a newer LabCommons.
    """

    code: str
    params: Mapping[str, Any] = field(default_factory=dict)
    plain: str = ""

    def in_words(self, language: str = ENGLISH) -> str:
        """The sentence in a language; in English where that has none.

        Values are put in as text and never formatted again.
        """
        text = catalogue(language).get(self.code) or catalogue(ENGLISH).get(self.code)
        if text is None or self.plain:
            return self.plain or self.code

        def value(match: re.Match[str]) -> str:
            return _shown(self.params.get(match[1], "–"), language)

        return _FIELD.sub(value, text)[:_SENTENCE]

    def __str__(self) -> str:
        return self.in_words()

    def __hash__(self) -> int:
        return hash((self.code, self.plain))

    def as_json(self, language: str = ENGLISH) -> dict[str, Any]:
        """The JSON form, with the sentence in a language."""
        data = {name: _as_json(value, language) for name, value in self.params.items()}
        return {"code": self.code, "data": data, "sentence": self.in_words(language)}

    @classmethod
    def from_json(cls, found: object) -> Message:
        """What a JSON form says, whoever wrote it, within limits. A text alone is plain words."""
        return _Read().message(found, _DEEPEST)


def say(code: str, **params: object) -> Message:
    """A message; what is no number, text, message or list becomes its text."""
    return Message(code, {name: _param(value) for name, value in params.items()})


def verbatim(words: str) -> Message:
    """Words that are not ours."""
    return Message("", {}, words)


def in_one(messages: Iterable[Message]) -> Message:
    """Several in one line."""
    all_of = tuple(messages)
    if len(all_of) == 1:
        return all_of[0]
    first, more = all_of[:_TOGETHER], len(all_of) - _TOGETHER
    return say("several", all=(*first, say("more", count=more)) if more > 0 else first)


class ToldError(Exception):
    """What cannot be done, as data: ``message``; as a text it is English."""

    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return str(self.message)


def why(error: BaseException) -> Message:
    """What went wrong, as data: of our errors what they say, of the system's its own sentence."""
    if isinstance(message := getattr(error, "message", None), Message):
        return message
    if isinstance(error, OSError) and error.strerror:
        code = errno.errorcode.get(error.errno or 0, "")
        known = catalogue(ENGLISH).get(code) == error.strerror
        return say(code) if known else verbatim(error.strerror)
    return verbatim(str(error))


def language_of(tag: str | None) -> str | None:
    """The language of a tag or locale such as ``zh_CN.UTF-8``; None where it says none."""
    start = re.split(r"[-_.]", tag or "")[0].lower()
    return {"zh": CHINESE, "en": ENGLISH}.get(start)


def persons_language(environ: Mapping[str, str] = os.environ) -> str:
    """The language of whoever's server this is.

    What was chosen in JupyterLab's menu, else what the hub knew as the server started
    (LABCOMMONS_LANGUAGE), else the locale's.
    """
    settings = environ.get("JUPYTERLAB_SETTINGS_DIR") or os.path.join(
        environ.get("JUPYTER_CONFIG_DIR") or os.path.expanduser("~/.jupyter"), "lab/user-settings"
    )
    try:
        with open(os.path.join(settings, _LAB), encoding="utf-8", errors="replace") as file:
            chosen = _LOCALE.search(file.read(64 * 1024))
    except OSError:
        chosen = None
    tags = [environ.get(name) for name in ("LABCOMMONS_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")]
    known = map(language_of, [chosen[1] if chosen else None, *tags])
    return next((language for language in known if language), ENGLISH)


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """The texts of a language by their codes; none where there is no such language."""
    if language not in (ENGLISH, CHINESE):
        return {}
    file = Path(__file__).parent / "locale" / f"{language}.json"
    found: dict[str, str] = json.loads(file.read_text("utf-8"))
    return found


def _shown(value: object, language: str) -> str:
    if isinstance(value, Message):
        return value.in_words(language)
    if isinstance(value, tuple):
        sentences = all(isinstance(item, Message) for item in value)
        between = "between_sentences" if sentences else "between_names"
        return Message(between).in_words(language).join(_shown(item, language) for item in value)
    return "–" if value is None else str(value)


def _param(value: object) -> Any:
    if value is None or isinstance(value, str | int | float | Message):
        return value
    return tuple(map(_param, value)) if isinstance(value, list | tuple) else str(value)


def _as_json(value: Any, language: str) -> Any:
    if isinstance(value, Message):
        return value.as_json(language)
    return [_as_json(item, language) for item in value] if isinstance(value, tuple) else value


class _Read:
    """Reads one message, and counts the values of it."""

    def __init__(self) -> None:
        self._left = _MOST

    def message(self, found: object, depth: int) -> Message:
        if isinstance(found, str):
            return verbatim(_text(found) or "–")
        if not isinstance(found, Mapping) or depth <= 0:
            return verbatim("–")
        code, sentence = _text(found.get("code"))[:80], _text(found.get("sentence"))
        data = found.get("data")
        params = {
            _text(name)[:80]: self.value(value, depth - 1)
            for name, value in (data.items() if isinstance(data, Mapping) else ())
            if self._room()
        }
        known = code in catalogue(ENGLISH)
        return Message(code, params, "" if known else sentence or code or "–")

    def value(self, value: object, depth: int) -> Any:
        if isinstance(value, str):
            return _text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            return value if -(2**63) <= value < 2**63 and math.isfinite(value) else None
        if isinstance(value, list | tuple) and depth > 0:
            return tuple(self.value(item, depth - 1) for item in value if self._room())
        return self.message(value, depth)

    def _room(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _text(value: object) -> str:
    """A text within limits; what no page could show is replaced."""
    if not isinstance(value, str):
        return ""
    text = value[:_LONGEST]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
