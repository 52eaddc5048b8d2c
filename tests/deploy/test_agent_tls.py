"""Certificates between agent, hub and builders: made once, renewed in time, each for its use."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hub_ext import agent_tls
from hub_ext.tls import TLSError

NAMES = ["ca.crt", "agent.crt", "hub.crt", "builder.crt"]
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def states(folder: Path, now: datetime = NOW, **more: bool) -> dict[str, str]:
    return {one.file.name: one.state for one in agent_tls.init(folder, now, **more)}


def use_of(path: Path) -> tuple[str, list[x509.ObjectIdentifier]]:
    found = x509.load_pem_x509_certificate(path.read_bytes())
    name = str(found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    return name, list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_they_are_made_once_and_nobody_else_reads_the_keys(tmp_path: Path) -> None:
    assert states(tmp_path) == dict.fromkeys(NAMES, "made")
    assert states(tmp_path) == dict.fromkeys(NAMES, "kept")
    for key in tmp_path.glob("*.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert use_of(tmp_path / "agent.crt") == ("agent", [ExtendedKeyUsageOID.SERVER_AUTH])
    for role in agent_tls.CLIENTS:
        assert use_of(tmp_path / f"{role}.crt") == (role, [ExtendedKeyUsageOID.CLIENT_AUTH])


def test_they_are_renewed_half_way_with_their_authority(tmp_path: Path) -> None:
    states(tmp_path)
    later = NOW + agent_tls.LIFETIME - agent_tls.RENEW_BEFORE + timedelta(days=2)
    assert states(tmp_path, later) == dict.fromkeys(NAMES, "made")
    assert states(tmp_path, new_ca=True) == dict.fromkeys(NAMES, "made")


@pytest.mark.parametrize("lost", ["agent.key", "hub.crt", "builder.key", "ca.key"])
def test_what_was_lost_is_made_anew(tmp_path: Path, lost: str) -> None:
    states(tmp_path)
    (tmp_path / lost).unlink()
    assert states(tmp_path)[f"{lost.partition('.')[0]}.crt"] == "made"
    assert states(tmp_path) == dict.fromkeys(NAMES, "kept")


def test_a_key_of_another_authority_is_not_used(tmp_path: Path) -> None:
    states(tmp_path)
    agent_tls.init(tmp_path / "other")
    (tmp_path / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(TLSError, match="not the key"):
        states(tmp_path)
