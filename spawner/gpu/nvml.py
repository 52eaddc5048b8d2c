"""``python -m spawner.gpu.nvml``: the driver's devices as JSON on standard output.

A GPU in MIG mode is listed as its MIG devices. Exit 1 with a line on standard error
where the driver's library is missing or fails.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pynvml


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _mig_devices(gpu: Any) -> list[Any]:
    """MIG devices of a GPU; slots can be sparse."""
    found = []
    for slot in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, slot))
        except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
            continue
    return found


def _in_mig_mode(gpu: Any) -> bool:
    try:
        current, _pending = pynvml.nvmlDeviceGetMigMode(gpu)
    except pynvml.NVMLError_NotSupported:
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def list_devices() -> list[dict[str, Any]]:
    """``[{"id": UUID, "model": name, "memory": bytes}]`` of the GPUs that answer."""
    pynvml.nvmlInit()
    try:
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
                handles = _mig_devices(gpu) if _in_mig_mode(gpu) else [gpu]
                found = [
                    {
                        "id": _text(pynvml.nvmlDeviceGetUUID(handle)),
                        "model": _text(pynvml.nvmlDeviceGetName(handle)),
                        "memory": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
                    }
                    for handle in handles
                ]
            except pynvml.NVMLError_GpuIsLost:
                # Gone from the bus: not offered, and no reason to hide the others.
                print(f"GPU {index} is lost", file=sys.stderr)
                continue
            devices.extend(found)
        return devices
    finally:
        pynvml.nvmlShutdown()


if __name__ == "__main__":
    try:
        json.dump(list_devices(), sys.stdout)
    except pynvml.NVMLError as error:
        sys.exit(str(error))
