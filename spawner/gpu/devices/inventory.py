"""Which GPUs a machine has and how they are: from the driver (NVML), the site file, simulated.

What a driver says is checked here, at the door: a value that cannot be true makes that GPU
``failing``, and hides no other.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from commons.errors import RuntimeRefused
from commons.site import Gpus, GpuSharing, parse_bytes
from spawner.gpu.policy.placement import Device

MOST_DEVICES = 1024  # of one machine; more is nonsense
MOST_MEMORY = 2**44  # bytes of one GPU
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,95}")
# Errors of programs, not of GPUs, as NVIDIA's Kubernetes device plugin ignores them.
PROGRAM_XIDS = frozenset({13, 31, 43, 45, 68, 109})


class InventoryError(Exception):
    """The GPUs cannot be listed; the message says why and what to do."""


@dataclass(frozen=True)
class Process:
    """A process that computes on a device: its number on the host, and its utilisation."""

    pid: int
    percent: float | None = None


@dataclass(frozen=True)
class Reading:
    """How much a device was used while it was looked at; None: not known.

    Attributes:
        percent: the highest utilisation seen, 0 to 100.
        processes: all that compute on it; None also where only some can be seen.
    """

    percent: float | None = None
    processes: tuple[Process, ...] | None = None


@dataclass(frozen=True)
class Inventory:
    """One look at the machine's GPUs.

    Attributes:
        readings: by device id; empty where nobody measures (site file, simulated).
        errors: critical errors of GPUs while they were looked at: (GPU's id, Xid).
        problems: sentences for the log.
    """

    devices: tuple[Device, ...]
    readings: Mapping[str, Reading] = field(default_factory=dict)
    errors: tuple[tuple[str, int], ...] = ()
    problems: tuple[str, ...] = ()


async def read_inventory(
    gpus: Gpus, ask: Callable[[float], Awaitable[str]], seconds: float = 0
) -> Inventory:
    """Look at a site's devices, for some seconds where there is something to measure.

    ``ask``: the driver of the machine that has them (``Runtime.read_gpus``). Raises InventoryError,
    and RuntimeSilent.
    """
    if gpus.source == "nvml":
        try:
            answer = json.loads(await ask(seconds))
        except ValueError as error:
            raise InventoryError("NVML: the answer is not JSON; look at the agent's log") from error
        except RuntimeRefused as error:
            raise InventoryError(str(error)) from error
        found = check_answer(answer)
    else:
        simulated = gpus.source == "simulated"
        found = Inventory(
            tuple(
                Device(spec.id, spec.model, parse_bytes(spec.memory), simulated, spec.node)
                for spec in gpus.devices
            )
        )
    return replace(found, devices=tuple(shared(d, gpus.sharing) for d in found.devices))


def shared(device: Device, rules: list[GpuSharing]) -> Device:
    """The device as the first rule that fits it says it is shared; else as it is, exclusive."""
    for rule in rules:
        if device.id in rule.devices or (rule.model == device.model and not device.parent):
            return replace(
                device, sharing=rule.method, slots=rule.slots, weight=device.weight / rule.slots
            )
    return device


def check_answer(answer: object) -> Inventory:
    """The driver's answer, checked. Raises InventoryError where no part of it can be used."""
    if not isinstance(answer, dict) or not isinstance(answer.get("devices"), list):
        raise InventoryError("NVML: the answer has no list of devices")
    items = [item for item in answer["devices"] if isinstance(item, dict)]
    if len(items) > MOST_DEVICES:
        raise InventoryError(f"NVML: {len(items)} GPUs in one machine cannot be true")
    devices: dict[str, Device] = {}
    readings: dict[str, Reading] = {}
    problems = [f"a GPU is lost: {_plain(item.get('reason'))}" for item in _dicts(answer, "lost")]
    for item in items:
        uuid = item.get("id")
        if not isinstance(uuid, str) or not _ID.fullmatch(uuid):
            problems.append(f"a GPU is left out: its id is {_plain(uuid)!r}")
        elif uuid in devices:
            # Which of the two a container would get, nobody knows.
            devices[uuid] = _failing(devices[uuid], "two GPUs say that they have this id")
        else:
            devices[uuid] = _device(uuid, item)
            readings[uuid] = _reading(item, answer.get("all_processes") is True)
    problems += [f"{d.id}: {d.health_reason}" for d in devices.values() if d.health != "ok"]
    errors = tuple(
        (str(item.get("id")), int(item["xid"]))
        for item in _dicts(answer, "errors")
        if isinstance(item.get("xid"), int) and item["xid"] not in PROGRAM_XIDS
    )
    return Inventory(tuple(devices.values()), readings, errors, tuple(problems))


def _dicts(answer: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = answer.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _plain(value: object, most: int = 80) -> str:
    """Text of the driver's on one line, without control characters or such that turn it round."""
    text = "".join(c if c.isprintable() else " " for c in str(value)[: 4 * most])
    return " ".join(text.split())[:most]


def _failing(device: Device, reason: str) -> Device:
    return replace(device, health="failing", health_reason=reason)


def _device(uuid: str, item: dict[str, Any]) -> Device:
    device = Device(
        id=uuid,
        model=_plain(item.get("model") or "") or "unknown",
        memory=0,
        parent=_plain(item.get("parent") or "", 96),
        weight=_weight(item),
    )
    memory = item.get("memory")
    if not isinstance(memory, int) or not 0 < memory <= MOST_MEMORY:
        return _failing(device, f"the driver says it has {_plain(memory)} bytes of memory")
    device = replace(device, memory=memory)
    reason = _trouble(item.get("health"))
    return _failing(device, reason) if reason else device


def _weight(item: dict[str, Any]) -> float:
    """A MIG device's share of its GPU; a whole GPU counts 1."""
    slices, of = item.get("slices"), item.get("of")
    if isinstance(slices, int) and isinstance(of, int) and 0 < slices <= of <= 64:
        return slices / of
    if profile := re.search(r"\bMIG ([1-7])g\.", str(item.get("model"))):
        return int(profile[1]) / 7  # an old driver; all GPUs with MIG but the A30 have seven
    return 1.0


def _trouble(health: object) -> str:
    """Why a GPU cannot be trusted, from its counters; empty when it can."""
    if not isinstance(health, dict):
        return ""
    if health.get("remap_failed") is True:
        return "its memory cannot be repaired any more (row remapping failed): replace it"
    if health.get("remap_pending") is True or health.get("retirement_pending") is True:
        return "faulty memory is to be put aside: reset the GPU"
    errors = health.get("ecc_uncorrected")
    if isinstance(errors, int) and errors > 0:
        return f"{errors} uncorrected memory errors (ECC) since the driver was loaded"
    return ""


def _reading(item: dict[str, Any], all_processes: bool) -> Reading:
    listed = item.get("processes")
    processes = None
    if isinstance(listed, list) and all_processes:
        processes = tuple(
            Process(entry["pid"], _percent(entry.get("percent")))
            for entry in listed
            if isinstance(entry, dict) and isinstance(entry.get("pid"), int) and entry["pid"] > 0
        )
    return Reading(_percent(item.get("percent")), processes)


def _percent(value: object) -> float | None:
    """A percentage, or None for anything else: what cannot be true is not known."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value) if 0 <= value <= 100 else None
