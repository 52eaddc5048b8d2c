"""The kinds of options: each reads what a form posts, checks a value, and describes itself."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text as Sentence
from commons.one_line import is_one_line

T = TypeVar("T")
Form = Mapping[str, Sequence[Any]]

MAX_TEXT = 200

OPTION_REPEATED = Sentence(
    "option_repeated", N_("The option “{option}” was given more than once. Choose one.")
)
OPTION_NOT_TEXT = Sentence(
    "option_not_text", N_("“{option}” must be a short text without control characters.")
)


@dataclass(frozen=True)
class Option(ABC, Generic[T]):
    """One option of ``user_options``.

    Attributes:
        title: as pages and forms call it.
        about: what it means, and what is meant without it; for programs.
    """

    name: str
    title: str
    about: str
    default: T

    def checked(self, options: Mapping[str, Any]) -> T:
        """Its value among options, or its default. Raises BadRequest with what would work."""
        return self.check(options[self.name]) if self.name in options else self.default

    @abstractmethod
    def check(self, value: object) -> T:
        """The value, if it is one. Raises BadRequest with what would work."""

    def posted(self, form: Form) -> object:
        """What a form says of it, to be checked; None where it says nothing.

        Raises BadRequest where it is there more than once.
        """
        values = form.get(self.name, [])
        if len(values) > 1:
            raise BadRequest(OPTION_REPEATED(option=self.name))
        return self.read(values[0]) if values and values[0] != "" else None

    def read(self, text: Any) -> object:
        """A value from the text of a form."""
        return text

    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        more = {} if self.default is None else {"default": self.default}
        return {**self.kind(), "title": self.title, "description": self.about, **more}

    @abstractmethod
    def kind(self) -> dict[str, Any]:
        """Type and bounds, as JSON schema."""


@dataclass(frozen=True)
class Text(Option[str]):
    """A short text of one line; none and "" are the default."""

    default: str = ""

    def check(self, value: object) -> str:
        """Raises BadRequest."""
        value = value or ""
        if not isinstance(value, str) or len(value) > MAX_TEXT or not is_one_line(value):
            raise BadRequest(OPTION_NOT_TEXT(option=self.name))
        return value

    def kind(self) -> dict[str, Any]:
        """A string."""
        return {"type": "string", "maxLength": MAX_TEXT}


@dataclass(frozen=True)
class Whole(Option[T]):
    """A whole number within bounds; None only where that is the default."""

    least: int
    most: int
    refusal: Sentence

    def check(self, value: object) -> T:
        """Raises BadRequest."""
        if value is None and self.default is None:
            return self.default
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadRequest(self.refusal())
        if not self.least <= value <= self.most:
            raise BadRequest(self.refusal())
        return value  # type: ignore[return-value]  # T is int, or int | None

    def read(self, text: Any) -> object:
        """A number where the text is one."""
        is_number = isinstance(text, str) and re.fullmatch(r"\d{1,6}", text)
        return int(text) if is_number else text

    def kind(self) -> dict[str, Any]:
        """An integer."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class YesNo(Option[bool]):
    """True or false. A browser does not send a box that is not ticked: its twin
    ``<name>_shown`` says that there was one."""

    refusal: Sentence

    def check(self, value: object) -> bool:
        """Raises BadRequest."""
        if not isinstance(value, bool):
            raise BadRequest(self.refusal())
        return value

    def posted(self, form: Form) -> object:
        """Whether the box was ticked; None where there was no box."""
        said = super().posted(form)
        return False if said is None and form.get(f"{self.name}_shown") else said

    def read(self, text: Any) -> object:
        """``true`` and ``false``; all else is refused later."""
        return {"true": True, "false": False}.get(text, text)

    def kind(self) -> dict[str, Any]:
        """A boolean."""
        return {"type": "boolean"}
