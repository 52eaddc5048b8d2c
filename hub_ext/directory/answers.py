"""What a server's answer to a bind says about the password and about the account.

Three dialects: result codes (RFC 4511, A), the password policy control
(draft-behera-ldap-password-policy), and Active Directory's sub-codes in the text of
invalidCredentials ("... AcceptSecurityContext error, data 775, v3839").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ldap3.core import results

from .standing import Standing

PASSWORD_POLICY = "1.3.6.1.4.1.42.2.27.8.5.1"  # noqa: S105
# 389-DS and FreeIPA: the password has expired, or was reset and must be changed.
_NETSCAPE_PASSWORD_EXPIRED = "2.16.840.1.113730.3.4.4"  # noqa: S105

_AD_SUB_CODE = re.compile(r"AcceptSecurityContext error, data ([0-9a-fA-F]{1,8})\b")
# Microsoft's Win32 error codes. 525 (no user) and 52e (wrong password) are in none of these.
_AD_PROVEN = {
    "530": Standing.NOT_NOW,  # outside the permitted hours
    "531": Standing.NOT_NOW,  # not from this workstation
    "532": Standing.PASSWORD_EXPIRED,
    "533": Standing.DISABLED,
    "701": Standing.EXPIRED,
    "773": Standing.MUST_CHANGE,
}
_AD_LOCKED = "775"

# PasswordPolicyResponseValue, error
_POLICY_ERRORS = {
    0: Standing.PASSWORD_EXPIRED,
    1: Standing.LOCKED,
    2: Standing.MUST_CHANGE,
}

# Other answers that speak about this name and password, not about the server (RFC 4511, A).
_REFUSED = {
    results.RESULT_NO_SUCH_OBJECT,
    results.RESULT_INVALID_DN_SYNTAX,
    results.RESULT_INAPPROPRIATE_AUTHENTICATION,
}
# How 389-DS and FreeIPA refuse an inactive account, and one with too many failures.
_REFUSED_STANDING = {
    results.RESULT_UNWILLING_TO_PERFORM: Standing.DISABLED,
    results.RESULT_CONSTRAINT_VIOLATION: Standing.LOCKED,
}


@dataclass(frozen=True)
class BindAnswer:
    """``password_right``: the server has shown that the password is right.

    ``standing``: why the account may not be used all the same. With a password not shown to
    be right it is for the log only: a stranger must not learn who has an account.
    """

    password_right: bool
    standing: Standing | None = None


def read_bind_answer(result: Mapping[str, Any]) -> BindAnswer | None:
    """An answer from ldap3's result; None where it speaks about the server, not the person."""
    code = result["result"]
    controls = result.get("controls") or {}
    policy = parse_policy_error(_value(controls, PASSWORD_POLICY))
    standing = _POLICY_ERRORS.get(policy) if policy is not None else None
    if code == results.RESULT_SUCCESS:
        if standing is None and _NETSCAPE_PASSWORD_EXPIRED in controls:
            standing = Standing.MUST_CHANGE
        return BindAnswer(True, standing)
    if code in _REFUSED_STANDING:
        return BindAnswer(False, standing or _REFUSED_STANDING[code])
    if code == results.RESULT_INVALID_CREDENTIALS:
        return _invalid_credentials(result, standing, _NETSCAPE_PASSWORD_EXPIRED in controls)
    return BindAnswer(False, standing) if code in _REFUSED else None


def _invalid_credentials(
    result: Mapping[str, Any], standing: Standing | None, netscape_expired: bool
) -> BindAnswer:
    sub_code = _AD_SUB_CODE.search(str(result.get("message") or ""))
    if sub_code:
        word = sub_code[1].lower()
        if word in _AD_PROVEN:
            return BindAnswer(True, _AD_PROVEN[word])
        return BindAnswer(False, Standing.LOCKED if word == _AD_LOCKED else None)
    if netscape_expired:
        standing = Standing.PASSWORD_EXPIRED
    # An expired password was compared before; a locked account answers whatever is typed.
    return BindAnswer(standing is Standing.PASSWORD_EXPIRED, standing)


def parse_policy_error(value: bytes | None) -> int | None:
    """The error of a PasswordPolicyResponseValue; None for none, and for bytes that are not one.

    SEQUENCE { warning [0] ... OPTIONAL, error [1] ENUMERATED OPTIONAL }: ``30 03 81 01 01`` is
    accountLocked.
    """
    outer = _element(value or b"", 0)
    if outer is None or outer[0] != 0x30:
        return None
    content, at = outer[1], 0
    while (element := _element(content, at)) is not None:
        tag, body, at = element
        if tag == 0x81:
            return body[0] if len(body) == 1 else None
    return None


def _element(data: bytes, at: int) -> tuple[int, bytes, int] | None:
    """Tag, content and end of the BER element at a place; short lengths are all this needs."""
    if len(data) < at + 2 or data[at + 1] > 0x7F:
        return None
    end = at + 2 + data[at + 1]
    return (data[at], data[at + 2 : end], end) if end <= len(data) else None


def _value(controls: Mapping[str, Any], oid: str) -> bytes | None:
    value = (controls.get(oid) or {}).get("value")
    return bytes(value) if isinstance(value, bytes | bytearray) else None
