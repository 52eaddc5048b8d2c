"""Backups that go wrong, with the image's restic: a full target, a kill, another key, damage."""

from __future__ import annotations

import json
import secrets
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from rig.backup_box import Box
from rig.images import ours

pytestmark = pytest.mark.docker


@pytest.fixture(scope="session")
def image() -> str:
    ours("hub")
    return ours("backup")


@pytest.fixture
def box(tmp_path: Path, image: str) -> Box:
    return Box(tmp_path, image)


def test_a_full_target_is_said_and_what_it_holds_stays(box: Box, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", box.target], check=True)
    try:
        box.key()
        box.good("create")
        (box.data / "homes" / "alice" / "large").write_bytes(secrets.token_bytes(20_000_000))
        done = box.run("create")
        assert done.returncode == 1
        assert "the target is full: give it room" in done.stderr
        assert "no space left" in str(box.state()["problem"])
        assert not (box.data / "backup" / "stage").exists()
        (box.data / "homes" / "alice" / "large").unlink()
        assert len(json.loads(box.good("list", "--json"))) == 1
        box.good("verify")
        subprocess.run(["mount", "-o", "remount,size=60m", box.target], check=True)
        box.good("create")
        assert box.state()["problem"] == ""
    finally:
        subprocess.run(["umount", box.target], check=False)


def test_a_kill_in_the_middle_is_put_right_by_the_next(box: Box) -> None:
    box.key()
    (box.data / "homes" / "alice" / "large").write_bytes(secrets.token_bytes(150_000_000))
    for after in (1.5, 2.5, 3.5):
        process = subprocess.Popen(box.words("create", options="--name=lc-backup-killed"))
        time.sleep(after)
        subprocess.run(["docker", "kill", "lc-backup-killed"], capture_output=True, check=False)
        process.wait(60)
    made = json.loads(box.good("create", "--json"))
    assert made["unread"] == []
    box.good("verify")
    # Of one day one stays.
    assert len(json.loads(box.good("list", "--json"))) == 1
    assert not list((box.data / "backup").glob("verify-*"))


def test_a_restore_takes_the_right_key_and_an_empty_folder(box: Box, tmp_path: Path) -> None:
    assert "run labcommons backup init" in box.run("create").stderr
    box.key()
    assert "is there already" in box.run("init").stderr
    (box.data / "homes" / "alice" / "mine").write_text("x")
    box.good("create")
    other = tmp_path / "other"
    (other / "homes").mkdir(parents=True)
    refused = box.run("restore", "--key", "/keys/key", data=other)
    assert "is restored into an empty one" in refused.stderr
    (other / "homes").rmdir()
    key = (tmp_path / "key").read_text()
    wrong = key.replace("repository-password: ", "repository-password: 0")
    (tmp_path / "wrong").write_text(wrong)
    refused = box.run("restore", "--key", "/keys/wrong", data=other)
    assert "does not open with this password" in refused.stderr
    found = json.loads(box.good("restore", "--key", "/keys/key", data=other))
    assert found["format"] == 1
    assert (other / "homes" / "alice" / "mine").read_text() == "x"
    assert (other / "secrets" / "crypt-key").read_text() == "secret"
    with closing(sqlite3.connect(other / "store" / "labcommons.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM told").fetchone() == (0,)
    assert not (other / "backup" / "stage").exists()
    # It goes on from there: the same key, the same repository.
    box.good("create", data=other)


def test_damage_is_found(box: Box) -> None:
    box.key()
    (box.data / "homes" / "alice" / "large").write_bytes(secrets.token_bytes(5_000_000))
    box.good("create")
    pack = max((box.target / "data").rglob("*"), key=lambda one: one.stat().st_size)
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:-100])
    done = box.run("verify")
    assert done.returncode == 1
    assert box.state()["verify_problem"]
