"""What each builder container of a job is given: the site's logins to one, not to the others."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hub_ext.audit import AuditTrail
from hub_ext.site import Site
from hub_ext.store.environments import BuildState, EnvironmentBuild
from spawner.container import Identity
from spawner.resources import Resources
from spawner.tiers.body import SERVICE
from spawner.tiers.builders import Work
from spawner.tiers.people import Requester
from spawner.tiers.rights import Person
from spawner.tiers.runner import Runner

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
def runner(tmp_path: Path) -> tuple[Runner, list[Work]]:
    """A runner whose builders only say what they were given."""
    resources = SimpleNamespace(
        site=Site.model_validate(SITE), engine=None, site_id="lab", data=tmp_path,
        host_data=Path("/host"), builder_image="labcommons/builder", store=None,
    )  # fmt: skip
    made = Runner(
        cast(Resources, resources), cast(Any, None), AuditTrail(), logging.getLogger("test")
    )
    works: list[Work] = []

    async def run(job: EnvironmentBuild, work: Work) -> dict[str, Any]:
        works.append(work)
        return {"lock": "the lock", "sources": [], "pip": work.name == "lock"}

    made.builders.run = run  # type: ignore[method-assign]
    return made, works


async def test_the_sites_logins_are_where_no_program_of_a_person_runs(
    runner: tuple[Runner, list[Work]],
) -> None:
    made, works = runner
    who = Requester(Person("alice"), Identity("alice", 20001, 20000, ()))
    job = EnvironmentBuild(
        id="ab" * 16, action="create", tier="personal", owner="alice", name="mine",
        requested_by="alice", spec="", words="", lock="", state=BuildState.RUNNING,
    )  # fmt: skip
    await made._lock(job)
    works.append(made.works.of_person("install", job, who))
    lock, install = works
    assert (lock.name, lock.account, lock.trusted) == ("lock", SERVICE, True)
    assert "/run/labcommons/logins" in [mount.target for mount in lock.mounts]
    assert list(lock.payload["settings"]["credentials"]) == ["conda.example.org"]
    assert (install.account.uid, install.trusted) == (20001, False)
    assert not any("logins" in mount.host for mount in install.mounts)
    assert install.payload["settings"]["credentials"] == {}
    assert "logins" not in json.dumps(install.payload)
    assert [m.read_only for m in install.mounts if m.target == "/private"] == [True]
    written = [mount.target for mount in install.mounts if not mount.read_only]
    assert written == ["/home/alice"]
    assert [m.read_only for m in lock.mounts if m.target == "/private"] == [False]
