"""What kind of file somebody gave in place of an environment.yml; told by its text alone. Pure."""

from __future__ import annotations

import re
from enum import StrEnum

from commons.messages import Message
from environments.messages import spec as texts

MAX_TEXT = 512 * 1024  # characters of an environment.yml
# Of a lock: one of conda-lock for four platforms, with a thousand packages each, is 3 MB.
MAX_LOCK = 4 * 2**20
_HEAD = 64 * 1024


class Kind(StrEnum):
    """Kinds of files that say what an environment shall be."""

    SPEC = "environment.yml"
    EXPLICIT = "explicit"
    CONDA_LOCK = "conda-lock"
    PIXI_LOCK = "pixi.lock"
    PIXI = "pixi"
    PYPROJECT = "pyproject.toml"
    REQUIREMENTS = "requirements.txt"

    @property
    def is_lock(self) -> bool:
        """Whether it names each single package."""
        return self in (Kind.EXPLICIT, Kind.CONDA_LOCK, Kind.PIXI_LOCK)


_URL = re.compile(r"(?:https?|file)://\S+\.(?:conda|tar\.bz2)(?:#\S*)?")
_TABLE = re.compile(r"\[{1,2}[A-Za-z0-9_.\"' -]+\]{1,2}\s*(?:#.*)?")
_PIXI_TABLE = re.compile(
    r"(?m)^\[(?:tool\.pixi\b|workspace\b|dependencies\b|feature\b|pypi-dependencies\b)"
)
_REQUIREMENT = re.compile(
    r"-{1,2}[A-Za-z]\S*(?:[ =].*)?|(?:git|hg|svn|bzr)\+\S+|https?://\S+|\.{0,2}/\S*|"
    r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(?:\[[^\]]*\])?\s*(?:(?:[<>=!~]=?|===|@|;|\().*)?"
)


def kind_of(text: str) -> Kind:
    """The kind of a text; what is none of the others is taken for an environment.yml."""
    text = text.removeprefix("\ufeff")
    lines = [line.strip() for line in text[:_HEAD].splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if "@EXPLICIT" in lines or (lines and all(map(_URL.fullmatch, lines[:20]))):
        return Kind.EXPLICIT
    if any(map(_TABLE.fullmatch, lines)) and re.search(r"(?m)^\[", text):
        return Kind.PIXI if _PIXI_TABLE.search(text) else Kind.PYPROJECT
    if lines and all(map(_REQUIREMENT.fullmatch, lines)):
        return Kind.REQUIREMENTS
    return _yaml_kind(text)


def _yaml_kind(text: str) -> Kind:
    if re.search(r"(?m)^version:\s*\d+\s*$", text[:_HEAD]):
        if re.search(r"(?m)^environments:", text):
            return Kind.PIXI_LOCK
        if re.search(r"(?m)^(?:package|metadata):", text):
            return Kind.CONDA_LOCK
    return Kind.SPEC


def problem(kind: Kind) -> Message | None:
    """Why nothing can be built from a file of a kind, and what to do; None where it can."""
    return {Kind.REQUIREMENTS: texts.REQUIREMENTS(), Kind.PYPROJECT: texts.PYPROJECT()}.get(kind)


def most(text: str) -> int:
    """How many characters a text of its kind may have."""
    return MAX_LOCK if kind_of(text).is_lock else MAX_TEXT
