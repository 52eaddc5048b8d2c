"""A lead's links: the registry, which may read every team's folder, follows none to another's."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from kernels.service.roots import Root, RootScanner
from tests.kernels.conftest import IPYKERNEL, write_kernel, write_notes, write_program

SECRET = "s3cr3t-of-team-b"


def make(prefix: Path, secret: str = "") -> Path:
    """An environment that says its secret wherever the registry looks."""
    meta = prefix / "conda-meta"
    (prefix / "etc/conda/env_vars.d").mkdir(parents=True)
    meta.mkdir()
    (meta / "history").touch()
    write_program(prefix)
    write_kernel(prefix, {**IPYKERNEL, "display_name": f"Kernel {secret}", "env": {"K": secret}})
    (meta / "python-3.13.5-h0_0_cp.json").touch()
    if secret:
        (meta / "state").write_text(json.dumps({"env_vars": {"TOKEN": secret}}))
        (prefix / "etc/conda/env_vars.d/x.json").write_text(json.dumps({"OTHER": secret}))
        write_notes(prefix, json.dumps({"title": secret, "withdrawn": secret}))
    return prefix


@pytest.fixture
def teams(tmp_path: Path) -> Path:
    make(tmp_path / "teams/b/envs" / f"project-{SECRET}", SECRET)
    make(tmp_path / "teams/a/envs/own")
    return tmp_path / "teams"


def look(teams: Path) -> Any:
    return RootScanner(Root("team-a", "team: a", teams / "a")).look()


LINKS = (
    "",
    "conda-meta",
    "conda-meta/history",
    "conda-meta/state",
    "conda-meta/labcommons",
    "conda-meta/labcommons/version.json",
    "etc",
    "etc/conda/env_vars.d",
    "etc/conda/env_vars.d/x.json",
    "share",
    "share/jupyter/kernels",
    "share/jupyter/kernels/python3",
    "share/jupyter/kernels/python3/kernel.json",
    "bin",
)


@pytest.mark.parametrize("inner", LINKS)
@pytest.mark.parametrize("way", ["absolute", "relative", "by-another"])
def test_no_link_of_an_environment_leads_to_another_teams(
    teams: Path, inner: str, way: str
) -> None:
    prefix = make(teams / "a/envs/peek")
    target = teams / "b/envs" / f"project-{SECRET}" / inner
    link = prefix / inner
    if link.is_dir():
        shutil.rmtree(link)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    if way == "relative":
        up = "../" * len(link.parent.relative_to(teams).parts)
        link.symlink_to(f"{up}{target.relative_to(teams)}")
    elif way == "by-another":
        (teams / "a/stepping-stone").symlink_to(target)
        link.symlink_to(teams / "a/stepping-stone")
    else:
        link.symlink_to(target)
    seen = look(teams)
    assert SECRET not in repr(seen)
    found = {Path(one.environment.place.prefix).name: one.environment for one in seen.found}
    assert found["own"].state == "healthy"
    if inner in ("", "conda-meta", "conda-meta/history", "bin"):
        assert "leads out" in str(found["peek"].reason)


def test_the_folder_of_environments_is_no_link_either(teams: Path) -> None:
    shutil.rmtree(teams / "a/envs")
    (teams / "a/envs").symlink_to(teams / "b/envs")
    seen = look(teams)
    assert SECRET not in repr(seen)
    assert seen.found == ()


def test_a_link_within_the_teams_own_folder_is_followed(teams: Path) -> None:
    made = make(teams / "a/envs/.versions/published/1")
    (teams / "a/envs/published").symlink_to(".versions/published/1")
    (made / "bin/python3.13").write_bytes((made / "bin/python").read_bytes())
    (made / "bin/python3.13").chmod(0o755)
    (made / "bin/python").unlink()
    (made / "bin/python").symlink_to("python3.13")
    found = {Path(one.environment.place.prefix).name: one for one in look(teams).found}
    assert found["published"].environment.state == "healthy"
    assert found["published"].version == "1"


def test_a_link_that_changes_while_it_is_looked_at_leads_nowhere_else(teams: Path) -> None:
    prefix, fresh = teams / "a/envs/peek", teams / "a/fresh"
    make(teams / "a/good")
    ended = threading.Event()

    def swap() -> None:
        targets = [teams / "a/good", teams / "b/envs" / f"project-{SECRET}"]
        while not ended.is_set():
            for target in targets:
                fresh.symlink_to(target)
                fresh.rename(prefix)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(100):
            assert SECRET not in repr(look(teams))
    finally:
        ended.set()
        swapping.join()
