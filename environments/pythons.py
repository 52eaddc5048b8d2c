"""How long each Python gets security fixes, as a dated table; the day is passed in.

Source: the Python Developer's Guide, "Status of Python versions", as of 2026-11. A month is all
that it promises of the future; its last day is taken.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

PYTHON_ENDS = {
    "2.7": date(2020, 1, 1),
    "3.6": date(2021, 12, 23),
    "3.7": date(2023, 6, 27),
    "3.8": date(2024, 10, 7),
    "3.9": date(2025, 10, 31),
    "3.10": date(2026, 10, 31),
    "3.11": date(2027, 10, 31),
    "3.12": date(2028, 10, 31),
    "3.13": date(2029, 10, 31),
    "3.14": date(2030, 10, 31),
    "3.15": date(2031, 10, 31),
}
# How long before its end a Python is flagged: half a year.
WARNING = timedelta(days=183)


def python_end(version: str) -> date | None:
    """The day from which a Python gets no security fixes any more; None where it is not known."""
    minor = ".".join(version.split(".")[:2])
    if minor.startswith("3.") and minor not in PYTHON_ENDS and minor[2:].isdigit():
        return date(2015, 1, 1) if int(minor[2:]) < 6 else None
    return PYTHON_ENDS.get(minor)


def python_state(version: str, today: date) -> Literal["ok", "ending", "ended"]:
    """Whether a Python still gets security fixes, and for half a year yet."""
    end = python_end(version)
    if end is None or today < end - WARNING:
        return "ok"
    return "ended" if today > end else "ending"


def newest_python(today: date) -> str:
    """The newest minor that has been out for a year: most packages have come after it."""
    out = [minor for minor, end in PYTHON_ENDS.items() if end - timedelta(days=4 * 365) < today]
    return out[-1] if out else next(reversed(PYTHON_ENDS))
