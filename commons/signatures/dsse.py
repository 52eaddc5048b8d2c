"""Envelopes (DSSE, protocol version 1): bytes with their kind, signed by Ed25519 keys.

What is signed says its own lengths, so that no kind can be taken for a part of the bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

STATEMENT = "application/vnd.in-toto+json"
MAX_BYTES = 8 * 2**20  # of an envelope; a statement about 5,000 packages has a fifth of it
_MOST_SIGNATURES = 16


@dataclass(frozen=True)
class Signature:
    """Whose it is said to be (``key_id``), and its 64 bytes."""

    key: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """What is signed, what that is, and the signatures."""

    payload: bytes
    kind: str = STATEMENT
    signatures: tuple[Signature, ...] = ()

    @property
    def signed_bytes(self) -> bytes:
        """What the signatures are over: DSSE's pre-authentication encoding."""
        kind = self.kind.encode()
        head = f"DSSEv1 {len(kind)} ".encode() + kind + f" {len(self.payload)} ".encode()
        return head + self.payload

    def with_signature(self, key: Ed25519PrivateKey) -> Envelope:
        """The same, signed once more."""
        made = Signature(key_id(key.public_key()), key.sign(self.signed_bytes))
        return Envelope(self.payload, self.kind, (*self.signatures, made))

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        """Whether one of its signatures is this key's."""
        wanted, message = key_id(key), self.signed_bytes
        for one in self.signatures:
            if one.key == wanted:
                try:
                    key.verify(one.value, message)
                except InvalidSignature:
                    continue
                return True
        return False

    def as_bytes(self) -> bytes:
        """The JSON document."""
        document = {
            "payloadType": self.kind,
            "payload": base64.b64encode(self.payload).decode("ascii"),
            "signatures": [
                {"keyid": one.key, "sig": base64.b64encode(one.value).decode("ascii")}
                for one in self.signatures
            ],
        }
        return json.dumps(document, indent=1).encode("ascii") + b"\n"


def read(raw: bytes) -> Envelope:
    """An envelope of its JSON, whoever wrote it. Raises ValueError."""
    if len(raw) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MB")
    try:
        document = json.loads(raw)
        payload = base64.b64decode(document["payload"], validate=True)
        kind, listed = document["payloadType"], document["signatures"]
        if not isinstance(kind, str) or not isinstance(listed, list):
            raise TypeError("no envelope")
        if kind != STATEMENT:
            raise ValueError("no in-toto statement")
        if len(listed) > _MOST_SIGNATURES:
            raise ValueError(f"more than {_MOST_SIGNATURES} signatures")
        signatures = tuple(
            Signature(str(one.get("keyid") or ""), base64.b64decode(one["sig"], validate=True))
            for one in listed
        )
    except (KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise ValueError(f"no DSSE envelope ({type(error).__name__})") from error
    return Envelope(payload, kind, signatures)


def raw_public(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return key.public_bytes(*raw)


def key_id(key: Ed25519PublicKey) -> str:
    """What a key is called: the SHA-256 of its 32 bytes."""
    return hashlib.sha256(raw_public(key)).hexdigest()


def in_site_file(key: Ed25519PublicKey) -> str:
    """A public key as the site file has it."""
    return base64.b64encode(raw_public(key)).decode("ascii")


def as_pem(key: Ed25519PublicKey) -> bytes:
    """A public key as OpenSSL reads it."""
    pem = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(*pem)


def of_pem(raw: bytes) -> Ed25519PublicKey:
    """The other way round. Raises ValueError."""
    key = serialization.load_pem_public_key(raw)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("no Ed25519 key")  # noqa: TRY004
    return key


def of_seed(text: str) -> Ed25519PrivateKey:
    """A private key of its 32 bytes in hexadecimal. Raises ValueError."""
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text.strip()))
