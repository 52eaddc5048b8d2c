"""What is wrong with a document: where, why, and what would be right; all of it at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from commons.errors import LabError, WrongValue
from commons.i18n import N_, NP_, Gettext, in_context
from commons.messages import ENGLISH, Locale, Message, Text, labelled, listed, verbatim
from spawner.gpu.quotas import messages

Path = tuple[str, ...]
Lines = Mapping[Path, int]

_BETWEEN = NP_("between the problems of a document", "; ")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (``groups.vision.grp_gpus``), in which line, and the remedy.

    ``hint`` says more than ``message``, such as what may have been meant.
    """

    path: str
    message: Message
    hint: Message | None = None
    line: int | None = None

    def sentence(self, locale: Locale | Gettext = ENGLISH) -> str:
        """What is wrong and what would be right, in a language."""
        locale = locale if isinstance(locale, Locale) else Locale(locale)
        return listed([self.message, self.hint] if self.hint else [self.message], locale)

    def as_json(self, locale: Locale | Gettext = ENGLISH) -> dict[str, Any]:
        """Its place, its sentence in a language, and what programs read: code, data and hint."""
        told = self.message.as_json(locale)
        return {
            "path": self.path,
            "line": self.line,
            "message": self.sentence(locale),
            "code": told["code"],
            "data": told["data"],
            "hint": self.hint.as_json(locale) if self.hint else None,
        }

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path + ': ' if self.path else ''}{self.sentence()}"


class ProblemsError(LabError):
    """A document cannot be used; ``problems`` says where and why."""

    status = 400
    text = Text("wrong", N_("The document cannot be used."))

    def __init__(self, problems: list[Problem], name: str = "") -> None:
        self.problems, self.name = tuple(problems), name
        super().__init__(self.text())

    def details(self, locale: Locale | Gettext) -> dict[str, Any]:
        """Each problem with its place."""
        return super().details(locale) | {
            "problems": [problem.as_json(locale) for problem in self.problems]
        }

    def sentence(self, locale: Locale | Gettext = ENGLISH) -> str:
        """All problems in one line."""
        gettext = locale.gettext if isinstance(locale, Locale) else locale
        between = in_context(gettext, _BETWEEN)
        return between.join(
            labelled(one.path, one.sentence(locale), gettext) for one in self.problems
        )

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems]
        return "\n".join(
            [f"{self.name}:", *(f"  {line}" for line in lines)] if self.name else lines
        )


def _line(path: Path, lines: Lines) -> int | None:
    """The line of a key, or of the nearest one above it."""
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


def problem_at(path: Path, message: Message, lines: Lines) -> Problem:
    """A problem of one key, with its line."""
    return Problem(_shown(path), message, line=_line(path, lines))


def _shown(path: Path) -> str:
    return ".".join(part[:80] for part in path)


_TEXTS = {
    "dict_type": messages.NOT_A_MAPPING,
    "model_type": messages.NOT_A_MAPPING,
    "list_type": messages.NOT_A_LIST,
    "bool_type": messages.NOT_TRUE_OR_FALSE,
    "string_type": messages.NOT_TEXT,
    "missing": messages.KEY_MISSING,
    "extra_forbidden": messages.KEY_NOT_HERE,
}


def _message(item: ErrorDetails) -> Message:
    """What pydantic found at one place, in our words; its own where we have none."""
    kind, context = item["type"], item.get("ctx", {})
    if kind in _TEXTS:
        return _TEXTS[kind]()
    if kind == "literal_error":
        return messages.NOT_ONE_OF(expected=context.get("expected", ""))
    error = context.get("error")
    return error.message if isinstance(error, WrongValue) else verbatim(item["msg"])


def read_problems(
    error: ValidationError,
    prefix: Path = (),
    lines: Lines | None = None,
    unknown: Callable[[Path], Problem] | None = None,
) -> list[Problem]:
    """What pydantic found, in our words, by line. ``unknown`` speaks of keys that do not exist."""
    found: list[Problem] = []
    for item in error.errors(include_url=False):
        # "[key]" marks that a mapping's key itself is wrong.
        path = tuple(str(part) for part in item["loc"] if part != "[key]")
        if item["type"] == "extra_forbidden" and unknown:
            problem = unknown(path)
        else:
            problem = Problem("", _message(item))
        at = (*prefix, *path)
        found.append(replace(problem, path=_shown(at), line=_line(at, lines or {})))
    return sorted(found, key=lambda problem: problem.line or 0)


def unknown_name(path: str, message: Message, name: str, known: Collection[str]) -> Problem:
    """A name that does not exist, with what may have been meant, or what there is."""
    near = difflib.get_close_matches(name, known, 1, 0.6)
    some = sorted(known)[:12]
    names = ", ".join(some) + (", …" if len(known) > len(some) else "")
    hint = (
        messages.DID_YOU_MEAN(near=near[0])
        if near
        else messages.KNOWN_NAMES(names=names)
        if some
        else messages.NO_NAMES()
    )
    return Problem(path, message, hint)
