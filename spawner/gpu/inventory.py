"""Which GPUs this machine has: from the driver (NVML), from the site file, or simulated."""

from __future__ import annotations

import json
import subprocess
import sys

from hub_ext.site import Gpus, parse_bytes
from spawner.gpu.devices import Device

NVML_TIMEOUT = 20  # seconds; a driver in trouble can hang for ever


class InventoryError(Exception):
    """The GPUs cannot be listed; the message says why and what to do."""


def read_inventory(gpus: Gpus) -> list[Device]:
    """The devices of a site. Blocks for up to NVML_TIMEOUT seconds with source ``nvml``."""
    if gpus.source == "nvml":
        return read_nvml()
    simulated = gpus.source == "simulated"
    return [
        Device(spec.id, spec.model, parse_bytes(spec.memory), simulated) for spec in gpus.devices
    ]


def read_nvml() -> list[Device]:
    """Ask the driver, in a child process that can be killed when the driver hangs."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", "spawner.gpu.nvml"],
            capture_output=True,
            text=True,
            timeout=NVML_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InventoryError(
            f"NVML did not answer within {NVML_TIMEOUT} s; look at `nvidia-smi` on the host"
        ) from error
    if child.returncode:
        reason = child.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise InventoryError(
            f"NVML: {reason[0]}; give the hub the driver's utility capability, or set "
            "gpus.source to site or none in the site file"
        )
    return [
        Device(item["id"], item["model"], int(item["memory"])) for item in json.loads(child.stdout)
    ]
