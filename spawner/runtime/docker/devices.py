"""Which GPUs a server may be given: those of this machine that no other container has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from commons.errors import RuntimeRefused
from commons.site import Gpus
from spawner.runtime import labels
from spawner.runtime.docker import driver
from spawner.runtime.docker.rules import against_rules
from spawner.runtime.messages import GPU_HELD
from spawner.runtime.spec import Device

MOST_NODES = 255  # /dev/nvidia255 is nvidiactl
ALIVE = frozenset({"created", "running", "paused", "restarting"})


class Inventory:
    """This machine's GPUs: the driver's list, or the site file's."""

    def __init__(self, gpus: Gpus) -> None:
        self.gpus = gpus
        self._shares: dict[str, int] = {}  # by id: how many leases it takes at once
        self._minors: dict[str, int] = {}  # by id: the number of its device node

    @property
    def simulated(self) -> bool:
        return self.gpus.source == "simulated"

    def node(self, id_: str) -> str:
        """The device node of a GPU that was looked for, where GPUs are asked for by nodes.

        Raises RuntimeRefused where the driver says none: MIG devices have no node of their own.
        """
        if id_ not in self._minors:
            raise against_rules(f"{id_} has no device node of its own: set gpus.request to cdi")
        return f"/dev/nvidia{self._minors[id_]}"

    async def check(self, wanted: Sequence[Device]) -> dict[Device, bool]:
        """Whether each is a whole GPU, or a share.

        Raises RuntimeRefused for what is no GPU of this machine, or no share of it.
        """
        if len(set(wanted)) != len(wanted):
            raise against_rules("one share of a GPU twice")
        # Numbers of nodes change when the driver is loaded anew.
        anew = self.gpus.request == "devices"
        if anew or any(device.id not in self._shares for device in wanted):
            self._shares = await self._look()
        for device in wanted:
            shares = self._shares.get(device.id)
            if shares is None:
                raise against_rules(f"this machine has no GPU {device.id}")
            if device.index >= shares:
                raise against_rules(f"{device.id} has no share {device.index}")
        return {device: self._shares[device.id] == 1 for device in wanted}

    async def _look(self) -> dict[str, int]:
        if self.gpus.source != "nvml":
            return {spec.id: self._of(spec.id, spec.model, "") for spec in self.gpus.devices}
        answer = await driver.ask(0)
        items = [item for item in answer.get("devices") or () if isinstance(item, dict)]
        minors = {
            str(item.get("id")): minor
            for item in items
            if type(minor := item.get("minor")) is int and 0 <= minor < MOST_NODES
        }
        times = Counter(minors.values())
        self._minors = {id_: minor for id_, minor in minors.items() if times[minor] == 1}
        return {
            str(item.get("id")): self._of(
                str(item.get("id")), " ".join(str(item.get("model")).split()), item.get("parent")
            )
            for item in items
        }

    def _of(self, id_: str, model: str, parent: object) -> int:
        """Shares by the first rule that fits, as ``gpu.devices.inventory`` has it."""
        for rule in self.gpus.sharing:
            if id_ in rule.devices or (rule.model == model and not parent):
                return rule.slots
        return 1


def check_free(
    wanted: Mapping[Device, bool],
    containers: Iterable[Mapping[str, Any]],
    but: Mapping[str, str],
) -> None:
    """Raises RuntimeRefused where another container than one with the labels ``but`` has a device.

    ``wanted``: whether each is whole, or one share. ``containers`` as the Engine lists them.
    """
    whole = {device.id for device, is_whole in wanted.items() if is_whole}
    mine = {(device.id, device.index) for device in wanted}
    for item in containers:
        marks = item.get("Labels") or {}
        if but.items() <= marks.items() or item.get("State") not in ALIVE:
            continue
        label = marks.get(labels.GPUS, "")
        for word in label.split():
            id_, _, index = word.partition("#")
            if id_ in whole or (id_, int(index) if index.isdigit() else 0) in mine:
                name = next(iter(item.get("Names") or ()), "").lstrip("/")
                raise RuntimeRefused(GPU_HELD(device=id_, name=name))
