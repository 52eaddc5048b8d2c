"""Whoever steals the key of the site's CA: whom they can pose as to those who have imported it."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from hub_ext import tls

HOST = "lab.example.org"


def name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Thief:
    """Has the CA's key, and signs what they like."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        self.ca_key = load_pem_private_key((folder / "ca.key").read_bytes(), None)

    def sign(self, host: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        issuer = self.ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a thief")]))
            .issuer_name(self.ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=30))
            .add_extension(x509.SubjectAlternativeName([name_of(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(purpose, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer),
                critical=False,
            )
            .sign(self.ca_key, hashes.SHA256())  # type: ignore[arg-type]
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / "forged.key").write_bytes(private)
        forged = self.folder / "forged.crt"
        forged.write_bytes(leaf.public_bytes(Encoding.PEM))
        return forged


def believed_by_openssl(ca: Path, forged: Path, host: str) -> bool:
    """A handshake of Python's own client, which is OpenSSL as curl, git and Node have it."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(forged, forged.with_suffix(".key"))
    client = ssl.create_default_context(cafile=str(ca))
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(there, server_side=True).close()
        except (ssl.SSLError, OSError):
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(here, server_hostname=host).close()
    except ssl.SSLCertVerificationError:
        return False
    finally:
        here.close()
        thread.join(10)
    return True


def believed_by_webpki(ca: Path, forged: Path, host: str) -> bool:
    """The rules of browsers, as the library `cryptography` has them."""
    store = Store([x509.load_pem_x509_certificate(ca.read_bytes())])
    leaf = x509.load_pem_x509_certificate(forged.read_bytes())
    name = name_of(host)
    assert isinstance(name, x509.DNSName | x509.IPAddress)
    try:
        PolicyBuilder().store(store).build_server_verifier(name).verify(leaf, [])
    except VerificationError:
        return False
    return True


def believed_by_nss(ca: Path, forged: Path, _host: str) -> bool:
    """The library of Firefox."""
    certificates = ca.parent / "nss"
    certificates.mkdir(exist_ok=True)
    database = ["-d", f"sql:{certificates}"]
    subprocess.run(["certutil", "-N", *database, "--empty-password"], check=True)
    subprocess.run(
        ["certutil", "-A", *database, "-n", "ca", "-t", "C,,", "-a", "-i", ca], check=True
    )
    done = subprocess.run(
        ["vfychain", "-v", "-pp", "-u", "1", *database, "-a", forged],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0


CLIENTS = [believed_by_openssl, believed_by_webpki, believed_by_nss]
Client = Callable[[Path, Path, str], bool]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("host", ["www.bank.example", "example.org", "evil-lab.example.org"])
def test_the_sites_ca_can_vouch_for_nobody_else(tmp_path: Path, host: str, client: Client) -> None:
    tls.init(tmp_path, [HOST])
    assert not client(tmp_path / "ca.crt", Thief(tmp_path).sign(host), host)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("site", [HOST, "192.0.2.7", "2001:db8::7"])
def test_nor_for_another_address(tmp_path: Path, site: str, client: Client) -> None:
    tls.init(tmp_path, [site])
    assert not client(tmp_path / "ca.crt", Thief(tmp_path).sign("192.0.2.8"), "192.0.2.8")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("host", [HOST, f"alice.{HOST}", "127.0.0.1", "lab.localhost"])
def test_the_site_the_servers_of_people_and_the_machine_itself_are_vouched_for(
    tmp_path: Path, host: str, client: Client
) -> None:
    tls.init(tmp_path, [HOST])
    assert client(tmp_path / "ca.crt", Thief(tmp_path).sign(host), host)
