"""labcommons.yml: what people and the site should know of an environment beside its packages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from commons.messages import Message
from commons.one_line import is_one_line
from commons.site import Name, Words
from environments.document import Document
from environments.messages import spec as texts

MAX_WORDS = 500
MIDDLE = 1000  # the order of what says none
PLATFORMS = ("linux-64", "linux-aarch64")
GpuNeed = Literal["none", "optional", "required"]


class WrongValue(ValueError):
    """A value that a key cannot have."""

    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message


def _module(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name) or len(name) > 200:
        raise WrongValue(texts.MODULE(name=name[:60]))
    return name


def is_cuda(version: str) -> bool:
    """Whether it is a version of CUDA."""
    return bool(re.fullmatch(r"\d{1,3}(\.\d{1,3}){1,2}", version))


def _cuda(version: str) -> str:
    if not is_cuda(version):
        raise WrongValue(texts.CUDA(version=version[:20]))
    return version


def is_tag(text: str) -> bool:
    """Whether it is a semantic version."""
    # A part of an image's tag as well, for which Docker has its rule.
    return bool(re.fullmatch(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]{1,32})?", text))


def _tag(tag: str) -> str:
    if not is_tag(tag):
        raise WrongValue(texts.TAG(tag=tag[:40]))
    return tag


def _line(text: str) -> str:
    if not 0 < len(text) <= 200 or not is_one_line(text):
        raise WrongValue(texts.LINE())
    return text


Cuda = Annotated[str, AfterValidator(_cuda)]
Line = Annotated[str, AfterValidator(_line)]


class Access(BaseModel):
    """Who may use an environment: everyone where nothing is listed, else members of any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teams: tuple[Name, ...] = ()
    courses: tuple[Name, ...] = ()


class About(BaseModel):
    """The contents of labcommons.yml; every key may be left out.

    Attributes:
        gpu: whether it is of use without a GPU, or only with one.
        cuda: the driver's CUDA version to solve for (conda's virtual package ``__cuda``).
        size: the name of the site's server size that suits it.
        imports: Python modules that must import before a version is offered.
        tag: semantic version of what is built.
        platforms: conda platforms to lock for; the first is built.
        default: chosen beforehand for who has not chosen yet; the first of several, by ``order``.
        order: where it is in lists, the smallest first; then by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Words | None = None
    description: Words | None = None
    access: Access = Access()
    gpu: GpuNeed = "none"
    cuda: Cuda | None = None
    size: Name | None = None
    maintainer: Line | None = None
    source: Line | None = None
    imports: tuple[Annotated[str, AfterValidator(_module)], ...] = Field((), max_length=100)
    tag: Annotated[str, AfterValidator(_tag)] | None = None
    platforms: tuple[Literal["linux-64", "linux-aarch64"], ...] = Field((), max_length=2)
    default: bool = False
    order: int = Field(MIDDLE, ge=0, le=9999)

    @field_validator("access", mode="before")
    @classmethod
    def _everyone(cls, access: object) -> object:
        if access == "everyone":
            return {}
        if not isinstance(access, dict) or not (access.get("teams") or access.get("courses")):
            raise WrongValue(texts.ACCESS())
        return access

    @field_validator("title", "description")
    @classmethod
    def _short(cls, words: Words | None) -> Words | None:
        for text in [words] if isinstance(words, str) else (words or {}).values():
            if not 0 < len(text) <= MAX_WORDS or not is_one_line(text.replace("\n", " ")):
                raise WrongValue(texts.WORDS(most=MAX_WORDS))
        return words


@dataclass(frozen=True)
class AboutFile:
    """What was read, and the text that it was read from."""

    about: About
    text: str | None


def load_about(path: Path) -> AboutFile:
    """Read a labcommons.yml; what it would say by default where there is none."""
    return _checked(Document.read(path)) if path.exists() else AboutFile(About(), None)


def parse_about(text: str | None, file: str) -> AboutFile:
    """Read the text of a labcommons.yml. Raises SpecError with file, line and remedy."""
    return _checked(Document(text, file)) if text is not None else AboutFile(About(), None)


def _checked(document: Document) -> AboutFile:
    try:
        about = About.model_validate(document.plain(document.root))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or texts.THE_FILE()
        wrong = first.get("ctx", {}).get("error")
        problem = wrong.message if isinstance(wrong, WrongValue) else first["msg"]
        node = document.find(first["loc"])
        raise document.error(node, texts.ABOUT(key=key, problem=problem)) from error
    return AboutFile(about, document.text_of_file)
