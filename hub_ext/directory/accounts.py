"""From an entry of the directory to an account: one name, one uid, one gid, all checked."""

from __future__ import annotations

import re
import unicodedata
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from commons.one_line import one_line
from commons.ssh_keys import MOST_BYTES

from . import messages
from .entry import Entry, Searcher
from .errors import AccountBarred, AccountUnusable
from .servers import Log
from .settings import DirectorySettings
from .standing import PASSWORD_TIMES, STANDING_ATTRIBUTES, standing_of

# A name becomes a folder, a container's name and a part of URLs.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NUMBER = re.compile(r"[0-9]{1,10}")
# The Docker Engine takes no larger ids.
_MAX_ID = 2**31 - 1
# What somebody may type at login: a name, an e-mail address, DOMAIN\user.
_MAX_LOGIN = 256
# Nothing hashes a longer password in good time; bcrypt ends at 72 bytes, argon2 sites rarely above.
_MAX_PASSWORD = 4096
_MAX_TEXT = 200
_MAX_KEYS = 20
# entryUUID, ipaUniqueID and nsUniqueId are hexadecimal digits in groups.
_ID = re.compile(r"[0-9a-z-]{8,64}")
_MAX_ID_TEXT = 64


@dataclass(frozen=True)
class Account:
    """A person as the directory knows them.

    ``entry_name`` is the name as it is written there; ``id`` stays when the name changes, and is
    empty where the directory gives none.
    """

    id: str
    name: str
    entry_name: str
    dn: str
    uid: int
    gid: int
    display_name: str
    mail: str
    language: str
    ssh_keys: tuple[str, ...] = ()  # lines as they are there; who uses them reads them strictly


def escape_filter_value(text: str) -> str:
    """Text as a value in a search filter (RFC 4515): all but ASCII letters and digits as \\hh.

    More than ldap3 escapes: its parser takes ``>=``, ``~=`` and ``:=`` inside a value for the
    operator, and strips spaces at the ends.
    """
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 0x80 else f"\\{byte:02x}"
        for byte in text.encode("utf-8")
    )


def escape_filter_bytes(value: bytes) -> str:
    """Any bytes as a value in a search filter: a GUID, a SID."""
    return "".join(f"\\{byte:02x}" for byte in value)


def clean_login(text: str) -> str | None:
    """What was typed, without spaces around it and invisible signs, which come with what is copied
    from a page and which directories take for nothing (RFC 4518, 2.2); None where no directory
    could know it.
    """
    text = "".join(char for char in text if unicodedata.category(char) != "Cf").strip()
    if not text or len(text) > _MAX_LOGIN or not text.isprintable():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return text


def password_bytes(text: str) -> bytes | None:
    """A password for the wire; None for one that must not be sent.

    Active Directory and others take an empty password for an anonymous bind and say
    success; NUL ends the text for some servers.
    """
    try:
        password = text.encode("utf-8")
    except UnicodeEncodeError:
        return None
    if not password or b"\0" in password or len(password) > _MAX_PASSWORD:
        return None
    return password


def password_forms(text: str) -> list[bytes]:
    """A password in the forms that keyboards give it, the one that was typed first.

    Of the same letters a keyboard makes one character or two, and an input method wide ones (ＡＢ).
    Directories compare bytes; RFC 4513, 5.1.1 leaves it to the client to prepare them (RFC 4013).
    """
    plain = unicodedata.normalize("NFKC", text)
    forms = (password_bytes(one) for one in (text, plain, unicodedata.normalize("NFD", plain)))
    return list(dict.fromkeys(form for form in forms if form))


def split_domain(login: str, netbios_domain: str) -> str | None:
    """``"LAB\\alice"`` -> ``"alice"`` where LAB is the site's domain; None for another domain's."""
    domain, backslash, name = login.partition("\\")
    if not backslash:
        return login
    if netbios_domain and domain.casefold() == netbios_domain.casefold() and name:
        return name
    return None


def login_forms(settings: DirectorySettings, login: str) -> list[str]:
    """How a login may be written in the directory; empty for another domain's."""
    name = split_domain(login, settings.netbios_domain)
    if name is None:
        return []
    if settings.name_domain and "@" not in name:
        return [name, f"{name}@{settings.name_domain}"]
    return [name]


