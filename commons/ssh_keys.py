"""Public keys of SSH as people write them: one line, read strictly, within limits.

A line is a word for the kind, the key in base64, and perhaps a comment. What OpenSSH lets stand
before it in an authorized_keys file (options, which may set commands) is refused, and so are kinds
that are not safe any more. Who reads a line gets one of a few kinds, whole, and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.one_line import one_line

MOST_BYTES = 8192  # of a line; RSA with 16384 bits has 2800
MOST_COMMENT = 100  # characters
SMALLEST_RSA, LARGEST_RSA = 3072, 16384  # bits
CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}  # bytes of a point
_SK = "@openssh.com"

TOO_LONG = Text(
    "ssh_key_long",
    N_("This is no public key: it has more than {most} bytes. Paste one line of a .pub file."),
)
NOT_A_KEY = Text(
    "ssh_key_unreadable",
    N_(
        "This is no public key. Paste the one line of your .pub file, such as "
        "“ssh-ed25519 AAAA… name”."
    ),
)
PRIVATE = Text(
    "ssh_key_private",
    N_(
        "This is a private key, which nobody else may have: make another pair, and paste the one "
        "line of its .pub file."
    ),
)
HAS_OPTIONS = Text(
    "ssh_key_options",
    N_("The key has options before it, which are not taken. Paste it without them."),
)
WRONG_KIND = Text(
    "ssh_key_kind",
    N_(
        "Keys of the kind “{kind}” are not taken. Make one with: ssh-keygen -t ed25519. Taken are "
        "ed25519, ecdsa, rsa with {bits} bits or more, and those of security keys (sk)."
    ),
)
WEAK = Text(
    "ssh_key_weak",
    N_(
        "This RSA key has {bits} bits; from {least} to {most} are taken. Make another with: "
        "ssh-keygen -t ed25519."
    ),
)


@dataclass(frozen=True)
class PublicKey:
    """One key; ``blob`` is what is compared, in the form that goes over the wire."""

    kind: str
    blob: bytes
    comment: str = ""

    @property
    def line(self) -> str:
        """As in an authorized_keys file, without the comment."""
        return f"{self.kind} {base64.b64encode(self.blob).decode('ascii')}"

    @property
    def fingerprint(self) -> str:
        """As ``ssh-keygen -l`` says it."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def parse(text: str) -> PublicKey:
    """The key of a line. Raises BadRequest, which says what is wrong with it."""
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise BadRequest(TOO_LONG(most=MOST_BYTES))
    line = text.strip()
    if "PRIVATE KEY" in line:
        raise BadRequest(PRIVATE())
    if not line or any(ord(char) < 32 and char != "\t" for char in line):
        raise BadRequest(NOT_A_KEY())
    words = line.split(maxsplit=2)
    kind = words[0]
    if not _is_kind(kind):
        # Options end where the kind's own word begins.
        if any(_is_kind(word) for word in line.split()[1:]):
            raise BadRequest(HAS_OPTIONS())
        if re.fullmatch(r"[a-z0-9@.-]{1,64}", kind) and len(words) > 1:
            raise BadRequest(WRONG_KIND(kind=kind, bits=SMALLEST_RSA))
        raise BadRequest(NOT_A_KEY())
    try:
        blob = base64.b64decode(words[1], validate=True)
        parts = _parts(blob)
    except (IndexError, ValueError, binascii.Error) as error:
        raise BadRequest(NOT_A_KEY()) from error
    if not parts or parts[0] != kind.encode("ascii") or not _is_whole(kind, parts[1:]):
        raise BadRequest(NOT_A_KEY())
    comment = one_line(words[2])[:MOST_COMMENT].strip() if len(words) > 2 else ""
    return PublicKey(kind, blob, comment)


def _is_kind(word: str) -> bool:
    curve = word.removeprefix("ecdsa-sha2-")
    return (
        word in ("ssh-ed25519", "ssh-rsa", f"sk-ssh-ed25519{_SK}")
        or word == f"sk-ecdsa-sha2-nistp256{_SK}"
        or (curve != word and curve in CURVES)
    )


def _parts(blob: bytes) -> list[bytes]:
    """The strings of which it is made (RFC 4251, 5). Raises ValueError."""
    found: list[bytes] = []
    rest = blob
    while rest:
        size = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 or len(rest) - 4 < size or len(found) > 8:
            raise ValueError("cut off")
        found.append(rest[4 : 4 + size])
        rest = rest[4 + size :]
    return found


def _is_whole(kind: str, parts: list[bytes]) -> bool:
    """Whether a key has what its kind has. Raises BadRequest for RSA that is too small or large."""
    if kind.startswith("sk-"):
        if not parts or not 0 < len(parts.pop()) <= 255:  # the application, such as “ssh:”
            return False
        kind = kind.removeprefix("sk-").removesuffix(_SK)
    if kind == "ssh-ed25519":
        return [len(part) for part in parts] == [32]
    if kind == "ssh-rsa":
        if len(parts) != 2 or any(not part or part[0] & 0x80 for part in parts):
            return False
        exponent, modulus = (int.from_bytes(part, "big") for part in parts)
        if not SMALLEST_RSA <= modulus.bit_length() <= LARGEST_RSA:
            raise BadRequest(WEAK(bits=modulus.bit_length(), least=SMALLEST_RSA, most=LARGEST_RSA))
        return exponent % 2 == 1 and 3 <= exponent < 2**64 and modulus % 2 == 1
    curve = kind.removeprefix("ecdsa-sha2-")
    return (
        len(parts) == 2
        and parts[0] == curve.encode("ascii")
        and len(parts[1]) == CURVES[curve]
        and parts[1][0] == 4
    )
