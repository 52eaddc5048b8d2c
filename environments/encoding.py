"""The text of a file as people's editors and systems save it: any Unicode encoding, any line ends.

What is no Unicode (GBK, Latin-1) is refused and not guessed: a wrong guess would change a name or
a path without a word.
"""

from __future__ import annotations

import codecs
import re

from commons.messages import Message
from environments.errors import SpecError
from environments.messages import spec as texts

# UTF-32's little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_HAN = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]+")


def decode(raw: bytes, file: str) -> str:
    """The text of a file's bytes. Raises SpecError with file, line and remedy."""
    mark, encoding = next((pair for pair in _MARKS if raw.startswith(pair[0])), (b"", ""))
    try:
        return clean(raw[len(mark) :].decode(encoding or _without_mark(raw)), file)
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", raw[: error.start])) + 1
        raise in_file(file, _not_unicode(raw, file, encoding), line) from error


def clean(text: str, file: str) -> str:
    """A text without byte order mark, its lines ended by newlines alone. Raises SpecError."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for character, problem in (("\0", texts.NUL), ("\ufffd", texts.LOST)):
        if character in text:
            raise in_file(file, problem(), text[: text.index(character)].count("\n") + 1)
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a pair, as JSON can have it
        raise in_file(file, texts.LOST(), text[: error.start].count("\n") + 1) from error
    return text


def shown(text: str, most: int = 80) -> str:
    """The beginning of a text without what a terminal would act upon."""
    return "".join(filter(str.isprintable, text[:most]))


def in_file(file: str, problem: Message, line: int | None = None) -> SpecError:
    """An error in a file, at a line counted from 1 where that is known."""
    if line:
        return SpecError(texts.AT_LINE(file=file, line=line, problem=problem))
    return SpecError(texts.IN_FILE(file=file, problem=problem))


def _without_mark(raw: bytes) -> str:
    """UTF-8, or UTF-16 where every other byte of the ASCII text in it is zero."""
    head = raw[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) * 4 < len(head) or min(even, odd):
        return "utf-8"
    return "utf-16-be" if even else "utf-16-le"


def _not_unicode(raw: bytes, file: str, encoding: str) -> Message:
    if encoding:
        return texts.BROKEN_ENCODING(encoding=encoding.upper()[:6])
    try:
        wide = re.sub(r"[\0-\x7f]", "", raw.decode("gb2312"))
        guess = "GBK" if _HAN.fullmatch(wide) else "LATIN1"
    except UnicodeDecodeError:
        guess = "LATIN1"
    return texts.NOT_UTF8(guess=guess, file=file.rpartition("/")[2])
