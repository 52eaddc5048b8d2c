"""Each setting that works is set, and the container that comes of it is looked at."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from jupyterhub import orm
from tornado import web
from tornado.httpclient import AsyncHTTPClient
from traitlets.config import Config

from commons import notices
from commons.site import Mount
from spawner.resources import Resources
from spawner.settings.table import DOCKER, SPAWNER, Works
from spawner.spawner import LabSpawner

from ..conftest import NewSpawner

pytestmark = pytest.mark.docker


@pytest.fixture
def folders(resources: Resources, tmp_path: Path) -> Path:
    """Three folders of the machine in ``servers.mounts``: for all, for each, and where asked."""
    mounts = {
        "sets": ("sets", "/sets", True, False),
        "scratch": ("scratch/{username}", "/scratch", False, False),
        "plans": ("plans", "/plans", True, True),
        "free": ("free", "/free", False, True),
    }
    for folder in ("sets", "scratch/alice", "scratch/bob", "plans", "free"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "plans" / "plan").write_text("a plan")
    found = {
        name: Mount(
            source=str(tmp_path / source), target=target, read_only=read_only, only_if_asked=asked
        )
        for name, (source, target, read_only, asked) in mounts.items()
    }
    resources.site.servers.mounts.update(found)  # the agent has read the same site file
    return tmp_path


class Seen:
    """What the Engine says of a server's container."""

    def __init__(self, spawner: LabSpawner, url: str) -> None:
        self.spawner, self.url = spawner, url
        self.container = docker.from_env(timeout=30).containers.get(spawner.container_ref)
        self.attrs = self.container.attrs
        self.host = self.attrs["HostConfig"]
        self.env = dict(line.split("=", 1) for line in self.attrs["Config"]["Env"])
        self.mounts = {
            mount["Destination"]: (mount["Source"], mount["RW"]) for mount in self.attrs["Mounts"]
        }

    def run(self, command: str) -> str:
        return str(self.container.exec_run(["sh", "-c", command]).output.decode())


async def started(new_spawner: NewSpawner, said: dict[str, Any], **options: Any) -> Seen:
    """A server as with these settings in jupyterhub_config.py."""
    spawner = new_spawner("alice", config=Config({"DockerSpawner": said}), **options)
    await spawner.run_pre_spawn_hook()
    return Seen(spawner, await spawner.start())


def asks_environment(name: str, value: str) -> Callable[[Seen], bool]:
    return lambda seen: seen.env[name] == value


def mounted(target: str, source: str, writable: bool) -> Callable[[Seen], bool]:
    def is_so(seen: Seen) -> bool:
        found, can_write = seen.mounts[target]
        return found.endswith(f"/{source}") and can_write is writable

    return is_so


def named(first: str) -> Callable[[Seen], bool]:
    """Whether the container's name begins so, and ends with what is the server's own."""
    return lambda seen: bool(re.fullmatch(rf"/{first}-[0-9a-f]{{32}}", seen.attrs["Name"]))


