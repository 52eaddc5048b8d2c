"""What `labcommons ldap check` finds: every server, and how one person would fare.

Facts are gathered on connections of their own, not on the hub's; nothing is changed.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from commons.i18n import NP_, Gettext, in_context
from commons.messages import Message, Text, verbatim

from . import messages
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
    text: Message
    remedy: Message | None = None

    def sentence(self, gettext: Gettext = str) -> str:
        """What was found and the remedy, in a language."""
        parts = [part.in_words(gettext) for part in (self.text, self.remedy) if part]
        return in_context(gettext, NP_("between a finding and its remedy", "; ")).join(parts)

    def as_json(self) -> dict[str, Any]:
        """In English, as the log is, with code and data for programs."""
        told = self.text.as_json()
        return {
            "level": self.level,
            "topic": self.topic,
            "text": told["sentence"],
            "remedy": str(self.remedy or ""),
            "code": told["code"],
            "data": told["data"],
        }


def _finding(
    level: Level, topic: str, text: Text, remedy: Text | None = None, **facts: object
) -> Finding:
    """Both texts are said of the same facts."""
    return Finding(level, topic, text(**facts), remedy(**facts) if remedy else None)


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
                server: [finding.as_json() for finding in findings]
                for server, findings in self.servers.items()
            },
            "person": [finding.as_json() for finding in self.person],
        }


async def check(
    directory: Directory, settings: DirectorySettings, roles: RoleMap, user: str | None, log: Log
) -> Report:
    """Look at every server, and at one person if there is a name."""
    await directory.discover()
    report = Report()
    if not directory.servers.known:
        report.servers[settings.dns_domain] = [
            _finding(
                "wrong",
                "dns",
                messages.NO_SERVER,
                messages.NO_SERVER_REMEDY,
                domain=settings.dns_domain,
            )
        ]
    for server in directory.servers.known:
        findings = report.servers.setdefault(str(server), [])
        try:
            session = directory.open_service_session(server, Deadline(settings.login_deadline))
        except (ServerFailed, DirectoryError) as error:
            findings.append(_failed("connection", error))
            continue
        with session:
            try:
                findings += _server(session, settings)
                named = groups_named(roles)
                findings += unknown(named, unknown_groups(session, settings, named))
                if user and not report.person:
                    report.person = _person(session, settings, roles, user, log)
            except (ServerFailed, DirectoryError) as error:
                findings.append(_failed("search", error))
    return report


def _server(session: Session, settings: DirectorySettings) -> Iterator[Finding]:
    yield _finding("ok", "tls", messages.TLS_VERIFIED, version=session.tls_version)
    ends = session.certificate.get("notAfter")
    if ends:
        days = int((ssl.cert_time_to_seconds(ends) - time.time()) // _DAY)
        soon = days < _SOON
        yield _finding(
            "note" if soon else "ok",
            "certificate",
            messages.CERTIFICATE_DAYS,
            messages.CERTIFICATE_REMEDY if soon else None,
            count=days,
        )
    if settings.bind_dn:
        yield _finding("ok", "bind", messages.BOUND_AS, dn=settings.bind_dn)
    else:
        yield _finding("note", "bind", messages.ANONYMOUS, messages.ANONYMOUS_REMEDY)
    bases = [("people", settings.user_base_dn)]
    if settings.group_base_dn:
        bases.append(("groups", settings.group_base_dn))
    for topic, base in bases:
        if session.search(base, "(objectClass=*)", ["1.1"], limit=1, base_only=True):
            yield _finding("ok", topic, messages.BASE_READ, base=base)
        else:
            yield _finding(
                "wrong", topic, messages.BASE_UNREADABLE, messages.BASE_REMEDY, base=base
            )


def unknown(wanted: Mapping[str, Collection[str]], missing: Collection[str]) -> list[Finding]:
    """What to say of groups that the site names and the directory does not have."""
    return [
        _finding(
            "wrong" if "denied_groups" in wanted[group] else "note",
            "group",
            messages.GROUP_ABSENT,
            messages.GROUP_REMEDY,
            group=group,
            named=sorted(wanted[group]),
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
            _finding(
                "wrong",
                "entry",
                messages.NOBODY,
                messages.NOBODY_REMEDY,
                user=user,
                base=settings.user_base_dn,
                filter=settings.user_filter,
            )
        ]
    return [*_entry(entry, settings), *_verdict(session, settings, role_map, entry, log)]


def _entry(entry: Entry, settings: DirectorySettings) -> Iterator[Finding]:
    yield _finding("ok", "entry", messages.VALUE, value=entry.dn)
    for attribute in entry_attributes(settings):
        values = entry.values(attribute)
        if values:
            shown = [ascii(value[:60].decode("utf-8", "replace")) for value in values[:3]]
            text = messages.VALUES_AND_MORE if len(values) > 3 else messages.VALUE
            yield _finding("ok", attribute, text, value=shown, count=len(values) - 3)
    known = stable_id(entry, settings)
    if known:
        yield _finding("ok", "stable id", messages.VALUE, value=known)
    else:
        yield _finding(
            "note",
            "stable id",
            messages.NO_ID,
            messages.NO_ID_REMEDY,
            attribute=settings.id_attribute,
        )
    if not any(entry.values(name) for name in STANDING_ATTRIBUTES[settings.server_type]):
        yield _finding(
            "note",
            "account state",
            messages.NO_STANDING,
            messages.NO_STANDING_REMEDY,
            attributes=STANDING_ATTRIBUTES[settings.server_type],
        )


def _verdict(
    session: Session, settings: DirectorySettings, role_map: RoleMap, entry: Entry, log: Log
) -> Iterator[Finding]:
    try:
        check_standing(entry, settings)
        account = read_account(entry, settings)
        groups = read_groups(session, settings, account, entry, log)
        yield _names("groups", groups.names)
        yield _names("gids", groups.gids)
        check_admitted(groups, role_map)
    except DirectoryError as error:
        refused = messages.WOULD_BE_REFUSED(outcome=error.outcome)
        yield Finding("wrong", "login", refused, verbatim(str(error)))
        return
    roles = roles_of(groups, role_map)
    yield _finding("ok", "administrator", messages.YES if roles.admin else messages.NO)
    for topic, positions in (("teams", roles.teams), ("courses", roles.courses)):
        yield _names(topic, [f"{name} ({position})" for name, position in positions.items()])
    yield _names("hub groups", roles.hub_groups)
    yield _finding("ok", "login", messages.WOULD_BE_LET_IN, name=account.name)


def _names(topic: str, names: Sequence[object]) -> Finding:
    return _finding("ok", topic, messages.VALUE if names else messages.NONE, value=names)


def _failed(topic: str, error: Exception) -> Finding:
    cause = error.cause if isinstance(error, ServerFailed) else str(error)
    return _finding("wrong", topic, messages.SERVER_FAILED, cause=cause)
