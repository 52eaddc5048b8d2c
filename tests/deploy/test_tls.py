"""The site's certificates: made, kept, renewed, and a site's own left alone."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from hub_ext import tls, tls_cli
from rig.certificates import Authority

HOST = "lab.example.org"


def states(outcomes: list[tls.Outcome]) -> dict[str, str]:
    return {outcome.file.name: outcome.state for outcome in outcomes}


def fingerprint(path: Path) -> bytes:
    return path.read_bytes()


def handshake(folder: Path, stem: str, name: str) -> str | None:
    """A real TLS handshake with the pair, as a client that trusts our CA; the TLS version."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / f"{stem}.crt", folder / f"{stem}.key")
    client = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(there, server_side=True).close()
        except (ssl.SSLError, OSError):
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name) as wrapped:
            return wrapped.version()
    finally:
        here.close()
        thread.join(10)


@pytest.mark.parametrize("name", [HOST, "localhost", "127.0.0.1", "::1"])
def test_a_browser_that_trusts_the_ca_trusts_the_server(tmp_path: Path, name: str) -> None:
    tls.init(tmp_path, [HOST])
    assert handshake(tmp_path, "server", name) == "TLSv1.3"


def test_another_name_is_not_trusted(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "server", "evil.example.org")


def test_the_demo_directory_has_a_certificate_of_its_own(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    assert handshake(tmp_path, "directory", "directory")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, "directory", HOST)


