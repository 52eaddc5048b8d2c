"""What an administrator types as bin/labcommons is run in a builder with no more than it needs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy.builder import builder, databases
from deploy.settings import Settings

from .conftest import ROOT


def test_a_builder_writes_to_its_own_folders_and_reads_what_is_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql+psycopg://admin:secret@db/lab"
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", url)
    assert databases("LABCOMMONS_DATABASE_URL") == {"LABCOMMONS_DATABASE_URL": url}
    site = Settings("lab", ("demo",), "site.yaml", tmp_path, "127.0.0.1", 8443, 8080)
    words = builder(site, ["env", "build", "--all"])
    assert words[-5:] == ["labcommons/builder", "labcommons", "env", "build", "--all"]
    assert "--cap-drop=ALL" in words
    assert not any("postgresql" in word for word in words)
    assert not any("docker.sock" in word or "group-add" in word for word in words)
    volumes = [word.removeprefix("--volume=") for word in words if word.startswith("--volume=")]
    ours = {word.partition(":")[0]: word for word in volumes if word.startswith(str(tmp_path))}
    assert {Path(place).name for place, word in ours.items() if not word.endswith(":ro")} == {
        "store", "channel", "channels", "command", "locks", "cache", "versions", "logs"
    }  # fmt: skip
    assert {Path(place).name for place, word in ours.items() if word.endswith(":ro")} == {
        "advisories", "signing", "logins", "pgpass", "ca.crt", "builder.crt", "builder.key"
    }  # fmt: skip


def test_the_command_says_what_to_do_where_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "labcommons"
    link.symlink_to(ROOT / "bin" / "labcommons")
    done = subprocess.run(
        [link, "env", "list"],
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock", "PATH": os.defpath},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "What to do:" in done.stderr
    assert "Traceback" not in done.stderr
