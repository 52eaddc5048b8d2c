"""From an entry of the directory to an account: one name, one uid, one gid, all checked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hub_ext.i18n import N_

from .connection import Entry, Session
from .errors import AccountUnusable
from .servers import Log
from .settings import DirectorySettings

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


@dataclass(frozen=True)
class Account:
    """A person as the directory knows them; ``entry_name`` is the name as it is written there."""

    name: str
    entry_name: str
    dn: str
    uid: int
    gid: int
    display_name: str
    mail: str
    language: str


def escape_filter_value(text: str) -> str:
    """Text as a value in a search filter (RFC 4515): all but ASCII letters and digits as \\hh.

    More than ldap3 escapes: its parser takes ``>=``, ``~=`` and ``:=`` inside a value for the
    operator, and strips spaces at the ends.
    """
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 0x80 else f"\\{byte:02x}"
        for byte in text.encode("utf-8")
    )


def clean_login(text: str) -> str | None:
    """What was typed, without spaces around it; None where no directory could know it."""
    text = text.strip()
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


def find_entry(session: Session, settings: DirectorySettings, login: str, log: Log) -> Entry | None:
    """The one entry that answers to a login; None for nobody, and for more than one."""
    entries = session.search(
        settings.user_base_dn,
        settings.user_filter.replace("{login}", escape_filter_value(login)),
        [
            settings.name_attribute,
            settings.uid_attribute,
            settings.gid_attribute,
            settings.display_name_attribute,
            settings.mail_attribute,
            settings.language_attribute,
        ],
        limit=1,
    )
    if len(entries) > 1:
        log.error(
            "directory: more than one entry answers to %r below %s (%s, %s); nobody can log in "
            "by it until user_filter finds exactly one",
            login,
            settings.user_base_dn,
            entries[0].dn,
            entries[1].dn,
        )
        return None
    return entries[0] if entries else None


def read_account(entry: Entry, settings: DirectorySettings) -> Account:
    """Check an entry. Raises AccountUnusable, which says what to put right."""
    entry_name = _single(entry, settings.name_attribute)
    name = entry_name.strip().lower()
    if not _NAME.fullmatch(name):
        raise AccountUnusable(
            N_(
                "Your name in the directory cannot be used on this site: only letters a-z, digits "
                "and . _ - are possible, up to 64. Please ask the administrators."
            ),
            detail=f"{entry.dn}: {settings.name_attribute} is {entry_name[:80]!r}; it must match "
            f"{_NAME.pattern} after lower-casing",
        )
    return Account(
        name=name,
        entry_name=entry_name,
        dn=entry.dn,
        uid=_number(entry, settings.uid_attribute, settings.min_uid),
        gid=_number(entry, settings.gid_attribute, settings.min_gid),
        display_name=_text(entry, settings.display_name_attribute),
        mail=_text(entry, settings.mail_attribute),
        language=_text(entry, settings.language_attribute),
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
            N_(
                "Your directory entry must have exactly one value of {attribute}, and has {count}. "
                "Please ask the administrators to correct it."
            ),
            params={"attribute": attribute, "count": len(values)},
            detail=f"{entry.dn}: {len(values)} values of {attribute}; give it exactly one",
        )
    try:
        return values[0].decode("utf-8")
    except UnicodeDecodeError:
        raise AccountUnusable(
            N_(
                "Your directory entry has a {attribute} that cannot be read. "
                "Please ask the administrators to correct it."
            ),
            params={"attribute": attribute},
            detail=f"{entry.dn}: {attribute} is not UTF-8 text",
        ) from None


def _number(entry: Entry, attribute: str, minimum: int) -> int:
    text = _single(entry, attribute)
    number = parse_id(text.encode(), minimum)
    if number is None:
        raise AccountUnusable(
            N_(
                "Your directory entry has a {attribute} that this site does not accept. "
                "Please ask the administrators to correct it."
            ),
            params={"attribute": attribute},
            detail=f"{entry.dn}: {attribute} is {text[:40]!r}; it must be a number from {minimum} "
            f"to {_MAX_ID} (min_uid, min_gid)",
        )
    return number


def _text(entry: Entry, attribute: str) -> str:
    """The first value for showing: printable, on one line, of bounded length; else empty."""
    for value in entry.values(attribute):
        text = value[: 4 * _MAX_TEXT].decode("utf-8", "ignore")
        return "".join(char for char in text if char.isprintable())[:_MAX_TEXT].strip()
    return ""
