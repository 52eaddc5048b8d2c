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
from deployment import Deployment, wait_for
from people import choose, come_back, in_lab, log_in, open_notebook, picture, run_cell, start
from playwright.sync_api import expect
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
        "watch": {"interval": 5, "probe_interval": 30},
        "devices": [{"id": gpu["uuid"], "model": "Stand-in", "memory": "16G"} for gpu in gpus],
    }
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
    clean.up()
    yield clean
    clean.stop_all_servers(admin)
    path.write_text(before, "utf-8")
    clean.up()


def test_a_server_sees_exactly_the_devices_of_its_lease_and_who_loses_them_is_told(
    with_stand_ins: Deployment, new_page: NewPage, admin: str, pictures: Path
) -> None:
    page = new_page()
    log_in(page, "alice")
    choose(page, "py313-data", gpus=2)
    start(page)
    in_lab(page)
    open_notebook(page, "Data analysis - Python 3.13")
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
    # As after `systemctl daemon-reload`: the nodes are there and cannot be opened.
    lose = ("exec", "--user", "0", container, "chmod", "000", f"/dev/{nodes[0]}")
    with_stand_ins.docker(*lose)
    # One without a lease sees none.
    with_stand_ins.login_once("bob")
    with_stand_ins.start_server(admin, "bob", {"environment": "py313-data"})
    [container] = with_stand_ins.containers("bob")
    listing = with_stand_ins.docker("exec", container, "sh", "-c", "ls /dev; env")
    assert "nvidia" not in listing
    assert "NVIDIA_VISIBLE_DEVICES=void" in listing
    wait_for(lambda: with_stand_ins.leases()[0]["out_of_reach"], "the next probe")
    expect(come_back(page, "The server no longer reaches its GPUs")).to_be_visible()
    picture(page, pictures, "gpus-lost")
    page.goto("/hub/home")
    expect(page.get_by_text("The server no longer reaches its GPUs")).to_be_visible()
    carol = new_page()
    log_in(carol, "carol")
    carol.goto("/services/labcommons/")
    said = "The server no longer reaches its GPUs: start it again."
    lost = carol.locator("tr", has_text=said)
    expect(lost).to_contain_text("alice")
