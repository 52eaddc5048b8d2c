"""What JupyterHub asks of any spawner, asked of LabSpawner by a real hub and its database.

Servers are in memory and answer (``rig.hub_in_memory``); what only a container can show is in
``test_on_engine.py``, what is ours alone in ``test_spawner.py``.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from jupyterhub import orm
from jupyterhub.auth import DummyAuthenticator
from jupyterhub.utils import maybe_future
from sqlalchemy import event
from traitlets.config import Config

from commons.site import Site
from commons.store import Store
from rig.answering import AnsweringRuntime
from rig.hub_in_memory import Lab, hub_lab
from spawner.runtime.memory import silent
from spawner.runtime.spec import Account, ServerSpec
from spawner.spawner import LabSpawner

Hub = Callable[[Config], Awaitable[Lab]]
# A start or stop is answered at once, and goes on.
PATIENCE = {"slow_spawn_timeout": 0, "slow_stop_timeout": 0.05}


@pytest.fixture
async def hub(store: Store, site: Site, tmp_path: Path) -> AsyncIterator[Hub]:
    """``await hub(config)``: a hub with these settings beside the usual ones."""
    opened: list[Any] = []

    async def begin(config: Config) -> Lab:
        config.JupyterHub.tornado_settings = {**PATIENCE}
        opened.append(hub_lab(store, site, tmp_path, config))
        return await opened[0].__aenter__()

    yield begin
    for one in opened:
        await one.__aexit__(None, None, None)


@pytest.fixture
async def lab(hub: Hub) -> Lab:
    return await hub(Config())


async def run(lab: Lab, path: str = "alice/server", body: object = None) -> LabSpawner:
    """Start a server by REST, and wait until it is ready."""
    user, _, server = path.replace("/servers/", "/").replace("/server", "").partition("/")
    assert (await lab.rest("POST", f"users/{quote(path)}", body))[0] in (201, 202)
    await lab.until(lambda: lab.spawner(user, server).ready)
    return lab.spawner(user, server)


async def gone(lab: Lab, path: str = "alice/server", body: object = None) -> None:
    """Stop a server by REST, and wait until the hub is through with it."""
    assert (await lab.rest("DELETE", f"users/{path}", body))[0] in (202, 204)
    await lab.until(lambda: not lab.servers.known())


def spec(lab: Lab, spawner: LabSpawner) -> ServerSpec:
    """What the runtime was asked for."""
    return lab.memory.specs[spawner.container_ref]


def leftovers(lab: Lab) -> list[object]:
    """What a server that is gone must not leave: containers, routes, tokens, rows of servers."""
    database = lab.app.db
    made = orm.APIToken.note.startswith("Server at ")
    return [
        *lab.memory.servers,
        *(route for route in lab.app.proxy.table if route.startswith("/user/")),
        *database.query(orm.APIToken).filter(made),
        *(row.server for row in database.query(orm.Spawner) if row.server is not None),
    ]


# -- start, poll, stop -----------------------------------------------------------------------------


async def test_a_server_starts_runs_and_stops_and_leaves_nothing(lab: Lab) -> None:
    spawner = await run(lab)
    assert await spawner.poll() is None
    model = (await lab.rest("GET", "users/alice"))[1]["servers"][""]
    assert (model["ready"], model["pending"], model["url"]) == (True, None, "/user/alice/")
    [server] = lab.memory.servers.values()
    assert lab.app.proxy.table["/user/alice/"]["target"] == f"http://{server.address}:8888"
    await gone(lab)
    status = await spawner.poll()
    assert isinstance(status, int)
    assert leftovers(lab) == []


async def test_it_says_that_it_runs_and_does_not_start_it_twice(lab: Lab) -> None:
    await run(lab)
    assert (await lab.rest("POST", "users/alice/server"))[0] == 400
    assert len(lab.memory.servers) == 1


async def test_the_hubs_polling_sees_that_a_server_ended(hub: Hub) -> None:
    config = Config()
    config.Spawner.poll_interval = 1
    lab = await hub(config)
    spawner = await run(lab)
    lab.memory.finish(spawner.container_ref, 3)
    await lab.until(lambda: not lab.servers.known())
    assert await spawner.poll() == 3
    assert leftovers(lab) == []
    assert spawner._poll_callback is None


async def test_stopping_at_once_gives_no_grace(lab: Lab) -> None:
    spawner = await run(lab)
    handle, states = spawner.container_ref, []
    drop = lab.memory._drop

    def seen(which: str) -> None:
        states.append(lab.memory.servers[which].exit_code)
        drop(which)

    lab.memory._drop = seen  # type: ignore[method-assign]
    await spawner.stop(now=True)
    assert states == [137]
    assert handle not in lab.memory.servers


async def test_a_token_is_used_for_one_life_of_a_server(lab: Lab) -> None:
    spawner = await run(lab)
    first = spawner.api_token
    token = orm.APIToken.find(lab.app.db, first)
    assert token is not None
    assert token.user.name == "alice"
    assert spec(lab, spawner).env["JUPYTERHUB_API_TOKEN"] == first
    await gone(lab)
    assert orm.APIToken.find(lab.app.db, first) is None
    second = (await run(lab)).api_token
    assert second != first


# -- cancel, and races -----------------------------------------------------------------------------


async def test_a_stop_during_a_start_ends_it_and_of_two_clicks_one_counts(lab: Lab) -> None:
    lab.memory.faults["start:created"] = held = asyncio.Event()
    assert (await lab.rest("POST", "users/alice/server"))[0] == 202
    await lab.until(lambda: lab.memory.servers)
    assert (await lab.rest("POST", "users/alice/server"))[0] == 202
    assert lab.memory.calls["start"] == 1
    assert (await lab.rest("DELETE", "users/alice/server"))[0] == 202
    held.set()
    await lab.until(lambda: not lab.servers.known() and not leftovers(lab))
    lab.memory.faults.clear()
    await run(lab)


async def test_a_start_during_a_stop_is_refused_and_two_stops_are_one(lab: Lab) -> None:
    await run(lab)
    lab.memory.faults["stop"] = held = asyncio.Event()
    assert (await lab.rest("DELETE", "users/alice/server"))[0] == 202
    assert (await lab.rest("DELETE", "users/alice/server"))[0] == 202
    status, refusal = await lab.rest("POST", "users/alice/server")
    assert (status, "pending stop" in str(refusal)) == (400, True)
    held.set()
    await lab.until(lambda: not lab.servers.known())
    assert lab.memory.calls["stop"] == 1
    await run(lab)


@pytest.mark.parametrize("step", ["run_task", "start", "start:created", "start:started"])
async def test_a_start_that_fails_leaves_nothing_and_the_next_one_works(
    lab: Lab, step: str
) -> None:
    lab.memory.faults[step] = silent()
    await lab.rest("POST", "users/alice/server")
    await lab.until(lambda: not lab.servers.known())
    assert leftovers(lab) == []
    lab.memory.faults.clear()
    await run(lab)


async def test_a_start_that_takes_too_long_is_given_up(hub: Hub) -> None:
    config = Config()
    config.LabSpawner.start_timeout = 1
    lab = await hub(config)
    lab.memory.faults["start"] = asyncio.Event()
    await lab.rest("POST", "users/alice/server")
    await lab.until(lambda: not lab.servers.known())
    assert leftovers(lab) == []


# -- state, and a restart of the hub ---------------------------------------------------------------


async def test_the_next_hub_takes_servers_up_as_they_are(
    store: Store, site: Site, tmp_path: Path
) -> None:
    runtime, config = AnsweringRuntime(), Config()
    config.JupyterHub.tornado_settings = {**PATIENCE}
    # The first hub furnishes the store; both leave the runtime to the test.
    async with hub_lab(store, site, tmp_path, config) as first:
        first.memory = first.resources.runtime = runtime
        first.resources.watch.runtime = runtime
    async with hub_lab(store, site, tmp_path, config, runtime) as lab:
        await run(lab)
        await run(lab, "bob/server")
        kept, died = lab.spawner().container_ref, lab.spawner("bob").container_ref
        token = lab.spawner().api_token
    runtime.finish(died, 1)
    async with hub_lab(store, site, tmp_path, config, runtime) as lab:
        spawner = lab.spawner()
        assert (spawner.ready, spawner.container_ref) == (True, kept)
        assert spawner.get_state()["container"] == kept
        assert await spawner.poll() is None
        assert spawner.api_token == token
        assert runtime.calls["start"] == 2
        assert not lab.spawner("bob").active
        await gone(lab)
        assert leftovers(lab) == []
        # What has stopped has no state that the next start could take up.
        assert lab.spawner().get_state() == {}
    await runtime.close()


# -- options ---------------------------------------------------------------------------------------


async def test_options_are_kept_for_the_next_start_and_shown(lab: Lab) -> None:
    await run(lab, body={"size": "small"})
    shown = (await lab.rest("GET", "users/alice"))[1]["servers"][""]["user_options"]
    assert (shown["size"], shown["environment"]) == ("small", "data")
    await gone(lab)
    spawner = await run(lab)
    assert spec(lab, spawner).limits.memory == 2**30
    await gone(lab)
    # Options that are said replace the former ones, all of them.
    spawner = await run(lab, body={"environment": "data"})
    assert spec(lab, spawner).limits.memory == 2**33


async def test_form_and_address_say_what_rest_says(lab: Lab) -> None:
    await run(lab)
    spawner = lab.spawner()
    model = json.loads(await spawner.get_options_form())
    assert [size["name"] for size in model["sizes"]] == ["small", "large"]
    asked = {"environment": ["data"], "size": ["small"], "gpus": ["1"]}
    expected = {"environment": "data", "size": "small", "gpus": 1}
    for read in (spawner.run_options_from_form, spawner.options_from_query):
        assert expected.items() <= (await maybe_future(read(asked))).items()


async def test_options_that_cannot_be_are_told_and_start_nothing(lab: Lab) -> None:
    lab.app.tornado_application.settings["slow_spawn_timeout"] = 10
    status, answer = await lab.rest("POST", "users/alice/server", {"size": "huge"})
    assert (status, "Sizes: small, large" in answer["message"]) == (400, True)
    assert leftovers(lab) == []
    # A click without options is not caught by what was refused before.
    await run(lab, body={"size": "small"})


# -- named servers ---------------------------------------------------------------------------------


async def test_servers_with_names_are_apart(hub: Hub) -> None:
    config = Config()
    config.JupyterHub.named_server_limit_per_user = 2
    lab = await hub(config)
    await run(lab)
    one = await run(lab, "alice/servers/one", {"size": "small"})
    two = await run(lab, "alice/servers/two")
    assert len(lab.memory.servers) == 3
    assert spec(lab, one).server == "one"
    assert one.api_token != two.api_token
    assert {"/user/alice/", "/user/alice/one/"} < set(lab.app.proxy.table)
    for refused in ("three", "two%20words"):
        assert (await lab.rest("POST", f"users/alice/servers/{refused}"))[0] == 400
    assert (await lab.rest("DELETE", "users/alice/servers/one"))[0] in (202, 204)
    await lab.until(lambda: not one.active)
    assert len(lab.memory.servers) == 2
    # Stopped, it keeps name and options; removed, neither.
    shown = (await lab.rest("GET", "users/alice?include_stopped_servers"))[1]["servers"]
    assert shown["one"]["user_options"]["size"] == "small"
    assert (await lab.rest("DELETE", "users/alice/servers/two", {"remove": True}))[0] in (
        202,
        204,
    )
    await lab.until(lambda: len(lab.memory.servers) == 1)
    shown = (await lab.rest("GET", "users/alice?include_stopped_servers"))[1]["servers"]
    assert set(shown) == {"", "one"}


async def test_a_server_made_ahead_starts_with_the_options_it_was_made_with(lab: Lab) -> None:
    body = {"display_name": "Sum", "user_options": {"size": "small"}}
    assert (await lab.rest("PUT", "users/alice/servers/sum", body))[0] == 201
    assert lab.memory.servers == {}
    assert (await lab.rest("PUT", "users/alice/servers/sum", body))[0] == 409
    spawner = await run(lab, "alice/servers/sum")
    assert spec(lab, spawner).limits.memory == 2**30


@pytest.mark.parametrize("name", ["ann@lab.example", "has~x", "zoë", "two words"])
async def test_people_with_unusual_names_have_servers_and_routes(hub: Hub, name: str) -> None:
    config = Config()
    config.LabSpawner.identity_hook = lambda *_: Account(uid=20003, gid=20000)
    config.Authenticator.allowed_users = {name}
    lab = await hub(config)
    user = lab.app.users[name]
    await lab.servers.start(name, "", {})
    await lab.until(lambda: user.spawners[""].ready)
    assert user.proxy_spec in lab.app.proxy.table
    assert spec(lab, user.spawners[""]).user == name
    await lab.servers.stop(name, "")
    assert leftovers(lab) == []


# -- progress --------------------------------------------------------------------------------------


async def told(lab: Lab) -> list[dict[str, Any]]:
    """Everything that the hub's stream says of alice's start, to its end."""
    _status, text = await lab.rest("GET", "users/alice/server/progress")
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines]


async def test_progress_is_told_to_everybody_who_looks_and_ends_with_the_address(hub: Hub) -> None:
    async def hook(_spawner: object, ready: dict[str, Any]) -> dict[str, Any]:
        return {**ready, "message": "Come in"}

    config = Config()
    config.Spawner.progress_ready_hook = hook
    lab = await hub(config)
    assert (await lab.rest("GET", "users/alice/server/progress"))[0] == 404
    lab.memory.faults["start"] = held = asyncio.Event()
    await lab.rest("POST", "users/alice/server")
    lookers = [asyncio.create_task(told(lab)) for _ in range(2)]
    await lab.until(lambda: lab.memory.calls["start"])
    held.set()
    for events in await asyncio.gather(*lookers):
        steps = [event["progress"] for event in events]
        assert steps == sorted(steps)
        assert {20, 30, 60, 90} < set(steps)
        last = events[-1]
        assert (last["ready"], last["url"], last["message"]) == (True, "/user/alice/", "Come in")
    # Who comes later hears at once that it is there.
    assert (await told(lab))[-1]["ready"] is True


async def test_progress_tells_why_a_start_failed(lab: Lab) -> None:
    lab.memory.faults["start"] = held = asyncio.Event()
    await lab.rest("POST", "users/alice/server")
    looker = asyncio.create_task(told(lab))
    await lab.until(lambda: lab.memory.calls["start"])
    lab.memory.faults["inspect"] = silent()
    lab.memory.faults["start:created"] = silent()
    held.set()
    last = (await looker)[-1]
    assert last["failed"] is True
    assert "does not answer" in last["message"]


# -- who the person is -----------------------------------------------------------------------------


async def test_auth_state_and_hooks_come_in_their_order_and_can_change_the_server(hub: Hub) -> None:
    order: list[str] = []

    class Directory(DummyAuthenticator):  # type: ignore[misc]
        async def pre_spawn_start(self, user: Any, spawner: Any) -> None:
            order.append("pre_spawn_start")

        def post_spawn_stop(self, user: Any, spawner: Any) -> None:
            order.append("post_spawn_stop")

    async def pre_spawn(spawner: LabSpawner) -> None:
        order.append("pre_spawn_hook")
        await asyncio.sleep(0)
        spawner.environment["COURSE"] = "bio2"

    config = Config()
    config.JupyterHub.authenticator_class = Directory
    config.Authenticator.enable_auth_state = True
    config.CryptKeeper.keys = [os.urandom(32)]
    config.LabSpawner.identity_hook = None
    config.Spawner.auth_state_hook = lambda _spawner, state: order.append(f"{state['uid']}")
    config.Spawner.pre_spawn_hook = pre_spawn
    config.Spawner.post_stop_hook = lambda _spawner: order.append("post_stop_hook")
    lab = await hub(config)
    state = {"uid": 20003, "gid": 20000, "gids": [21001], "display_name": "Alice"}
    await lab.app.users["alice"].save_auth_state(state | {"language": "zh-CN"})
    spawner = await run(lab)
    found = spec(lab, spawner)
    # Whoever starts it: here an administrator, by REST.
    assert found.env["LABCOMMONS_LANGUAGE"] == "zh_CN"
    assert found.account == Account(uid=20003, gid=20000, gids=(21001,))
    assert (found.env["COURSE"], found.env["LABCOMMONS_FULL_NAME"]) == ("bio2", "Alice")
    assert order == ["pre_spawn_start", "20003", "pre_spawn_hook"]
    await gone(lab)
    assert sorted(order[3:]) == ["post_spawn_stop", "post_stop_hook"]


@pytest.mark.parametrize("hook", ["pre_spawn_hook", "auth_state_hook"])
async def test_a_hook_that_fails_starts_nothing(hub: Hub, hook: str) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("not today")

    config = Config()
    setattr(config.Spawner, hook, fail)
    lab = await hub(config)
    await lab.rest("POST", "users/alice/server")
    await lab.until(lambda: not lab.servers.known())
    assert lab.memory.calls["start"] == 0
    assert leftovers(lab) == []


async def test_a_hook_that_fails_after_a_stop_does_not_keep_the_server(hub: Hub) -> None:
    def fail(_spawner: object) -> None:
        raise RuntimeError("not today")

    config = Config()
    config.Spawner.post_stop_hook = fail
    lab = await hub(config)
    await run(lab)
    await gone(lab)
    assert leftovers(lab) == []


# -- what a server is told and may do --------------------------------------------------------------


async def test_a_server_knows_hub_owner_and_address(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_PROXY", "http://proxy.example.org")
    config = Config()
    config.Spawner.hub_connect_url = "https://hub.example.org/"
    config.Spawner.environment = {"OWNER": lambda spawner: spawner.user.name, "PLAIN": "yes"}
    config.Spawner.env_keep = ["SITE_PROXY"]
    config.Spawner.default_url = "/lab/tree/{username}"
    config.Spawner.cmd = ["start-here"]
    config.Spawner.args = ["--quiet"]
    lab = await hub(config)
    found = spec(lab, await run(lab, "alice/servers/one"))
    assert {
        "JUPYTERHUB_API_URL": "https://hub.example.org/hub/api",
        "JUPYTERHUB_ACTIVITY_URL": "https://hub.example.org/hub/api/users/alice/activity",
        "JUPYTERHUB_USER": "alice",
        "JUPYTERHUB_SERVER_NAME": "one",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/alice/one/",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": "/user/alice/one/oauth_callback",
        "JUPYTERHUB_DEFAULT_URL": "/lab/tree/alice",
        "OWNER": "alice",
        "PLAIN": "yes",
        "SITE_PROXY": "http://proxy.example.org",
    }.items() <= found.env.items()
    assert "PATH" not in found.env  # nothing of the hub's own
    assert found.command == ("start-here",)
    assert "--quiet" in found.args


async def test_token_and_login_of_a_server_have_the_scopes_of_the_settings(hub: Hub) -> None:
    config = Config()
    config.Spawner.server_token_scopes = ["users:activity!user", "access:servers!server"]
    config.Spawner.oauth_client_allowed_scopes = ["read:users!user"]
    lab = await hub(config)
    spawner = await run(lab)
    token = orm.APIToken.find(lab.app.db, spawner.api_token)
    assert set(token.scopes) == {"users:activity!user", "access:servers!server=alice/"}
    client = spawner.orm_spawner.oauth_client
    assert set(client.allowed_scopes) >= {"read:users!user", "access:servers!server=alice/"}
    assert json.loads(spec(lab, spawner).env["JUPYTERHUB_OAUTH_ACCESS_SCOPES"])


async def test_groups_override_settings_in_their_order(hub: Hub) -> None:
    config = Config()
    config.JupyterHub.load_groups = {"lab": {"users": ["alice"]}, "all": {"users": ["alice"]}}
    config.Spawner.environment = {"KEPT": "site"}
    config.Spawner.group_overrides = {
        "2": {"groups": ["lab"], "spawner_override": {"environment": {"ROOM": "lab"}}},
        "1": {
            "groups": ["all"],
            "spawner_override": {"environment": {"ROOM": "all", "FLOOR": "2"}},
        },
        "3": {"groups": ["other"], "spawner_override": {"environment": {"ROOM": "other"}}},
    }
    lab = await hub(config)
    env = spec(lab, await run(lab)).env
    assert (env["KEPT"], env["ROOM"], env["FLOOR"]) == ("site", "lab", "2")
    assert "ROOM" not in spec(lab, await run(lab, "bob/server")).env


async def test_a_site_may_bound_how_many_servers_run(hub: Hub) -> None:
    config = Config()
    config.JupyterHub.active_server_limit = 1
    lab = await hub(config)
    await run(lab)
    assert (await lab.rest("POST", "users/bob/server"))[0] == 429
    await gone(lab)
    await run(lab, "bob/server")


async def test_a_servers_first_call_tells_its_start_and_nobody_elses(lab: Lab) -> None:
    await run(lab)
    await run(lab, "alice/servers/second")
    first, second, when = lab.spawner(), lab.spawner("alice", "second"), "2026-11-26T10:00:00Z"
    body = {"servers": {"second": {"last_activity": when}}, "last_activity": when}
    assert (await lab.rest("POST", "users/alice/activity", body))[0] == 200
    assert (first.called.is_set(), second.called.is_set()) == (False, True)
    body["servers"] = {"none": {"last_activity": when}}
    assert (await lab.rest("POST", "users/alice/activity", body))[0] == 400
    assert not first.called.is_set()


async def test_what_a_server_reports_and_that_its_token_was_used_is_one_commit(lab: Lab) -> None:
    spawner, database = await run(lab), lab.app.db
    token = orm.APIToken.find(database, spawner.api_token)
    # Nothing of today: each would be written in a transaction of its own.
    token.last_activity = spawner.orm_spawner.last_activity = datetime(2026, 1, 1)
    database.commit()
    statements: list[str] = []
    engine = database.get_bind()
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    event.listen(engine, "commit", lambda _connection: statements.append("COMMIT"))
    when = "2026-11-26T10:00:00Z"
    body = {"servers": {"": {"last_activity": when}}, "last_activity": when}
    told = await lab.rest("POST", "users/alice/activity", body, token=spawner.api_token)
    assert told[0] == 200
    transactions = " ".join(one.split()[0] for one in statements).split("COMMIT")
    assert sum("UPDATE" in one for one in transactions) == 1, transactions
    database.expire_all()
    assert spawner.orm_spawner.last_activity == datetime(2026, 11, 26, 10)
    assert token.last_activity > datetime(2026, 1, 1)
