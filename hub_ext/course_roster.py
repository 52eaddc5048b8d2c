"""A roster's file, the directory, and the course: who is who, and what would change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from commons.i18n import N_
from commons.messages import Locale, Message, Text
from courses.roster_files import Entry
from hub_ext.directory.roster import Asked, Fit, Match

NOT_FOUND = {
    Fit.UNKNOWN: Text("roster_unknown", N_("is not in the directory")),
    Fit.AMBIGUOUS: Text(
        "roster_ambiguous",
        N_("fits several people; write the login name"),
        when={"names": N_("fits several people ({names}); write the login name")},
    ),
    Fit.CONFLICTING: Text(
        "roster_conflicting",
        N_("names different people"),
        when={"names": N_("names different people: {names}")},
    ),
    Fit.UNUSABLE: Text(
        "roster_unusable", N_("is disabled in the directory, or has no account number there")
    ),
}


@dataclass(frozen=True)
class Left:
    """Somebody of the file who is not put on the roster, and why."""

    line: int
    who: str
    reason: Message

    def as_json(self, locale: Locale | None = None) -> dict[str, Any]:
        """For JSON."""
        told = self.reason.as_json(locale) if locale else self.reason.as_json()
        return {"line": self.line, "who": self.who, "reason": told}


@dataclass(frozen=True)
class Known:
    """``people``: login names and positions; ``left``: who was not found."""

    people: Mapping[str, str]
    left: Sequence[Left] = field(default_factory=tuple)


def asked(entries: Sequence[Entry]) -> list[Asked]:
    """What the directory is asked, line by line."""
    return [Asked(one.username, one.mail, one.number) for one in entries]


def known(entries: Sequence[Entry], matches: Sequence[Match], words: Sequence[str]) -> Known:
    """Whom the directory knows; whose name comes twice has the higher position of ``words``."""
    people: dict[str, str] = {}
    left = []
    for entry, match in zip(entries, matches, strict=True):
        if match.fit is not Fit.FOUND:
            names = ", ".join(match.names)
            reason = NOT_FOUND[match.fit](**({"names": names} if names else {}))
            who = entry.username or entry.mail or entry.number
            left.append(Left(entry.line, who, reason))
            continue
        (name,) = match.names
        before = people.get(name, entry.position)
        people[name] = min(entry.position, before, key=words.index)
    return Known(people, tuple(left))
