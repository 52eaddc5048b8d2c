"""A certificate by ACME: a real authority (pebble), a real name server (knot), Debian's lego."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from commons.site import SiteFileError, load_site
from commons.site.https import Acme
from hub_ext import acme, tls, tls_cli, tls_keeper, tls_served
from rig.acme import SECRET, AcmeWorld

HOST = "lab.example.org"
NAMES = [HOST, f"*.{HOST}"]
SITE = f"""
version: 1
site: {{name: Lab, public_url: "https://{HOST}"}}
directory: {{servers: [ldaps://d.example.org], users: {{base_dn: "dc=example,dc=org"}}}}
sizes: {{small: {{cpu: 1, memory: 1G, default: true}}}}
"""
KEY = f'key "labcommons" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n'
HOOK = """#!{python}
import json, sys, urllib.request
action, name, value = sys.argv[1:4]
where = "set-txt" if action == "present" else "clear-txt"
body = json.dumps({{"host": name, "value": value}}).encode()
urllib.request.urlopen("http://127.0.0.1:{port}/" + where, body, timeout=10).read()
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AcmeWorld]:
    with AcmeWorld(tmp_path_factory.mktemp("acme") / "world") as world:
        yield world


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("tls", "health", "acme"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path))
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(tmp_path / "site.yaml"))
    monkeypatch.delenv("LABCOMMONS_PUBLIC_URL", raising=False)
    return tmp_path


def site(data: Path, world: AcmeWorld, way: str = "", more: str = "") -> None:
    """A site with that authority; the name server's key, and its CA, are there."""
    way = way or f'nameserver: "{world.nameserver}"'
    (data / "site.yaml").write_text(
        f"{SITE}\nhttps:\n  acme: {{directory: {world.directory!r}, email: it@example.org, {way}, "
        f"check_dns: false{more}}}\n"
    )
    (data / "acme" / "ca.crt").write_bytes(world.ca_file.read_bytes())
    (data / "acme" / "nsupdate.key").write_text(KEY)
    quick = "RFC2136_SEQUENCE_INTERVAL=1\nEXEC_SEQUENCE_INTERVAL=1\n"
    (data / "acme" / "settings").write_text(quick)


def run(command: str) -> Result:
    return CliRunner().invoke(tls_cli.group, [command])


def served(data: Path) -> x509.Certificate:
    """What nginx would read, which is a pair that belongs together."""
    place = data / "tls" / tls_served.SERVED
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(place)
    return tls.read_certificate(place)


def told(data: Path) -> str:
    """What doctor and the banner say."""
    found = json.loads((data / "health" / tls_served.STATE).read_text())
    assert not any(row["own"] for row in found["certificates"])
    return str(found["problem"])


def of_pebble(certificate: x509.Certificate) -> bool:
    return "Pebble" in certificate.issuer.rfc4514_string()


def test_a_certificate_for_all_names_is_got_by_rfc_2136_and_served(
    data: Path, world: AcmeWorld
) -> None:
    site(data, world)
    assert run("renew").exit_code == 0
    assert not of_pebble(served(data))  # until there is one, the site's own CA's
    done = run("acme")
    assert (done.exit_code, done.output) == (0, f"a new certificate for {HOST}, *.{HOST}\n")
    assert run("renew").exit_code == 0
    first = served(data)
    assert of_pebble(first)
    assert all(tls.covers(first, name) for name in NAMES)
    assert told(data) == ""
    for secret in (acme.ISSUED, Path("issued")):
        assert (data / "acme" / secret).stat().st_mode & 0o077 == 0
    # What is right stays.
    assert run("acme").output == "up to date\n"
    assert run("init").exit_code == 0
    assert run("renew").exit_code == 0
    assert served(data) == first
    settings = load_site().https.acme
    assert settings
    until, life = first.not_valid_after_utc, tls.lifetime(first)
    folder = data / "acme"
    assert not acme.due(settings, folder, NAMES, until - life / 2)
    assert acme.due(settings, folder, NAMES, until - life / 4)
    assert acme.due(settings, folder, [*NAMES, "servers.example.org"], datetime.now(UTC))
    other = settings.model_copy(update={"directory": "https://other.example.org/dir"})
    assert acme.due(other, folder, NAMES, datetime.now(UTC))
    # Near its end another one is got, and taken up.
    assert acme.obtain(settings, folder, NAMES, until - timedelta(days=1))
    assert run("renew").exit_code == 0
    assert of_pebble(served(data))
    assert served(data).serial_number != first.serial_number


def test_a_refusal_is_told_with_its_cause_and_what_was_served_goes_on(
    data: Path, world: AcmeWorld
) -> None:
    site(data, world)
    (data / "acme" / "nsupdate.key").write_text(KEY.replace(SECRET, "d3Jvbmc="))
    assert run("renew").exit_code == 0
    before = served(data)
    done = run("acme")
    assert done.exit_code == 1
    assert run("renew").exit_code == 0  # what there is goes on
    assert served(data) == before
    assert "ACME: " in told(data)
    assert "bad authentication" in told(data)
    assert "docker compose logs acme" in told(data)
    (data / "acme" / "nsupdate.key").unlink()
    assert run("acme").exit_code == 1
    assert run("renew").exit_code == 0
    assert "data/acme/nsupdate.key cannot be read: No such file" in told(data)
    # Put right, it is told no longer.
    (data / "acme" / "nsupdate.key").write_text(f"hmac-sha256:labcommons:{SECRET}\n")
    assert run("acme").exit_code == 0
    assert run("renew").exit_code == 0
    assert told(data) == ""
    assert of_pebble(served(data))