def throttle_key(entry: Entry | None, login: str, settings: DirectorySettings) -> str:
    """One name for all the ways to type it: the directory's, else the typed one, folded."""
    values = entry.values(settings.name_attribute) if entry else []
    text = values[0][:_MAX_LOGIN].decode("utf-8", "replace") if len(values) == 1 else login
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def password_time(entry: Entry | None, settings: DirectorySettings) -> str:
    """When the password was changed last, in the server's own form; "" where it does not tell."""
    values = entry.values(PASSWORD_TIMES[settings.server_type]) if entry else []
    return values[0][:_MAX_ID_TEXT].decode("ascii", "replace") if len(values) == 1 else ""


def entry_attributes(settings: DirectorySettings) -> list[str]:
    """Everything that is read of a person."""
    names = [
        settings.name_attribute,
        settings.id_attribute,
        settings.uid_attribute,
        settings.gid_attribute,
        settings.display_name_attribute,
        settings.mail_attribute,
        settings.language_attribute,
        *settings.ssh_key_attributes,
        *STANDING_ATTRIBUTES[settings.server_type],
        PASSWORD_TIMES[settings.server_type],
    ]
    if settings.group_membership == "memberof":
        names.append("memberOf")
    if settings.group_membership == "in-chain":
        names += ["objectSid", "primaryGroupID"]
    return list(dict.fromkeys(name for name in names if name))


def find_entry(
    searcher: Searcher, settings: DirectorySettings, login: str, log: Log
) -> Entry | None:
    """The one entry that answers to a login; None for nobody, and for more than one."""
    names = login_forms(settings, login)
    if not names:
        return None
    if settings.user_dn_templates:
        return next(
            (
                entry
                for dn in login_dns(settings, names[0])
                if (entry := read_entry(searcher, settings, dn))
            ),
            None,
        )
    terms = [settings.user_filter.replace("{login}", escape_filter_value(one)) for one in names]
    return _one(
        searcher, settings, terms[0] if len(terms) == 1 else f"(|{''.join(terms)})", names[0], log
    )


def find_by_id(searcher: Searcher, settings: DirectorySettings, id: str, log: Log) -> Entry | None:
    """The entry with a stable id, whatever its name is now."""
    text = f"({settings.id_attribute}={_id_filter_value(settings, id)})"
    return _one(searcher, settings, text, id, log)


def read_entry(searcher: Searcher, settings: DirectorySettings, dn: str) -> Entry | None:
    """The entry with this DN."""
    entries = searcher.search(
        dn, "(objectClass=*)", entry_attributes(settings), limit=1, base_only=True
    )
    return entries[0] if entries else None


def login_dns(settings: DirectorySettings, login: str) -> list[str]:
    """The DNs that a login may mean, by ``user_dn_templates``."""
    name = escape_filter_value(login)  # hexadecimal escapes are the same in a DN (RFC 4514)
    return [template.replace("{login}", name) for template in settings.user_dn_templates]


def _one(
    searcher: Searcher, settings: DirectorySettings, search_filter: str, asked: str, log: Log
) -> Entry | None:
    entries = searcher.search(
        settings.user_base_dn, search_filter, entry_attributes(settings), limit=1
    )
    if len(entries) > 1:
        log.error(
            "directory: more than one entry answers to %r below %s (%s, %s); nobody can log in "
            "by it until user_filter finds exactly one",
            asked,
            settings.user_base_dn,
            entries[0].dn,
            entries[1].dn,
        )
        return None
    return entries[0] if entries else None


def check_standing(entry: Entry, settings: DirectorySettings) -> None:
    """Raises AccountBarred where the entry says that the account may not be used now."""
    lasts = timedelta(seconds=settings.lockout_seconds) if settings.lockout_seconds else None
    standing = standing_of(entry, datetime.now(UTC), lasts)
    if standing:
        raise AccountBarred(standing, entry.dn)


