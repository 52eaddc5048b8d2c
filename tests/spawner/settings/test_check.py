"""A hub does not start with a setting that would not do what it says; it names what to use."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import TypeAdapter
from traitlets.config import Config

from commons.site import Mount, Site
from spawner.runtime.spec import MAX_NAME, ContainerName
from spawner.settings import values
from spawner.settings.check import problems
from spawner.settings.table import DOCKER, FORMER, SPAWNER, SYSTEM_USER, UseInstead
from spawner.spawner import LabSpawner

MOUNTS = {
    "sets": Mount(source="/data/sets", target="/sets"),
    "scratch": Mount(source="/scratch/{username}", target="/scratch", read_only=False),
}
# Something that nobody says without meaning it.
SAID: dict[str, Any] = {
    "cpu_guarantee": 1.0,
    "mem_guarantee": "1G",
    "options_form": "<p>",
    "options_from_form": lambda form: form,
    "ssl_alt_names": ["DNS:a"],
    "ssl_alt_names_include_local": None,
    "certs_volume_name": "certs",
    "client_kwargs": {"timeout": 10},
    "extra_create_kwargs": {"user": "root"},
    "host_ip": "0.0.0.0",
    "links": {"a": "b"},
    "move_certs_image": "busybox",
    "post_start_cmd": "true",
    "pull_policy": "always",
    "remove": False,
    "tls_config": {"verify": True},
    "use_internal_hostname": True,
    "use_internal_ip": False,
    "hub_ip_connect": "10.0.0.1",
    "use_docker_client_env": "?",
}


@pytest.fixture
def lab(site: Site) -> Site:
    return site.model_copy(update={"servers": site.servers.model_copy(update={"mounts": MOUNTS})})


def found(site: Site, section: str = "DockerSpawner", **said: Any) -> list[str]:
    config = Config()
    config[section].update(said)
    return problems(config, LabSpawner, site)


@pytest.mark.parametrize(
    "trait",
    sorted(
        name
        for name, rule in {**DOCKER, **SPAWNER, **FORMER}.items()
        if isinstance(rule, UseInstead)
    ),
)
@pytest.mark.parametrize("section", ["DockerSpawner", "LabSpawner", "Spawner"])
def test_each_that_is_refused_names_what_to_use(trait: str, section: str, lab: Site) -> None:
    rule = {**DOCKER, **SPAWNER, **FORMER}[trait]
    assert isinstance(rule, UseInstead)
    [line] = found(lab, section, **{trait: SAID.get(trait, "x")})
    assert line.startswith(f"c.{section}.{trait}: has no effect")
    assert line.endswith(f"use {rule.use}")


@pytest.mark.parametrize("trait", sorted(SYSTEM_USER))
def test_systemuserspawner_is_not_the_spawner_here(trait: str, lab: Site) -> None:
    [line] = found(lab, "SystemUserSpawner", **{trait: "x"})
    rule = SYSTEM_USER[trait]
    assert isinstance(rule, UseInstead)
    assert line == f"c.SystemUserSpawner.{trait}: has no effect; use {rule.use}"


def test_a_section_of_another_spawner_is_never_read(lab: Site) -> None:
    assert found(lab, "SwarmSpawner", image="x") == [
        "c.SwarmSpawner.image: SwarmSpawner is not the spawner here; write c.DockerSpawner.image"
    ]
    assert "not the spawner here" in found(lab, "KubeSpawner", node_selector={"a": "b"})[0]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"volums": {}}, "volums: there is no such setting"),
        # Former names, too.
        ({"container_ip": "0.0.0.0"}, "container_ip: has no effect.*site.public_url"),
        ({"remove_containers": False}, "remove_containers: has no effect.*the home"),
        ({"container_image": "jupyter/base-notebook"}, "image: .*is no environment"),
        # Folders.
        ({"volumes": {"/data/x": "/x"}}, r"volumes: /data/x at /x is not in `servers.mounts`.*"
         r"NAME: {source: '/data/x', target: '/x', read_only: false}"),
        ({"volumes": {"home-{username}": "/home/jovyan"}}, "a volume of Docker's own"),
        ({"volumes": {"/data/sets": "/sets"}}, "servers.mounts.sets.*has read_only: true"),
        ({"read_only_volumes": {"/scratch/{username}": "/scratch"}}, "needs read_only: true"),
        ({"volumes": {"/data/sets": {"bind": "/sets", "mode": "Z"}}}, "with mode ro or rw"),
        ({"mounts": [{"source": "/data/sets", "target": "/sets"}]}, "only type bind"),
        ({"mounts": [{"source": "/data/sets"}]}, "must have source, target"),
        ({"mounts": [{"source": "/etc", "target": "/x", "type": "bind"}]}, "not in `servers.mou"),
        # Limits.
        ({"mem_limit": "9G"}, "mem_limit: 9663676416 is more than any.*sizes.<name>.memory"),
        ({"mem_limit": "much"}, "mem_limit: 'much' is no amount"),
        ({"cpu_limit": 5}, "cpu_limit: 5 is more than any.*sizes.<name>.cpu"),
        ({"cpu_limit": -1}, "cpu_limit: -1 is no limit"),
        ({"extra_host_config": {"mem_limit": "9g"}}, "extra_host_config: 9663676416 is more"),
        ({"extra_host_config": {"shm_size": "1g"}}, "servers.shared_memory"),
        ({"extra_host_config": {"pids_limit": 2000}}, "servers.pids"),
        ({"extra_host_config": {"privileged": True}}, "'privileged' is refused; use nothing"),
        ({"extra_host_config": {"cap_add": ["SYS_ADMIN"]}}, "no server has a capability"),
        ({"extra_host_config": {"network_mode": "host"}}, "servers.network"),
        ({"extra_host_config": {"device_requests": []}}, "use `gpus`"),
        ({"extra_host_config": {"cgroup_parent": "x"}}, "is fixed"),
        ({"extra_host_config": {"mem_limit": "much"}}, "extra_host_config: 'MUCH'"),
        # Variables.
        ({"environment": {"HOME": "/x"}}, "environment: HOME is LabCommons' own"),
        ({"environment": {"NVIDIA_VISIBLE_DEVICES": "all"}}, "NVIDIA_VISIBLE_DEVICES.*`gpus`"),
        ({"environment": {"LABCOMMONS_CONSOLE_URL": "x"}}, "LABCOMMONS_CONSOLE_URL"),
        ({"env_keep": ["HOME"]}, "env_keep: HOME"),
        # Environments.
        ({"image": "quay.io/jupyter/base-notebook"}, "image: .*is no environment.*env list"),
        ({"allowed_images": ["data", "jupyter/base:1"]}, "allowed_images: 'jupyter/base:1'"),
        ({"allowed_images": {"Old": "a/b"}}, "allowed_images: 'a/b' is no environment"),
        # Names: nothing of a person, and nothing that Docker does not take.
        *(({"name_template": f"jupyter-{field}"},
           r"name_template: has \{.*\} in it.*who is online.*label=labcommons.user")
          for field in ("{username}", "{raw_username}", "{safe_username}", "{servername}",
                        "{safe_servername}", "{userid}", "{user.name}", "{prefix.__class__}",
                        "{prefix!r}", "{imagename:>99999999}", "{0}", "{}")),
        ({"prefix": "lab-{username}"}, r"prefix: has \{username\} in it.*labcommons.user"),
        ({"container_name_template": "{prefix}-{username}"}, "name_template: has"),
        ({"name_template": "{prefix"}, "name_template: '{prefix' is no template"),
        ({"name_template": "a b"}, "name_template: 'a b' is no name for Docker"),
        ({"prefix": "-x"}, "name_template: '-x-user' is no name for Docker"),
        ({"prefix": "x" * 26}, "name_template: .* is longer than 30"),
        ({"group_overrides": {"a": {"spawner_override": {"name_template": "{username}"}}}},
         r"group_overrides\['a'\].name_template: has"),
        # Places.
        ({"network_name": "bridge"}, "network_name: .*servers.network"),
        ({"port": 80}, "port: 80 is not from 1024"),
        # What groups get.
        ({"group_overrides": {"a": {"groups": ["g"], "spawner_override": {"mem_limit": "9G"}}}},
         r"c.DockerSpawner.group_overrides\['a'\].mem_limit: .*sizes.<name>.memory"),
        ({"group_overrides": {"a": {"groups": [], "spawner_override": {"links": {"a": "b"}}}}},
         r"group_overrides\['a'\].links: has no effect.*servers.network"),
        ({"group_overrides": {"a": {"spawner_override": {"environment": {"HOME": "/"}}}}},
         r"group_overrides\['a'\].environment: HOME"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_named(said: dict[str, Any], words: str, lab: Site) -> None:
    assert re.search(words, "\n".join(found(lab, **said)))


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"volumes": {"/scratch/{raw_username}": "/scratch"}},
        {"volumes": {"/data/sets/": {"bind": "/sets", "mode": "ro"}}},
        {"read_only_volumes": {"/data/sets": "/sets"}},
        {"mounts": [
            {"source": "/data/sets", "target": "/sets", "type": "bind", "read_only": True}]},
        # Known when a server starts.
        {"volumes": {"/{prefix}": "/x"}},
        {"volumes": {"/x": "/x"}, "format_volume_name": lambda template, _spawner: template},
        {"mem_limit": "8G", "cpu_limit": 4},
        {"mem_limit": lambda _spawner: "1T", "cpu_limit": lambda _spawner: 99},
        {"mem_limit": None, "cpu_limit": None},
        {"extra_host_config": {"shm_size": "64m", "pids_limit": 100, "cpu_quota": 50_000}},
        {"environment": {"FOO": "1", "BAR": lambda _spawner: "2"}, "env_keep": ["TZ"]},
        {"image": "data", "allowed_images": ["data", "data:1"]},
        {"allowed_images": "*"},
        {"allowed_images": lambda _spawner: ["x/y"]},
        {"name_template": "{prefix}-{imagename}", "prefix": "lab"},
        {"name_template": "", "prefix": ""},
        {"container_name_template": "lab.{imagename}", "container_prefix": "x"},
        {"remove": True, "use_internal_ip": True, "pull_policy": "skip", "host_ip": ""},
        {"network_name": "labcommons-users", "port": 9999, "cmd": ["start"], "args": ["--debug"]},
        {"group_overrides": {"a": {"groups": [], "spawner_override": {"mem_limit": "2G"}}}},
        {"group_overrides": lambda _spawner: {}},
    ],
)  # fmt: skip
def test_what_works_is_let_through(said: dict[str, Any], lab: Site) -> None:
    assert found(lab, **said) == []


def test_what_was_updated_or_appended_is_looked_at_too(lab: Site) -> None:
    config = Config()
    config.DockerSpawner.environment.update({"HOME": "/x"})
    config.DockerSpawner.mounts.append({"source": "/etc", "target": "/x", "type": "bind"})
    assert len(problems(config, LabSpawner, lab)) == 2


def test_a_name_of_any_environment_is_one_that_the_agent_takes() -> None:
    name = values.container_name("{imagename}.{prefix}", "lab", f"{'a' * 64}-{'1' * 128}")
    TypeAdapter(ContainerName).validate_python(name)
    assert len(name) == MAX_NAME


def test_the_name_of_any_site_has_room(monkeypatch: pytest.MonkeyPatch, lab: Site) -> None:
    """The kind: a default that the check itself refuses would stop the hub."""
    monkeypatch.setenv("LABCOMMONS_SITE_ID", "a-project-with-a-very-long-name-of-its-own")
    assert found(lab, image="data") == []
