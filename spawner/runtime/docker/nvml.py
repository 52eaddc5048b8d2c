"""``python -m spawner.runtime.docker.nvml [SECONDS]``: what the driver says of its GPUs, as JSON.

A GPU in MIG mode is listed as its MIG devices. With SECONDS, it looks for that long: the
utilisation is then the highest seen, and critical Xid errors of that time are reported. Exit 1
with a line on standard error where the driver's library is missing or fails. Run as a child
(``driver``), since a driver in trouble can hang for ever; what it says is checked there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import pynvml

STEP = 1.0  # seconds between two looks at the utilisation
GONE = (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _if_known(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The driver's answer, or None for what this GPU or driver does not tell."""
    try:
        return ask(*arguments)
    except GONE:
        raise
    except pynvml.NVMLError:
        return None


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


def _percent(gpu: Any) -> int | None:
    rates = _if_known(pynvml.nvmlDeviceGetUtilizationRates, gpu)
    return None if rates is None else int(rates.gpu)


def _processes(handle: Any, since: int) -> list[dict[str, int | None]] | None:
    """Compute processes, with the highest utilisation of each since a time (microseconds)."""
    found = _if_known(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    if found is None:
        return None
    percents: dict[int, int] = {}
    for sample in _if_known(pynvml.nvmlDeviceGetProcessUtilization, handle, since) or ():
        percents[sample.pid] = max(percents.get(sample.pid, 0), sample.smUtil)
    return [{"pid": process.pid, "percent": percents.get(process.pid)} for process in found]


def _health(gpu: Any) -> dict[str, Any]:
    """Counters that say whether a GPU's memory can be trusted; None: not told."""
    rows = _if_known(pynvml.nvmlDeviceGetRemappedRows, gpu)
    retired = _if_known(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, gpu)
    return {
        "ecc_uncorrected": _if_known(
            pynvml.nvmlDeviceGetTotalEccErrors,
            gpu,
            pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            pynvml.NVML_VOLATILE_ECC,
        ),
        "remap_pending": bool(rows[2]) if rows else None,
        "remap_failed": bool(rows[3]) if rows else None,
        "retirement_pending": None if retired is None else bool(retired),
    }


def _device(handle: Any, since: int) -> dict[str, Any]:
    return {
        "id": _text(pynvml.nvmlDeviceGetUUID(handle)),
        "model": _text(pynvml.nvmlDeviceGetName(handle)),
        "memory": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        "processes": _processes(handle, since),
    }


def _gpu(gpu: Any, percent: int | None, since: int) -> list[dict[str, Any]]:
    """A GPU, or its MIG devices, of which the driver tells no utilisation."""
    health = _health(gpu)
    if not _in_mig_mode(gpu):
        minor = _if_known(pynvml.nvmlDeviceGetMinorNumber, gpu)
        return [_device(gpu, since) | {"percent": percent, "health": health, "minor": minor}]
    parent, of = _text(pynvml.nvmlDeviceGetUUID(gpu)), pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
    devices = []
    for handle in _mig_devices(gpu):
        attributes = _if_known(pynvml.nvmlDeviceGetAttributes, handle)
        part = {"slices": attributes.gpuInstanceSliceCount, "of": of} if attributes else {}
        devices.append(_device(handle, since) | part | {"parent": parent, "health": health})
    return devices


def _watch(gpus: dict[int, Any], seconds: float) -> tuple[dict[int, int], list[dict[str, Any]]]:
    """Look for some time: the highest utilisation by index, and critical errors."""
    percents: dict[int, int] = {}
    errors: list[dict[str, Any]] = []
    listener = _if_known(pynvml.nvmlEventSetCreate)
    for gpu in gpus.values() if listener is not None else ():
        _if_known(
            pynvml.nvmlDeviceRegisterEvents, gpu, pynvml.nvmlEventTypeXidCriticalError, listener
        )
    deadline = time.monotonic() + seconds
    while True:
        for index, gpu in gpus.items():
            try:
                percent = _percent(gpu)
            except GONE:
                continue
            if percent is not None:
                percents[index] = max(percents.get(index, 0), percent)
        left = min(STEP, deadline - time.monotonic())
        if left <= 0:
            return percents, errors
        # Without events (an old driver, no rights) the wait is a plain one.
        event = listener and _if_known(pynvml.nvmlEventSetWait_v2, listener, int(left * 1000))
        if event:
            uuid = _if_known(pynvml.nvmlDeviceGetUUID, event.device)
            errors.append({"id": _text(uuid or ""), "xid": int(event.eventData)})
        else:
            time.sleep(max(0.0, min(left, deadline - time.monotonic())))


def look(seconds: float = 0) -> dict[str, Any]:
    """All devices that answer, those that are lost, and what happened meanwhile."""
    since = int((time.time() - max(seconds, 1)) * 1e6)
    pynvml.nvmlInit()
    try:
        gpus, lost, devices = {}, [], []
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                gpus[index] = pynvml.nvmlDeviceGetHandleByIndex(index)
            except GONE as error:
                # Gone from the bus: not offered, and no reason to hide the others.
                lost.append({"id": "", "reason": str(error)})
        percents, errors = _watch(gpus, seconds)
        for index, gpu in gpus.items():
            uuid = ""
            try:
                uuid = _text(pynvml.nvmlDeviceGetUUID(gpu))
                devices.extend(_gpu(gpu, percents.get(index), since))
            except GONE as error:
                lost.append({"id": uuid, "reason": str(error)})
        return {
            "devices": devices,
            "lost": lost,
            "errors": errors,
        }
    finally:
        pynvml.nvmlShutdown()


if __name__ == "__main__":
    try:
        json.dump(look(float(sys.argv[1]) if len(sys.argv) > 1 else 0), sys.stdout)
    except pynvml.NVMLError as error:
        sys.exit(str(error))