SERVE = ["/opt/labcommons/bin/start"]
# Setting -> value, and what must then be true of the container. {here} is the folder of `folders`.
CASES: dict[str, list[tuple[Any, Callable[[Seen], bool]]]] = {
    "args": [(["--debug"], lambda seen: seen.attrs["Config"]["Cmd"] == [*SERVE, "--debug"])],
    "cmd": [
        (["/bin/sh", "-c", "exec /opt/labcommons/bin/start"],
         lambda seen: seen.attrs["Config"]["Cmd"][:2] == ["/bin/sh", "-c"]),
    ],
    "cpu_limit": [
        (0.5, lambda seen: seen.host["CpuQuota"] == 50_000 and seen.env["CPU_LIMIT"] == "0.5"),
        (lambda spawner: len(spawner.user.name) / 2, lambda seen: seen.host["CpuQuota"] == 250_000),
        # Never above the size.
        (lambda _spawner: 64, lambda seen: seen.host["CpuQuota"] == 400_000),
    ],
    "debug": [(True, asks_environment("JUPYTERHUB_DEBUG", "1"))],
    "default_url": [("/tree", asks_environment("JUPYTERHUB_DEFAULT_URL", "/tree"))],
    "disable_user_config": [(True, asks_environment("JUPYTERHUB_DISABLE_USER_CONFIG", "1"))],
    "env_keep": [(["LCTEST_KEPT"], asks_environment("LCTEST_KEPT", "kept"))],
    "environment": [
        ({"FOO": "1", "WHO": lambda spawner: spawner.user.name},
         lambda seen: (seen.env["FOO"], seen.env["WHO"]) == ("1", "alice")
         and seen.env["LABCOMMONS_CONSOLE_URL"].endswith("/services/labcommons/")),
    ],
    "escape": [
        (lambda name: f"-{name}-",
         lambda seen: seen.spawner.template_namespace()["username"] == "-alice-"),
    ],
    "hub_connect_url": [("http://h:1", asks_environment("JUPYTERHUB_API_URL", "http://h:1/api"))],
    "ip": [
        ("127.0.0.9", lambda seen: "//127.0.0.9:8888/" in seen.env["JUPYTERHUB_SERVICE_URL"]),
    ],
    "mem_limit": [
        ("512M", lambda seen: seen.host["Memory"] == seen.host["MemorySwap"] == 2**29
         and seen.env["MEM_LIMIT"] == str(2**29)),
        (lambda spawner: f"{len(spawner.user.name)}G",
         lambda seen: seen.host["Memory"] == 5 * 2**30),
        (lambda _spawner: "1T", lambda seen: seen.host["Memory"] == 8 * 2**30),
    ],
    "name_template": [
        ("{prefix}.{imagename}_x", named(r"labcommons\.data-2_x")),
        ("plain", named("plain")),
        # What an environment's name makes too long is cut.
        ("{imagename}" * 9, named("data-2" * 5)),
    ],
    "notebook_dir": [
        ("/home/{username}/x", asks_environment("JUPYTERHUB_ROOT_DIR", "/home/alice/x")),
    ],
    "oauth_client_allowed_scopes": [
        (["read:users"],
         asks_environment("JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES", '["read:users"]')),
    ],
    "prefix": [("jupyter", named("jupyter-user"))],
    "port": [
        (9999, lambda seen: seen.url.endswith(":9999")
         and ":9999/" in seen.env["JUPYTERHUB_SERVICE_URL"]),
    ],
    "start_timeout": [(77, lambda seen: seen.spawner.start_timeout == 77)],
    "extra_host_config": [
        ({"shm_size": "64m", "pids_limit": 100, "mem_limit": "1g", "cpu_quota": 50_000},
         lambda seen: [seen.host[key] for key in ("ShmSize", "PidsLimit", "Memory", "CpuQuota")]
         == [2**26, 100, 2**30, 50_000]),
        (lambda _spawner: {"pids_limit": 99}, lambda seen: seen.host["PidsLimit"] == 99),
    ],
    "format_volume_name": [
        (lambda template, _spawner: template.replace("OURS", "plans"),
         mounted("/plans", "plans", False)),
    ],
    "image": [
        ("data:1", asks_environment("LABCOMMONS_ENVIRONMENT", "data:1")),
        ("data", asks_environment("LABCOMMONS_ENVIRONMENT", "data:2")),
    ],
    "allowed_images": [
        (["data:1"], asks_environment("LABCOMMONS_ENVIRONMENT", "data:1")),
        ({"Old": "data:1"}, asks_environment("LABCOMMONS_ENVIRONMENT", "data:1")),
        (lambda _spawner: ["data:1"], asks_environment("LABCOMMONS_ENVIRONMENT", "data:1")),
        ("*", asks_environment("LABCOMMONS_ENVIRONMENT", "data:2")),
    ],
    "mounts": [
        ([{"source": "{here}/plans", "target": "/plans", "type": "bind", "read_only": True}],
         mounted("/plans", "plans", False)),
    ],
    "read_only_volumes": [({"{here}/plans": "/plans"}, mounted("/plans", "plans", False))],
    "volumes": [
        ({"{here}/free": "/free"}, mounted("/free", "free", True)),
        ({"{here}/plans": {"bind": "/plans", "mode": "ro"}}, mounted("/plans", "plans", False)),
        ({"{here}/scratch/{username}": "/scratch"}, mounted("/scratch", "scratch/alice", True)),
    ],
}  # fmt: skip
# Beside others, and what only the hub looks at: tests below, or JupyterHub's own.
ELSEWHERE = {
    "apply_user_options", "auth_state_hook", "consecutive_failure_limit", "group_overrides",
    "http_timeout", "network_name", "oauth_roles", "poll_interval", "poll_jitter",
    "post_stop_hook", "pre_spawn_hook", "progress_ready_hook", "server_token_scopes",
}  # fmt: skip


