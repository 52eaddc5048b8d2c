"""Distinguished names: read as RFC 4514 writes them, compared as RFC 4518 says.

Also as people and older servers write them: spaces around the separators, ``;`` for ``,``,
values in quotation marks, ``OID.2.5.4.3`` (RFC 2253, section 4). What cannot be read raises
InvalidDN: whoever compares decides what that means, and for a rule that keeps people out it
must not mean "another name".
"""

from __future__ import annotations

import re
import unicodedata

MAX_DN = 16_384  # characters; directories end at some thousand

# Types by their number, and by their long names (RFC 4519, RFC 4524).
_TYPES = {
    "0.9.2342.19200300.100.1.1": "uid",
    "0.9.2342.19200300.100.1.25": "dc",
    "1.2.840.113549.1.9.1": "email",
    "2.5.4.3": "cn",
    "2.5.4.4": "sn",
    "2.5.4.6": "c",
    "2.5.4.7": "l",
    "2.5.4.8": "st",
    "2.5.4.9": "street",
    "2.5.4.10": "o",
    "2.5.4.11": "ou",
    "commonname": "cn",
    "countryname": "c",
    "domaincomponent": "dc",
    "emailaddress": "email",
    "localityname": "l",
    "organizationname": "o",
    "organizationalunitname": "ou",
    "stateorprovincename": "st",
    "streetaddress": "street",
    "surname": "sn",
    "userid": "uid",
}
# BER: the tags of strings, and how they are written.
_STRINGS = {
    0x04: "utf-8",
    0x0C: "utf-8",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1A: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
_TYPE = re.compile(r"\s*(?:oid\.)?([a-z][a-z0-9-]*|\d+(?:\.\d+)*)(?:;[^=,+]*)?\s*=[ \t\r\n]*", re.I)
_HEX = re.compile(r"#((?:[0-9a-fA-F]{2})+)(?=\s*(?:[,;+]|$))")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?=\s*(?:[,;+]|$))', re.DOTALL)
_PLAIN = re.compile(r'(?:[^\\",;+]|\\.)*', re.DOTALL)
_PIECE = re.compile(r"\\([0-9a-fA-F]{2})|\\(.)|([^\\]+)", re.DOTALL)
_SEPARATOR = re.compile(r"\s*([,;+]|$)")
# RFC 4518, 2.2: what is nothing, and what is a space.
_NOTHING = re.compile(
    "[\u0000-\u0008\u000e-\u001f\u007f-\u0084\u0086-\u009f\u00ad\u034f\u06dd\u070f\u1806\u180b-\u180e"
    "\u200b-\u200f\u202a-\u202e\u2060-\u2063\u206a-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffc]"
)

Part = tuple[tuple[str, str], ...]  # one RDN: types and values


class InvalidDN(ValueError):
    """A text is no distinguished name; the message says where it ends to be one."""


def parse_dn(dn: str | bytes) -> list[Part]:
    """The RDNs of a DN: pairs of type (small letters, short) and value, escapes undone.

    A value in hexadecimal that is no string stays as it is, with its ``#``. Raises InvalidDN;
    never anything else. Takes time in proportion to the length.
    """
    text = dn.decode("utf-8", "surrogateescape") if isinstance(dn, bytes) else dn
    if len(text) > MAX_DN:
        raise InvalidDN(f"longer than {MAX_DN} characters")
    parts: list[Part] = []
    pairs: list[tuple[str, str]] = []
    at = 0
    while True:
        kind = _TYPE.match(text, at)
        if kind is None:
            raise InvalidDN(f"{_shown(text, at)}: TYPE=VALUE, such as cn=staff, is missing")
        value, at = _value(text, kind.end())
        end = _SEPARATOR.match(text, at)
        if end is None:
            raise InvalidDN(f"{_shown(text, at)}: a backslash is missing before this character")
        pairs.append((_TYPES.get(kind[1].lower(), kind[1].lower()), value))
        if end[1] != "+":
            parts.append(tuple(pairs))
            pairs = []
        if not end[1]:
            return parts
        at = end.end()


def normal_dn(dn: str | bytes) -> str:
    """The DN in the one form that all its ways of writing have. Raises InvalidDN."""
    return ",".join(
        "+".join(sorted({f"{kind}={_escaped(prepared(value))}" for kind, value in part}))
        for part in parse_dn(dn)
    )


def prepared(text: str) -> str:
    """A name or value as it is compared (caseIgnoreMatch; RFC 4518, section 2): case folded, NFKC,
    what cannot be seen removed, spaces at the ends gone and single within.
    """
    text = _NOTHING.sub("", text)
    for _ in range(2):  # what is composed may fold once more
        text = unicodedata.normalize("NFKC", text.casefold())
    return " ".join(_NOTHING.sub("", text).split())


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


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins there, and where it ends."""
    if text.startswith("#", at):
        found = _HEX.match(text, at)
        if found is None:
            raise InvalidDN(f"{_shown(text, at)}: write \\# for a value that begins with #")
        return _from_ber(found[0]), found.end()
    if text.startswith('"', at):
        found = _QUOTED.match(text, at)
        if found is None:
            raise InvalidDN(f'{_shown(text, at)}: write \\" for a quotation mark')
        return _unescaped(found[1]), found.end()
    found = _PLAIN.match(text, at)
    assert found is not None
    value = found[0].rstrip(" \t\r\n")
    if (len(value) - len(value.rstrip("\\"))) % 2:  # the space at its end is escaped
        value += found[0][len(value) : len(value) + 1]
    return _unescaped(value), found.end()


def _unescaped(value: str) -> str:
    """Without its backslashes; pairs of hexadecimal digits are bytes of UTF-8."""
    found = bytearray()
    try:
        for pair, character, plain in _PIECE.findall(value):
            found += (
                bytes.fromhex(pair)
                if pair
                else (character or plain).encode("utf-8", "surrogateescape")
            )
    except UnicodeEncodeError as error:
        raise InvalidDN("half a character (a lone surrogate)") from error
    return found.decode("utf-8", "surrogateescape")


def _from_ber(hexadecimal: str) -> str:
    """``#0403414243`` -> ``ABC``; what is no string in BER stays as it is (RFC 4514, 2.4)."""
    data = bytes.fromhex(hexadecimal[1:])
    if len(data) >= 2 and data[0] in _STRINGS and data[1] < 0x80 and data[1] == len(data) - 2:
        try:
            return data[2:].decode(_STRINGS[data[0]])
        except UnicodeDecodeError:
            pass
    return hexadecimal.lower()


def _escaped(value: str) -> str:
    return re.sub(r"[\\,+=#]", lambda match: f"\\{match[0]}", value)


def _shown(text: str, at: int) -> str:
    return f"at {text[at : at + 40]!a}" if at < len(text) else "at its end"
