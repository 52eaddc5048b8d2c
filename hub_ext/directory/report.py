"""What `labcommons ldap check` finds: every server, and how one person would fare.

Facts are gathered on connections of their own, not on the hub's; nothing is changed.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .accounts import (
    check_standing,
    clean_login,
    entry_attributes,
    find_entry,
    read_account,
    stable_id,
)
from .client import Directory
from .connection import Deadline, Session
from .entry import Entry
from .errors import DirectoryError, ServerFailed
from .groups import read_groups, unknown_groups
from .roles import RoleMap, check_admitted, groups_named, roles_of
from .servers import Log
from .settings import DirectorySettings
from .standing import STANDING_ATTRIBUTES

Level = Literal["ok", "note", "wrong"]
# A certificate with fewer days left is worth a word.
_SOON = 30
_DAY = 86400


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and what to do about it."""

    level: Level
    topic: str
    text: str
    remedy: str = ""


@dataclass
class Report:
    """Findings by server, and about the person with the first server that answers."""

    servers: dict[str, list[Finding]] = field(default_factory=dict)
    person: list[Finding] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.level != "wrong" for finding in self._all())

    def _all(self) -> Iterator[Finding]:
        for findings in self.servers.values():
            yield from findings
        yield from self.person

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "right": self.right,
            "servers": {
                server: [asdict(finding) for finding in findings]
                for server, findings in self.servers.items()
            },
            "person": [asdict(finding) for finding in self.person],
        }


async def check(
    directory: Directory, settings: DirectorySettings, roles: RoleMap, user: str | None, log: Log
) -> Report:
    """Look at every server, and at one person if there is a name."""
    await directory.discover()
    report = Report()
    if not directory.servers.known:
        report.servers[settings.dns_domain] = [
            Finding(
                "wrong",
                "dns",
                "DNS names no server",
                f"check the SRV records _ldaps._tcp.{settings.dns_domain} and _ldap._tcp",
            )
        ]
    for server in directory.servers.known:
        findings = report.servers.setdefault(str(server), [])
        try:
            session = directory.open_service_session(server, Deadline(settings.login_deadline))
        except (ServerFailed, DirectoryError) as error:
            findings.append(Finding("wrong", "connection", _cause(error)))
            continue
        with session:
            try:
                findings += _server(session, settings)
                named = groups_named(roles)
                findings += unknown(named, unknown_groups(session, settings, named))
                if user and not report.person:
                    report.person = _person(session, settings, roles, user, log)
            except (ServerFailed, DirectoryError) as error:
                findings.append(Finding("wrong", "search", _cause(error)))
    return report


def _server(session: Session, settings: DirectorySettings) -> Iterator[Finding]:
    yield Finding("ok", "tls", f"{session.tls_version}, chain and host name verified")
    ends = session.certificate.get("notAfter")
    if ends:
        days = int((ssl.cert_time_to_seconds(ends) - time.time()) // _DAY)
        yield Finding(
            "ok" if days >= _SOON else "note",
            "certificate",
            f"valid for {days} more days",
            "" if days >= _SOON else "renew it, or nobody can log in afterwards",
        )
    if settings.bind_dn:
        yield Finding("ok", "bind", f"as {settings.bind_dn}")
    else:
        yield Finding("note", "bind", "anonymous", "give the hub an account: set bind_dn")
    bases = [("people", settings.user_base_dn)]
    if settings.group_base_dn:
        bases.append(("groups", settings.group_base_dn))
    for topic, base in bases:
        if session.search(base, "(objectClass=*)", ["1.1"], limit=1, base_only=True):
            yield Finding("ok", topic, f"{base} can be read")
        else:
            yield Finding(
                "wrong",
                topic,
                f"{base} does not exist, or may not be read",
                "check the base DN and what the service account may read",
            )


def unknown(wanted: Mapping[str, Collection[str]], missing: Collection[str]) -> list[Finding]:
    """What to say of groups that the site names and the directory does not have."""
    return [
        Finding(
            "wrong" if "denied_groups" in wanted[group] else "note",
            "group",
            f"{group!r} ({', '.join(sorted(wanted[group]))}) is not in the directory, "
            "or may not be read",
            "correct its name in the site file, or let the service account read it",
        )
        for group in missing
    ]


def _person(
    session: Session, settings: DirectorySettings, role_map: RoleMap, user: str, log: Log
) -> list[Finding]:
    login = clean_login(user)
    entry = find_entry(session, settings, login, log) if login else None
    if entry is None:
        return [
            Finding(
                "wrong",
                "entry",
                f"no single entry answers to {user!r} below {settings.user_base_dn}",
                f"check the name and the filter {settings.user_filter}",
            )
        ]
    return [*_entry(entry, settings), *_verdict(session, settings, role_map, entry, log)]


def _entry(entry: Entry, settings: DirectorySettings) -> Iterator[Finding]:
    yield Finding("ok", "entry", entry.dn)
    for attribute in entry_attributes(settings):
        values = entry.values(attribute)
        if values:
            shown = ", ".join(ascii(value[:60].decode("utf-8", "replace")) for value in values[:3])
            more = f" and {len(values) - 3} more" if len(values) > 3 else ""
            yield Finding("ok", attribute, shown + more)
    known = stable_id(entry, settings)
    if known:
        yield Finding("ok", "stable id", known)
    else:
        yield Finding(
            "note",
            "stable id",
            f"no single {settings.id_attribute}",
            "let the service account read it: without it, a name that is given to another person "
            "gives them the first one's home",
        )
    if not any(entry.values(name) for name in STANDING_ATTRIBUTES[settings.server_type]):
        yield Finding(
            "note",
            "account state",
            "nothing tells whether it is disabled or expired",
            "let the service account read "
            + ", ".join(STANDING_ATTRIBUTES[settings.server_type])
            + ", where the directory has them",
        )


def _verdict(
    session: Session, settings: DirectorySettings, role_map: RoleMap, entry: Entry, log: Log
) -> Iterator[Finding]:
    try:
        check_standing(entry, settings)
        account = read_account(entry, settings)
        groups = read_groups(session, settings, account, entry, log)
        yield Finding("ok", "groups", ", ".join(groups.names) or "none")
        yield Finding("ok", "gids", ", ".join(map(str, groups.gids)))
        check_admitted(groups, role_map)
    except DirectoryError as error:
        yield Finding("wrong", "login", f"would be refused: {error.outcome}", str(error))
        return
    roles = roles_of(groups, role_map)
    yield Finding("ok", "administrator", "yes" if roles.admin else "no")
    for topic, positions in (("teams", roles.teams), ("courses", roles.courses)):
        text = ", ".join(f"{name} ({position})" for name, position in positions.items())
        yield Finding("ok", topic, text or "none")
    yield Finding("ok", "hub groups", ", ".join(roles.hub_groups) or "none")
    yield Finding("ok", "login", f"would be let in as {account.name}, with the right password")


def _cause(error: Exception) -> str:
    return error.cause if isinstance(error, ServerFailed) else str(error)
