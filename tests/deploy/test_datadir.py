"""Folders and secrets under data/, also after a run that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import datadir

SCRIPT = Path(datadir.__file__)
ME = os.geteuid()


def secrets_of(data: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (data / "secrets").iterdir()}


def test_every_secret_is_its_own_and_only_its_owners(tmp_path: Path) -> None:
    made = datadir.prepare(tmp_path, ME)
    secrets = secrets_of(tmp_path)
    assert set(made) == set(datadir.SECRETS)
    assert len(set(secrets.values())) == len(secrets)
    assert len(bytes.fromhex(secrets["cookie-secret"])) == 32
    for path in (tmp_path / "secrets").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_a_secret_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "directory-password").write_text("the directory's own")
    datadir.prepare(tmp_path, ME)
    first = secrets_of(tmp_path)
    assert datadir.prepare(tmp_path, ME) == []
    assert secrets_of(tmp_path) == first
    assert first["directory-password"] == "the directory's own"


def test_modes_that_were_loosened_are_mended(tmp_path: Path) -> None:
    datadir.prepare(tmp_path, ME)
    (tmp_path / "secrets" / "proxy-token").chmod(0o644)
    datadir.prepare(tmp_path, ME)
    assert (tmp_path / "secrets" / "proxy-token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("moment", ["fsync", "link", "unlink"])
def test_a_run_killed_while_it_writes_a_secret_leaves_none_half_written(
    tmp_path: Path, moment: str
) -> None:
    # The first call of that name after `count` others is the process's last.
    program = (
        "import os, signal, sys, runpy\n"
        "calls = 0\n"
        f"real = os.{moment}\n"
        "def last(*arguments, **options):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*arguments, **options)\n"
        f"os.{moment} = last\n"
        f"sys.argv = ['datadir.py', {str(tmp_path)!r}, '{ME}']\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL
    whole = {n: text for n, text in secrets_of(tmp_path).items() if not n.startswith(".")}
    assert all(len(text) == 64 for text in whole.values())

    datadir.prepare(tmp_path, ME)
    after = secrets_of(tmp_path)
    assert set(after) == {*datadir.SECRETS, "pgpass", datadir.BUILD_ENVIRONMENT}
    assert {name: after[name] for name in whole} == whole


def test_an_empty_secret_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "crypt-key").touch()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(ME)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "crypt-key is empty" in done.stderr


def test_a_folder_that_is_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    data = tmp_path / "data"
    data.mkdir()
    (data / "hub").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="is a link"):
        datadir.prepare(data, ME)
    assert elsewhere.stat().st_mode & 0o777 == 0o755