def test_every_setting_that_works_is_set_in_a_test() -> None:
    works = {name for name, rule in {**DOCKER, **SPAWNER}.items() if isinstance(rule, Works)}
    assert works == {*CASES, *ELSEWHERE}


def _in_folder(value: Any, here: Path) -> Any:
    if isinstance(value, str):
        return value.replace("{here}", str(here))
    if isinstance(value, dict):
        return {_in_folder(k, here): _in_folder(v, here) for k, v in value.items()}
    return [_in_folder(one, here) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("setting", "number"),
    [(setting, number) for setting, cases in CASES.items() for number in range(len(cases))],
)
async def test_a_setting_does_what_it_says(
    setting: str,
    number: int,
    new_spawner: NewSpawner,
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LCTEST_KEPT", "kept")
    value, is_so = CASES[setting][number]
    said = {setting: _in_folder(value, folders)}
    if setting == "format_volume_name":
        said["read_only_volumes"] = {f"{folders}/OURS": "/plans"}
    seen = await started(new_spawner, said)
    try:
        assert is_so(seen), json.dumps(seen.attrs, indent=1)[:6000]
        assert (await AsyncHTTPClient().fetch(f"{seen.url}/api")).code == 200
    finally:
        await seen.spawner.stop(now=True)


async def test_servers_with_one_name_stand_beside_each_other_and_each_is_found_again(
    new_spawner: NewSpawner, resources: Resources
) -> None:
    """A name is nothing to know a server by: a changed setting neither doubles nor hides one."""
    config = Config({"DockerSpawner": {"name_template": "same"}})
    one = await started(new_spawner, {"name_template": "same"})
    servers = [new_spawner("alice", server="two", config=config), new_spawner("bob", config=config)]
    for spawner in servers:
        await spawner.run_pre_spawn_hook()
        await spawner.start()
    assert len(await resources.runtime.list()) == 3
    # A hub that knows nothing of it starts alice's server under another name.
    again = await started(new_spawner, {"name_template": "other"})
    left = {state.handle for state in await resources.runtime.list()}
    assert left == {again.spawner.container_ref, *(spawner.container_ref for spawner in servers)}
    assert named("other")(again)
    assert one.attrs["Name"].rpartition("-")[2] == again.attrs["Name"].rpartition("-")[2]
    await resources.runtime.remove_server("alice", "")
    assert {state.handle for state in await resources.runtime.list()} == left - {
        again.spawner.container_ref
    }


async def test_folders_of_the_site_are_in_every_server(
    new_spawner: NewSpawner, folders: Path
) -> None:
    seen = await started(new_spawner, {})
    assert mounted("/sets", "sets", False)(seen)
    assert mounted("/scratch", "scratch/alice", True)(seen)
    assert not {"/plans", "/free"} & seen.mounts.keys()
    assert "Read-only" in seen.run("touch /sets/x")
    await seen.spawner.stop(now=True)


async def test_a_group_has_folders_limits_and_variables_of_its_own(
    new_spawner: NewSpawner, folders: Path
) -> None:
    override = {
        "read_only_volumes": {f"{folders}/plans": "/plans"},
        "mem_limit": "700M",
        "environment": {"FOO": "planner"},
    }
    groups = {"a": {"groups": ["planners"], "spawner_override": override}}
    for member in (True, False):
        spawner = new_spawner("alice", config=Config({"Spawner": {"group_overrides": groups}}))
        orm_user = spawner.user.orm_user
        orm_user.groups = [orm.Group(name="planners")] if member else []
        await spawner.apply_group_overrides()
        await spawner.run_pre_spawn_hook()
        seen = Seen(spawner, await spawner.start())
        assert seen.run("cat /plans/plan").startswith("a plan") is member
        assert (seen.host["Memory"] == 700 * 2**20) is member
        assert (seen.env.get("FOO") == "planner") is member
        await spawner.stop(now=True)


def _refused_by_hook(spawner: LabSpawner) -> None:
    spawner.post_start_cmd = "true"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"pre_spawn_hook": _refused_by_hook}, "post_start_cmd"),
        ({"environment": {"HOME": "/x"}}, "HOME is LabCommons' own"),
        ({"volumes": {"/etc": "/x"}}, "/etc at /x is not in `servers.mounts`"),
        ({"volumes": {"/scratch/../etc": "/x"}}, "is not in `servers.mounts`"),
        # Where the escaped name is another than the site file's.
        ({"volumes": {"{here}/scratch/{username}": "/scratch"}, "escape": str.upper}, "ALICE"),
        ({"extra_host_config": lambda _spawner: {"privileged": True}}, "'privileged' is refused"),
        ({"allowed_images": lambda _spawner: ["jupyter/base"]}, "'jupyter/base' is no environment"),
        ({"mem_limit": lambda _spawner: "lots"}, "'lots' is no amount"),
        ({"port": 80}, "80 is not from 1024"),
    ],
)
async def test_what_is_only_known_at_a_start_refuses_that_start(
    said: dict[str, Any],
    words: str,
    new_spawner: NewSpawner,
    folders: Path,
    resources: Resources,
) -> None:
    spawner = new_spawner("alice", config=Config({"DockerSpawner": _in_folder(said, folders)}))
    with pytest.raises(web.HTTPError) as caught:
        await spawner.run_pre_spawn_hook()
    assert words in caught.value.jupyterhub_message
    assert "Tell an administrator" in caught.value.jupyterhub_message
    assert not await resources.runtime.list()


