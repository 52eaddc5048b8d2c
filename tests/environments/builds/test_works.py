"""What each builder container of a job is given: the site's logins to one, not to the others."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from commons.audit import AuditTrail
from commons.principal import Principal
from commons.scopes import Scope, owners
from commons.site import Site
from commons.store.environments import BuildState, EnvironmentBuild
from environments.builds.runner import Runner
from environments.builds.tasks import SERVICE
from spawner.runtime.memory import MemoryRuntime
from spawner.runtime.spec import BuildStep

SITE = {
    "version": 1,
    "directory": {
        "servers": ["ldaps://ldap.example.org"],
        "users": {"base_dn": "dc=example,dc=org"},
        "teams": {"vision": {"members": ["vision"]}},
    },
    "sizes": {"small": {"cpu": 1, "memory": "1G"}},
    "environments": {
        "credentials": {
            "conda.example.org": {"token_file": "/run/labcommons/logins/conda"},
            "pypi.example.org": {"username": "x", "password_variable": "PYPI_PASSWORD"},
        }
    },
}


@pytest.fixture
def runner(tmp_path: Path) -> tuple[Runner, list[BuildStep]]:
    """A runner whose builders only say what they were given."""
    made = Runner(
        MemoryRuntime(),
        cast(Any, None),
        Site.model_validate(SITE),
        tmp_path,
        cast(Any, None),
        AuditTrail(),
        logging.getLogger("test"),
        {"HTTPS_PROXY": "http://me:secret@proxy.example.org", "no_proxy": "localhost"},
    )
    steps: list[BuildStep] = []

    async def run(job: EnvironmentBuild, step: BuildStep) -> dict[str, Any]:
        steps.append(step)
        return {"lock": "the lock", "sources": [], "pip": step.step == "lock"}

    made.builders.run = run  # type: ignore[method-assign, assignment]
    return made, steps


def job(scope: str = "personal", owner: str = "alice") -> EnvironmentBuild:
    return EnvironmentBuild(
        id="ab" * 16, action="create", scope=scope, owner=owner, name="mine",
        requested_by="alice", spec="", words="", lock="", state=BuildState.RUNNING,
    )  # fmt: skip


async def test_the_sites_logins_are_where_no_program_of_a_person_runs(
    runner: tuple[Runner, list[BuildStep]],
) -> None:
    made, steps = runner
    who = Principal("alice", uid=20001, gid=20000)
    await made._lock(job(), who)
    steps.append(made.works.of_person("install", job(), who))
    lock, install = steps
    assert (lock.step, lock.account, lock.home) == ("lock", SERVICE, None)
    settings = json.loads(lock.job)["settings"]
    assert list(settings["credentials"]) == ["conda.example.org"]
    assert (install.account.uid, install.scope, install.owner) == (20001, "personal", "alice")
    assert json.loads(install.job)["settings"]["credentials"] == {}
    assert "logins" not in install.job
    assert "secret" in str(lock.env)
    assert install.env == {"no_proxy": "localhost"}


def test_a_builder_has_the_numbers_that_decide_where_it_may_write(
    runner: tuple[Runner, list[BuildStep]],
) -> None:
    works = runner[0].works
    alice = Principal.from_auth_state(
        "alice", False, {"uid": 20001, "gid": 20000, "gids": [7], "teams": {"vision": "lead"}}
    )
    pair = owners(works.site)[Scope("team", "vision")]
    mine = works.of_person("install", job(), alice)
    assert mine.account.gids == tuple(sorted((7, pair.members, pair.leads)))
    team = works.of_person("install", job("team", "vision"), alice)
    assert (team.scope, team.owner, team.home) == ("team-vision", None, "alice")
    assert (team.account.uid, team.account.gid) == (20001, pair.members)
    assert set(team.account.gids) == {7, 20000, pair.leads}
    shared = works.of_person("install", job("shared", ""), alice)
    assert (shared.account, shared.home) == (SERVICE, None)
    assert json.loads(shared.job)["cache"] == "/private/cache"
