"""The site's secrets in a backup: the recovery key alone opens them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from hub_ext.backup import keys
from hub_ext.backup.keys import RecoveryKey
from hub_ext.backup.places import Room
from hub_ext.backup.trouble import BackupError


@pytest.fixture
def room(tmp_path: Path) -> Room:
    found = Room(tmp_path / "data")
    found.folder.mkdir(parents=True)
    return found


def sealed(room: Room, tmp_path: Path) -> Path:
    vault = tmp_path / "data" / "secrets"
    vault.mkdir(exist_ok=True)
    (vault / "crypt-key").write_text("very secret")
    (vault / "crypt-key").chmod(0o600)
    (tmp_path / ".env").write_text("A=b")
    file = tmp_path / "sealed"
    keys.seal(tmp_path / "data", ["secrets", "not-there"], [tmp_path / ".env"], room, file)
    return file


def test_what_is_sealed_opens_with_the_recovery_key_alone(room: Room, tmp_path: Path) -> None:
    made = keys.make(room, "/srv/backup")
    kept = tmp_path / "recovery.key"
    kept.write_text(made.text("lab"))
    key = RecoveryKey.read(kept)
    assert key == made
    assert key.identity not in room.recipient.read_text() + room.password.read_text()
    assert keys.recipient_of(key.identity) == room.recipient.read_text().strip()
    file = sealed(room, tmp_path)
    assert b"secret" not in file.read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    keys.unseal(file, key.identity, out)
    assert (out / "data/secrets/crypt-key").read_text() == "very secret"
    assert (out / "data/secrets/crypt-key").stat().st_mode & 0o777 == 0o600
    assert (out / "checkout/.env").read_text() == "A=b"
    # Nobody takes its place by mistake.
    with pytest.raises(BackupError, match="is there already"):
        keys.make(room, "/srv/backup")
    room.password.unlink()
    another = keys.make(room, "")
    with pytest.raises(BackupError, match="recovery key of another site"):
        keys.unseal(file, another.identity, out)


@pytest.mark.parametrize("name", ["/etc/passwd", "../../x", "secrets/x", "data/../../x"])
def test_nothing_is_laid_down_elsewhere(room: Room, tmp_path: Path, name: str) -> None:
    """Kind: an archive that somebody else has made."""
    key = keys.make(room, "")
    tar = tmp_path / "tar"
    with tarfile.open(tar, "w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with tar.open("rb") as clear, pytest.raises((BackupError, tarfile.FilterError)):
        keys._extract(clear, out)
    assert key
    assert not [one for one in (tmp_path / "deep").rglob("*") if one.is_file()]


@pytest.mark.parametrize("text", ["", "x", "repository-password: x\nage-identity: x", "\0" * 99])
def test_what_is_no_recovery_key_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(BackupError, match="is no recovery key"):
        RecoveryKey.read(file)
