"""From groups of the directory to what somebody may do here; decided by the site, nothing else.

A group is named as the directory names it (without regard to case), or by its DN where the
same name occurs in two places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import Denied, NotAllowed, SettingsError
from .groups import Groups, normal_dn

# Hub groups that this module makes. A directory's group of such a name is not passed on:
# whoever may name groups there must not give rights here.
_OURS = ("team:", "course:")


@dataclass(frozen=True)
class Positions:
    """Two positions, each with the directory's groups that give it; the higher one counts."""

    higher: tuple[str, ...] = ()
    ordinary: tuple[str, ...] = ()


@dataclass(frozen=True)
class RoleMap:
    """What the site decides. Empty ``allowed``: everybody; ``denied`` wins over it.

    Without ``hub_groups`` every group of the directory is passed on to the hub by its name.
    """

    admins: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    teams: Mapping[str, Positions] = field(default_factory=dict)
    courses: Mapping[str, Positions] = field(default_factory=dict)
    hub_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Roles:
    """``teams``: name -> ``lead`` or ``member``; ``courses``: name -> ``instructor`` or
    ``student``; ``hub_groups``: sorted."""

    admin: bool
    teams: Mapping[str, str]
    courses: Mapping[str, str]
    hub_groups: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For auth_state, and for telling a change."""
        return {"admin": self.admin, "teams": dict(self.teams), "courses": dict(self.courses)}


def check_admitted(groups: Groups, role_map: RoleMap) -> None:
    """Raises Denied or NotAllowed."""
    if in_any(groups, role_map.denied):
        raise Denied(role_map.denied)
    if role_map.allowed and not in_any(groups, role_map.allowed):
        raise NotAllowed(role_map.allowed)


def roles_of(groups: Groups, role_map: RoleMap) -> Roles:
    """What these groups give."""
    teams = _positions(groups, role_map.teams, "lead", "member")
    courses = _positions(groups, role_map.courses, "instructor", "student")
    names = (
        {name for name, from_ in role_map.hub_groups.items() if in_any(groups, from_)}
        if role_map.hub_groups
        else {name for name in groups.names if not name.casefold().startswith(_OURS)}
    )
    names |= {f"team:{team}" for team in teams}
    names |= {f"team:{team}:leads" for team, position in teams.items() if position == "lead"}
    names |= {f"course:{course}:{position}s" for course, position in courses.items()}
    return Roles(in_any(groups, role_map.admins), teams, courses, tuple(sorted(names)))


def in_any(groups: Groups, wanted: Iterable[str]) -> bool:
    """Whether any of the wanted groups, by name or DN, is among these."""
    names = {name.casefold() for name in groups.names}
    return any(
        normal_dn(one) in groups.dns if "=" in one else one.casefold() in names for one in wanted
    )


def read_positions(
    value: Mapping[str, Mapping[str, Sequence[str]]], trait: str, higher: str, ordinary: str
) -> dict[str, Positions]:
    """``{"vision": {"leads": [...], "members": [...]}}`` checked. Raises SettingsError."""
    result = {}
    for name, lists in value.items():
        if not isinstance(lists, Mapping) or not set(lists) <= {higher, ordinary}:
            raise SettingsError(f"{trait}: {name!r} must have the lists {higher} and {ordinary}")
        result[name] = Positions(tuple(lists.get(higher, ())), tuple(lists.get(ordinary, ())))
    return result


def _positions(
    groups: Groups, wanted: Mapping[str, Positions], higher: str, ordinary: str
) -> dict[str, str]:
    found = {}
    for name, positions in wanted.items():
        if in_any(groups, positions.higher):
            found[name] = higher
        elif in_any(groups, positions.ordinary):
            found[name] = ordinary
    return found
