"""A certificate authority of the site's own, and the certificates it signs.

Lifetimes and keys follow Mozilla's server-side TLS guideline 6.0: at most 366 days, ECDSA P-256.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
# Clocks of clients may be a little behind ours.
BACKDATE = timedelta(hours=1)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
LOOPBACK = ("localhost", "127.0.0.1", "::1")
DIRECTORY = ("directory", *LOOPBACK)  # the demo directory's names
NEW_CA = "NEW_CA=yes make up"
UNLIMITED = (
    "this CA is of an earlier LabCommons and can vouch for every name there is: whoever gets its "
    "key can pose as any web site to those who have imported it. "
    f"`{NEW_CA}` makes one for this site's names alone; everyone has to import that, and to "
    "remove the old one"
)


class TLSError(click.ClickException):
    """A certificate or key cannot be used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: Key

    def signed(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate is one of this authority's."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


@dataclass(frozen=True)
class Outcome:
    """What became of one certificate.

    Attributes:
        state: ``made``, ``kept``, or ``foreign`` for one that the site has put there itself.
        advice: what an administrator should do about it; empty: nothing.
    """

    file: Path
    state: str
    not_after: datetime
    advice: str = ""


def init(
    folder: Path, hosts: Sequence[str], now: datetime | None = None, new_ca: bool = False
) -> list[Outcome]:
    """Make what is missing, too old, or for other names: CA, server, demo directory.

    A ``server.crt`` that our CA has not signed is the site's own and stays as it is. The CA can
    vouch for the hosts and names below them, the machine itself and the demo's directory, and for
    nothing else; ``new_ca`` makes another one, which everybody has to import.
    Raises TLSError for a file that cannot be used, and for a host that the CA is not for.
    """
    now = now or datetime.now(UTC)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        return _init(folder, hosts, now, new_ca)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One at a time: `make up`, and the service that renews."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _init(folder: Path, hosts: Sequence[str], now: datetime, new_ca: bool) -> list[Outcome]:
    if new_ca:
        # The certificate first: a key that an interruption leaves alone is taken up again.
        (folder / "ca.crt").unlink(missing_ok=True)
        (folder / "ca.key").unlink(missing_ok=True)
    authority, outcome = _authority(folder, _trees([*hosts, *DIRECTORY]), now)
    return [
        outcome,
        _server(folder, "server", [*dict.fromkeys([*hosts, *LOOPBACK])], authority, now),
        # Nobody's browser sees it, and slapd reads it only when it starts: for as long as the CA.
        _server(folder, "directory", DIRECTORY, authority, now, CA_LIFETIME, LIFETIME),
    ]


def _trees(hosts: Sequence[str]) -> list[x509.GeneralName]:
    """What a CA for these hosts may vouch for: each, names below it, each address (RFC 5280).

    Both kinds have to be there: a kind without an entry is not limited.
    """
    found: list[x509.GeneralName] = []
    for host in hosts:
        name = general_name(host.removeprefix("*."))
        if isinstance(name, x509.IPAddress):
            name = x509.IPAddress(ipaddress.ip_network(name.value))
        if name not in found:
            found.append(name)
    return found


def _within(name: x509.GeneralName, tree: x509.GeneralName) -> bool:
    if isinstance(tree, x509.IPAddress):
        return isinstance(name, x509.IPAddress) and name.value in tree.value  # type: ignore[operator]
    return isinstance(name, x509.DNSName) and f".{name.value}".endswith(f".{tree.value}")


def _limits(certificate: x509.Certificate) -> Sequence[x509.GeneralName] | None:
    """What the CA may vouch for; None: for everything."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    except x509.ExtensionNotFound:
        return None
    return found.value.permitted_subtrees or ()


def _authority(
    folder: Path, trees: Sequence[x509.GeneralName], now: datetime
) -> tuple[Authority, Outcome]:
    crt, key_file = folder / "ca.crt", folder / "ca.key"
    if key_file.exists():
        key = read_key(key_file)
        if crt.exists():
            certificate = read_certificate(crt)
            if certificate.public_key() != key.public_key():
                raise TLSError(f"{key_file} is not the key of {crt}; restore the pair")
            if certificate.not_valid_after_utc > now + LIFETIME:
                advice = "" if _limits(certificate) is not None else UNLIMITED
                outcome = Outcome(crt, "kept", certificate.not_valid_after_utc, advice)
                return Authority(certificate, key), outcome
    elif crt.exists():
        raise TLSError(
            f"{key_file} is missing; restore it from a backup, or begin with a new CA by "
            f"`{NEW_CA}` (everyone has to import it again)"
        )
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        # The key first: without it a certificate left by an interruption would be of no use.
        write_key(key_file, key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "LabCommons CA")])
    certificate = (
        builder(name, name, now, CA_LIFETIME)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(ca=True), critical=True)
        .add_extension(x509.NameConstraints(trees, excluded_subtrees=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write(crt, certificate.public_bytes(Encoding.PEM), 0o644)
    return Authority(certificate, key), Outcome(crt, "made", certificate.not_valid_after_utc)


def _server(
    folder: Path,
    stem: str,
    hosts: Sequence[str],
    authority: Authority,
    now: datetime,
    lifetime: timedelta = LIFETIME,
    renew_before: timedelta = RENEW_BEFORE,
) -> Outcome:
    crt, key_file = folder / f"{stem}.crt", folder / f"{stem}.key"
    names = [general_name(host) for host in hosts]
    if crt.exists():
        present = read_certificate(crt)
        until = present.not_valid_after_utc
        if not _ours(present, authority):
            if not key_file.exists():
                raise TLSError(f"{key_file} is missing: put the key of {crt} there")
            wanted = (host for host in hosts if host not in LOOPBACK)
            if missing := [host for host in wanted if not covers(present, host)]:
                raise TLSError(
                    f"{crt} is not for {', '.join(missing)}: get one that is, or, without a name "
                    "for people's servers, set site.subdomains: false (docs/site.md)"
                )
            return Outcome(crt, "foreign", until)
        if (
            authority.signed(present)
            and until > now + renew_before
            and set(_names(present)) == set(names)
            and is_key_of(key_file, present)
        ):
            return Outcome(crt, "kept", until)
    limits = _limits(authority.certificate)
    for host, name in zip(hosts, names, strict=True):
        if limits is not None and not any(_within(name, tree) for tree in limits):
            raise TLSError(
                f"{folder / 'ca.crt'} cannot vouch for {host}: it was made for other names. "
                f"`{NEW_CA}` makes a new one (everyone has to import it); or put a certificate "
                f"for {host} of your own into {crt}"
            )
    key = ec.generate_private_key(ec.SECP256R1())
    # The common name is for people to read and holds 64 characters; names are checked in the SANs.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        builder(subject, authority.certificate.subject, now, lifetime)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority_identifier(authority.certificate), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    # Two files cannot change at once; between the two writes they do not match, and the next
    # run sees that and makes both anew.
    write_key(key_file, key)
    write(crt, certificate.public_bytes(Encoding.PEM), 0o644)
    return Outcome(crt, "made", certificate.not_valid_after_utc)


def builder(
    subject: x509.Name, issuer: x509.Name, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + lifetime)
    )


def usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def authority_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject.value)


def general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode("ascii").lower())
    except UnicodeError as error:
        raise TLSError(f"{host!r} is not a host name") from error


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except x509.ExtensionNotFound:
        return []


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether a client would take the certificate for this host's; of a wildcard, for all below."""
    wanted, present = general_name(host), _names(certificate)
    if wanted in present or not isinstance(wanted, x509.DNSName) or host.startswith("*."):
        return wanted in present
    return x509.DNSName("*." + wanted.value.partition(".")[2]) in present


def lifetime(certificate: x509.Certificate) -> timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def _ours(certificate: x509.Certificate, authority: Authority) -> bool:
    """Whether this CA, or the one it has replaced, made the certificate.

    The name alone decides nothing for a client; here it keeps a certificate of an earlier CA
    of ours from being taken for the site's own.
    """
    return authority.signed(certificate) or certificate.issuer == authority.certificate.subject


def is_key_of(path: Path, certificate: x509.Certificate) -> bool:
    return path.exists() and read_key(path).public_key() == certificate.public_key()


def read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TLSError(f"{path}: not a PEM certificate: {error}") from error


def read_key(path: Path) -> Key:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise TLSError(f"{path}: not a PEM private key without a password: {error}") from error
    if not isinstance(key, Key):
        raise TLSError(f"{path}: neither an elliptic curve key nor an RSA key")
    return key


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write(path, text, 0o600)


def write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file in one move; nobody sees a part of it, or a key that others may read."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
