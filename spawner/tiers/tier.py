"""The tiers: personal, team, course, shared and image, each with its place on disk. Pure.

The folders are the contract with ``kernels.discovery``, which finds the environments in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from hub_ext.i18n import N_
from spawner.errors import BadRequest

SERVER_ROOT = PurePosixPath("/opt/labcommons")
# Of a source, an owner and an environment: what they are in paths and in kernels' names.
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
# As image environments are named, so that every environment can be promoted.
_ENVIRONMENT = re.compile(r"[a-z0-9]+((\.|_|-)[a-z0-9]+)*")
MAX_NAME = 64
VERSIONS = ".versions"


class Kind(StrEnum):
    """Whose environments they are."""

    PERSONAL = "personal"
    TEAM = "team"
    COURSE = "course"
    SHARED = "shared"
    IMAGE = "image"


@dataclass(frozen=True)
class Tier:
    """One tier. ``owner`` is a person's, team's or course's name, else empty."""

    kind: Kind
    owner: str = ""

    @property
    def source(self) -> str:
        """Its name in kernel names and in our REST API, such as ``team-vision``."""
        if self.kind in (Kind.TEAM, Kind.COURSE):
            return f"{self.kind}-{self.owner}"
        return str(self.kind)

    @property
    def folder(self) -> PurePosixPath:
        """What is mounted of it, below the data folder."""
        match self.kind:
            case Kind.PERSONAL:
                return PurePosixPath("homes", self.owner)
            case Kind.TEAM:
                return PurePosixPath("teams", self.owner)
            case Kind.COURSE:
                return PurePosixPath("courses", self.owner)
            case Kind.SHARED:
                return PurePosixPath("shared")
        raise ValueError("image environments are not in a folder")

    @property
    def mount(self) -> PurePosixPath:
        """Where that folder is in a user's server and in the builder."""
        if self.kind is Kind.PERSONAL:
            return PurePosixPath("/home", self.owner)
        return SERVER_ROOT / self.folder

    @property
    def environments(self) -> PurePosixPath:
        """The folder of environments in a user's server and in the builder."""
        return self.mount / (".conda/envs" if self.kind is Kind.PERSONAL else "envs")


SHARED = Tier(Kind.SHARED)
IMAGE = Tier(Kind.IMAGE)


def parse_source(source: object, username: str) -> Tier:
    """The tier that a source names, ``personal`` being the person's own. Raises BadRequest."""
    text = source if isinstance(source, str) else ""
    if text in (Kind.SHARED, Kind.IMAGE):
        return Tier(Kind(text))
    if text == Kind.PERSONAL:
        return Tier(Kind.PERSONAL, username)
    kind, _, owner = text.partition("-")
    if kind in (Kind.TEAM, Kind.COURSE) and NAME.fullmatch(owner):
        return Tier(Kind(kind), owner)
    raise BadRequest(
        "unknown_tier",
        N_(
            "“{tier}” is no place for environments; write personal, team-NAME, course-NAME "
            "or shared."
        ),
        {"tier": text[:80]},
    )


def check_name(name: object) -> str:
    """An environment's name. Raises BadRequest for what could be a path or hurt a kernel's name."""
    if isinstance(name, str) and len(name) <= MAX_NAME and _ENVIRONMENT.fullmatch(name):
        return name
    raise BadRequest(
        "environment_name",
        N_(
            "“{name}” cannot be an environment's name: small letters and digits, with single "
            "“.”, “_” or “-” between them, at most 64 characters."
        ),
        {"name": str(name)[:80]},
    )
