"""What the channel has, and for whom it was made: kept in one file beside the packages.

It is written last, so that an interrupted run is simply continued.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from environments.offline.package import Metadata
from environments.offline.requirements import pypi_requirements, python_minor
from environments.spec import EnvironmentSpec

# Raise it when packages are made or described differently: all is asked for anew then.
FORMAT = 2
NOTE = "made.json"
INDEXES = ("noarch/repodata.json", "linux-64/repodata.json")


@dataclass(frozen=True)
class Kept:
    """One package of the channel.

    Attributes:
        index: what conda has to know of it, but for what it needs of the channel.
        requires: that, as PyPI says it.
        size: in bytes.
    """

    index: dict[str, Any]
    requires: tuple[str, ...]
    sha256: str
    md5: str
    size: int

    @classmethod
    def of(cls, package: Path, metadata: Metadata) -> Kept:
        """A package's file, and what its maker says of it."""
        with package.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            md5 = hashlib.file_digest(file, "md5").hexdigest()  # conda's other name for a file
            size = file.tell()
        index = metadata.index() | {"depends": sorted(metadata.depends)}
        return cls(index, metadata.requires, sha256, md5, size)


@dataclass
class Note:
    """``asked``: the packages made for each question; ``packages``: all of them, by path."""

    asked: dict[str, list[str]] = field(default_factory=dict)
    packages: dict[str, Kept] = field(default_factory=dict)

    @classmethod
    def read(cls, channel: Path) -> Note:
        """The channel's note; an empty one where there is none of use."""
        try:
            note = json.loads((channel / NOTE).read_bytes())
            if note["format"] != FORMAT:
                return cls()
            asked = {
                str(key): [str(path) for path in paths] for key, paths in note["asked"].items()
            }
            packages = {str(path): _kept(one) for path, one in note["packages"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()  # it says only what need not be done again
        return cls(asked, packages)

    def write(self, channel: Path) -> None:
        """Put it into its place, whole."""
        packages = {path: asdict(one) for path, one in self.packages.items()}
        document = {"format": FORMAT, "asked": self.asked, "packages": packages}
        partial = channel / f"{NOTE}.part"
        partial.write_text(json.dumps(document, indent=1, sort_keys=True))
        partial.rename(channel / NOTE)

    def has(self, channel: Path, paths: Sequence[str] | None) -> bool:
        """Whether packages are there, and in the index."""
        return bool(paths) and all(
            (channel / path).is_file() for path in [*(paths or []), *INDEXES]
        )


def _kept(one: dict[str, Any]) -> Kept:
    return Kept(
        dict(one["index"]), tuple(one["requires"]), one["sha256"], one["md5"], int(one["size"])
    )


def key(spec: EnvironmentSpec) -> str:
    """What an environment asks the channel for."""
    return f"{python_minor(spec)} {' '.join(pypi_requirements(spec))}"


def holds(channel: Path, spec: EnvironmentSpec) -> bool:
    """Whether the channel has what an environment needs, so that nothing need be written."""
    note = Note.read(channel)
    return note.has(channel, note.asked.get(key(spec)))


def may_hold(channel: Path, spec: EnvironmentSpec) -> bool:
    """Whether all that an environment asks for was asked for before, if not together.

    Only the solver knows whether it can be had together from what the channel has.
    """
    note, minor, known = Note.read(channel), python_minor(spec), set[str]()
    for asked, paths in note.asked.items():
        if asked.startswith(f"{minor} ") and note.has(channel, paths):
            known.update(asked.split(" ")[1:])
    return known.issuperset(pypi_requirements(spec))
