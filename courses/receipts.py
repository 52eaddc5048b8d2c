"""Receipts: what somebody handed in and when the server was asked, signed with the site's own key.

The signature is over the statement alone, which has the digest of the manifest, which has that of
each file: whoever has the three and the site's public key needs nothing else to check them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY = "/run/labcommons/receipt-key"


def site_key() -> Ed25519PrivateKey:
    """The site's: 32 bytes in hex, where LABCOMMONS_RECEIPT_KEY says. Raises OSError, ValueError"""
    path = Path(os.environ.get("LABCOMMONS_RECEIPT_KEY", KEY))
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text("ascii").strip()))


def canonical(plain: object) -> bytes:
    """What is signed and hashed of something; as ``spawner.runtime.docker.snapshot`` has it."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode("ascii")


def public_hex(key: Ed25519PublicKey) -> str:
    """The 32 bytes of a public key."""
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return key.public_bytes(*raw).hex()


def sign(key: Ed25519PrivateKey, statement: Mapping[str, Any]) -> dict[str, Any]:
    """A statement with its signature, and the public half of the key."""
    plain = dict(statement)
    return {
        "receipt": plain,
        "signature": key.sign(canonical(plain)).hex(),
        "key": public_hex(key.public_key()),
    }


def problems(document: object, key: Ed25519PublicKey) -> list[str]:
    """What is wrong with a receipt, and with the manifest where that is there."""
    statement = document.get("receipt") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(statement, Mapping):
        return ["this is no receipt: it has no “receipt”"]
    found = []
    try:
        key.verify(bytes.fromhex(str(document.get("signature"))), canonical(statement))
    except (InvalidSignature, ValueError):
        found.append("the signature is not this site’s, or the receipt was changed")
    if "manifest" in document:
        digest = hashlib.sha256(canonical(document["manifest"])).hexdigest()
        if digest != statement.get("digest"):
            found.append("the manifest is not the one that was signed")
    return found
