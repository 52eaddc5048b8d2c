"""``labcommons kernels list`` and ``show`` where the store is: what is registered, and for whom."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result

from commons.store import DirectoryPerson, Store
from commons.store.models import utcnow
from commons.store.usage import Started, add_starts
from hub_ext.cli import cli
from tests.kernels.service.conftest import add

TORCH = "conda-team-vision-torch-python3"


@pytest.fixture
async def command(store: Store, registrar, make_prefix, monkeypatch) -> Any:
    add(store)
    make_prefix("torch", root="teams/vision/envs")
    make_prefix("bare", root="courses/ml101/envs", kernel=None)
    await registrar.refresh()
    people = {
        "alice": {"admin": False, "teams": {"vision": "member"}, "courses": {}},
        "s01": {"admin": False, "teams": {}, "courses": {"ml101": "student"}},
        "carol": {"admin": True, "teams": {}, "courses": {}},
    }

    def work(session: Any) -> None:
        for name, roles in people.items():
            session.add(DirectoryPerson(name=name, confirmed=0.0, roles=roles))
        torch = Started(TORCH, "team-vision", "torch", "live", 3)
        old = Started("conda-image-data-python3", "image", "data", "1", 9)
        add_starts(session, "alice", [torch], utcnow())
        add_starts(session, "bob", [torch], utcnow())
        add_starts(session, "bob", [old], utcnow() - timedelta(days=31))

    store.transact(work)
    monkeypatch.setenv("LABCOMMONS_DATABASE_URL", store.url)

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, ["kernels", *words])

    return run


def listed(result: Result) -> dict[str, tuple[str, int]]:
    assert result.exit_code == 0, result.output
    return {
        f"{one['source']}/{one['environment']}": (one["state"], one["starts"])
        for one in json.loads(result.output)
    }


async def test_everything_registered_is_listed_with_state_and_use(command) -> None:
    assert listed(command("list", "--json")) == {
        "course-ml101/bare": ("no_kernel", 0),
        "image/data": ("healthy", 0),
        "team-vision/torch": ("healthy", 6),
    }
    text = command("list").output
    assert f"{TORCH}; starts in 30 days: 6, last on {utcnow():%Y-%m-%d}" in text
    assert "not started in 30 days" in text
    assert set(listed(command("list", "--problems", "--json"))) == {"course-ml101/bare"}


@pytest.mark.parametrize(
    ("user", "seen"),
    [
        ("alice", {"image/data": ("healthy", 0), "team-vision/torch": ("healthy", 3)}),
        ("s01", {"image/data": ("healthy", 0), "course-ml101/bare": ("no_kernel", 0)}),
    ],
)
async def test_for_a_person_it_lists_what_that_person_sees_and_starts(command, user, seen) -> None:
    assert listed(command("list", "--user", user, "--json")) == seen


async def test_an_administrator_sees_all_and_a_stranger_is_refused(command) -> None:
    assert len(listed(command("list", "--user", "carol", "--json"))) == 3
    refused = command("list", "--user", "eve")
    assert refused.exit_code == 1
    assert "nobody called 'eve' has logged in yet" in refused.output


async def test_one_kernel_is_shown_with_whom_it_is_for(command) -> None:
    assert "for team-vision; starts in 30 days: 6" in command("show", TORCH).output
    [found] = json.loads(command("show", "conda-image-data-python3", "--json").output)
    assert (found["for"], found["version"]) == (["everybody"], "1")
    refused = command("show", "conda-image-nothing-python3")
    assert refused.exit_code == 1
    assert "labcommons kernels list" in refused.output


@pytest.mark.parametrize("words", [["nonsense"], ["show"], ["list", "--user"]])
async def test_wrong_usage_ends_with_2(command, words) -> None:
    assert command(*words).exit_code == 2
    assert "Examples:" in command("list", "--help").output
