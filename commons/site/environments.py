"""The sections ``environments`` and ``builds``: channels, rules, and how builds run."""

from __future__ import annotations

import re
from datetime import time
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from commons.site.parts import Memory, Section, parse_bytes

Severity = Literal["low", "medium", "high", "critical"]


# Where a login may go without TLS: nobody is on the way.
LOOPBACK = frozenset({"127.0.0.1", "::1"})
_LOGIN_PLACE = re.compile(r"([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?(/[^?#@\s]*)?")


class Credential(Section):
    """A login to a host with packages: a token, or a name and a password, never written here."""

    username: str = ""
    password_file: Path | None = None
    password_variable: str = ""
    token_file: Path | None = None
    token_variable: str = ""

    @model_validator(mode="after")
    def _one_secret(self) -> Credential:
        secrets = (
            self.password_file,
            self.password_variable,
            self.token_file,
            self.token_variable,
        )
        if sum(map(bool, secrets)) != 1:
            raise ValueError(
                "name one of password_file, password_variable, token_file, token_variable"
            )
        if bool(self.username) != bool(self.password_file or self.password_variable):
            raise ValueError("username and a password go together")
        return self


class EnvironmentPolicy(Section):
    """What environments may be made of. Empty lists allow everything.

    ``unlocked``: what no committed lock answers for; ``pip``: packages from PyPI beside
    conda's; ``ended_python``: a Python that gets no security fixes any more.
    """

    channels: list[str] = []
    allowed_packages: list[str] = []
    denied_packages: dict[str, str] = {}
    unlocked: Literal["allow", "warn", "refuse"] = "warn"
    pip: Literal["allow", "warn", "refuse"] = "warn"
    ended_python: Literal["allow", "warn", "refuse"] = "refuse"


class EnvironmentScan(Section):
    """A command that looks for known holes, and what it may find.

    ``{sbom}`` in the command is the version's CycloneDX file, ``{prefix}`` its folder. The
    command prints Trivy's JSON. Findings from ``threshold`` on keep a version from being
    offered. ``advisories``: a folder or file of OSV documents, matched without any network; with
    them all versions are looked at again each day at ``rescan``, by the clock of
    ``servers.timezone``.
    """

    command: list[str] = []
    timeout: int = Field(300, ge=1, le=3600, description="seconds")
    threshold: Severity | Literal["never"] = "high"
    advisories: Path | None = None
    ignore: dict[str, str] = {}
    rescan: str = Field("04:30", pattern=r"^(([01]\d|2[0-3]):[0-5]\d|never)$")

    def rescan_time(self) -> time | None:
        """When all versions are looked at again each day; None: never."""
        never = self.advisories is None or self.rescan == "never"
        return None if never else time.fromisoformat(self.rescan)


DEFAULT_CHANNELS = ("conda-forge",)


class Environments(Section):
    """Where packages come from, what they may be, and how long versions are kept.

    ``channels`` are the site's default channels: they come after those of an environment.yml, as
    conda's own do, unless it says ``nodefaults``; one that does not answer is left out then.
    ``mirrors`` maps a channel name or URL, as environment.yml writes it, to the places
    tried for it, nearest first. ``offline_channel``: ``auto`` builds a small channel from
    PyPI wheels and Debian's Pythons when no place answers; ``always``, ``never``. Beyond
    ``offline_size`` its packages go that no lock names, the oldest first.
    ``credentials`` are by ``host``, ``host:port`` or ``host/path``, and go over TLS alone.
    ``pip_files``: where the index that ``pip_index`` mirrors has its files itself, as locks shall
    keep it. ``cuda``: the version that the servers' driver has, for environments that do not say
    it themselves. ``keep``: how many versions of an environment ``labcommons env prune`` leaves;
    besides, those that somebody started a kernel in within ``keep_used`` days (usage is kept for
    396).
    """

    channels: list[str] = Field(list(DEFAULT_CHANNELS), min_length=1, max_length=16)
    mirrors: dict[str, list[str]] = {}
    offline_channel: Literal["auto", "always", "never"] = "never"
    offline_size: Memory = "20G"
    timeout: int = Field(10, ge=1, le=600, description="seconds until a channel counts as down")
    credentials: dict[str, Credential] = {}
    pip_index: str = ""
    pip_extra_indexes: list[str] = []
    pip_files: str = ""
    cuda: str = Field("", pattern=r"^(\d{1,3}(\.\d{1,3}){1,2})?$")
    policy: EnvironmentPolicy = EnvironmentPolicy()
    scan: EnvironmentScan = EnvironmentScan()
    keep: int = Field(3, ge=1, le=1000)
    keep_used: int = Field(30, ge=0, le=396, description="days")

    @property
    def default_channels(self) -> list[str]:
        """The default channels that the policy allows, or else what it allows."""
        allowed = self.policy.channels
        return [item for item in self.channels if not allowed or item in allowed] or allowed

    @cached_property
    def offline_bytes(self) -> int:
        return parse_bytes(self.offline_size)

    @model_validator(mode="after")
    def _no_secrets(self) -> Environments:
        places = [*self.pip_extra_indexes, self.pip_index, self.pip_files]
        places += [place for places in self.mirrors.values() for place in places]
        for place in filter(None, places):
            if urlsplit(place).username or urlsplit(place).password:
                raise ValueError(
                    "a URL must not contain a name or password; put them under credentials"
                )
        return self

    @model_validator(mode="after")
    def _logins_over_tls(self) -> Environments:
        for place in self.credentials:
            if not _LOGIN_PLACE.fullmatch(place):
                raise ValueError(
                    f"credentials.{place}: write the host alone, with its port where that is not "
                    "443, and a path where the login is for a part of it: conda.lab.example, "
                    "conda.lab.example:8443, conda.lab.example/main. Logins go over https only"
                )
        hosts = {urlsplit(f"//{place}").hostname for place in self.credentials} - LOOPBACK
        places = [place for places in self.mirrors.values() for place in places]
        for place in (*places, *self.mirrors, self.pip_index, *self.pip_extra_indexes):
            if urlsplit(place).scheme == "http" and urlsplit(place).hostname in hosts:
                raise ValueError(
                    f"{place}: its login would be read by anybody on the way; write https://"
                )
        return self


class Builds(Section):
    """What builds of personal, team, course and shared environments may use.

    ``at_once`` and ``per_person`` run side by side, ``waiting`` of one person's may wait.
    """

    at_once: int = Field(2, ge=1, le=64)
    per_person: int = Field(1, ge=1, le=16)
    waiting: int = Field(5, ge=1, le=100)
    timeout: int = Field(3600, ge=60, le=86400, description="seconds")
    cpu: float = Field(2, gt=0, le=1024)
    memory: Memory = "4G"

    @cached_property
    def memory_bytes(self) -> int:
        return parse_bytes(self.memory)
