"""The group numbers that own the folders of teams and courses. Pure.

The site file says them (``directory.teams.NAME.gid`` and ``leads_gid``), as a site does that
shares these folders with other machines. Where it does not, they follow from the name: the
hub gives them to the containers of those who belong there, and nobody else has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from hub_ext.site import CoursePeople, Site, SiteFileError, Team
from spawner.tiers.rights import LEADS, Person
from spawner.tiers.tier import Kind, Tier

# Above what directories use (uid and gid of Active Directory's range end below it too).
_FIRST, _COUNT = 1_900_000_000, 100_000_000
SHARED_OWNER = 990  # uid and gid of `labcommons` in our images


@dataclass(frozen=True)
class Owners:
    """Two group numbers: who may read, and who may add and replace."""

    members: int
    leads: int


def owners(site: Site) -> Mapping[Tier, Owners]:
    """The numbers of every team and course. Raises SiteFileError where two share one."""
    found: dict[Tier, Owners] = {}
    for name, team in site.directory.teams.items():
        found[Tier(Kind.TEAM, name)] = _owners(Tier(Kind.TEAM, name), team)
    for name, course in site.directory.courses.items():
        found[Tier(Kind.COURSE, name)] = _owners(Tier(Kind.COURSE, name), course)
    taken: dict[int, str] = {}
    for tier, pair in found.items():
        for number, whose in ((pair.members, "members"), (pair.leads, "leads")):
            other = taken.setdefault(number, f"{whose} of {tier.source}")
            if other != f"{whose} of {tier.source}":
                raise SiteFileError(
                    f"gid {number} is both of the {other} and of the {whose} of {tier.source}; "
                    "give each team and course a gid and a leads_gid of its own"
                )
    return found


def group_ids(site: Site, person: Person) -> tuple[int, ...]:
    """The numbers that a person's containers get for their teams and courses, sorted."""
    numbers: set[int] = set()
    for tier, pair in owners(site).items():
        if position := person.position(tier):
            numbers.add(pair.members)
            if position in LEADS:
                numbers.add(pair.leads)
    return tuple(sorted(numbers))


def _owners(tier: Tier, section: Team | CoursePeople) -> Owners:
    return Owners(
        section.gid or _derived(f"{tier.source}:members"),
        section.leads_gid or _derived(f"{tier.source}:leads"),
    )


def _derived(text: str) -> int:
    return _FIRST + int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) % _COUNT
