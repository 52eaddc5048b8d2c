"""``labcommons env check``: a repository of environments in a site's own CI."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from commons.signatures import dsse, statement
from commons.signatures.statement import Facts, Identity
from environments.channel import Source
from environments.check_formats import as_junit
from environments.checking import Problem, known_as
from environments.checking import Result as Checked
from environments.cli import builds
from environments.lock import read_lock
from environments.messages.check import NO_LOCK
from environments.solve import solve
from environments.spec import EnvironmentSpec
from rig.channel import TinyChannel

WriteSpec = Callable[..., EnvironmentSpec]
Check = Callable[..., Result]
KEY = Ed25519PrivateKey.generate()
HOLE = {
    "id": "PYSEC-2026-1",
    "affected": [{"package": {"ecosystem": "PyPI", "name": "alpha"}, "versions": ["1.0"]}],
}


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """The command over the folder ``environments``, without a site."""

    def run(*words: str) -> Result:
        return CliRunner(env={"LABCOMMONS_SITE_FILE": None}).invoke(
            builds.env, ["check", str(tmp_path / "environments"), *words]
        )

    return run


@pytest.fixture
def locked(write_spec: WriteSpec, channel: TinyChannel, tmp_path: Path) -> EnvironmentSpec:
    """An environment with a fresh lock: beta, and alpha 1.0."""
    spec = write_spec("beta", channels="x")
    assert spec.folder
    source = Source("x", "https://channel.invalid/main/", str(channel.folder))
    solve(spec, [source], spec.folder / "pixi.lock", tmp_path / "cache")
    return spec


def problems(result: Result) -> list[tuple[str, str, str]]:
    found = json.loads(result.stdout)
    return [(p["level"], p["rule"], p["code"]) for one in found for p in one["problems"]]


def test_what_is_in_order_passes(check: Check, locked: EnvironmentSpec) -> None:
    done = check("--strict")
    assert (done.exit_code, done.stdout) == (0, "1 environments: 0 errors, 0 warnings\n")


def test_a_missing_lock_is_a_warning_and_a_stale_one_an_error(
    check: Check, locked: EnvironmentSpec, write_spec: WriteSpec
) -> None:
    assert locked.folder
    write_spec("beta", "alpha >=1", channels="x")
    stale = check("--format", "json")
    assert stale.exit_code == 1
    assert ("error", "lock", "stale") in problems(stale)
    assert "+ package alpha >=1" in stale.stdout
    (locked.folder / "pixi.lock").unlink()
    assert problems(check("--format", "json")) == [("warning", "lock", "no-lock")]
    assert check().exit_code == 0
    assert check("--strict").exit_code == 1
    (locked.folder / "pixi.lock").write_text("version: 6\n")
    assert check().exit_code == 1


def test_a_file_that_is_wrong_is_told_with_its_line(
    check: Check, locked: EnvironmentSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "environments" / "deep" / "broken"
    folder.mkdir(parents=True)
    (folder / "environment.yml").write_text("name: broken\ndependencies:\n  - numpy >=1,,\n")
    done = check("--format", "sarif")
    assert done.exit_code == 1
    [run] = json.loads(done.stdout)["runs"]
    [one] = run["results"]
    assert (one["level"], one["ruleId"]) == ("error", "spec")
    place = one["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "deep/broken/environment.yml"},
        "region": {"startLine": 3},
    }
    assert run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == "spec"


def test_names_are_taken_once(check: Check, locked: EnvironmentSpec, tmp_path: Path) -> None:
    assert locked.folder
    for name in ("other/tiny", "other/Tiny"):
        (tmp_path / "environments" / name).mkdir(parents=True)
        spec = (locked.folder / "environment.yml").read_text()
        (tmp_path / "environments" / name / "environment.yml").write_text(spec)
    found = problems(check("--format", "json"))
    assert ("error", "names", "twice") in found
    assert ("error", "names", "spec_folder_name") in found


def test_known_holes_of_what_is_locked_are_told(
    check: Check, locked: EnvironmentSpec, tmp_path: Path
) -> None:
    (tmp_path / "osv.json").write_text(json.dumps(HOLE))
    done = check("--advisories", str(tmp_path / "osv.json"))
    assert done.exit_code == 1
    assert "tiny/pixi.lock:1: error: alpha 1.0 has PYSEC-2026-1 (high)" in done.stdout


def test_the_sites_rules_hold(check: Check, locked: EnvironmentSpec, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(
        json.dumps(
            {
                "version": 1,
                "directory": {"servers": ["ldaps://d.example.org"], "users": {"base_dn": "dc=x"}},
                "sizes": {"small": {"cpu": 1, "memory": "1G"}},
                "environments": {
                    "policy": {"denied_packages": {"alpha": "old"}},
                    "scan": {"advisories": "/not/here"},
                },
            }
        )
    )
    done = check("--site", str(site))
    assert done.exit_code == 1
    assert "package alpha (needed by" in done.stdout
    assert "/not/here is not here" in done.stderr


def test_a_signed_statement_beside_it_is_checked(
    check: Check, locked: EnvironmentSpec, tmp_path: Path
) -> None:
    assert locked.folder
    digest = read_lock(locked.folder / "pixi.lock").digest
    envelope, key = locked.folder / "provenance.dsse.json", tmp_path / "key.pem"
    key.write_bytes(dsse.as_pem(KEY.public_key()))

    def sign(lock: str) -> None:
        facts = Facts("tiny", "1", Identity(f"sha256:{'a' * 64}"), lock, {})
        payload = statement.compose(facts, "lab", "", [], "1")
        envelope.write_bytes(dsse.Envelope(payload).with_signature(KEY).as_bytes())

    sign(digest)
    assert check("--key", str(key), "--strict").exit_code == 0
    assert problems(check("--format", "json")) == [("error", "signatures", "wrong")]
    sign("0" * 64)
    found = problems(check("--format", "json", "--key", str(key)))
    assert found == [("warning", "signatures", "other-lock")]
    envelope.unlink()
    envelope.symlink_to(key)
    assert problems(check("--format", "json")) == [("error", "signatures", "unreadable")]


def test_junit_has_a_case_for_each_thing_looked_at_and_no_character_that_xml_forbids() -> None:
    problem = Problem("error", "lock", "no-lock", "a\x00\ud800/environment.yml", NO_LOCK())
    text = as_junit([Checked("a\x1b", "a/environment.yml", (problem,))])
    root: Any = ElementTree.fromstring(text)
    [suite] = root
    assert suite.attrib == {"name": "a\ufffd", "tests": "6", "failures": "1"}
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["lock"]


def test_nothing_to_check_is_an_error_and_so_is_a_wrong_format(
    check: Check, tmp_path: Path
) -> None:
    (tmp_path / "environments" / ".hidden" / "x").mkdir(parents=True)
    (tmp_path / "environments" / ".hidden" / "x" / "environment.yml").write_text("")
    assert check().exit_code == 1
    assert "there is no environment.yml" in check().stderr
    assert check("--format", "xml").exit_code == 2


def test_condas_names_are_pypis_for_advisories() -> None:
    named = known_as([("pytorch", "2.3", False), ("zlib", "1", False), ("torch", "2", True)])
    assert [one.distributions for one in named] == [
        (("torch", "2.3"),),
        (("torch", "2"),),
    ]