def test_keys_are_only_their_owners_and_certificates_short_lived(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    for key in tmp_path.glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime <= timedelta(days=366)


def test_openssl_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    done = subprocess.run(
        [
            *("openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca.crt"),
            *(tmp_path / "server.crt", tmp_path / "directory.crt"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    before = {path: fingerprint(path) for path in tmp_path.iterdir()}
    assert set(states(tls.init(tmp_path, [HOST])).values()) == {"kept"}
    assert {path: fingerprint(path) for path in tmp_path.iterdir()} == before


def test_it_is_renewed_a_month_before_its_end_under_the_same_ca(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    end = tls.LIFETIME
    now = datetime.now(UTC)
    early = tls.init(tmp_path, [HOST], now + end - timedelta(days=31))
    assert states(early)["server.crt"] == "kept"
    late = tls.init(tmp_path, [HOST], now + end - timedelta(days=29))
    assert states(late) == {"ca.crt": "kept", "server.crt": "made", "directory.crt": "kept"}


def test_a_name_below_the_sites_means_another_certificate(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    outcomes = states(tls.init(tmp_path, [f"new.{HOST}"]))
    assert outcomes == {"ca.crt": "kept", "server.crt": "made", "directory.crt": "kept"}
    assert handshake(tmp_path, "server", f"new.{HOST}")


def test_a_name_that_the_ca_is_not_for_needs_a_new_one_which_nobody_gets_unasked(
    tmp_path: Path,
) -> None:
    other = "other.example.org"
    tls.init(tmp_path, [HOST])
    before = fingerprint(tmp_path / "ca.crt"), fingerprint(tmp_path / "server.crt")
    with pytest.raises(tls.TLSError, match=rf"cannot vouch for {other}.*NEW_CA=yes make up"):
        tls.init(tmp_path, [other])
    assert (fingerprint(tmp_path / "ca.crt"), fingerprint(tmp_path / "server.crt")) == before
    assert set(states(tls.init(tmp_path, [other], new_ca=True)).values()) == {"made"}
    assert handshake(tmp_path, "server", other)
    assert set(states(tls.init(tmp_path, [other])).values()) == {"kept"}


def test_a_ca_of_before_is_kept_and_an_administrator_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:  # an earlier LabCommons limited its CA to nothing
        before.setattr(x509.CertificateBuilder, "add_extension", _without_limits)
        assert all(not outcome.advice for outcome in tls.init(tmp_path, [HOST]))
    old = fingerprint(tmp_path / "ca.crt")
    [ca, *others] = tls.init(tmp_path, ["other.example.org"])
    assert (ca.state, fingerprint(tmp_path / "ca.crt")) == ("kept", old)
    assert "NEW_CA=yes make up" in ca.advice
    assert not any(outcome.advice for outcome in others)
    # Near its end everyone imports another one anyway: that one is limited.
    [ca, *_] = tls.init(tmp_path, [HOST], datetime.now(UTC) + tls.CA_LIFETIME - tls.LIFETIME)
    assert (ca.state, ca.advice) == ("made", "")


_add_extension = x509.CertificateBuilder.add_extension


def _without_limits(
    builder: x509.CertificateBuilder, extension: x509.ExtensionType, critical: bool
) -> x509.CertificateBuilder:
    if isinstance(extension, x509.NameConstraints):
        return builder
    return _add_extension(builder, extension, critical)


def test_a_certificate_that_the_site_put_there_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "own"
    tls.init(own, [HOST])
    issuer = tmp_path / "issuer"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={HOST}"),
            *("-addext", f"subjectAltName=DNS:{HOST}"),
            *("-keyout", f"{issuer}.key", "-out", f"{issuer}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    for suffix in ("crt", "key"):
        (own / f"server.{suffix}").write_bytes(Path(f"{issuer}.{suffix}").read_bytes())
    before = fingerprint(own / "server.crt"), fingerprint(own / "server.key")
    # Not even when it is about to end: that is the site's to do.
    assert states(tls.init(own, [HOST]))["server.crt"] == "foreign"
    assert (fingerprint(own / "server.crt"), fingerprint(own / "server.key")) == before


def test_a_pair_that_an_interruption_has_torn_apart_is_made_anew(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    (tmp_path / "server.key").write_bytes(fingerprint(tmp_path / "directory.key"))
    assert states(tls.init(tmp_path, [HOST]))["server.crt"] == "made"
    assert handshake(tmp_path, "server", HOST)


def test_a_ca_key_without_its_certificate_is_taken_up_again(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    (tmp_path / "ca.crt").unlink()
    tls.init(tmp_path, [HOST])
    assert handshake(tmp_path, "server", HOST)


def test_a_lost_ca_key_is_not_silently_replaced(tmp_path: Path) -> None:
    tls.init(tmp_path, [HOST])
    (tmp_path / "ca.key").unlink()
    with pytest.raises(tls.TLSError, match=r"ca\.key is missing; restore it"):
        tls.init(tmp_path, [HOST])


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "server.crt"])
def test_a_file_that_is_not_pem_is_named(tmp_path: Path, name: str) -> None:
    tls.init(tmp_path, [HOST])
    (tmp_path / name).write_text("not PEM")
    with pytest.raises(tls.TLSError, match=name):
        tls.init(tmp_path, [HOST])


SITE = """
version: 1
site: {{{site}}}
directory: {{servers: [ldaps://d.example.org], users: {{base_dn: "dc=example,dc=org"}}}}
sizes: {{small: {{cpu: 1, memory: 1G}}}}
"""


@pytest.mark.parametrize(
    ("site", "names"),
    [
        ("public_url: 'https://[2001:db8::1]:9443', subdomains: false", ["2001:db8::1"]),
        ("public_url: https://lab.example.org", ["lab.example.org", "alice.lab.example.org"]),
        (
            "public_url: https://lab.example.org, servers_host: servers.example.org",
            ["lab.example.org", "servers.example.org"],
        ),
        ("public_url: https://lab.localhost:8443", ["alice.lab.localhost", "localhost"]),
    ],
)
def test_the_command_takes_the_names_from_the_site_file(
    tmp_path: Path, site: str, names: list[str]
) -> None:
    (tmp_path / "site.yaml").write_text(SITE.format(site=site))
    done = CliRunner().invoke(
        tls_cli.group,
        ["init", "--folder", str(tmp_path), "--json"],
        env={"LABCOMMONS_SITE_FILE": str(tmp_path / "site.yaml")},
    )
    assert done.exit_code == 0, done.output
    assert all(handshake(tmp_path, "server", name) for name in names)


@pytest.mark.parametrize(
    ("own", "missing"),
    [
        (["lab.example.org"], r"\*\.lab\.example\.org"),
        (["*.example.org"], r"\*\.lab\.example\.org"),
        (["*.lab.example.org"], r"lab\.example\.org"),
        (["*.example.org", "*.lab.example.org"], None),
        (["lab.example.org", "*.lab.example.org"], None),
    ],
)
def test_a_certificate_of_the_sites_own_is_for_servers_too(
    tmp_path: Path, own: list[str], missing: str | None
) -> None:
    (tmp_path / "other").mkdir()
    for file in Authority(tmp_path / "other").issue(*own):
        shutil.copy(file, tmp_path)
    wanted = ["lab.example.org", "*.lab.example.org"]
    if missing is None:
        assert tls.init(tmp_path, wanted)[1].state == "foreign"
        return
    with pytest.raises(tls.TLSError, match=f"is not for {missing}: .*subdomains: false"):
        tls.init(tmp_path, wanted)
