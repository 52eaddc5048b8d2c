"""``labcommons env`` for versions: what it prints, what it refuses, and its exit status."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from commons.store import Store
from environments import catalog
from environments.catalog import CatalogEntry
from environments.channel import Source
from environments.cli import builds
from environments.solve import solve
from environments.spec import EnvironmentSpec
from rig.channel import TinyChannel

WriteSpec = Callable[..., EnvironmentSpec]
Labcommons = Callable[..., Result]
OLD = CatalogEntry(
    name="tiny",
    version="20260501-aaaaaaaa",
    image="labcommons/env-tiny:20260501-aaaaaaaa",
    image_id="sha256:1",
    prefix="/opt/conda/envs/tiny",
    python="3.10.4",
    lock_digest="d" * 64,
    channels=["https://channel.invalid/main/"],
    words={"title": "Tiny", "description": ""},
    main_packages=[],
    packages=[
        {"name": "alpha", "version": "1.0", "build": "0", "channel": "x"},
        {"name": "beta", "version": "1.0", "build": "0", "channel": "x"},
    ],
    kernelspecs={},
    created_at=datetime(2026, 5, 1),
    tag="1.0.0",
    size=150 * 2**20,
    findings=[{"level": "warn", "code": "pip", "message": "beside", "remedy": "conda"}],
)
NEW = replace(
    OLD,
    version="20260601-bbbbbbbb",
    image_id="sha256:2",
    created_at=OLD.created_at + timedelta(31),
    tag="1.1.0",
    packages=[
        {"name": "alpha", "version": "2.0", "build": "0", "channel": "x"},
        {"name": "gamma", "version": "1.0", "build": "0", "channel": "x"},
    ],
)


@pytest.fixture
def here(tmp_path: Path) -> Store:
    """A store of one environment with two versions."""
    store = Store(f"sqlite:///{tmp_path}/labcommons.sqlite")
    store.migrate()
    for entry in (OLD, NEW):
        store.transact(lambda session, entry=entry: catalog.record(session, entry))
    return store


@pytest.fixture
def labcommons(here: Store, tmp_path: Path) -> Labcommons:
    """The command, with folders and a store of its own and no site file."""
    variables = {
        "LABCOMMONS_DATABASE_URL": here.url,
        "LABCOMMONS_CONFIG": str(tmp_path),
        "LABCOMMONS_DATA": str(tmp_path / "data"),
        "LABCOMMONS_SITE_FILE": None,
    }

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(builds.env, arguments, env=variables)

    return run


def test_the_list_shows_state_tag_and_pythons_end(labcommons: Labcommons) -> None:
    labcommons("pin", "tiny:1.0.0")
    labcommons("deprecate", "tiny:1.0.0", "--reason", "take 1.1")
    shown = labcommons("list", "--versions").output
    assert "20260501-aaaaaaaa *" in shown
    assert "deprecated" in shown
    assert "3.10.4 (ended)" in shown
    rows = json.loads(labcommons("list", "--json").output)
    assert [(row["version"], row["python_state"]) for row in rows] == [(NEW.version, "ended")]


def test_a_version_is_shown_with_packages_and_findings(labcommons: Labcommons) -> None:
    shown = labcommons("show", "tiny:1.0.0").output
    assert "tiny:20260501-aaaaaaaa (1.0.0)" in shown
    assert "warn: beside; conda" in shown
    assert "beta" in shown
    document = json.loads(labcommons("show", "tiny", "--json").output)
    assert (document["version"], document["state"]) == (NEW.version, "offered")


def test_the_difference_between_two_versions(labcommons: Labcommons) -> None:
    expected = ["~ alpha 1.0 -> 2.0", "- beta 1.0", "+ gamma 1.0"]
    assert labcommons("diff", "tiny").output.splitlines()[1:] == expected
    assert labcommons("diff", "tiny:1.0.0", "tiny:1.1.0").output.splitlines()[1:] == expected
    document = json.loads(labcommons("diff", "tiny", "--json").output)
    assert document["changes"][0] == {"name": "alpha", "before": "1.0", "after": "2.0"}
    assert labcommons("diff", "tiny:1.0.0").exit_code == 1


def test_a_withdrawn_version_is_listed_but_not_offered(labcommons: Labcommons) -> None:
    done = labcommons("withdraw", "tiny:1.1.0", "--reason", "a hole")
    assert done.exit_code == 0, done.output
    assert "withdrawn since" in done.output
    rows = json.loads(labcommons("list", "--json").output)
    assert [row["version"] for row in rows] == [OLD.version]
    assert labcommons("withdraw", "tiny:1.1.0", "--undo").exit_code == 0
    assert json.loads(labcommons("list", "--json").output)[0]["version"] == NEW.version


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("withdraw", "tiny:1.1.0"), 2, "say why"),
        (("withdraw", "tiny", "--reason", "x"), 2, "name the version: tiny:VERSION"),
        (("pin", "tiny:9"), 1, "“tiny” has no version “9”; there are: 20260601-bbbbbbbb"),
        (("show", "nope"), 1, "there is no built environment 'nope'; there are: tiny"),
        (("deprecate", "tiny:1.0.0", "--undo", "--reason", "x"), 2, "--reason or --undo"),
        (("export", "tiny", "--format", "tar"), 2, "--format is one of environment.yml"),
        (("export", "tiny", "--format", "all"), 2, "--output FOLDER"),
        (("export", "tiny"), 1, "does not say what it was made from"),
        (("lock", "--check", "--update", "--all"), 2, "--check changes nothing"),
    ],
)
def test_wrong_use_is_refused_with_the_remedy(
    labcommons: Labcommons, arguments: tuple[str, ...], status: int, words: str
) -> None:
    done = labcommons(*arguments)
    assert done.exit_code == status
    assert words in done.output


def test_a_version_is_exported_in_every_format(
    labcommons: Labcommons, write_spec: WriteSpec, channel: TinyChannel, tmp_path: Path
) -> None:
    spec = write_spec("beta", channels="x")
    folder = tmp_path / "data" / "versions" / "tiny" / NEW.version
    source = Source("x", "https://channel.invalid/main/", str(channel.folder))
    assert spec.folder
    folder.mkdir(parents=True)
    shutil.copy(spec.folder / "environment.yml", folder)
    solve(spec, [source], folder / "pixi.lock", tmp_path / "cache")
    assert "  - beta=1.0=0\n" in labcommons("export", "tiny").output.replace("\n- ", "\n  - ")
    done = labcommons("export", "tiny", "--format", "all", "--output", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "environment.yml",
        "explicit.txt",
        "conda-lock.yml",
        "pixi.lock",
        "requirements.txt",
        "Dockerfile",
    }
    explicit = (tmp_path / "out" / "explicit.txt").read_text()
    assert explicit.count("#sha256:") == 2
    assert "only the versions can be had" in explicit, ".invalid exists at one site only"


def lock_check(labcommons: Labcommons) -> Any:
    return labcommons("lock", "--check", "--all", "--json")


def test_a_sites_ci_learns_whether_a_committed_lock_is_up_to_date(
    labcommons: Labcommons, write_spec: WriteSpec, channel: TinyChannel, tmp_path: Path
) -> None:
    spec = write_spec("beta", channels="x")
    assert spec.folder
    missing = lock_check(labcommons)
    assert missing.exit_code == 1
    assert "pixi.lock is not there; make it with: labcommons env lock --beside tiny" in (
        missing.output
    )
    source = Source("x", "https://channel.invalid/main/", str(channel.folder))
    solve(spec, [source], spec.folder / "pixi.lock", tmp_path / "cache")
    fine = lock_check(labcommons)
    assert fine.exit_code == 0, fine.output
    assert json.loads(fine.output)[0]["state"] == "up to date"
    write_spec("beta", "alpha >=1", channels="x, y")
    stale = lock_check(labcommons)
    assert stale.exit_code == 1
    for line in ("  + package alpha >=1", "  + channel 2 y"):
        assert line in stale.output
    assert "package beta" not in stale.output.split("since then:")[1]


def test_every_command_has_help_with_examples(labcommons: Labcommons) -> None:
    for name, command in builds.env.commands.items():
        shown = labcommons(name, "--help").output
        assert f"labcommons env {name}" in shown, name
        assert command.help


def test_signatures_are_verified_where_no_agent_is_to_be_asked(
    labcommons: Labcommons, tmp_path: Path
) -> None:
    done = labcommons("verify", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["policy"] == "warn"
    assert [(one["version"], one["state"], one["image"]) for one in found["versions"]] == [
        (NEW.version, "unsigned", "not asked"),
        (OLD.version, "unsigned", "not asked"),
    ]
    folder = tmp_path / "data" / "versions" / "tiny" / NEW.version
    folder.mkdir(parents=True)
    (folder / "provenance.dsse.json").write_text("{}")
    wrong = labcommons("verify", "tiny:1.1.0")
    assert wrong.exit_code == 1
    assert "WRONG" in wrong.stdout
    assert "1 of 1 versions do not pass" in wrong.stderr
    assert "has not told its key yet" in labcommons("keys").stdout
