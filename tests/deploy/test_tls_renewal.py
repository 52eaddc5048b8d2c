"""Certificates that renew themselves: a pair is served whole or not at all."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub_ext import tls, tls_cli, tls_keeper, tls_served
from hub_ext.tls import TLSError
from rig.certificates import Authority

HOST = "lab.example.org"
SITE = f"""
version: 1
site: {{name: Lab, public_url: "https://{HOST}"}}
directory: {{servers: [ldaps://d.example.org], users: {{base_dn: "dc=example,dc=org"}}}}
sizes: {{small: {{cpu: 1, memory: 1G, default: true}}}}
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("tls", "health"):
        (tmp_path / name).mkdir()
    (tmp_path / "site.yaml").write_text(SITE)
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path))
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(tmp_path / "site.yaml"))
    monkeypatch.delenv("LABCOMMONS_PUBLIC_URL", raising=False)
    return tmp_path


def renew() -> int:
    return CliRunner().invoke(tls_cli.group, ["renew"]).exit_code


def served(data: Path) -> bytes:
    """What nginx would read, which is a pair that belongs together."""
    place = data / "tls" / tls_served.SERVED
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(place)
    return place.read_bytes()


def state(data: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((data / "health" / tls_served.STATE).read_text())
    return found


def test_it_is_renewed_before_its_end_and_else_left_alone(data: Path) -> None:
    hosts = [HOST, f"*.{HOST}"]
    long_ago = datetime.now(UTC) - tls.LIFETIME + timedelta(days=20)
    tls.init(data / "tls", hosts, long_ago)
    tls_served.publish(data / "tls")
    old = served(data)
    assert renew() == 0
    new = served(data)
    assert new != old
    assert renew() == 0
    assert served(data) == new
    assert (data / "tls" / tls_served.SERVED).stat().st_mode & 0o777 == 0o600
    assert state(data)["problem"] == ""


def test_killed_between_the_two_files_the_old_pair_is_served_and_the_next_makes_both(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls.init(data / "tls", [HOST, f"*.{HOST}"], datetime.now(UTC) - tls.LIFETIME)
    tls_served.publish(data / "tls")
    old = served(data)

    with monkeypatch.context() as patch:
        patch.setattr(tls, "write", write_until_the_certificate)
        with pytest.raises(KeyboardInterrupt):
            tls.init(data / "tls", [HOST, f"*.{HOST}"])
    with pytest.raises(TLSError, match="is not the key"):
        tls_served.publish(data / "tls")
    assert served(data) == old
    assert renew() == 0
    assert served(data) != old


write = tls.write


def write_until_the_certificate(path: Path, content: bytes, mode: int) -> None:
    if path.suffix == ".crt":
        raise KeyboardInterrupt
    write(path, content, mode)


def test_a_site_that_replaces_its_own_files_one_after_the_other(data: Path) -> None:
    assert renew() == 0
    first = served(data)
    (data / "other").mkdir()
    authority = Authority(data / "other")
    crt, key = authority.issue(HOST, f"*.{HOST}")
    (data / "tls" / "server.crt").write_bytes(Path(crt).read_bytes())
    assert renew() == 1
    assert served(data) == first
    assert "is not the key" in str(state(data)["problem"])
    (data / "tls" / "server.key").write_bytes(Path(key).read_bytes())
    assert renew() == 0
    assert Path(crt).read_bytes() in served(data)


def test_what_cannot_be_written_is_said_and_the_old_is_served(data: Path) -> None:
    assert renew() == 0
    first = served(data)
    (data / "tls" / "ca.key").write_text("nonsense")
    assert renew() == 1
    assert "not a PEM private key" in str(state(data)["problem"])
    assert served(data) == first


class Enough(Exception):
    pass


def test_the_keeper_tries_again_ever_later_and_at_once_after_a_change(tmp_path: Path) -> None:
    """Failures double the pause; a file that changes is looked at within one look."""
    now, tried = 0.0, list[float]()

    def renews() -> bool:
        tried.append(now)
        return len(tried) >= 4

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now == 1000:
            (tmp_path / "server.crt").write_text("another")
        if now > 5000:
            raise Enough

    with pytest.raises(Enough):
        tls_keeper.keep(tmp_path, renews, sleep, lambda: now)
    assert tried == [0, 60, 180, 420, 1000, 4600]


def test_a_renewal_that_hangs_is_ended() -> None:
    assert not tls_keeper.call(["sleep", "60"], limit=0.1)
    assert not tls_keeper.call(["no-such-program"])
    assert tls_keeper.call(["true"])
