"""Single packages as locks name them: a conda package by its file, a wheel by its URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

# A package's file by where it is: channel, platform, name, version, build, and its hash.
_FILE = re.compile(
    r"((?:https?|file)://[^\s#?]+|/[^\s#?]*)/([a-z]+-\w+|noarch)/"
    r"((?P<name>[A-Za-z0-9_.+-]+)-(?P<version>[A-Za-z0-9_.+!]+)-(?P<build>[A-Za-z0-9_.+]+)"
    r"\.(?:conda|tar\.bz2))"
    r"(?:#(?:sha256:)?(?P<hash>[0-9a-fA-F]{32}(?:[0-9a-fA-F]{32})?))?"
)


@dataclass(frozen=True)
class PipPackage:
    """One wheel of a lock, from the spec's ``pip:`` section or needed by it."""

    name: str
    version: str
    url: str
    sha256: str
    requires_dist: tuple[str, ...] = ()
    requires_python: str = ""

    @property
    def filename(self) -> str:
        """The wheel's file name."""
        return urlsplit(self.url).path.rpartition("/")[2]


@dataclass(frozen=True)
class CondaFile:
    """One conda package by its file: exactly that, from that channel.

    ``channel`` is as it was written, without the platform; the hashes are hexadecimal or "".
    """

    name: str
    version: str
    build: str
    channel: str
    subdir: str
    file: str
    sha256: str = ""
    md5: str = ""
    depends: tuple[str, ...] = ()
    license: str = ""

    def __str__(self) -> str:
        digest = f"sha256:{self.sha256}" if self.sha256 else self.md5
        return f"{self.channel}/{self.subdir}/{self.file}#{digest}"


def conda_file(url: str) -> CondaFile | None:
    """The package that a URL (or a path) leads to, with the hash behind ``#``; None for no such."""
    found = _FILE.fullmatch(url) if url.isprintable() else None
    if found is None:
        return None
    digest = (found["hash"] or "").lower()
    return CondaFile(
        found["name"].lower(),
        found["version"],
        found["build"],
        found[1],
        found[2],
        found[3],
        sha256=digest if len(digest) == 64 else "",
        md5=digest if len(digest) == 32 else "",
    )
