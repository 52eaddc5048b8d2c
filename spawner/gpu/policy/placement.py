"""Devices, and how many of each model there are. Which a request gets, ``policy`` decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Device:
    """A GPU (or MIG device), leased whole or, where the site shares it, by slots.

    Attributes:
        id: what Docker's DeviceRequest takes: a GPU- or MIG-UUID.
        memory: bytes.
        parent: the GPU's UUID where this is a MIG device.
        sharing: how several leases share it; without isolation unless exclusive.
        slots: how many leases it takes at once; 1 when exclusive.
        weight: billing weight of one slot: 1 for a GPU, g/7 for MIG, divided by the slots.
        health: ``failing`` and ``lost`` devices are not offered.
        drained: by an administrator: not offered, what runs there goes on.
    """

    id: str
    model: str
    memory: int
    simulated: bool = False
    node: str = "local"
    parent: str = ""
    sharing: Literal["exclusive", "time-slicing", "mps"] = "exclusive"
    slots: int = 1
    weight: float = 1.0
    health: Literal["ok", "failing", "lost"] = "ok"
    health_reason: str = ""
    drained: bool = False

    @property
    def offered(self) -> bool:
        """Whether something new may be placed on it."""
        return self.health == "ok" and not self.drained


@dataclass(frozen=True)
class GpuType:
    """All slots of one model, counted: whole GPUs, or shares of those that the site shares."""

    model: str
    memory: int
    total: int
    free: int


@dataclass(frozen=True)
class Availability:
    """What could be had at one moment."""

    types: tuple[GpuType, ...]
    simulated: bool

    @property
    def total(self) -> int:
        """All slots present."""
        return sum(kind.total for kind in self.types)

    @property
    def free(self) -> int:
        """Slots present that nobody holds."""
        return sum(kind.free for kind in self.types)


def count_types(devices: Iterable[Device], taken: Iterable[tuple[str, int]]) -> Availability:
    """Count the slots of devices by model; ``taken`` are those somebody holds (device, slot)."""
    devices = sorted(devices, key=lambda device: (device.model, device.id))
    held: dict[str, set[int]] = {}
    for device_id, slot in taken:
        held.setdefault(device_id, set()).add(slot)
    types = []
    for model in dict.fromkeys(device.model for device in devices):
        of_model = [device for device in devices if device.model == model]
        total = sum(device.slots for device in of_model)
        busy = sum(len(held.get(device.id, ())) for device in of_model)
        memory = max(device.memory for device in of_model)
        types.append(GpuType(model, memory, total, max(0, total - busy)))
    return Availability(tuple(types), any(device.simulated for device in devices))
