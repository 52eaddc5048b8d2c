"""Words that one person writes for others to read: on one line, and nothing that hides in it."""

from __future__ import annotations

import re

# Not printable alone, but parts of what people write: joiners of emoji, of Persian and of Indic
# scripts (Unicode, 23.2), the letters of flags (UTS 51), and emoji newer than this Python's tables.
_PARTS = re.compile("[\u200c\u200d\U000e0020-\U000e007f\U0001f000-\U0001faff]")


def one_line(text: str) -> str:
    """The text without what hides, turns a line around or is half a character; spaces are one."""
    return "".join(one for one in " ".join(text.split()) if is_one_line(one)).strip()


def is_one_line(text: str) -> bool:
    """Whether all of it is for showing."""
    return text.isprintable() or _PARTS.sub("", text).isprintable()