async def test_only_environments_that_are_allowed_can_be_had(new_spawner: NewSpawner) -> None:
    config = Config({"DockerSpawner": {"allowed_images": {"The old one": "data:1"}}})
    spawner = new_spawner("alice", config=config)
    [shown] = json.loads(await spawner._form())["environments"]
    assert (shown["title"], shown["versions"]) == ("The old one", ["1"])
    spawner.user_options = {"environment": "data:2"}
    with pytest.raises(web.HTTPError, match="has no version"):
        await spawner.run_pre_spawn_hook()


async def test_the_form_shows_sizes_under_the_limits(new_spawner: NewSpawner) -> None:
    config = Config({"DockerSpawner": {"mem_limit": "2G", "image": "data:1"}})
    shown = json.loads(await new_spawner("alice", config=config)._form())
    assert [size["memory"] for size in shown["sizes"]] == ["1 GiB", "2 GiB"]
    assert [one["chosen_version"] for one in shown["environments"]] == ["1"]


async def test_a_port_is_kept_for_servers_that_outlive_the_hub(new_spawner: NewSpawner) -> None:
    seen = await started(new_spawner, {"port": 9999})
    after = new_spawner("alice")
    after.load_state(seen.spawner.get_state())
    assert await after.get_url() == f"{seen.url}/user/alice/"
    await seen.spawner.stop(now=True)


async def test_a_folder_is_for_whom_the_site_says_and_one_that_is_away_keeps_nobody_from_work(
    new_spawner: NewSpawner, resources: Resources, folders: Path
) -> None:
    """Kind: folders of the site by who is who, and file servers that are down."""
    (folders / "team").mkdir()
    team = {"source": str(folders / "team"), "only_for": ["team-vision"], "read_only": False}
    resources.site.servers.mounts.update(
        team=Mount(**team, target="/data/team", writers=["team-vision"]),
        course=Mount(**team | {"only_for": ["course-bio2"]}, target="/data/course"),
        away=Mount(source=str(folders / "away"), target="/data/away"),
    )
    spawner = new_spawner("alice", environment="data:1")
    spawner._auth_state["teams"] = {"vision": "member"}
    await spawner.run_pre_spawn_hook()
    seen = Seen(spawner, await spawner.start())
    assert seen.mounts["/data/team"] == (str(folders / "team"), True)
    assert not {"/data/course", "/data/away"} & seen.mounts.keys()
    told = await resources.store.read(lambda s: notices.show(s, "alice", str))
    assert "without /data/away" in told[0].sentence
    assert not (folders / "away").exists()
    await spawner.stop()
