"""The site's authority for SSH: it says in a certificate which host key is whose server's."""

from __future__ import annotations

import time
from pathlib import Path

import asyncssh
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from commons import ssh_keys
from commons.errors import BadRequest

DAY = 86_400  # seconds
EARLY = 300  # seconds by which clocks may differ


def read_key(path: Path) -> asyncssh.SSHKey:
    """An Ed25519 key, of its 32 bytes in hexadecimal. Raises OSError, ValueError."""
    seed = bytes.fromhex(path.read_text("ascii").strip())
    return asyncssh.import_private_key(
        Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class Authority:
    """Signs host keys; of nobody else's is there a certificate that it made."""

    def __init__(self, key: asyncssh.SSHKey) -> None:
        self._key = key

    @property
    def line(self) -> str:
        """Its public key, as in a known_hosts file after ``@cert-authority HOSTS``."""
        return str(self._key.export_public_key().decode("ascii").strip())

    def sign(self, line: str, name: str, now: float | None = None) -> str:
        """A certificate for the host key of a line, which may be hostile, for one name and a day.

        Raises commons.errors.BadRequest for what is no key of the one kind that servers have.
        """
        key = ssh_keys.parse(line)
        if key.kind != "ssh-ed25519":
            raise BadRequest(ssh_keys.NOT_A_KEY())
        return self._signed(asyncssh.import_public_key(key.line), name, now).decode("ascii").strip()

    def _signed(self, key: asyncssh.SSHKey, name: str, now: float | None) -> bytes:
        now = time.time() if now is None else now
        certificate = self._key.generate_host_certificate(
            key,
            key_id=name,
            principals=[name],
            valid_after=int(now - EARLY),
            valid_before=int(now + DAY),
        )
        return bytes(certificate.export_certificate())

    def certify(self, own: asyncssh.SSHKey, name: str) -> asyncssh.SSHCertificate:
        """The certificate of this service's own host key; made anew with each start."""
        # It lasts for as long as the service may run without one.
        certificate = self._key.generate_host_certificate(
            own, key_id=name, principals=[name], valid_after=int(time.time() - EARLY)
        )
        return asyncssh.import_certificate(certificate.export_certificate())
