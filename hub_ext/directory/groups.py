"""The groups of a person: named as member by DN (nested) or by name, and the primary group.

``groupOfNames`` lists DNs of people and of groups (RFC 4519), ``posixGroup`` lists names
(RFC 2307); the primary group of a person is only in their gidNumber.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ldap3.core.exceptions import LDAPInvalidDnError
from ldap3.utils.dn import parse_dn

from .accounts import Account, escape_filter_value, parse_id
from .connection import Entry, Session
from .servers import Log
from .settings import DirectorySettings

# More groups than any lab has; an answer beyond this is a wrong base or filter.
_MAX_GROUPS = 2000
# How many groups one filter asks about: slapd and AD take some thousand terms, slowly.
_CHUNK = 50
# The length of a group's name in JupyterHub's database.
_MAX_NAME = 255


@dataclass(frozen=True)
class Membership:
    """Names of all groups, sorted, and the gids of those that have one (the primary included)."""

    names: tuple[str, ...]
    gids: tuple[int, ...]


def normal_dn(dn: str) -> str:
    """A DN for comparing: attribute types and values case-folded, spaces around them gone."""
    try:
        parts = parse_dn(dn, escape=False, strip=True)
    except LDAPInvalidDnError:
        return dn.casefold()
    return "".join(f"{kind.casefold()}={value.casefold()}{end}" for kind, value, end in parts)


def read_groups(
    session: Session, settings: DirectorySettings, account: Account, log: Log
) -> Membership:
    """All groups of a person, breadth-first through nested ones.

    Groups that contain each other end the walk as they were seen before; ``group_depth``
    bounds it besides. What cannot be a group's name or gid here is skipped with a warning.
    """
    found: dict[str, Entry] = {}
    if settings.group_base_dn is not None:
        terms = [
            f"(member={escape_filter_value(account.dn)})",
            f"(memberUid={escape_filter_value(account.entry_name)})",
            f"({settings.gid_attribute}={account.gid})",
        ]
        for _ in range(settings.group_depth):
            fresh = [
                group
                for group in _groups_with(session, settings, terms)
                if found.setdefault(normal_dn(group.dn), group) is group
            ]
            if not fresh:
                break
            if len(found) > _MAX_GROUPS:
                log.error(
                    "directory: %s is in more than %d groups below %s; check group_base_dn and "
                    "group_filter. The rest is left out",
                    account.dn,
                    _MAX_GROUPS,
                    settings.group_base_dn,
                )
                break
            terms = [f"(member={escape_filter_value(group.dn)})" for group in fresh]
        else:
            log.warning(
                "directory: groups of %s are nested deeper than group_depth=%d; "
                "the rest is left out",
                account.dn,
                settings.group_depth,
            )
    names = {name for group in found.values() if (name := _name(group, settings, log))}
    gids = {gid for group in found.values() if (gid := _gid(group, settings, log))}
    return Membership(tuple(sorted(names)), tuple(sorted(gids | {account.gid})))


def _groups_with(
    session: Session, settings: DirectorySettings, terms: Sequence[str]
) -> Iterator[Entry]:
    assert settings.group_base_dn is not None
    for start in range(0, len(terms), _CHUNK):
        yield from session.search(
            settings.group_base_dn,
            f"(&{settings.group_filter}(|{''.join(terms[start : start + _CHUNK])}))",
            [settings.group_name_attribute, settings.gid_attribute],
            limit=_MAX_GROUPS,
        )


def _name(group: Entry, settings: DirectorySettings, log: Log) -> str | None:
    values = group.values(settings.group_name_attribute)
    text = values[0].decode("utf-8", "replace").strip() if len(values) == 1 else ""
    if (
        not text
        or len(text) > _MAX_NAME
        or not text.isprintable()
        or "\N{REPLACEMENT CHARACTER}" in text
    ):
        # A second name could be one that makes people administrators.
        log.warning(
            "directory: group %s is left out: it needs exactly one printable %s",
            group.dn,
            settings.group_name_attribute,
        )
        return None
    return text


def _gid(group: Entry, settings: DirectorySettings, log: Log) -> int | None:
    values = group.values(settings.gid_attribute)
    if not values:
        return None
    gid = parse_id(values[0], settings.min_gid) if len(values) == 1 else None
    if gid is None:
        log.warning(
            "directory: the gid of group %s is left out: it needs one %s of at least min_gid=%d",
            group.dn,
            settings.gid_attribute,
            settings.min_gid,
        )
    return gid
