"""The create body, to the last key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner.container import (
    ContainerSpec,
    GpuGrant,
    Identity,
    Limits,
    container_name,
    create_body,
    read_slots,
)
from spawner.gpu.state import Slot

SPEC = ContainerSpec(
    site_id="lab",
    who=Identity("alice", 20003, 20000, (21001,)),
    server_name="",
    image="sha256:abc",
    environment="py313-data:1",
    environment_name="py313-data",
    home="/data/homes/alice",
    registry={
        "image": "/data/kernels/image/py313-data/1",
        "team-vision": "/data/kernels/team-vision",
    },
    network="lab-users",
    limits=Limits(cpu=1.5, memory=2**30, pids=512, shared_memory=2**28, tmp=2**29),
    env={"JUPYTERHUB_API_TOKEN": "t"},
    args=("--flag",),
    addresses="gate https://lab.example.org *.lab.example.org",
)


def test_the_whole_body() -> None:
    assert create_body(SPEC) == {
        "Image": "sha256:abc",
        "Cmd": ["/opt/labcommons/bin/start", "--flag"],
        "Entrypoint": [],
        "Env": [
            "HOME=/home/alice",
            "JUPYTERHUB_API_TOKEN=t",
            "JUPYTER_PATH=/opt/labcommons/registry/image:/opt/labcommons/registry/team-vision",
            "LABCOMMONS_DEFAULT_KERNEL=conda-image-py313-data-python3",
            "LABCOMMONS_ENVIRONMENT=py313-data:1",
            "LOGNAME=alice",
            "NB_USER=alice",
            "NVIDIA_VISIBLE_DEVICES=void",
            "USER=alice",
        ],
        "User": "20003:20000",
        "WorkingDir": "/home/alice",
        "Hostname": "py313-data",
        "Labels": {
            "labcommons.site": "lab",
            "labcommons.user": "alice",
            "labcommons.server": "",
            "labcommons.environment": "py313-data:1",
            "labcommons.addresses": "gate https://lab.example.org *.lab.example.org",
        },
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "NetworkMode": "lab-users",
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/data/homes/alice",
                    "Target": "/home/alice",
                    "ReadOnly": False,
                    "BindOptions": {"Propagation": "rprivate"},
                },
                {
                    "Type": "bind",
                    "Source": "/data/kernels/image/py313-data/1",
                    "Target": "/opt/labcommons/registry/image",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rprivate"},
                },
                {
                    "Type": "bind",
                    "Source": "/data/kernels/team-vision",
                    "Target": "/opt/labcommons/registry/team-vision",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rprivate"},
                },
            ],
            "ReadonlyRootfs": True,
            "Tmpfs": {
                "/tmp": "rw,nosuid,nodev,exec,mode=1777,size=536870912",
                "/run": "rw,nosuid,nodev,noexec,mode=1777,size=16777216",
            },
            "GroupAdd": ["21001"],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Privileged": False,
            "PidsLimit": 512,
            "Memory": 2**30,
            "MemorySwap": 2**30,
            "CpuPeriod": 100_000,
            "CpuQuota": 150_000,
            "ShmSize": 2**28,
            "Init": True,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}},
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
            "DeviceRequests": [],
        },
    }


def test_a_lease_brings_exactly_its_devices() -> None:
    slots = (Slot("GPU-a"), Slot("GPU-b", 1), Slot("GPU-b", 2))
    body = create_body(replace(SPEC, gpus=GpuGrant("l1", slots, False, "group:vision", 60)))
    [request] = body["HostConfig"]["DeviceRequests"]
    assert request == {
        "Driver": "nvidia",
        "Count": 0,
        "DeviceIDs": ["GPU-a", "GPU-b"],
        "Capabilities": [["gpu", "compute", "utility"]],
        "Options": {},
    }
    labels = body["Labels"]
    assert labels["labcommons.lease"] == "l1"
    assert labels["labcommons.account"] == "group:vision"
    assert labels["labcommons.time-limit"] == "60"
    assert read_slots(labels["labcommons.gpus"]) == slots
    assert not [line for line in body["Env"] if line.startswith("NVIDIA_")]


def test_a_simulated_lease_sets_the_variable_and_nothing_else() -> None:
    body = create_body(replace(SPEC, gpus=GpuGrant("l1", (Slot("GPU-a"),), simulated=True)))
    assert body["HostConfig"]["DeviceRequests"] == []
    assert "NVIDIA_VISIBLE_DEVICES=GPU-a" in body["Env"]


@pytest.mark.parametrize("name", ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_X", "DOCKER_RESOURCE_GPU"])
def test_variables_that_open_devices_come_from_nobody_else(name: str) -> None:
    env = create_body(replace(SPEC, env={name: "all"}))["Env"]
    assert f"{name}=all" not in env
    assert "NVIDIA_VISIBLE_DEVICES=void" in env


@pytest.mark.parametrize("who", [Identity("x", 0, 1000), Identity("x", 1000, 0)])
def test_root_is_refused(who: Identity) -> None:
    with pytest.raises(ValueError, match="root"):
        create_body(replace(SPEC, who=who))


def test_the_root_group_is_never_added() -> None:
    who = Identity("alice", 20003, 20000, (0, 5))
    assert create_body(replace(SPEC, who=who))["HostConfig"]["GroupAdd"] == ["5"]


users = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
servers = st.from_regex(r"([a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?)?", fullmatch=True).filter(
    lambda name: "--" not in name
)


@given(users, servers, users, servers)
def test_two_servers_never_have_one_container_name(
    user1: str, server1: str, user2: str, server2: str
) -> None:
    same = (user1, server1) == (user2, server2)
    names = {container_name("lab", user1, server1), container_name("lab", user2, server2)}
    assert (len(names) == 1) is same


@given(st.text(min_size=1, max_size=30), st.text(max_size=30))
def test_a_container_name_is_one_that_docker_takes(user: str, server: str) -> None:
    import re

    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", container_name("lab", user, server))


def test_folders_of_environments_are_mounted_as_membership_says() -> None:
    folders = (
        ("/data/shared", "/opt/labcommons/shared", True),
        ("/data/teams/bio", "/opt/labcommons/teams/bio", False),
    )
    mounts = create_body(replace(SPEC, folders=folders))["HostConfig"]["Mounts"]
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in mounts[-2:]] == list(folders)
