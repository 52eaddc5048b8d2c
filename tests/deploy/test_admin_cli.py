"""`labcommons site check` and `labcommons store migrate`, as an administrator runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from .conftest import ROOT


def labcommons(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub_ext.cli", *words],
        env={**os.environ, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_both_site_files_that_we_ship_are_right() -> None:
    for name in ("config/site.yaml", "config/demo/site.yaml"):
        done = labcommons("site", "check", name, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["demo"] == ("demo" in name)


def test_the_options_of_a_server_are_listed() -> None:
    listed = labcommons("site", "options").stdout.splitlines()
    described = json.loads(labcommons("site", "options", "--json").stdout)
    assert [line.split()[0] for line in listed] == list(described["properties"])
    assert described["additionalProperties"] is False


def test_a_wrong_site_file_is_refused_with_the_key(tmp_path: Path) -> None:
    wrong = tmp_path / "site.yaml"
    wrong.write_text("version: 1\nsizes: {}\n")
    done = labcommons("site", "check", LABCOMMONS_SITE_FILE=str(wrong))
    assert done.returncode == 1
    assert "directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_migrating_twice_is_harmless(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/labcommons.sqlite"
    for _ in range(2):
        done = labcommons("store", "migrate", LABCOMMONS_DATABASE_URL=url)
        assert done.returncode == 0, done.stderr


def test_a_database_that_cannot_be_reached_is_named_without_its_password() -> None:
    url = "postgresql+psycopg://labcommons:secret@127.0.0.1:1/labcommons"
    done = labcommons("store", "migrate", LABCOMMONS_DATABASE_URL=url)
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
