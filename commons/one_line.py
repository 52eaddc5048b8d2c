"""Words that one person writes for others to read: on one line, and nothing that hides in it."""

from __future__ import annotations

import re

# Not printable alone, but parts of what people write: joiners between emoji, Persian or Indic
# letters (Unicode, 23.2), the letters behind a flag (UTS 51), and emoji newer than this Python.
_PARTS = re.compile(
    "(?<=[^\x00-\u02ff\u200c\u200d])[\u200c\u200d](?=[^\x00-\u02ff\u200c\u200d])"
    "|(?<=\U0001f3f4)[\U000e0020-\U000e007e]{1,16}\U000e007f"
    "|[\U0001f000-\U0001faff]"
)


def one_line(text: str) -> str:
    """The text without what hides, turns a line around or is half a character; spaces are one."""
    text = " ".join(text.split())
    kept, end = [], 0
    for part in _PARTS.finditer(text):
        kept += [*filter(str.isprintable, text[end : part.start()]), part.group()]
        end = part.end()
    return "".join([*kept, *filter(str.isprintable, text[end:])]).strip()


def is_one_line(text: str) -> bool:
    """Whether all of it is for showing."""
    return text.isprintable() or _PARTS.sub("", text).isprintable()
