"""The inventory: from the site file, simulated, and from NVML (a stand-in library here)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.site import Gpus, GpuSharing, Site
from spawner.gpu.devices.inventory import (
    InventoryError,
    Process,
    Reading,
    check_answer,
    read_inventory,
)
from spawner.gpu.policy.placement import Device
from spawner.runtime.docker import driver

SOURCE = Path(__file__).parents[2] / "rig" / "gpu" / "fake_nvml.c"
NVML = Gpus(source="nvml")
GIB = 2**30


async def test_simulated_devices_say_that_they_are(site: Site) -> None:
    devices = (await read_inventory(site.gpus, ask)).devices
    assert [device.id for device in devices] == ["GPU-a0", "GPU-a1", "GPU-b0"]
    assert all(device.simulated for device in devices)
    assert devices[2].memory == 16 * GIB


async def test_devices_of_the_site_file_are_real_and_on_their_node(site: Site) -> None:
    specs = [spec.model_copy(update={"node": "gpu2"}) for spec in site.gpus.devices]
    gpus = site.gpus.model_copy(update={"source": "site", "devices": specs})
    devices = (await read_inventory(gpus, ask)).devices
    assert not any(device.simulated for device in devices)
    assert {device.node for device in devices} == {"gpu2"}


async def test_a_shared_model_has_slots_that_count_as_their_part(site: Site) -> None:
    rules = [
        GpuSharing(devices=["GPU-a0"], method="mps", slots=2),
        GpuSharing(model="A100", method="time-slicing", slots=4),
    ]
    gpus = site.gpus.model_copy(update={"sharing": rules})
    shared = {
        d.id: (d.sharing, d.slots, d.weight) for d in (await read_inventory(gpus, ask)).devices
    }
    assert shared == {
        "GPU-a0": ("mps", 2, 0.5),
        "GPU-a1": ("time-slicing", 4, 0.25),
        "GPU-b0": ("exclusive", 1, 1.0),
    }


async def ask(seconds: float) -> str:
    return json.dumps(await driver.ask(seconds))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in driver whose state is the file returned."""
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SOURCE], check=True
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("FAKE_NVML_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(driver, "_stuck", [])
    # The stand-in lists all processes wherever it runs; these tests may run in a container.
    monkeypatch.setattr(driver, "HOST_NAMESPACE", os.readlink("/proc/self/ns/pid"))
    return tmp_path / "state"


async def test_nvml_lists_gpus_and_mig_devices_in_place_of_their_gpu(state: Path) -> None:
    state.write_text(
        "gpu GPU-1 85899345920 -1 ok NVIDIA A100-SXM4-80GB\n"
        "gpu GPU-2 85899345920 1 ok NVIDIA A100-SXM4-80GB\n"
        "mig MIG-20 42949672960 0 NVIDIA A100-SXM4-80GB MIG 3g.40gb\n"
        "mig MIG-25 10737418240 5 NVIDIA A100-SXM4-80GB MIG 1g.10gb\n"
        "slices 1\n"
        "gpu GPU-3 25757220864 0 ok NVIDIA GeForce RTX 4090\n"
    )
    assert (await read_inventory(NVML, ask)).devices == (
        Device("GPU-1", "NVIDIA A100-SXM4-80GB", 80 * GIB),
        Device(
            "MIG-20", "NVIDIA A100-SXM4-80GB MIG 3g.40gb", 40 * GIB, parent="GPU-2", weight=3 / 7
        ),
        Device(
            "MIG-25", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", 10 * GIB, parent="GPU-2", weight=1 / 7
        ),
        Device("GPU-3", "NVIDIA GeForce RTX 4090", 25757220864),
    )


async def test_nvml_tells_how_devices_are_used_and_errors_meanwhile(state: Path) -> None:
    state.write_text(
        "gpu GPU-1 1024 0 ok T4\nuse 37\nproc 4711 30\nxid 79\n"
        "gpu GPU-2 1024 1 ok A30\nxid 13\n"
        "mig MIG-20 1024 0 A30 MIG 1g.6gb\n"
        "gpu GPU-3 1024 0 ok Tesla M10\n"
    )
    found = await read_inventory(NVML, ask, 0.2)
    assert found.errors == (("GPU-1", 79),), "13 is a program's error, not the GPU's"
    assert found.readings == {
        "GPU-1": Reading(37, (Process(4711, 30),)),
        "MIG-20": Reading(None, ()),
        "GPU-3": Reading(None, ()),
    }


async def test_who_computes_is_not_known_outside_the_machines_process_namespace(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "HOST_NAMESPACE", "pid:[1]")
    state.write_text("gpu GPU-1 1024 0 ok T4\nuse 37\nproc 4711 30\n")
    assert (await read_inventory(NVML, ask)).readings == {"GPU-1": Reading(37, None)}


async def test_a_lost_gpu_is_not_offered_and_hides_no_other(state: Path) -> None:
    state.write_text(
        "gpu GPU-1 1024 0 lost T4\ngpu GPU-2 1024 0 ok T4\ngpu GPU-3 1024 0 ok T4\nlose\n"
    )
    found = await read_inventory(NVML, ask)
    assert [device.id for device in found.devices] == ["GPU-2"]
    assert len(found.problems) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ecc 3", "3 uncorrected"),
        ("remap 1 0", "reset the GPU"),
        ("remap 0 1", "replace it"),
    ],
)
async def test_a_gpu_whose_memory_fails_is_not_offered(state: Path, line: str, reason: str) -> None:
    state.write_text(f"gpu GPU-1 1024 0 ok A100\n{line}\ngpu GPU-2 1024 0 ok A100\necc 0\n")
    bad, good = (await read_inventory(NVML, ask)).devices
    assert (bad.offered, good.offered) == (False, True)
    assert reason in bad.health_reason