def stable_id(entry: Entry, settings: DirectorySettings) -> str:
    """The id that stays when the name changes; empty where there is none, or no single one."""
    values = entry.values(settings.id_attribute)
    if len(values) != 1:
        return ""
    if settings.id_attribute.lower() == "objectguid":
        return str(uuid.UUID(bytes_le=values[0])) if len(values[0]) == 16 else ""
    text = values[0][:_MAX_ID_TEXT].decode("ascii", "replace").strip().lower()
    return text if _ID.fullmatch(text) else ""


def _id_filter_value(settings: DirectorySettings, id: str) -> str:
    if settings.id_attribute.lower() == "objectguid":
        return escape_filter_bytes(uuid.UUID(id).bytes_le)
    return escape_filter_value(id)


def hub_name(entry: Entry, settings: DirectorySettings) -> str:
    """The name of an entry in the hub. Raises AccountUnusable, which says what to put right."""
    entry_name = _single(entry, settings.name_attribute)
    name = entry_name.strip().lower()
    if settings.name_domain:
        name = name.removesuffix(f"@{settings.name_domain.lower()}")
    if not _NAME.fullmatch(name):
        raise AccountUnusable(
            messages.NAME_UNUSABLE(),
            detail=f"{entry.dn}: {settings.name_attribute} is {entry_name[:80]!r}; it must match "
            f"{_NAME.pattern} after lower-casing",
        )
    return name


def read_account(entry: Entry, settings: DirectorySettings) -> Account:
    """Check an entry. Raises AccountUnusable, which says what to put right."""
    return Account(
        id=stable_id(entry, settings),
        name=hub_name(entry, settings),
        entry_name=_single(entry, settings.name_attribute),
        dn=entry.dn,
        uid=_number(entry, settings.uid_attribute, settings.min_uid),
        gid=_number(entry, settings.gid_attribute, settings.min_gid),
        display_name=_text(entry, settings.display_name_attribute),
        mail=_text(entry, settings.mail_attribute),
        language=_text(entry, settings.language_attribute),
        ssh_keys=_keys(entry, settings.ssh_key_attributes),
    )


def parse_id(value: bytes, minimum: int) -> int | None:
    """A uid or gid between ``minimum`` and Docker's largest; None for anything else."""
    text = value.decode("ascii", "replace")
    if not _NUMBER.fullmatch(text) or not minimum <= int(text) <= _MAX_ID:
        return None
    return int(text)


def _single(entry: Entry, attribute: str) -> str:
    values = entry.values(attribute)
    if len(values) != 1:
        raise AccountUnusable(
            messages.NOT_ONE_VALUE(attribute=attribute, count=len(values)),
            detail=f"{entry.dn}: {len(values)} values of {attribute}; give it exactly one",
        )
    try:
        return values[0].decode("utf-8")
    except UnicodeDecodeError:
        raise AccountUnusable(
            messages.VALUE_UNREADABLE(attribute=attribute),
            detail=f"{entry.dn}: {attribute} is not UTF-8 text",
        ) from None


def _number(entry: Entry, attribute: str, minimum: int) -> int:
    text = _single(entry, attribute)
    number = parse_id(text.encode(), minimum)
    if number is None:
        raise AccountUnusable(
            messages.VALUE_NOT_ACCEPTED(attribute=attribute),
            detail=f"{entry.dn}: {attribute} is {text[:40]!r}; it must be a number from {minimum} "
            f"to {_MAX_ID} (min_uid, min_gid)",
        )
    return number


def _text(entry: Entry, attribute: str) -> str:
    """The first value for showing: printable, on one line, of bounded length; else empty."""
    for value in entry.values(attribute):
        text = value[: 4 * _MAX_TEXT].decode("utf-8", "ignore")
        return one_line(text)[:_MAX_TEXT].strip()
    return ""


def _keys(entry: Entry, attributes: tuple[str, ...]) -> tuple[str, ...]:
    """The lines with public keys, of those that could be one."""
    values = [value for attribute in attributes for value in entry.values(attribute)]
    lines = (v.decode("utf-8", "replace").strip() for v in values if len(v) <= MOST_BYTES)
    return tuple(dict.fromkeys(line for line in lines if line))[:_MAX_KEYS]
