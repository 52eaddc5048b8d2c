"""From groups of the directory to what somebody may do here; decided by the site, nothing else.

A group is named as the directory names it (without regard to case), or by its DN where the
same name occurs in two places: what has ``=`` in it is a DN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from commons import scopes
from commons.directory_names import check_group, normal_dn, prepared
from commons.scopes import SCOPES, Scope
from courses.people import joined

from .errors import Denied, NotAdmitted, SettingsError
from .groups import Groups

# The directory's groups that give each position of a kind, the highest first; that one counts.
Positions = tuple[tuple[str, ...], ...]


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
    """``teams`` and ``courses``: name -> position (``scopes.Position.word``); ``hub_groups``:
    sorted."""

    admin: bool
    teams: Mapping[str, str]
    courses: Mapping[str, str]
    hub_groups: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For auth_state, and for telling a change."""
        return {"admin": self.admin, "teams": dict(self.teams), "courses": dict(self.courses)}


def check_admitted(groups: Groups, role_map: RoleMap, by_name: bool = False) -> None:
    """Raises Denied or NotAdmitted. ``by_name``: the person's own name is allowed, whatever groups.

    Who may be in a denied group that cannot be made out is denied: a rule that keeps people out
    holds where something is unclear, and by each name that a group has.
    """
    every = replace(
        groups, names=(*groups.names, *groups.aliases), dns=(*groups.dns, *groups.listed)
    )
    if role_map.denied and (groups.unclear or in_any(every, role_map.denied)):
        raise Denied(role_map.denied, groups.unclear)
    if role_map.allowed and not by_name and not in_any(groups, role_map.allowed):
        raise NotAdmitted(role_map.allowed)


def roles_of(groups: Groups, role_map: RoleMap, rosters: Mapping[str, str] | None = None) -> Roles:
    """What these groups give, and ``rosters`` (course -> position) of courses that there are."""
    teams = _positions(groups, role_map.teams, "team")
    courses = _positions(groups, role_map.courses, "course")
    listed = {name: word for name, word in (rosters or {}).items() if name in role_map.courses}
    courses = joined(courses, listed)
    names = (
        {name for name, from_ in role_map.hub_groups.items() if in_any(groups, from_)}
        if role_map.hub_groups
        # One that would give a position is not passed on: whoever may name groups in the directory
        # must not give rights here.
        else {name for name in groups.names if not scopes.is_ours(name)}
    )
    for kind, positions in (("team", teams), ("course", courses)):
        names |= scopes.hub_groups({Scope(kind, name): word for name, word in positions.items()})
    return Roles(in_any(groups, role_map.admins), teams, courses, tuple(sorted(names)))


def groups_named(role_map: RoleMap) -> dict[str, set[str]]:
    """Every group that the site names, with the rules that do: ``denied_groups``, ``teams``, …"""
    found: dict[str, set[str]] = {}
    for rule, groups in (
        ("platform_admins", role_map.admins),
        ("allowed_groups", role_map.allowed),
        ("denied_groups", role_map.denied),
        *(("teams", groups) for all in role_map.teams.values() for groups in all),
        *(("courses", groups) for all in role_map.courses.values() for groups in all),
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


def read_groups_of(value: Sequence[str], trait: str) -> tuple[str, ...]:
    """Names and DNs of groups, checked. Raises SettingsError."""
    try:
        return tuple(check_group(one) for one in value)
    except ValueError as error:
        raise SettingsError(f"{trait}: {error}") from error


def read_positions(
    value: Mapping[str, Mapping[str, Sequence[str]]], trait: str, *lists: str
) -> dict[str, Positions]:
    """``{"vision": {"leads": [...], "members": [...]}}`` checked. Raises SettingsError.

    ``lists``: what they are called, the highest position first.
    """
    for name, given in value.items():
        if not isinstance(given, Mapping) or not set(given) <= set(lists):
            known = f"{', '.join(lists[:-1])} and {lists[-1]}"
            raise SettingsError(f"{trait}: {name!r} must have the lists {known}")
    return {
        name: tuple(read_groups_of(given.get(one, ()), trait) for one in lists)
        for name, given in value.items()
    }


def _positions(groups: Groups, wanted: Mapping[str, Positions], kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, positions in wanted.items():
        for position, giving in zip(SCOPES[kind].positions, positions, strict=True):
            if in_any(groups, giving):
                found.setdefault(name, position.word)
    return found
