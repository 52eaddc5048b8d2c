"""The section ``gpus``: where the list of GPUs comes from, how they are shared and watched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from commons.site.parts import Memory, Name, Section


class GpuDeviceSpec(Section):
    """One GPU named by the site file (source ``site`` or ``simulated``)."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,95}$")
    model: str = Field(min_length=1, max_length=80)
    memory: Memory
    node: Name = "local"


class GpuSharing(Section):
    """GPUs of a model, or certain ones, that several servers use at once, without isolation.

    The first rule that fits a GPU counts; MIG devices, which are parts already, are shared only
    by their id.
    """

    model: str = Field("", max_length=80, description="as the driver or the list below names it")
    devices: list[str] = []
    method: Literal["time-slicing", "mps"]
    slots: int = Field(ge=2, le=48)

    @model_validator(mode="after")
    def _of_something(self) -> GpuSharing:
        if bool(self.model) == bool(self.devices):
            raise ValueError("model, devices: name a model or list devices, one of the two")
        return self


class GpuWatching(Section):
    """How often GPUs are looked at, and what happens to servers whose GPU is lost."""

    interval: int = Field(30, ge=5, le=600, description="seconds between two looks at the GPUs")
    probe_interval: int = Field(
        600, ge=30, le=86400, description="seconds between two checks of a server's own access"
    )
    stop_lost: bool = False


class Gpus(Section):
    """Where the list of GPUs comes from, and how many one server may ask for."""

    source: Literal["none", "nvml", "site", "simulated"] = "none"
    devices: list[GpuDeviceSpec] = []
    sharing: list[GpuSharing] = []
    watch: GpuWatching = GpuWatching()
    max_per_server: int = Field(1, ge=0, le=64)
    request: Literal["runtime", "devices", "cdi"] = Field(
        "runtime", description="how GPUs are asked of the Engine: devices and cdi keep them"
    )

    @model_validator(mode="after")
    def _devices(self) -> Gpus:
        listed = self.source in ("site", "simulated")
        if listed != bool(self.devices):
            raise ValueError(
                f"devices: source {self.source!r} "
                + ("needs at least one device" if listed else "takes none; remove them")
            )
        ids = [device.id for device in self.devices]
        if len(set(ids)) != len(ids):
            raise ValueError("devices: each id may be listed once")
        nodes = sorted({device.node for device in self.devices})
        if self.source == "site" and len(nodes) > 1:
            raise ValueError(
                f"devices: they are of {len(nodes)} nodes ({', '.join(nodes)}), but servers start "
                "on one machine's Docker Engine: list the GPUs of that machine (source simulated "
                "may have several nodes)"
            )
        if self.request == "devices" and self.source != "nvml":
            raise ValueError(
                f"request: devices takes GPUs' numbers from the driver; with source "
                f"{self.source!r} use cdi or runtime"
            )
        if listed:
            self._sharing_fits(ids, {device.model for device in self.devices})
        return self

    def _sharing_fits(self, ids: list[str], models: set[str]) -> None:
        """A rule for what is not there is a mistake, where the site file lists what is there."""
        for rule in self.sharing:
            for wanted, known in (
                (rule.devices, set(ids)),
                ([rule.model] * bool(rule.model), models),
            ):
                if missing := [name for name in wanted if name not in known]:
                    raise ValueError(
                        f"sharing: {', '.join(missing)} is not listed under devices; "
                        f"listed: {', '.join(sorted(known))}"
                    )
