"""The sections of people's servers: ``sizes``, ``servers``, ``kernels`` and ``mail``."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from hub_ext.site.parts import Memory, Section, Words, parse_bytes


class Size(Section):
    """What one server may use: CPU cores (may be a fraction) and memory."""

    title: Words | None = None
    cpu: float = Field(gt=0, le=1024)
    memory: Memory
    default: bool = False

    @cached_property
    def memory_bytes(self) -> int:
        return parse_bytes(self.memory)


class Servers(Section):
    """Limits and places that every user's server gets."""

    network: str = "labcommons-users"
    pids: int = Field(1024, ge=64, le=65536)
    shared_memory: Memory = "256M"
    tmp: Memory = "1G"
    start_timeout: int = Field(120, ge=10, le=3600, description="seconds")
    concurrent_starts: int = Field(20, ge=1, le=1000, description="the others wait their turn")
    stop_timeout: int = Field(10, ge=1, le=300, description="seconds between SIGTERM and SIGKILL")
    engine_timeout: int = Field(30, ge=1, le=600, description="seconds for one Docker call")
    engine_threads: int = Field(8, ge=1, le=64)


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
    filled in; ``grouped`` begins display names with the source.

    ``limits`` are those of each kernel's process, by the names of prlimit(1): amounts of memory
    (``as``, ``data``, ``fsize``, ``memlock``, ``stack``), seconds of the CPU (``cpu``), numbers
    (``nofile``; ``nproc``, of all processes that the person has on the machine).
    """

    hidden: list[str] = []
    renamed: dict[str, str] = {}
    grouped: bool = False
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
            },
            "CondaProvisioner": {
                "nice": self.nice,
                "limits": limits,
                "activation_timeout": float(self.activation_timeout),
            },
        }


class Mail(Section):
    """Mail to people about their GPUs; off without a host.

    The password, where the server asks for one, is in a file of its own.
    """

    host: str = ""
    port: int = Field(0, ge=0, le=65535, description="0: 465 with tls, else 587, or 25 without")
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: Path | None = None
    sender: str = ""
    user: str = ""
    password_file: Path | None = None
    timeout: int = Field(20, ge=1, le=120, description="seconds for one step of a delivery")

    @model_validator(mode="after")
    def _complete(self) -> Mail:
        if self.host and not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", self.sender):
            raise ValueError("sender: the address mails come from, for example lab@example.org")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together: set both or neither")
        if self.user and self.security == "none":
            raise ValueError("security: a password is only sent over starttls or tls")
        return self
