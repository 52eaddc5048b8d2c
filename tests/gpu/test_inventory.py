"""The inventory: from the site file, simulated, and from NVML (a stand-in library here)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hub_ext.site import Gpus, Site
from spawner.gpu import inventory
from spawner.gpu.devices import Device
from spawner.gpu.inventory import InventoryError, read_inventory

SOURCE = Path(__file__).parents[1] / "rig" / "gpu" / "fake_nvml.c"
NVML = Gpus(source="nvml")


def test_simulated_devices_say_that_they_are(site: Site) -> None:
    devices = read_inventory(site.gpus)
    assert [device.id for device in devices] == ["GPU-a0", "GPU-a1", "GPU-b0"]
    assert all(device.simulated for device in devices)
    assert devices[2].memory == 16 * 2**30


def test_devices_of_the_site_file_are_real(site: Site) -> None:
    gpus = site.gpus.model_copy(update={"source": "site"})
    assert not any(device.simulated for device in read_inventory(gpus))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in driver whose state is the file returned."""
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SOURCE], check=True
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("FAKE_NVML_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_nvml_lists_gpus_and_mig_devices_in_place_of_their_gpu(state: Path) -> None:
    state.write_text(
        "gpu GPU-1 85899345920 -1 ok NVIDIA A100-SXM4-80GB\n"
        "gpu GPU-2 85899345920 1 ok NVIDIA A100-SXM4-80GB\n"
        "mig MIG-20 42949672960 0 NVIDIA A100-SXM4-80GB MIG 3g.40gb\n"
        "mig MIG-25 10737418240 5 NVIDIA A100-SXM4-80GB MIG 1g.10gb\n"
        "gpu GPU-3 25757220864 0 ok NVIDIA GeForce RTX 4090\n"
    )
    assert read_inventory(NVML) == [
        Device("GPU-1", "NVIDIA A100-SXM4-80GB", 80 * 2**30),
        Device("MIG-20", "NVIDIA A100-SXM4-80GB MIG 3g.40gb", 40 * 2**30),
        Device("MIG-25", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", 10 * 2**30),
        Device("GPU-3", "NVIDIA GeForce RTX 4090", 25757220864),
    ]


def test_a_lost_gpu_is_not_offered_and_hides_no_other(state: Path) -> None:
    state.write_text("gpu GPU-1 1024 0 lost T4\ngpu GPU-2 1024 0 ok T4\n")
    assert [device.id for device in read_inventory(NVML)] == ["GPU-2"]


def test_a_driver_that_fails_is_an_error_with_a_remedy(state: Path) -> None:
    state.write_text("fail 9\n")
    with pytest.raises(InventoryError, match=r"Driver Not Loaded.*gpus\.source"):
        read_inventory(NVML)


def test_a_driver_that_hangs_is_given_up(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "NVML_TIMEOUT", 2)
    state.write_text("hang\n")
    with pytest.raises(InventoryError, match="nvidia-smi"):
        read_inventory(NVML)


def test_no_driver_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_text("not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(InventoryError, match="NVML"):
        read_inventory(NVML)