async def test_a_driver_that_lies_fails_that_gpu_alone(state: Path) -> None:
    state.write_text(
        "gpu GPU-1 1024 0 ok T4\n"
        "gpu GPU-2 -5 0 ok T4\n"
        "gpu GPU-3 1024 0 ok Evil\x1b[31m\u202e\x07 name\n"
        "gpu GPU-4 1024 0 ok T4\ngpu GPU-4 1024 0 ok T4\n"
        "gpu -$(reboot) 1024 0 ok T4\n",
        "utf-8",
    )
    found = await read_inventory(NVML, ask)
    assert [(d.id, d.health) for d in found.devices] == [
        ("GPU-1", "ok"),
        ("GPU-2", "failing"),
        ("GPU-3", "ok"),
        ("GPU-4", "failing"),
    ]
    assert found.devices[2].model.isprintable()
    assert len(found.problems) == 3


def test_more_gpus_than_any_machine_has_are_not_believed() -> None:
    many = [{"id": f"GPU-{n}", "model": "T4", "memory": 1} for n in range(5000)]
    with pytest.raises(InventoryError, match="5000"):
        check_answer({"devices": many})


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["id", "model", "memory", "processes", "pid", "percent", "health", "slices", "of"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4), JSON, JSON)
def test_whatever_a_driver_says_devices_are_sane(
    devices: list[Any], lost: Any, errors: Any
) -> None:
    found = check_answer({"devices": devices, "lost": lost, "errors": errors})
    ids = [device.id for device in found.devices]
    assert len(set(ids)) == len(ids)
    for device in found.devices:
        assert device.model
        assert 0 < device.weight <= 1
        assert device.memory > 0 or not device.offered


async def test_a_driver_that_fails_is_an_error_with_a_remedy(state: Path) -> None:
    state.write_text("fail 9\n")
    with pytest.raises(InventoryError, match=r"Driver Not Loaded.*gpus\.source"):
        await read_inventory(NVML, ask)


async def test_a_driver_that_hangs_is_given_up_and_never_asked_twice_at_once(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "TIMEOUT", 1)
    state.write_text("hang\n")
    with pytest.raises(InventoryError, match="nvidia-smi"):
        await read_inventory(NVML, ask)
    [child] = driver._stuck
    monkeypatch.setattr(type(child), "returncode", None)  # a process that does not die
    began = time.monotonic()
    with pytest.raises(InventoryError, match="nvidia-smi"):
        await read_inventory(NVML, ask)
    assert driver._stuck == [child]
    assert time.monotonic() - began < 1
    monkeypatch.undo()
    await child.wait()


async def test_no_driver_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(InventoryError, match="NVML"):
        await read_inventory(NVML, ask)
