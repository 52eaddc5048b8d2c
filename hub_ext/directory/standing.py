"""Whether an account may be used: disabled, expired, locked, or with a password to change.

A bind tells some of it (``answers``); a refresh has no bind, so the same is read from the
entry. Each rule is one attribute that only one kind of server has, so all rules run on
whatever the server gave. An attribute that the service account may not read says nothing:
``labcommons ldap check`` tells which are missing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from .entry import Entry


class Standing(StrEnum):
    """Why an account may not be used. The values are words of the log and the audit trail."""

    DISABLED = "disabled"
    EXPIRED = "expired"
    LOCKED = "locked"
    MUST_CHANGE = "must_change_password"
    PASSWORD_EXPIRED = "password_expired"  # noqa: S105
    NOT_NOW = "not_at_this_time_or_place"


_OF_389_DS = ("nsAccountLock", "accountUnlockTime", "passwordExpirationTime", "shadowExpire")
# What the rules below read, by server type: only what it has, as each name costs time.
STANDING_ATTRIBUTES = {
    "openldap": (
        *("pwdAccountLockedTime", "pwdReset", "pwdStartTime", "pwdEndTime", "shadowExpire"),
    ),
    "active-directory": (
        *("userAccountControl", "msDS-User-Account-Control-Computed", "accountExpires"),
        *("lockoutTime", "pwdLastSet"),
    ),
    "freeipa": (*_OF_389_DS, "krbPrincipalExpiration", "krbPasswordExpiration"),
    "389-ds": _OF_389_DS,
}
# When the password was changed last, where the server tells it (operational attributes).
PASSWORD_TIMES = {
    "openldap": "pwdChangedTime",
    "active-directory": "pwdLastSet",
    "freeipa": "krbLastPwdChange",
    "389-ds": "pwdUpdateTime",
}
# userAccountControl and msDS-User-Account-Control-Computed (Microsoft's ADS_USER_FLAG_ENUM)
_ACCOUNT_DISABLED, _LOCKOUT = 0x2, 0x10
_PASSWORD_NEVER_EXPIRES, _PASSWORD_HAS_EXPIRED = 0x10000, 0x800000
# accountExpires: "never" is 0 or the largest number
_NEVER = {0, 2**63 - 1}
_WINDOWS_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# pwdAccountLockedTime: locked until an administrator unlocks (draft-behera, 5.3.3)
_FOR_EVER = "000001010000Z"

_Rule = Callable[[Entry, datetime, timedelta | None], Standing | None]


def standing_of(
    entry: Entry, now: datetime, lock_lasts: timedelta | None = None
) -> Standing | None:
    """Why the account may not be used at ``now``; None where nothing speaks against it.

    ``lock_lasts``: how long the directory's own lock holds where its time is all that an entry
    tells (pwdLockoutDuration, AD's lockoutDuration); None: until it is lifted.
    """
    return next((found for rule in _RULES if (found := rule(entry, now, lock_lasts))), None)


def _active_directory(entry: Entry, now: datetime, lasts: timedelta | None) -> Standing | None:
    control = _number(entry, "userAccountControl")
    if control is None:
        return None
    # Computed by the server from the domain's policy, where it may be read.
    computed = _number(entry, "msDS-User-Account-Control-Computed")
    since = _number(entry, "lockoutTime") or 0
    locked = (
        since > 0 and _holds(_windows_time(since), now, lasts)
        if computed is None
        else bool(computed & _LOCKOUT)
    )
    expires = _number(entry, "accountExpires") or 0
    must_change = _number(entry, "pwdLastSet") == 0 and not control & _PASSWORD_NEVER_EXPIRES
    return next(
        (
            standing
            for holds, standing in (
                (control & _ACCOUNT_DISABLED, Standing.DISABLED),
                (expires not in _NEVER and _windows_time(expires) <= now, Standing.EXPIRED),
                (locked, Standing.LOCKED),
                (must_change, Standing.MUST_CHANGE),
                ((computed or 0) & _PASSWORD_HAS_EXPIRED, Standing.PASSWORD_EXPIRED),
            )
            if holds
        ),
        None,
    )


def _password_policy(entry: Entry, now: datetime, lasts: timedelta | None) -> Standing | None:
    """The operational attributes of draft-behera-ldap-password-policy."""
    text = _word(entry, "pwdAccountLockedTime")
    if text == _FOR_EVER:
        return Standing.DISABLED
    if (since := parse_time(text)) is not None and _holds(since, now, lasts):
        return Standing.LOCKED
    end, start = (parse_time(_word(entry, name)) for name in ("pwdEndTime", "pwdStartTime"))
    if (end is not None and end <= now) or (start is not None and start > now):
        return Standing.EXPIRED
    if _word(entry, "pwdReset").upper() == "TRUE":
        return Standing.MUST_CHANGE
    return None


def _shadow(entry: Entry, now: datetime, _lasts: timedelta | None) -> Standing | None:
    """shadowExpire: the day, counted from 1970, on which the account ends (shadow(5))."""
    day = _number(entry, "shadowExpire")
    if day is not None and day >= 0 and day <= (now - _UNIX_EPOCH).days:
        return Standing.EXPIRED
    return None


def _389_ds(entry: Entry, now: datetime, _lasts: timedelta | None) -> Standing | None:
    """389-DS and, with the krb attributes, FreeIPA."""
    if _word(entry, "nsAccountLock").upper() == "TRUE":
        return Standing.DISABLED
    principal = parse_time(_word(entry, "krbPrincipalExpiration"))
    if principal is not None and principal <= now:
        return Standing.EXPIRED
    until = parse_time(_word(entry, "accountUnlockTime"))
    if until is not None and (until == _UNIX_EPOCH or until > now):
        return Standing.LOCKED
    for attribute in ("krbPasswordExpiration", "passwordExpirationTime"):
        end = parse_time(_word(entry, attribute))
        if end is not None and end <= now:
            # 389-DS sets the beginning of 1970 when an administrator has reset the password.
            return Standing.MUST_CHANGE if end == _UNIX_EPOCH else Standing.PASSWORD_EXPIRED
    return None


_RULES: tuple[_Rule, ...] = (_active_directory, _password_policy, _389_ds, _shadow)


def parse_time(text: str) -> datetime | None:
    """``"20261121093000Z"`` and its like (GeneralizedTime, RFC 4517); None for anything else."""
    whole = text.partition(".")[0].removesuffix("Z")
    for form in ("%Y%m%d%H%M%S", "%Y%m%d%H%M"):
        try:
            return datetime.strptime(whole, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def _windows_time(ticks: int) -> datetime:
    """A FILETIME: tenths of microseconds since 1601."""
    try:
        return _WINDOWS_EPOCH + timedelta(microseconds=ticks // 10)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _holds(since: datetime, now: datetime, lasts: timedelta | None) -> bool:
    return lasts is None or now < since + lasts


def _word(entry: Entry, attribute: str) -> str:
    values = entry.values(attribute)
    return values[0][:64].decode("ascii", "replace").strip() if values else ""


def _number(entry: Entry, attribute: str) -> int | None:
    try:
        return int(_word(entry, attribute))
    except ValueError:
        return None
