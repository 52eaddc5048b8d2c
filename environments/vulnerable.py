"""What is vulnerable, who uses it, and what fixes it: one list, for a page, REST and a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from packaging.version import InvalidVersion, Version
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import holes
from commons.holes import Version as Which
from commons.scopes import IMAGE, Keeper, Scope
from commons.store import EnvironmentVersion, ScopeEnvironment
from commons.store.environments import EnvironmentHole
from environments.pythons import python_end, python_state

MOST_PEOPLE = 50


@dataclass(frozen=True)
class Known:
    """One version that is there: its Python, whether it is offered, and when it was made."""

    which: Which
    python: str
    offered: bool
    created: datetime


@dataclass(frozen=True)
class Vulnerable:
    """A version with holes, or with a Python that gets no fixes any more.

    Attributes:
        take: a newer version of it that has neither; "" where it is to be built anew.
        packages: for each package with a fix, the least version without any of these holes.
        python_end: since when its Python gets no fixes; None while it does.
        people: who has started a kernel of it within 30 days, at most MOST_PEOPLE names.
    """

    of: Known
    found: Sequence[EnvironmentHole]
    packages: Mapping[str, str]
    python_end: date | None
    people: Sequence[str]
    users: int
    take: str = ""

    @property
    def blocks(self) -> bool:
        """Whether it would not be offered if it were built now."""
        return any(one.blocks for one in self.found) or self.python_end is not None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        which = self.of.which
        return {
            "source": which.source,
            "owner": which.owner,
            "name": which.name,
            "version": which.version,
            "offered": self.of.offered,
            "blocks": self.blocks,
            "python": self.of.python,
            "python_end": self.python_end.isoformat() if self.python_end else None,
            "take": self.take,
            "ask_for": [f"{name} >={least}" for name, least in self.packages.items()],
            "users": self.users,
            "people": list(self.people),
            "holes": [
                {
                    "id": one.hole,
                    "package": one.package,
                    "version": one.package_version,
                    "severity": one.severity,
                    "title": one.title,
                    "fixed": one.fixed,
                    "blocks": one.blocks,
                    "since": f"{one.seen_at.isoformat()}Z",
                }
                for one in self.found
            ],
        }


def vulnerable(session: Session, today: date) -> list[Vulnerable]:
    """All of them: those that are used by most come first, then those whose holes block."""
    found, people = holes.everything(session), holes.people(session)
    known = _known(session)
    listed = []
    for one in known:
        end = python_end(one.python) if python_state(one.python, today) == "ended" else None
        ones = found.get(one.which, [])
        if ones or end:
            users = people.get(one.which, [])
            fixes, take = _fixes(ones), _clean(one, known, found, today)
            shown = users[:MOST_PEOPLE]
            listed.append(Vulnerable(one, ones, fixes, end, shown, len(users), take))
    return sorted(listed, key=lambda item: (not item.blocks, -item.users, item.of.which))


def _known(session: Session) -> list[Known]:
    columns = (
        EnvironmentVersion.name,
        EnvironmentVersion.version,
        EnvironmentVersion.python,
        EnvironmentVersion.withdrawn_at,
        EnvironmentVersion.created_at,
    )
    query = select(*columns).where(~EnvironmentVersion.removed)
    known = [
        Known(Which(IMAGE.source, "", row[0], row[1]), row[2] or "", row[3] is None, row[4])
        for row in session.execute(query)
    ]
    for one in session.scalars(select(ScopeEnvironment)):
        scope = Scope(one.scope, one.owner)
        owner = scope.owner if scope.keeper is Keeper.PERSON else ""
        which = Which(scope.source, owner, one.name, one.version)
        known.append(Known(which, one.python or "", one.withdrawn_at is None, one.created_at))
    return known


def _clean(
    one: Known,
    known: Sequence[Known],
    found: Mapping[Which, Sequence[EnvironmentHole]],
    today: date,
) -> str:
    """The newest later version of the same environment that is offered and has no such fault."""
    mine = one.which
    later = [
        other
        for other in known
        if (other.which.source, other.which.owner, other.which.name)
        == (mine.source, mine.owner, mine.name)
        and other.created > one.created
        and other.offered
        and not any(hole.blocks for hole in found.get(other.which, ()))
        and python_state(other.python, today) != "ended"
    ]
    return max(later, key=lambda other: other.created).which.version if later else ""


def _fixes(found: Sequence[EnvironmentHole]) -> dict[str, str]:
    """Of each package, the least version in which all of its holes are mended."""
    fixes: dict[str, Version] = {}
    for one in found:
        try:
            fixed = Version(one.fixed)
        except InvalidVersion:
            continue
        fixes[one.package] = max(fixed, fixes.get(one.package, fixed))
    return {name: str(version) for name, version in sorted(fixes.items())}
