"""``labcommons env create|publish|promote|delete|tiers|builds``, as an administrator runs it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hub_ext.cli import cli
from hub_ext.store import Store
from hub_ext.store.environments import BuildState
from spawner.tiers import jobs, shelf
from spawner.tiers.tier import Kind, Tier

SITE = """\
version: 1
directory:
  servers: [ldaps://d.example.org]
  users: {base_dn: "dc=x"}
  teams: {vision: {}}
sizes: {small: {cpu: 1, memory: 1G}}
"""
SPEC = "name: study\nchannels: [conda-forge]\ndependencies: [python, ipykernel]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A site of its own, as the variables name it."""
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / "environment.yml").write_text(SPEC)
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(tmp_path / "site.yaml"))
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", url)
    monkeypatch.chdir(tmp_path)
    store = Store(url)
    store.migrate()
    return store


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["env", *words])


def only_job(store: Store) -> Any:
    [job] = store.transact(jobs.recent, read=True)
    return job


def test_a_file_becomes_a_job_in_a_persons_name(here: Store) -> None:
    done = run("create", "environment.yml", "--user", "alice", "--no-wait", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["source"] == "personal"
    job = only_job(here)
    assert (job.owner, job.name, job.requested_by) == ("alice", "study", "alice")


def test_without_a_person_it_is_a_shared_one(here: Store) -> None:
    assert run("create", "environment.yml", "--name", "base", "--no-wait").exit_code == 0
    job = only_job(here)
    assert (job.tier, job.name, job.requested_by) == ("shared", "base", "")


@pytest.mark.parametrize(
    "words",
    [
        ("create", "environment.yml", "--to", "personal"),
        ("create", "environment.yml", "--to", "../x"),
        ("publish", "study", "--to", "team-vision"),
        ("promote", "study"),
        ("delete", "study", "--yes"),
    ],
)
def test_wrong_usage_is_told_and_makes_no_job(here: Store, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2
    assert here.transact(jobs.recent, read=True) == []


def test_what_is_not_there_cannot_be_published(here: Store) -> None:
    done = run("publish", "study", "--user", "bob", "--to", "team-vision")
    assert done.exit_code == 1
    assert "There is no environment “study” in “personal”" in done.output


def test_deleting_asks_first(here: Store) -> None:
    assert run("delete", "shared/x").exit_code == 1
    assert here.transact(jobs.recent, read=True) == []
    assert run("delete", "shared/x", "--yes", "--no-wait").exit_code == 0
    assert only_job(here).action == "delete"


def test_listings_are_for_people_and_for_programs(here: Store) -> None:
    assert "env create" in run("tiers").output
    facts = {
        "python": "3.13.5", "lock_digest": "ab", "size": 1, "spec": SPEC, "words": "", "lock": "l",
        "packages": [], "kernels": {}, "findings": [], "origin": None, "exports": {},
    }  # fmt: skip
    here.transact(
        lambda s: shelf.record(
            s, Tier(Kind.PERSONAL, "bob"), "study", "20261121-aa", built_by="bob",
            created_at=datetime(2026, 11, 21), facts=facts, kept=set(),
        )
    )  # fmt: skip
    assert json.loads(run("tiers", "--json").output)[0]["owner"] == "bob"
    assert json.loads(run("tiers", "--user", "alice", "--json").output) == []
    assert "personal:bob/study" in run("tiers").output
    done = run("publish", "study", "--user", "bob", "--to", "team-vision", "--no-wait")
    assert done.exit_code == 0, done.output
    assert "publish" in run("builds").output
    here.transact(lambda s: jobs.cancel(s, only_job(here).id))
    assert json.loads(run("builds", "--json").output)[0]["state"] == BuildState.CANCELLED


def test_a_version_of_a_team_is_decided_about_in_its_leads_name(
    here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "hub").mkdir(parents=True)
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path / "data"))
    facts = {
        "python": "3.13.5", "lock_digest": "ab", "size": 1, "spec": SPEC, "words": "", "lock": "l",
        "packages": [], "kernels": {}, "findings": [], "origin": None, "exports": {},
        "tag": "1.0.0",
    }  # fmt: skip
    here.transact(
        lambda s: shelf.record(
            s, Tier(Kind.TEAM, "vision"), "study", "20261121-aa", built_by="bob",
            created_at=datetime(2026, 11, 21), facts=facts, kept=set(),
        )
    )  # fmt: skip
    which = "team-vision/study:1.0.0"
    assert run("withdraw", which, "--reason", "wrong units").exit_code == 2, "whose name?"
    assert run("withdraw", which, "--user", "bob").exit_code == 2, "why?"
    done = run("withdraw", which, "--reason", "wrong units", "--user", "bob")
    assert done.exit_code == 0, done.output
    assert "team-vision/study:20261121-aa  withdrawn since" in done.output
    job = only_job(here)
    assert (job.action, job.version, job.requested_by) == ("decide", "20261121-aa", "bob")
    [row] = json.loads(run("tiers", "--json").output)
    assert (row["state"], row["withdrawn_reason"], row["tag"]) == (
        "withdrawn", "wrong units", "1.0.0"
    )  # fmt: skip
    assert run("pin", which, "--user", "bob").exit_code == 0
    assert "(1.0.0, withdrawn, pinned)" in run("tiers").output
    events = [
        json.loads(line) for line in (tmp_path / "data/hub/audit.jsonl").read_text().splitlines()
    ]
    assert [
        (event["event"]["action"], event["user"]["name"], event["labcommons"]["decision"])
        for event in events
    ] == [("environment-decide", "bob", "withdraw"), ("environment-decide", "bob", "pin")]
    assert events[0]["labcommons"]["version"] == "20261121-aa"
