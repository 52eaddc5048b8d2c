"""The site returns by itself, and `make down` keeps it down; a copy never takes the original's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy import service, up
from deploy.settings import ROOT, Settings
from deploy.shell import Failure
from deploy.steps import Step

SITE = Settings("lab", (), "site.yaml", Path("/nowhere"), "127.0.0.1", 8443, 8080)


@pytest.mark.parametrize("name", ["checkout", "100% lab's “one”"])
def test_the_unit_is_one_that_systemd_takes(
    environment: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    root = tmp_path / name
    root.mkdir()
    environment.setenv("LABCOMMONS_DATA", '/srv/100% "own"')
    file = tmp_path / "labcommons-lab.service"
    file.write_text(service.text(SITE, root), "utf-8")
    # Another system's units are not of interest, and not there in a container.
    words = ["systemd-analyze", "verify", "--recursive-errors=no", "--man=no", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert not [line for line in done.stderr.splitlines() if file.name in line], done.stderr
    assert done.returncode == 0, done.stderr


def test_a_unit_is_there_for_as_long_as_the_site_shall_run(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    programs, units = tmp_path / "bin", tmp_path / "units"
    programs.mkdir()
    units.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    (programs / "systemctl").chmod(0o755)
    environment.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    environment.setenv("LABCOMMONS_SYSTEMD", str(units))
    step = Step(sys.stdout)
    service.install(SITE, step)
    [unit] = units.iterdir()
    assert step.result == "labcommons-lab.service, enabled"
    assert f'ExecStart="{sys.executable}" -m deploy start' in unit.read_text()
    service.remove(SITE)
    service.remove(SITE)
    assert not list(units.iterdir())
    assert calls.read_text().splitlines() == [
        "daemon-reload",
        "enable labcommons-lab.service",
        "disable labcommons-lab.service",
        "daemon-reload",
    ]
    environment.setenv("LABCOMMONS_SYSTEMD", "")
    service.install(SITE, step)
    assert "Docker starts the site" in step.result
    assert not list(units.iterdir())


class _Engine:
    """An Engine that lists the folders of a project's containers."""

    def __init__(self, *folders: Path) -> None:
        self.folders = folders

    def docker(self, *_words: Any) -> str:
        return "\n".join(map(str, self.folders))


def test_a_copy_of_the_same_name_is_refused_beside_the_original(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").touch()
    with pytest.raises(Failure, match=str(tmp_path)) as caught:
        up.of_this_folder(_Engine(ROOT, tmp_path), SITE)  # type: ignore[arg-type]
    assert "COMPOSE_PROJECT_NAME" in caught.value.remedy


def test_a_checkout_that_was_moved_goes_on(tmp_path: Path) -> None:
    up.of_this_folder(_Engine(ROOT, tmp_path / "gone"), SITE)  # type: ignore[arg-type]
    up.of_this_folder(_Engine(), SITE)  # type: ignore[arg-type]