def test_a_hook_of_ones_own_and_an_account_that_the_authority_knows(
    data: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    kid, hmac = "campus-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    config = data / "config"
    config.mkdir()
    monkeypatch.setattr(acme, "CONFIG", config)
    folder = tmp_path_factory.mktemp("acme") / "world"
    with AcmeWorld(folder, hook=True, eab={kid: hmac}) as world:
        hook = config / "dns-hook"
        hook.write_text(HOOK.format(python=sys.executable, port=world.told))
        site(data, world, "hook: dns-hook", f", eab_kid: {kid}")
        assert run("acme").exit_code == 1
        assert "config/dns-hook is not there, or may not be run" in acme.problem(
            data / "acme" / acme.ISSUED
        )
        hook.chmod(0o755)
        (data / "acme" / "eab-hmac").write_text(hmac + "\n")
        done = run("acme")
        assert done.exit_code == 0, done.output
        assert run("renew").exit_code == 0
        assert of_pebble(served(data))


def test_other_names_get_one_of_the_sites_ca_until_the_authority_gives_one(
    data: Path, world: AcmeWorld
) -> None:
    site(data, world)
    text = (data / "site.yaml").read_text()
    (data / "site.yaml").write_text(text.replace("{name: Lab,", "{name: Lab, subdomains: false,"))
    assert run("acme").exit_code == 0
    assert run("init").exit_code == 0
    assert of_pebble(served(data))
    assert not tls.covers(served(data), NAMES[1])
    (data / "site.yaml").write_text(text)
    assert run("init").exit_code == 0, "make up goes on"
    assert not of_pebble(served(data))
    assert tls.covers(served(data), NAMES[1])
    assert run("acme").exit_code == 0
    assert run("renew").exit_code == 0
    assert of_pebble(served(data))
    assert tls.covers(served(data), NAMES[1])


def test_what_is_no_pair_is_never_served(data: Path, world: AcmeWorld) -> None:
    site(data, world)
    assert run("renew").exit_code == 0
    before = served(data)
    (data / "acme" / "issued").mkdir()
    for text in (b"", b"-----BEGIN CERTIFICATE-----\nhalf"):
        (data / "acme" / acme.ISSUED).write_bytes(text)
        assert run("renew").exit_code == 1
        assert "not a PEM certificate" in told(data)
        assert served(data) == before


def test_a_lego_that_hangs_is_ended_and_told(
    data: Path, world: AcmeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    site(data, world)
    program = data / "lego"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(acme, "LEGO", str(program))
    monkeypatch.setattr(acme, "LIMIT", 0.2)
    assert run("acme").exit_code == 1
    assert "no certificate within" in acme.problem(data / "acme" / acme.ISSUED)


def test_a_folder_that_cannot_be_written_is_told_too(data: Path, world: AcmeWorld) -> None:
    site(data, world)
    (data / "acme" / "lego").write_text("in the way")
    assert run("acme").exit_code == 1
    assert "File exists" in acme.problem(data / "acme" / acme.ISSUED)


def test_a_key_that_is_put_there_is_tried_at_once(tmp_path: Path) -> None:
    (tmp_path / "issued").mkdir()
    before = tls_keeper.stamp(tmp_path, tls_keeper.ACME_FILES)
    (tmp_path / "nsupdate.key").write_text(KEY)
    assert tls_keeper.stamp(tmp_path, tls_keeper.ACME_FILES) != before
    (tmp_path / "tls").mkdir()
    (tmp_path / "acme" / "issued").mkdir(parents=True)
    seen = tls_keeper.stamp(tmp_path / "tls")
    (tmp_path / "acme" / acme.ISSUED).write_text("new")
    assert tls_keeper.stamp(tmp_path / "tls") != seen


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("email: it@example.org", "name one way into the zone"),
        ("email: it@example.org, nameserver: ns.x.org, hook: h", "name one way into the zone"),
        ("email: it@example.org, provider: rfc2136", "use nameserver"),
        ("email: it@example.org, hook: /bin/sh", "below config/"),
        ("email: it@example.org, hook: ../x", "below config/"),
        ("email: nobody, hook: x", "email"),
        ("email: a@b.org, hook: x, directory: http://ca.example.org", "must be https://HOST"),
    ],
)
def test_a_wrong_setting_is_named(data: Path, words: str, said: str) -> None:
    (data / "site.yaml").write_text(f"{SITE}\nhttps: {{acme: {{{words}}}}}\n")
    with pytest.raises(SiteFileError, match=said):
        load_site()


def test_settings_of_a_provider_are_its_variables_and_never_words(data: Path) -> None:
    (data / "acme" / "settings").write_text("# of the zone\nACME_DNS_API_BASE=https://x\n\n")
    words, environment = acme.command(
        Acme(email="a@b.org", provider="acmedns"), data / "acme", NAMES
    )
    assert environment["ACME_DNS_API_BASE"] == "https://x"
    assert words[words.index("--dns") + 1] == "acmedns"
    assert not any("https://x" in word for word in words)
    (data / "acme" / "settings").write_text("no assignment\n")
    with pytest.raises(tls.TLSError, match="line 1: write NAME=VALUE"):
        acme.command(Acme(email="a@b.org", provider="acmedns"), data / "acme", NAMES)
