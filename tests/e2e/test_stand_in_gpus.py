"""The same path on STAND-IN GPUs: real DeviceRequests through the real Engine.

The test bed's Engine finds a stand-in for NVIDIA's hook (tests/rig/gpu), which puts
exactly the requested device nodes into a container, as the real one would.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NewPage
from deployment import Deployment
from people import choose, in_lab, log_in, open_notebook, run_cell, start
from ruamel.yaml import YAML


@pytest.fixture
def with_stand_ins(clean: Deployment, admin: str) -> Iterator[Deployment]:
    """The site with the stand-in's GPUs in its site file, as real ones would be listed."""
    gpus = json.loads(Path(os.environ["FAKE_GPU_CONF"]).read_text())["gpus"]
    path = clean.root / "config" / "demo" / "site.yaml"
    before = path.read_text("utf-8")
    yaml = YAML()
    document = yaml.load(before)
    document["gpus"] = {
        "source": "site",
        "max_per_server": 2,
        "devices": [{"id": gpu["uuid"], "model": "Stand-in", "memory": "16G"} for gpu in gpus],
    }
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
    clean.up()
    yield clean
    clean.stop_all_servers(admin)
    path.write_text(before, "utf-8")
    clean.up()


def test_a_server_sees_exactly_the_devices_of_its_lease(
    with_stand_ins: Deployment, new_page: NewPage
) -> None:
    page = new_page()
    log_in(page, "alice")
    choose(page, "py313-data", gpus=2)
    start(page)
    in_lab(page)
    open_notebook(page, "py313-data - Python 3.13")
    seen = run_cell(
        page,
        "import os; print(sorted(n for n in os.listdir('/dev') if n.startswith('nvidia')))",
    )
    [lease] = with_stand_ins.leases()
    uuids = [
        gpu["uuid"] for gpu in json.loads(Path(os.environ["FAKE_GPU_CONF"]).read_text())["gpus"]
    ]
    minors = sorted(uuids.index(gpu["id"]) for gpu in lease["gpus"])
    assert len(minors) == 2
    nodes = sorted(["nvidiactl", "nvidia-uvm", *(f"nvidia{minor}" for minor in minors)])
    assert seen.strip() == str(nodes)
    [container] = with_stand_ins.containers()
    [request] = json.loads(
        with_stand_ins.docker("inspect", "-f", "{{json .HostConfig.DeviceRequests}}", container)
    )
    assert sorted(request["DeviceIDs"]) == sorted(gpu["id"] for gpu in lease["gpus"])


def test_a_server_without_a_lease_sees_none(with_stand_ins: Deployment, admin: str) -> None:
    with_stand_ins.login_once("bob")
    with_stand_ins.start_server(admin, "bob", {"environment": "py313-data"})
    [container] = with_stand_ins.containers()
    listing = with_stand_ins.docker("exec", container, "sh", "-c", "ls /dev; env")
    assert "nvidia" not in listing
    assert "NVIDIA_VISIBLE_DEVICES=void" in listing
