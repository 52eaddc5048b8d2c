"""Who may see and change which tier's environments: pure, asked by console, command and hub.

The kernel decides again: a build runs with the person's own numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hub_ext.i18n import N_
from spawner.errors import NotAllowed
from spawner.tiers.tier import Kind, Tier

LEADS = frozenset({"lead", "instructor"})


@dataclass(frozen=True)
class Person:
    """Somebody, as the hub knows them; ``teams`` and ``courses`` map names to positions."""

    name: str
    admin: bool = False
    teams: Mapping[str, str] = field(default_factory=dict)
    courses: Mapping[str, str] = field(default_factory=dict)

    def position(self, tier: Tier) -> str:
        """``lead``, ``member``, ``instructor``, ``student``, or empty for somebody else."""
        places = {Kind.TEAM: self.teams, Kind.COURSE: self.courses}.get(tier.kind, {})
        return places.get(tier.owner, "")

    @property
    def tiers(self) -> list[Tier]:
        """The tiers whose environments they can use, in the order of kernels' sources."""
        return [
            Tier(Kind.IMAGE),
            Tier(Kind.SHARED),
            *(Tier(Kind.TEAM, name) for name in sorted(self.teams)),
            *(Tier(Kind.COURSE, name) for name in sorted(self.courses)),
            Tier(Kind.PERSONAL, self.name),
        ]


def person_of(name: str, admin: bool, groups: Iterable[str]) -> Person:
    """A person from their groups in the hub (``team:vision:leads``; docs/architecture.md)."""
    teams: dict[str, str] = {}
    courses: dict[str, str] = {}
    for group in sorted(groups):
        match group.split(":"):
            case ["team", team]:
                teams.setdefault(team, "member")
            case ["team", team, "leads"]:
                teams[team] = "lead"
            case ["course", course, "students"]:
                courses.setdefault(course, "student")
            case ["course", course, "instructors"]:
                courses[course] = "instructor"
    return Person(name, admin, teams, courses)


def may_see(person: Person, tier: Tier) -> bool:
    """Whether the environments of a tier are this person's business."""
    match tier.kind:
        case Kind.IMAGE | Kind.SHARED:
            return True
        case Kind.PERSONAL:
            return tier.owner == person.name or person.admin
    return bool(person.position(tier)) or person.admin


def may_change(person: Person, tier: Tier) -> bool:
    """Whether this person may build and delete there. Administrators are not leads."""
    match tier.kind:
        case Kind.PERSONAL:
            return tier.owner == person.name
        case Kind.TEAM | Kind.COURSE:
            return person.position(tier) in LEADS
    return person.admin


def check_see(person: Person, tier: Tier) -> None:
    """Raises NotAllowed."""
    if not may_see(person, tier):
        raise NotAllowed(
            "tier_hidden",
            N_("The environments of “{tier}” are for its members. Ask one of its leads."),
            {"tier": tier.source},
        )


def check_change(person: Person, tier: Tier) -> None:
    """Raises NotAllowed, saying who may."""
    if may_change(person, tier):
        return
    match tier.kind:
        case Kind.PERSONAL:
            sentence = N_("Personal environments are changed by the person they belong to.")
        case Kind.TEAM | Kind.COURSE:
            sentence = N_(
                "The environments of “{tier}” are changed by its leads. Ask one of them, or build "
                "a personal environment."
            )
        case _:
            sentence = N_("The environments of “{tier}” are changed by administrators.")
    raise NotAllowed("tier_read_only", sentence, {"tier": tier.source})
