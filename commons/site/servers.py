"""The sections of people's servers: ``sizes``, ``servers``, ``kernels`` and ``mail``."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from commons.i18n import choose_timezone
from commons.site.culling import CullingRule
from commons.site.egress import Egress
from commons.site.mounts import Mount
from commons.site.parts import Memory, Name, Section, Words, parse_bytes


class Size(Section):
    """What one server may use: CPU cores (may be a fraction) and memory.

    ``guarantee`` is what counts of its memory in the sums (``servers.machine``): what it is sure
    to get, as JupyterHub's ``mem_guarantee``. Without a word that is all of it.
    """

    title: Words | None = None
    cpu: float = Field(gt=0, le=1024)
    memory: Memory
    guarantee: Memory | None = None
    only_for: list[str] = Field(
        [], description="such as team-vision or course-ml101: for these alone"
    )
    default: bool = False

    @cached_property
    def memory_bytes(self) -> int:
        return parse_bytes(self.memory)

    @property
    def guaranteed_bytes(self) -> int:
        """What counts of its memory; under a ceiling no more than it may use."""
        return min(parse_bytes(self.guarantee or self.memory), self.memory_bytes)

    def is_for(self, scopes: Collection[str]) -> bool:
        """Whether somebody may have it who is in these teams and courses (``team-NAME``)."""
        return not self.only_for or not set(self.only_for).isdisjoint(scopes)

    @model_validator(mode="after")
    def _possible(self) -> Size:
        if self.guarantee and parse_bytes(self.guarantee) > parse_bytes(self.memory):
            raise ValueError(f"guarantee: {self.guarantee} is more than the size's memory")
        if self.default and self.only_for:
            raise ValueError("only_for: the default size must be everybody's")
        return self


class Sums(Section):
    """What servers may have together; what is not said has no limit."""

    servers: int | None = Field(None, ge=1, le=100_000)
    memory: Memory | None = None
    cpu: float | None = Field(None, gt=0, le=1_000_000)


class Servers(Section):
    """Limits and places that every user's server gets.

    ``egress``: where servers may go outside the machine: ``all``, ``mirrors`` (of packages, in
    ``environments``), ``none``, or a list of networks and hosts. ``perimeter: off`` lets servers
    reach each other and the machine (docs/perimeter.md).
    ``culling``: when servers that nobody uses, or that are old, are stopped (docs/culling.md).
    """

    network: str = "labcommons-users"
    pids: int = Field(1024, ge=64, le=65536)
    shared_memory: Memory = "256M"
    tmp: Memory = "1G"
    start_timeout: int = Field(120, ge=10, le=3600, description="seconds")
    concurrent_starts: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        "auto", description="the others wait their turn; auto: as many as the machine carries"
    )
    machine: Sums = Field(
        Sums(), description="of all servers; memory: all that the machine has, unless said"
    )
    person: Sums = Field(Sums(), description="of one person's")
    stop_timeout: int = Field(10, ge=1, le=300, description="seconds between SIGTERM and SIGKILL")
    engine_timeout: int = Field(30, ge=1, le=600, description="seconds for one Docker call")
    engine_threads: int = Field(8, ge=1, le=64)
    timezone: str = Field("UTC", description="of servers of people whose browser says none")
    egress: Egress = "all"
    perimeter: Literal["on", "off"] = "on"
    mounts: dict[Name, Mount] = Field({}, max_length=64)
    culling: list[CullingRule] = Field([], max_length=64)

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name != "UTC" and choose_timezone(name) is UTC:
            raise ValueError(f"{name!r} is no time zone; write for example Europe/Berlin")
        return name

    @model_validator(mode="after")
    def _one_mount_at_each_place(self) -> Servers:
        # Of those that are only given where they are asked for, two may be meant for two groups.
        taken: dict[str, str] = {}
        for name, mount in self.mounts.items():
            if mount.only_if_asked:
                continue
            if other := taken.get(mount.target):
                raise ValueError(f"mounts.{name}: {mount.target} has mounts.{other} already")
            taken[mount.target] = name
        return self


_NAME_FIELDS = ("environment", "source", "label", "python", "version", "kernel")
_SIZES = ("as", "data", "fsize", "memlock", "stack")


# What a kernel needs to start at all; less is a mistake.
_LEAST = {
    "as": 2**28, "cpu": 60, "data": 2**28, "fsize": 2**20,
    "memlock": 2**16, "nofile": 256, "nproc": 64, "stack": 2**20,
}  # fmt: skip


class Kernels(Section):
    """How kernels are shown and run in people's servers, within what the server itself may use.

    ``hidden`` are globs of kernel names; ``renamed`` maps such globs to display names, in which
    ``{environment}``, ``{source}``, ``{label}``, ``{python}``, ``{version}`` and ``{kernel}`` are
    filled in; ``grouped`` begins display names with the source. ``registered`` are kernels that
    people registered in their homes, such as by ``ipykernel install --user``.

    ``limits`` are those of each kernel's process, by the names of prlimit(1): amounts of memory
    (``as``, ``data``, ``fsize``, ``memlock``, ``stack``), seconds of the CPU (``cpu``), numbers
    (``nofile``; ``nproc``, of all processes that the person has on the machine).
    """

    hidden: list[str] = []
    renamed: dict[str, str] = {}
    grouped: bool = False
    registered: bool = True
    nice: int = Field(0, ge=0, le=19, description="how much they give way to the server")
    limits: dict[
        Literal["as", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack"], int | str
    ] = {}
    activation_timeout: int = Field(15, ge=1, le=600, description="seconds")

    @model_validator(mode="after")
    def _names_can_be_filled_in(self) -> Kernels:
        for glob, template in self.renamed.items():
            try:
                template.format_map(dict.fromkeys(_NAME_FIELDS, ""))
            except (LookupError, AttributeError, ValueError) as error:
                fields = ", ".join(f"{{{name}}}" for name in _NAME_FIELDS)
                raise ValueError(
                    f"renamed.{glob}: {template!r} cannot be used ({error}); fields are {fields}"
                ) from error
        return self

    @model_validator(mode="after")
    def _limits_leave_room(self) -> Kernels:
        for name, wanted in self.limits.items():
            if isinstance(wanted, str) != (name in _SIZES):
                right = "an amount such as 8G" if name in _SIZES else "a number"
                raise ValueError(f"limits.{name}: {wanted!r} must be {right}")
            if self._number(wanted) < _LEAST[name]:
                least = f"{_LEAST[name] >> 10}K" if name in _SIZES else _LEAST[name]
                raise ValueError(f"limits.{name}: no kernel starts with less than {least}")
        return self

    @staticmethod
    def _number(wanted: int | str) -> int:
        return parse_bytes(wanted) if isinstance(wanted, str) else wanted

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the classes of ``kernels`` in people's servers, by class."""
        limits = {f"RLIMIT_{name.upper()}": self._number(of) for name, of in self.limits.items()}
        return {
            "CondaKernelSpecManager": {
                "hidden": self.hidden,
                "renamed": self.renamed,
                "grouped": self.grouped,
                "registered": self.registered,
            },
            "CondaProvisioner": {
                "nice": self.nice,
                "limits": limits,
                "activation_timeout": float(self.activation_timeout),
            },
        }


Address = Annotated[str, Field(pattern=r"^[^@\s<>,;:\"()\\]{1,64}@[A-Za-z0-9.-]{1,255}$")]


class Mail(Section):
    """Mail to people about their GPUs; off without a host.

    ``reports`` are addresses that get the report of each month's usage. The password, where the
    server asks for one, is in a file of its own.
    """

    host: str = ""
    port: int = Field(0, ge=0, le=65535, description="0: 465 with tls, else 587, or 25 without")
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: Path | None = None
    sender: str = ""
    user: str = ""
    password_file: Path | None = None
    timeout: int = Field(20, ge=1, le=120, description="seconds for one step of a delivery")
    reports: list[Address] = Field([], max_length=20, description="get each month's report")

    @model_validator(mode="after")
    def _complete(self) -> Mail:
        if self.host and not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", self.sender):
            raise ValueError("sender: the address mails come from, for example lab@example.org")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together: set both or neither")
        if self.user and self.security == "none":
            raise ValueError("security: a password is only sent over starttls or tls")
        return self
