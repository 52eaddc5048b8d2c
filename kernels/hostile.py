"""What people and their programs wrote, read within limits of size, number, depth and line.

Imports nothing of ours, as ``kernels`` does not; hub, console and builders read with it too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

# Of a document unless the caller knows better: nesting, and values in lists and objects.
MAX_DEPTH, MAX_VALUES = 32, 100_000


class TooMuchError(ValueError):
    """It is beyond a limit, or says what no program of ours could use; the message says what."""


def parse_json(
    raw: bytes | str, most: int, depth: int = MAX_DEPTH, values: int = MAX_VALUES
) -> Any:
    """The value that a JSON text says, at most ``most`` bytes or characters of it.

    Raises ValueError (TooMuchError is one) for what is no JSON, larger, nested deeper or of more
    parts than may be, and for what other programs stumble over: NaN and numbers beyond a float or
    64 bits, NUL and half characters (lone surrogates) in texts.
    """
    if len(raw) > most:
        raise TooMuchError(f"larger than {most // 1024} kB")
    if isinstance(raw, bytes):
        raw = raw.decode("utf-8")
    # Each value stands after one of these; counting them costs next to nothing, and what they
    # would make of memory has not been taken yet.
    if raw.count("{") + raw.count("[") + raw.count(",") > values:
        raise TooMuchError(f"more than {values} values")
    try:
        return checked(json.loads(raw, **NUMBERS), depth)
    except RecursionError as error:
        raise TooMuchError("nested too deeply") from error


def _no_constant(name: str) -> object:
    raise TooMuchError(f"{name} is no JSON number")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise TooMuchError(f"{text[:20]} is too large a number")
    return number


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**63:
        raise TooMuchError(f"{text[:20]} is too large a number")
    return number


# For json.loads: numbers that every other program can read, or TooMuchError.
NUMBERS: dict[str, Any] = {"parse_constant": _no_constant, "parse_float": _float, "parse_int": _int}


def checked(found: Any, depth: int = MAX_DEPTH) -> Any:
    """What was read, unless it is nested too deeply or a text is none. Raises TooMuchError."""
    level: list[object] = [found]
    while level:
        if depth < 0:
            raise TooMuchError("nested too deeply")
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below += value
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError as error:
                    raise TooMuchError("a text has half a character in it") from error
            if isinstance(value, str) and "\0" in value:
                raise TooMuchError("a text has a NUL in it")
        level, depth = below, depth - 1
    return found


class Lines:
    """Cuts pieces of bytes into lines, whatever they are: in linear time, and in little memory.

    Of a line longer than ``longest`` its beginning is given and the rest left out. After ``most``
    bytes or ``number`` lines there is no more: ``over`` is true then.
    """

    def __init__(self, longest: int, most: int, number: int) -> None:
        self.longest, self._left, self._lines = longest, most, number
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def over(self) -> bool:
        """Whether it was more than may be."""
        return self._left < 0 or self._lines < 0

    def cut(self, pieces: Iterable[bytes], with_rest: bool = True) -> Iterator[bytes]:
        """The lines of the pieces, without their ends; the last one, too, where it has none."""
        for piece in pieces:
            self._left -= len(piece)
            first, *more = piece.split(b"\n")
            self._add(first)
            for part in more:
                yield self._take()
                self._lines -= 1
                if self.over:
                    return
                self._add(part)
            if self.over:
                return
        if with_rest and self._size:
            yield self._take()

    def _add(self, part: bytes) -> None:
        part = part[: self.longest - self._size]
        if part:
            self._parts.append(part)
            self._size += len(part)

    def _take(self) -> bytes:
        line = b"".join(self._parts)
        self._parts, self._size = [], 0
        return line
