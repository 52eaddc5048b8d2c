"""Certificates between agent, hub and builders: an authority of their own, for nobody else.

Each side has one with its role as common name; a client's is good for asking alone, the agent's for
answering alone. They are not what browsers see, and nobody imports them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hub_ext import tls
from hub_ext.tls import Authority, Outcome, TLSError

# As long as a site lives without somebody who looks after this; `make up` renews them before.
LIFETIME = timedelta(days=3650)
RENEW_BEFORE = timedelta(days=1825)
HOSTS = ("agent-control", "agent", *tls.LOOPBACK)
CLIENTS = ("hub", "builder")


def init(folder: Path, now: datetime | None = None, new_ca: bool = False) -> list[Outcome]:
    """Make what is missing or half through its time. Raises TLSError for what cannot be used."""
    now = now or datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    authority, made = _authority(folder, now, new_ca)
    return [
        made,
        _certificate(folder, "agent", HOSTS, ExtendedKeyUsageOID.SERVER_AUTH, authority, now),
        *(
            _certificate(folder, role, (), ExtendedKeyUsageOID.CLIENT_AUTH, authority, now)
            for role in CLIENTS
        ),
    ]


def _authority(folder: Path, now: datetime, new: bool) -> tuple[Authority, Outcome]:
    crt, key_file = folder / "ca.crt", folder / "ca.key"
    if not new and crt.exists() and key_file.exists():
        certificate, key = tls.read_certificate(crt), tls.read_key(key_file)
        if certificate.public_key() != key.public_key():
            raise TLSError(f"{key_file} is not the key of {crt}: remove both, `make up` makes new")
        if certificate.not_valid_after_utc > now + RENEW_BEFORE:
            outcome = Outcome(crt, "kept", certificate.not_valid_after_utc)
            return Authority(certificate, key), outcome
    made = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "LabCommons agents")])
    certificate = (
        tls.builder(name, name, now, LIFETIME)
        .public_key(made.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(tls.usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(made.public_key()), critical=False)
        .sign(made, hashes.SHA256())
    )
    tls.write_key(key_file, made)
    tls.write(crt, certificate.public_bytes(Encoding.PEM), 0o644)
    return Authority(certificate, made), Outcome(crt, "made", certificate.not_valid_after_utc)


def _certificate(
    folder: Path,
    role: str,
    hosts: Sequence[str],
    use: x509.ObjectIdentifier,
    authority: Authority,
    now: datetime,
) -> Outcome:
    crt, key_file = folder / f"{role}.crt", folder / f"{role}.key"
    if crt.exists() and key_file.exists():
        present = tls.read_certificate(crt)
        if (
            authority.signed(present)
            and present.not_valid_after_utc > now + RENEW_BEFORE
            and tls.read_key(key_file).public_key() == present.public_key()
        ):
            return Outcome(crt, "kept", present.not_valid_after_utc)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
    unsigned = (
        tls.builder(subject, authority.certificate.subject, now, LIFETIME)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(tls.usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(tls.authority_identifier(authority.certificate), critical=False)
    )
    if hosts:
        names = x509.SubjectAlternativeName([tls.general_name(host) for host in hosts])
        unsigned = unsigned.add_extension(names, critical=False)
    certificate = unsigned.sign(authority.key, hashes.SHA256())
    tls.write_key(key_file, key)
    tls.write(crt, certificate.public_bytes(Encoding.PEM), 0o644)
    return Outcome(crt, "made", certificate.not_valid_after_utc)
