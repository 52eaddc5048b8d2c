"""``labcommons env create|publish|promote|delete|scopes|builds``, as an administrator runs it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from commons.audit.chain import files
from commons.scopes import Scope, personal
from commons.site import Builds
from commons.store import Store
from commons.store.environments import BuildState
from environments.builds import queue, repository
from hub_ext.cli import cli

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
    [job] = store.transact(queue.recent, read=True)
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
    assert (job.scope, job.name, job.requested_by) == ("shared", "base", "")


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
    assert here.transact(queue.recent, read=True) == []


def test_what_is_not_there_cannot_be_published(here: Store) -> None:
    done = run("publish", "study", "--user", "bob", "--to", "team-vision")
    assert done.exit_code == 1
    assert "There is no environment “study” in “personal”" in done.output


def test_deleting_asks_first(here: Store) -> None:
    assert run("delete", "shared/x").exit_code == 1
    assert here.transact(queue.recent, read=True) == []
    assert run("delete", "shared/x", "--yes", "--no-wait").exit_code == 0
    assert only_job(here).action == "delete"


def test_listings_are_for_people_and_for_programs(here: Store) -> None:
    assert "env create" in run("scopes").output
    facts = {
        "python": "3.13.5", "lock_digest": "ab", "size": 1, "spec": SPEC, "words": "", "lock": "l",
        "packages": [], "kernels": {}, "findings": [], "origin": None, "exports": {},
    }  # fmt: skip
    here.transact(
        lambda s: repository.record(
            s, personal("bob"), "study", "20261121-aa", built_by="bob",
            created_at=datetime(2026, 11, 21), facts=facts, kept=set(),
        )
    )  # fmt: skip
    assert json.loads(run("scopes", "--json").output)[0]["owner"] == "bob"
    assert json.loads(run("scopes", "--user", "alice", "--json").output) == []
    assert "personal:bob/study" in run("scopes").output
    done = run("publish", "study", "--user", "bob", "--to", "team-vision", "--no-wait")
    assert done.exit_code == 0, done.output
    assert "publish" in run("builds").output
    here.transact(lambda s: queue.cancel(s, only_job(here).id))
    assert json.loads(run("builds", "--json").output)[0]["state"] == BuildState.CANCELLED


def test_a_version_of_a_team_is_decided_about_in_its_leads_name(
    here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "audit" / "hub").mkdir(parents=True)
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path / "data"))
    facts = {
        "python": "3.13.5", "lock_digest": "ab", "size": 1, "spec": SPEC, "words": "", "lock": "l",
        "packages": [], "kernels": {}, "findings": [], "origin": None, "exports": {},
        "tag": "1.0.0",
    }  # fmt: skip
    here.transact(
        lambda s: repository.record(
            s, Scope("team", "vision"), "study", "20261121-aa", built_by="bob",
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
    [row] = json.loads(run("scopes", "--json").output)
    assert (row["state"], row["withdrawn_reason"], row["tag"]) == (
        "withdrawn", "wrong units", "1.0.0"
    )  # fmt: skip
    assert run("pin", which, "--user", "bob").exit_code == 0
    assert "(1.0.0, withdrawn, pinned)" in run("scopes").output
    events = [
        json.loads(line)
        for path in files(tmp_path / "data/audit/hub")
        for line in path.read_text().splitlines()
    ]
    assert [
        (event["event"]["action"], event["user"]["name"], event["labcommons"]["decision"])
        for event in events
    ] == [("environment-decide", "bob", "withdraw"), ("environment-decide", "bob", "pin")]
    assert events[0]["labcommons"]["version"] == "20261121-aa"


def built(
    store: Store, text: str = "name: study\nchannels: [c]\ndependencies:\n  - numpy\n"
) -> None:
    facts = {
        "python": "3.13.5", "lock_digest": "ab", "size": 1, "spec": text, "words": "", "lock": "l",
        "packages": [], "kernels": {}, "findings": [], "origin": None, "exports": {},
    }  # fmt: skip
    store.transact(
        lambda s: repository.record(
            s, personal("alice"), "study", "20261121-aa", built_by="alice",
            created_at=datetime(2026, 11, 21), facts=facts, kept=set(),
        )
    )  # fmt: skip


def test_an_environment_is_edited_once_the_difference_was_shown(here: Store) -> None:
    built(here)
    words = ("edit", "personal/study", "--user", "alice", "--add", "cowsay", "--remove", "numpy")
    done = run(*words, "--dry-run")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-3:] == [" dependencies:", "-  - numpy", "+  - cowsay"]
    assert here.transact(queue.recent, read=True) == []
    done = run(*words, "--no-wait", "--json")
    assert done.exit_code == 0, done.output
    id = json.loads(done.stdout)["id"]
    spec = here.transact(lambda s: getattr(queue.get(s, id), "spec", ""), read=True)
    assert (spec.splitlines()[-1], only_job(here).requested_by) == ("  - cowsay", "alice")
    for more, said in (
        (("--base", "20260101-bb"), "has been changed meanwhile"),
        ((), "is being built"),
    ):
        refused = run(*words, *more, "--yes")
        assert refused.exit_code == 1
        assert said in refused.output


def test_a_build_that_failed_is_corrected(here: Store) -> None:
    assert run("create", "environment.yml", "--user", "alice", "--no-wait").exit_code == 0
    job = only_job(here)
    here.transact(lambda s: queue.claim(s, Builds()))
    here.transact(lambda s: queue.end(s, job.id, BuildState.FAILED, "no"))
    done = run("edit", "--build", job.id, "--add", "cowsay", "--no-wait", "--json")
    assert done.exit_code == 0, done.output
    [new, _] = here.transact(queue.recent, read=True)
    assert "cowsay" in here.transact(lambda s: getattr(queue.get(s, new.id), "spec", ""), read=True)
    assert new.requested_by == ""
