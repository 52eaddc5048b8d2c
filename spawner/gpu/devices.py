"""The words of GPU allocation, as plain data, and the choice of devices as a pure function."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from hub_ext.i18n import N_
from spawner.errors import BadRequest, NotAvailable


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
    """All devices of one model, counted."""

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
        """All devices present."""
        return sum(kind.total for kind in self.types)

    @property
    def free(self) -> int:
        """Devices present that nobody holds."""
        return sum(kind.free for kind in self.types)


def count_types(devices: Iterable[Device], leased: Collection[str]) -> Availability:
    """Count devices by model; ``leased`` are the ids somebody holds."""
    devices = sorted(devices, key=lambda device: (device.model, device.id))
    types = []
    for model in dict.fromkeys(device.model for device in devices):
        of_model = [device for device in devices if device.model == model]
        free = sum(device.id not in leased for device in of_model)
        types.append(GpuType(model, max(d.memory for d in of_model), len(of_model), free))
    return Availability(tuple(types), any(device.simulated for device in devices))


def choose_devices(
    devices: Iterable[Device], leased: Collection[str], count: int, model: str = ""
) -> list[Device]:
    """The devices for a request of ``count`` GPUs (of one model where ``model`` is set).

    All come from one model, so that a server never has to work with unequal GPUs; among
    models that fit, the one with the least memory, so that large GPUs stay free for those
    who ask for them.

    Raises BadRequest for more than exist, NotAvailable for more than are free now.
    """
    devices = list(devices)
    available = count_types(devices, leased)
    types = [kind for kind in available.types if model in ("", kind.model)]
    known = ", ".join(kind.model for kind in available.types)
    if not types:
        if not available.types:
            raise BadRequest("gpu_none_here", N_("This site has no GPUs. Ask for 0 GPUs."))
        raise BadRequest(
            "gpu_type_unknown",
            N_("There is no GPU type “{model}” here. Types: {known}."),
            {"model": model, "known": known},
        )
    most = max(kind.total for kind in types)
    if count > most:
        raise BadRequest(
            "gpu_more_than_exist",
            N_("{count} GPUs were asked for, but only {most} of one type exist."),
            {"count": count, "most": most},
        )
    fitting = [kind for kind in types if kind.free >= count]
    if not fitting:
        others = [kind for kind in available.types if kind.free >= count]
        if others:
            raise NotAvailable(
                "gpu_type_none_free",
                N_("No {model} is free now. Free: {others}. Choose one of them, or try later."),
                {
                    "model": model or types[0].model,
                    "others": ", ".join(f"{kind.free} × {kind.model}" for kind in others),
                },
            )
        raise NotAvailable(
            "gpu_none_free",
            N_(
                "Not enough GPUs are free now: {count} asked for, {free} free. "
                "Start without a GPU, or try again when somebody stops a server."
            ),
            {"count": count, "free": max(kind.free for kind in types)},
        )
    best = min(fitting, key=lambda kind: (kind.memory, kind.model))
    return sorted(
        (device for device in devices if device.model == best.model and device.id not in leased),
        key=lambda device: device.id,
    )[:count]
