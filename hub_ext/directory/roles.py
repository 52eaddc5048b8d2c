"""From groups of the directory to what somebody may do here; decided by the site, nothing else.

A group is named as the directory names it (without regard to case), or by its DN where the
same name occurs in two places: what has ``=`` in it is a DN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .dn import InvalidDN, normal_dn, parse_dn, prepared
from .errors import Denied, NotAllowed, SettingsError
from .groups import Groups

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


def check_admitted(groups: Groups, role_map: RoleMap, by_name: bool = False) -> None:
    """Raises Denied or NotAllowed. ``by_name``: the person's own name is allowed, whatever groups.

    Who may be in a denied group that cannot be made out is denied: a rule that keeps people out
    holds where something is unclear, and by each name that a group has.
    """
    every = replace(
        groups, names=(*groups.names, *groups.aliases), dns=(*groups.dns, *groups.listed)
    )
    if role_map.denied and (groups.unclear or in_any(every, role_map.denied)):
        raise Denied(role_map.denied, groups.unclear)
    if role_map.allowed and not by_name and not in_any(groups, role_map.allowed):
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


def groups_named(role_map: RoleMap) -> dict[str, set[str]]:
    """Every group that the site names, with the rules that do: ``denied_groups``, ``teams``, …"""
    found: dict[str, set[str]] = {}
    for rule, groups in (
        ("platform_admins", role_map.admins),
        ("allowed_groups", role_map.allowed),
        ("denied_groups", role_map.denied),
        *(("teams", (*p.higher, *p.ordinary)) for p in role_map.teams.values()),
        *(("courses", (*p.higher, *p.ordinary)) for p in role_map.courses.values()),
        *(("hub_groups", groups) for groups in role_map.hub_groups.values()),
    ):
        for group in groups:
            found.setdefault(group, set()).add(rule)
    return found


def in_any(groups: Groups, wanted: Iterable[str]) -> bool:
    """Whether any of the wanted groups, by name or DN, is among these."""
    names = {prepared(name) for name in groups.names}
    return any(
        normal_dn(one) in groups.dns if "=" in one else prepared(one) in names for one in wanted
    )


def check_group(text: str) -> str:
    """A group as a site names it: a name, or a whole DN. Raises ValueError, which says why not."""
    if "=" not in text:
        if not prepared(text):
            raise ValueError(f"{text!r} names no group")
        return text
    try:
        parts = parse_dn(text)
    except InvalidDN as error:
        raise ValueError(f"{text!r} is not a group's DN (RFC 4514): {error}") from error
    if len(parts) < 2:
        raise ValueError(
            f"{text!r} has “=” in it and so is a DN, but not a whole one; write it with its place, "
            "such as cn=staff,ou=groups,dc=example,dc=org"
        )
    return text


def read_groups_of(value: Sequence[str], trait: str) -> tuple[str, ...]:
    """Names and DNs of groups, checked. Raises SettingsError."""
    try:
        return tuple(check_group(one) for one in value)
    except ValueError as error:
        raise SettingsError(f"{trait}: {error}") from error


def read_positions(
    value: Mapping[str, Mapping[str, Sequence[str]]], trait: str, higher: str, ordinary: str
) -> dict[str, Positions]:
    """``{"vision": {"leads": [...], "members": [...]}}`` checked. Raises SettingsError."""
    result = {}
    for name, lists in value.items():
        if not isinstance(lists, Mapping) or not set(lists) <= {higher, ordinary}:
            raise SettingsError(f"{trait}: {name!r} must have the lists {higher} and {ordinary}")
        result[name] = Positions(
            read_groups_of(lists.get(higher, ()), trait),
            read_groups_of(lists.get(ordinary, ()), trait),
        )
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
