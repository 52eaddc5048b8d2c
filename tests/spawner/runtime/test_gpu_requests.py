"""How GPUs are asked of the Engine, and that no node but the lease's own is. A STAND-IN driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commons.errors import RuntimeRefused
from commons.site import Site
from rig import agent
from spawner.runtime.docker import driver
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.docker.watch import _devices
from spawner.runtime.spec import Account, Device, Gpus, Limits, ServerSpec

UID, GID = 20003, 20000
NVIDIA = {
    "Driver": "nvidia", "Count": 0, "DeviceIDs": ["GPU-b"],
    "Capabilities": [["gpu", "compute", "utility"]], "Options": {},
}  # fmt: skip


class Machine:
    """An agent's rules over a driver that says what the test wants."""

    def __init__(self, folder: Path, request: str) -> None:
        self.said: dict[str, object] = {"GPU-a": 0, "GPU-b": 1}
        site = agent.SITE.model_dump(mode="json", exclude_unset=True)
        site["gpus"] = {"source": "nvml", "request": request}
        data = agent.data_folder(folder)
        agent.home(data, "alice", UID, GID)
        self.runtime = DockerRuntime(
            agent.settings(Site.model_validate(site), data, "lc-users", "labcommons/server:latest")
        )

    async def ask(self, _seconds: float) -> dict[str, Any]:
        return {
            "devices": [
                {"id": id_, "model": "A100", **({} if minor is None else {"minor": minor})}
                for id_, minor in self.said.items()
            ]
        }

    async def body(self, *ids: str) -> dict[str, Any]:
        devices = tuple(Device(id=id_) for id_ in ids)
        spec = ServerSpec(
            user="alice", server="", account=Account(uid=UID, gid=GID),
            image=f"sha256:{'0' * 64}", environment="data", version="1",
            limits=Limits(cpu=1, memory=2**28, pids=100, shared_memory=2**24, tmp=2**24),
            gpus=Gpus(lease="l1", devices=devices) if ids else None,
        )  # fmt: skip
        whole = await self.runtime.gpus.check(devices)
        return self.runtime.server_body(spec, whole)


@pytest.fixture
def machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Machine:
    found = Machine(tmp_path, request.param)
    monkeypatch.setattr(driver, "ask", found.ask)
    return found


def node(name: str) -> dict[str, str]:
    return {"PathOnHost": name, "PathInContainer": name, "CgroupPermissions": "rw"}


@pytest.mark.parametrize(
    ("machine", "requests", "nodes", "void"),
    [
        ("runtime", [NVIDIA], None, False),
        ("devices", [NVIDIA], ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1"], False),
        (
            "cdi",
            [{"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=GPU-b"]}],
            None,
            True,
        ),
    ],
    indirect=["machine"],
)
async def test_a_lease_is_asked_for_as_the_site_says(
    machine: Machine, requests: list[Any], nodes: list[str] | None, void: bool
) -> None:
    body = await machine.body("GPU-b")
    assert body["HostConfig"]["DeviceRequests"] == requests
    assert body["HostConfig"].get("Devices") == (nodes and [node(one) for one in nodes])
    # Where NVIDIA's runtime is Docker's default, it adds nothing of its own.
    assert ("NVIDIA_VISIBLE_DEVICES=void" in body["Env"]) is void
    # Written again from the container, the lease is of the same GPU.
    assert _devices({"HostConfig": body["HostConfig"], "Config": {"Env": body["Env"]}}) == (
        "GPU-b",
    )
    without = await machine.body()
    assert not without["HostConfig"]["DeviceRequests"]
    assert "Devices" not in without["HostConfig"]
    for id_ in ("all", "0", "GPU-elsewhere", "../sda", "nvidia.com/gpu=all"):
        with pytest.raises((RuntimeRefused, ValueError)):
            await machine.body(id_)


@pytest.mark.parametrize("machine", ["devices"], indirect=True)
async def test_a_driver_that_was_loaded_anew_numbers_its_nodes_anew(machine: Machine) -> None:
    """Kind: a number that was true once gives somebody else's GPU."""
    await machine.body("GPU-b")
    machine.said = {"GPU-b": 0, "GPU-a": 1}
    body = await machine.body("GPU-b")
    assert node("/dev/nvidia0") in body["HostConfig"]["Devices"]
    assert node("/dev/nvidia1") not in body["HostConfig"]["Devices"]


@pytest.mark.parametrize("machine", ["devices"], indirect=True)
@pytest.mark.parametrize("minor", [None, -1, 255, 2**40, True, 1.0, "1", "1/../sda", [1], 0])
async def test_no_node_is_given_that_is_not_surely_the_gpus_own(
    machine: Machine, minor: object
) -> None:
    """Kind: numbers that the driver does not tell (MIG), tells twice, or that cannot be."""
    machine.said["GPU-b"] = minor
    with pytest.raises(RuntimeRefused, match="device node"):
        await machine.body("GPU-b")


@pytest.mark.parametrize("source", ["none", "site", "simulated"])
def test_nodes_want_a_driver_that_numbers_them(source: str) -> None:
    devices = [{"id": "GPU-a", "model": "A100", "memory": "80G"}] if source != "none" else []
    site = agent.SITE.model_dump(mode="json", exclude_unset=True)
    site["gpus"] = {"source": source, "request": "devices", "devices": devices}
    with pytest.raises(ValueError, match="numbers from the driver"):
        Site.model_validate(site)
