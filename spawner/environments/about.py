"""labcommons.yml: what people and the site should know of an environment beside its packages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from hub_ext.site import Name, Words
from spawner.environments.document import Document

MAX_WORDS = 500
PLATFORMS = ("linux-64", "linux-aarch64")
GpuNeed = Literal["none", "optional", "required"]
_KNOWN = (
    "known are title and description (a text or {en: …, zh_CN: …}), access, gpu, cuda, size, "
    "maintainer, source, imports, tag and platforms"
)


def _module(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name) or len(name) > 200:
        raise ValueError(f"{name[:60]!r} is not a module's name; write for example numpy.linalg")
    return name


def _cuda(version: str) -> str:
    if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){1,2}", version):
        raise ValueError(f"{version[:20]!r} is not a CUDA version; write for example '12.4'")
    return version


def is_tag(text: str) -> bool:
    """Whether it is a semantic version."""
    # A part of an image's tag as well, for which Docker has its rule.
    return bool(re.fullmatch(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]{1,32})?", text))


def _tag(tag: str) -> str:
    if not is_tag(tag):
        raise ValueError(f"{tag[:40]!r} is not a semantic version; write for example 1.2.0")
    return tag


def _line(text: str) -> str:
    if not 0 < len(text) <= 200 or not text.isprintable():
        raise ValueError("one line of 1 to 200 characters is wanted")
    return text


Cuda = Annotated[str, AfterValidator(_cuda)]
Line = Annotated[str, AfterValidator(_line)]


class Access(BaseModel):
    """Who may use an environment: everyone where nothing is listed, else members of any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teams: tuple[Name, ...] = ()
    courses: tuple[Name, ...] = ()

    def allows(self, teams: Any, courses: Any) -> bool:
        """Whether a member of these teams and courses may use it."""
        if not (self.teams or self.courses):
            return True
        return bool(set(self.teams) & set(teams) or set(self.courses) & set(courses))


class About(BaseModel):
    """The contents of labcommons.yml; every key may be left out.

    Attributes:
        gpu: whether it is of use without a GPU, or only with one.
        cuda: the driver's CUDA version to solve for (conda's virtual package ``__cuda``).
        size: the name of the site's server size that suits it.
        imports: Python modules that must import before a version is offered.
        tag: semantic version of what is built.
        platforms: conda platforms to lock for; the first is built.
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

    @field_validator("access", mode="before")
    @classmethod
    def _everyone(cls, access: object) -> object:
        if access == "everyone":
            return {}
        if not isinstance(access, dict) or not (access.get("teams") or access.get("courses")):
            raise ValueError("write 'everyone', or {teams: […], courses: […]} with one name")
        return access

    @field_validator("title", "description")
    @classmethod
    def _short(cls, words: Words | None) -> Words | None:
        texts = [words] if isinstance(words, str) else (words or {}).values()
        for text in texts:
            if not 0 < len(text) <= MAX_WORDS or not text.replace("\n", " ").isprintable():
                raise ValueError(f"1 to {MAX_WORDS} characters without control characters")
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
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        node = document.find(first["loc"])
        raise document.error(node, f"{key}: {first['msg']}; {_KNOWN}") from error
    return AboutFile(about, document.text_of_file)
