"""What all sections of the site file are made of."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(text: str) -> int:
    """``"2G"`` -> 2147483648. Units are powers of 1024, as in JupyterHub's ``mem_limit``.

    Raises ValueError for anything else than a positive number and one of K, M, G, T.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)\s*", text)
    if not match or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not an amount of memory; write for example 512M or 2G")
    return int(float(match[1]) * _UNITS[match[2]])


def _check_bytes(text: str) -> str:
    parse_bytes(text)
    return text


Memory = Annotated[str, AfterValidator(_check_bytes)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
# One text, or one for each language of the interface.
Words = str | dict[Literal["en", "zh_CN"], str]


def words_in(words: Words, lang: str) -> str:
    """The text for a language; English, then any, where it is missing."""
    if isinstance(words, str):
        return words
    table: dict[str, str] = {str(key): value for key, value in words.items()}
    return table.get(lang) or table.get("en") or next(iter(table.values()), "")


class Section(BaseModel):
    """A mapping of the site file; keys that it does not know are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
