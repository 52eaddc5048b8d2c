"""The groups of a person, nested ones included, each kind of directory in its way.

``member``: groups that list the person by DN (groupOfNames, groupOfUniqueNames: RFC 4519) or
by name (posixGroup: RFC 2307), then the groups that list those, and so on. ``memberof``: the
server lists them at the person and at each group. ``in-chain``: Active Directory walks the
chain itself (LDAP_MATCHING_RULE_IN_CHAIN); elsewhere that rule finds nothing and says success.
The primary group of a person is in none of these, only in their gidNumber or primaryGroupID.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from commons.directory_names import InvalidDN, normal_dn, parse_dn, prepared

from .accounts import Account, escape_filter_bytes, escape_filter_value, parse_id
from .entry import Entry, Searcher
from .servers import Log
from .settings import DirectorySettings

# More groups than any lab has; an answer beyond this is a wrong base or filter.
_MAX_GROUPS = 2000
# How many groups one filter asks about: slapd and AD take some thousand terms, slowly.
_CHUNK = 50
# The length of a group's name in JupyterHub's database.
_MAX_NAME = 255


_IN_CHAIN = "1.2.840.113556.1.4.1941"
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


@dataclass(frozen=True)
class Groups:
    """All groups of a person.

    Attributes:
        names: of groups that have exactly one that can be used here, sorted.
        gids: of those that have one (the primary included).
        dns: in comparable form (``normal_dn``).
        aliases: every name of every group, in comparable form: for rules that keep people out.
        listed: DNs in the person's memberOf, also of groups that are not found: for these, too.
        unclear: what could not be read; the person may be in groups that are not listed here.
    """

    names: tuple[str, ...] = ()
    gids: tuple[int, ...] = ()
    dns: tuple[str, ...] = ()
    aliases: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()
    unclear: tuple[str, ...] = ()


def read_groups(
    searcher: Searcher, settings: DirectorySettings, account: Account, entry: Entry, log: Log
) -> Groups:
    """All groups of a person. What cannot be a group's name or gid here is skipped with a warning.

    Groups that contain each other end the walk as they were seen before; ``group_depth``
    bounds it besides.
    """
    walk = _Walk(searcher, settings, account, entry, log)
    found = walk.groups()
    names = {name for group in found.values() if (name := _name(group, settings, log))}
    gids = {gid for group in found.values() if (gid := _gid(group, settings, log))}
    aliases = {
        prepared(value.decode("utf-8", "surrogateescape"))
        for group in found.values()
        for value in group.values(settings.group_name_attribute)
    }
    return Groups(
        tuple(sorted(names)),
        tuple(sorted(gids | {account.gid})),
        tuple(sorted(found)),
        frozenset(aliases | {prepared(parse_dn(dn)[0][0][1]) for dn in walk.listed}),
        frozenset(walk.listed),
        tuple(walk.unclear),
    )


def unknown_groups(
    searcher: Searcher, settings: DirectorySettings, wanted: Iterable[str]
) -> list[str]:
    """Those of the groups, by name or DN, that the directory does not have, or does not show."""
    return [one for one in wanted if not _known(searcher, settings, one)]


def _known(searcher: Searcher, settings: DirectorySettings, group: str) -> bool:
    if settings.group_base_dn is None:
        return False
    base, term = settings.group_base_dn, settings.group_filter
    if "=" in group:
        base = group
    else:
        term = f"(&{term}({settings.group_name_attribute}={escape_filter_value(group)}))"
    return bool(searcher.search(base, term, ["1.1"], limit=1, base_only="=" in group))


class _Walk:
    """From a person up through the groups; ``found`` by comparable DN."""

    def __init__(
        self,
        searcher: Searcher,
        settings: DirectorySettings,
        account: Account,
        entry: Entry,
        log: Log,
    ) -> None:
        self._searcher = searcher
        self._settings = settings
        self._account = account
        self._entry = entry
        self._log = log
        self._found: dict[str, Entry] = {}
        self._asked: set[str] = set()
        self.unclear: list[str] = []
        self.listed: set[str] = set()

    def groups(self) -> dict[str, Entry]:
        if self._settings.group_base_dn is not None:
            if self._settings.group_membership == "in-chain":
                self._by_chain()
            else:
                self._by_levels()
        return self._found

    def _by_levels(self) -> None:
        upwards = self._listing if self._settings.group_membership == "member" else self._listed
        level = upwards([self._entry], self._posix_terms())
        for _ in range(1, self._settings.group_depth):
            if not level:
                return
            if len(self._found) > _MAX_GROUPS:
                self._log.error(
                    "directory: %s is in more than %d groups below %s; check group_base_dn and "
                    "group_filter. The rest is left out",
                    self._account.dn,
                    _MAX_GROUPS,
                    self._settings.group_base_dn,
                )
                self.unclear.append(f"more than {_MAX_GROUPS} groups")
                return
            level = upwards(level, [])
        if level:
            self._log.warning(
                "directory: groups of %s are nested deeper than group_depth=%d; "
                "the rest is left out",
                self._account.dn,
                self._settings.group_depth,
            )

    def _by_chain(self) -> None:
        dns = [self._account.dn]
        if sid := _primary_group_sid(self._entry):
            dns += [group.dn for group in self._add([f"(objectSid={escape_filter_bytes(sid)})"])]
        chain = [f"(member:{_IN_CHAIN}:={escape_filter_value(dn)})" for dn in dns]
        self._add([*chain, *self._posix_terms()])

    def _posix_terms(self) -> list[str]:
        return [
            f"(memberUid={escape_filter_value(self._account.entry_name)})",
            f"({self._settings.gid_attribute}={self._account.gid})",
        ]

    def _listing(self, level: Sequence[Entry], more: Sequence[str]) -> list[Entry]:
        """The groups that list these as members."""
        dns = [escape_filter_value(entry.dn) for entry in level]
        kinds = ["member"]
        # Only where the site has such groups: an attribute without index makes a search slow.
        if "groupofuniquenames" in self._settings.group_filter.lower():
            kinds.append("uniqueMember")
        return self._add([*(f"({kind}={dn})" for dn in dns for kind in kinds), *more])

    def _listed(self, level: Sequence[Entry], more: Sequence[str]) -> list[Entry]:
        """The groups in the memberOf of these.

        A DN cannot be asked for in a filter everywhere: groups are asked for by the name in
        their DN, and kept where the whole DN is right.
        """
        values = [value for entry in level for value in entry.values("memberOf")]
        dns = {dn: value for value in values if (dn := self._comparable(value)) is not None}
        wanted = dns.keys() - self._found.keys() - self._asked
        self._asked |= wanted
        self.listed |= wanted
        asked = {dn: _rdn_term(dns[dn]) for dn in sorted(wanted)}
        self.unclear += [dn for dn, term in asked.items() if term is None]
        terms = [term for term in asked.values() if term is not None]
        listed = self._add(terms, only=wanted) if terms else []
        return listed + (self._add(more) if more else [])

    def _add(self, terms: Sequence[str], only: Set[str] | None = None) -> list[Entry]:
        """The groups that fit any of the terms and were not found before."""
        assert self._settings.group_base_dn is not None
        attributes = [self._settings.group_name_attribute, self._settings.gid_attribute]
        if self._settings.group_membership == "memberof":
            attributes.append("memberOf")
        fresh = []
        for start in range(0, len(terms), _CHUNK):
            for group in self._searcher.search(
                self._settings.group_base_dn,
                f"(&{self._settings.group_filter}(|{''.join(terms[start : start + _CHUNK])}))",
                attributes,
                limit=_MAX_GROUPS,
            ):
                dn = self._comparable(group.dn)
                if dn is not None and dn not in self._found and (only is None or dn in only):
                    self._found[dn] = group
                    fresh.append(group)
        return fresh

    def _comparable(self, dn: str | bytes) -> str | None:
        """None, and a word in ``unclear``, for what cannot be read."""
        try:
            return normal_dn(dn)
        except InvalidDN as error:
            self._log.error("directory: a group of %s: %s", self._account.dn, error)
            self.unclear.append(str(error))
            return None


def _rdn_term(dn: bytes) -> str | None:
    """``cn=a,ou=groups`` -> ``(cn=a)``; None for what is no DN."""
    try:
        kind, value = parse_dn(dn)[0][0]
        return f"({kind}={escape_filter_value(value)})" if _ATTRIBUTE.fullmatch(kind) else None
    except (InvalidDN, UnicodeEncodeError):
        return None


def _primary_group_sid(entry: Entry) -> bytes | None:
    """The SID of a person's primary group: their domain's, with primaryGroupID at the end.

    A SID is revision, count, six bytes of authority, then ``count`` numbers of four bytes,
    little-endian; the last one is relative to the domain (MS-DTYP 2.4.2.2).
    """
    sids, groups = entry.values("objectSid"), entry.values("primaryGroupID")
    if len(sids) != 1 or len(groups) != 1:
        return None
    sid, relative = sids[0], groups[0].decode("ascii", "replace")
    if len(sid) < 12 or len(sid) != 8 + 4 * sid[1] or not relative.isdecimal():
        return None
    number = int(relative)
    return sid[:-4] + number.to_bytes(4, "little") if number < 2**32 else None


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
