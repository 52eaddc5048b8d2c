"""What the hub answers the service ``ssh``, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jupyterhub import orm
from traitlets.config import Config

from commons import ssh_keys
from commons.site import Site
from commons.site.ssh import Ssh
from commons.store import Store
from commons.store import ssh_keys as kept
from commons.store.models import ExamSitting, SshKey, utcnow
from rig.hub_in_memory import PEOPLE, TOKEN, Lab, hub_lab

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf92H6zqwdnjLjvozHc9LF69n09jYsQv0WU82phJ/6z"
KEY = ssh_keys.parse(LINE).fingerprint
DIRECTORYS = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKiW392ZUfn8h6GHhV8H9phwWCZ63jB9Tn9k4xJwHmBc"
SSH = "of-the-service"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    return store


@pytest.fixture
async def lab(store: Store, site: Site, tmp_path: Path) -> AsyncIterator[Lab]:
    config = Config()
    config.JupyterHub.services = [
        {"name": "test", "api_token": TOKEN},
        {"name": "ssh", "api_token": SSH},
    ]
    with_ssh = site.model_copy(update={"ssh": Ssh()})
    async with hub_lab(store, with_ssh, tmp_path, config) as one:
        for name in PEOPLE:
            await one.rest("POST", f"users/{name}")
        store.transact(lambda s: kept.add(s, "alice", LINE))
        yield one
    store.close()


async def ask(lab: Lab, ask: str, /, **body: Any) -> dict[str, Any]:
    status, found = await lab.rest("POST", "ssh", {"ask": ask, **body}, token=SSH)
    assert status == 200, found
    assert isinstance(found, dict)
    return found


async def enter(lab: Lab, server: str = "main", **more: Any) -> dict[str, Any]:
    asked = {"name": "alice", "key": KEY, "server": server, "start": True, **more}
    return await ask(lab, "enter", **asked)


async def test_nobody_else_is_answered(lab: Lab) -> None:
    person = lab.app.users["alice"].new_api_token()
    for token in ("", TOKEN, person):
        status, _ = await lab.rest("POST", "ssh", {"ask": "keys", "name": "alice"}, token=token)
        assert status == 403
    assert (await lab.rest("POST", "ssh", {"ask": "all"}, token=SSH))[0] == 400
    assert (await lab.rest("POST", "ssh", [], token=SSH))[0] == 400


async def test_keys_are_the_directorys_and_ones_own(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refresh(user: Any, handler: Any = None) -> Any:
        # One of the directory's is no key, one sets a command: neither is taken.
        keys = [DIRECTORYS, "ssh-dss AAAA", f'command="sh" {LINE}']
        return {"auth_state": {"ssh_keys": keys}}

    monkeypatch.setattr(lab.app.authenticator, "refresh_user", refresh)
    found = await ask(lab, "keys", name="alice")
    assert sorted(found["keys"].values()) == sorted([LINE, DIRECTORYS])
    # Nobody, and who is no name at all, have none.
    for name in ("nobody", "../alice", "ALICE", "", "_team-vision"):
        assert (await ask(lab, "keys", name=name))["keys"] == {}


async def test_a_server_that_runs_is_opened_with_a_token_for_it_alone(
    lab: Lab, store: Store
) -> None:
    await lab.started(environment="data")
    found = await enter(lab)
    assert (found["state"], found["called"]) == ("ready", "main")
    assert found["path"] == "/user/alice/labcommons/ssh"
    assert found["keys"] == [LINE]
    token = orm.APIToken.find(lab.app.db, found["token"])
    assert list(token.scopes) == ["access:servers!server=alice/"]
    assert 0 < (token.expires_at - utcnow()).total_seconds() <= 60
    row = store.transact(lambda s: s.get(SshKey, ("alice", KEY)), read=True)
    assert row is not None
    assert row.used_at is not None


async def test_one_that_does_not_run_is_started_with_the_last_choice(lab: Lab) -> None:
    found = await enter(lab)
    assert found["state"] == "refused"
    assert "never started" in found["said"]
    await lab.started(environment="data", size="small")
    await lab.servers.stop("alice", "")
    assert "starts it with what you chose" in (await ask(lab, "keys", name="alice"))["said"]
    assert (await enter(lab))["state"] == "starting"
    await lab.until(lambda: lab.spawner().ready)
    assert (await enter(lab, start=False))["state"] == "ready"
    assert lab.spawner().user_options["environment"].startswith("data")
    assert (await ask(lab, "keys", name="alice"))["said"] == ""


async def test_where_the_site_starts_none_that_is_said(lab: Lab) -> None:
    await lab.started(environment="data")
    await lab.servers.stop("alice", "")
    lab.resources.site = lab.resources.site.model_copy(update={"ssh": Ssh(start_servers=False)})
    found = await enter(lab)
    assert found["state"] == "refused"
    assert "does not run. Start it in the browser" in found["said"]


async def test_what_is_not_theirs_is_refused(lab: Lab) -> None:
    await lab.started(environment="data")
    for more in ({"key": "SHA256:none"}, {"name": "bob"}, {"server": "other"}, {"server": ""}):
        found = await enter(lab, **{"server": "main", **more})
        assert found["state"] == "refused", more
        assert found["said"]
        assert "token" not in found


async def test_a_named_server_is_called_by_its_name(lab: Lab) -> None:
    await lab.servers.start("alice", "second", {"environment": "data"})
    await lab.until(lambda: lab.spawner("alice", "second").ready)
    found = await enter(lab, "second")
    assert (found["state"], found["server"]) == ("ready", "second")
    assert found["path"] == "/user/alice/second/labcommons/ssh"


async def test_there_is_none_in_an_exam(lab: Lab, store: Store) -> None:
    await lab.started(environment="data")
    store.transact(
        lambda s: s.add(
            ExamSitting(
                course="ml101", exam="midterm", username="alice", options={},
                ends_at=utcnow() + timedelta(hours=1),
            )
        )
    )  # fmt: skip
    for server in ("main", "exam-midterm"):
        found = await enter(lab, server)
        assert found["state"] == "refused"
        assert "exam" in found["said"]
    cut = (await ask(lab, "look", open={"alice": [KEY]}))["cut"]
    assert "exam" in cut["alice"][KEY]


async def test_who_may_not_any_more_is_cut(
    lab: Lab, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = {"open": {"alice": [KEY, "SHA256:gone"]}}
    cut = (await ask(lab, "look", **look))["cut"]
    assert list(cut["alice"]) == ["SHA256:gone"]

    async def refresh(user: Any, handler: Any = None) -> bool:
        return False

    monkeypatch.setattr(lab.app.authenticator, "refresh_user", refresh)
    cut = (await ask(lab, "look", **look))["cut"]
    assert set(cut["alice"]) == {KEY, "SHA256:gone"}
    assert "may not log in any more" in cut["alice"][KEY]
    assert (await ask(lab, "keys", name="alice"))["keys"] == {}
    assert (await enter(lab))["state"] == "refused"


async def test_what_it_tells_is_in_the_trail(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(lab.resources.audit, "record", seen.append)
    about = {"name": "alice", "address": "192.0.2.7", "details": {"sent": 7}}
    await ask(lab, "tell", what="ssh-close", **about)
    assert seen[-1]["event"]["action"] == "ssh-close"
    assert seen[-1]["source"]["ip"] == "192.0.2.7"
    assert seen[-1]["labcommons"] == {"sent": 7}
    body = {"ask": "tell", "what": "login", **about}
    assert (await lab.rest("POST", "ssh", body, token=SSH))[0] == 400
    assert len(seen) == 1  # and that it has asked is none of its own
