"""What is installed in a prefix: conda's records and the distributions that pip knows."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name

_MAX_BYTES = 64 * 2**20  # a record lists every file of its package


@dataclass(frozen=True)
class Installed:
    """One package in a prefix.

    Attributes:
        kind: ``conda`` or ``pip``.
        build: conda's build string, or "".
        url: where it came from, or "".
        distributions: the names under which Python knows what it brought.
    """

    kind: str
    name: str
    version: str
    build: str = ""
    subdir: str = ""
    url: str = ""
    sha256: str = ""
    md5: str = ""
    license: str = ""
    depends: tuple[str, ...] = ()
    distributions: tuple[tuple[str, str], ...] = ()

    @property
    def channel(self) -> str:
        """The channel's URL, or ""."""
        return self.url.rpartition("/")[0].rpartition("/")[0] if self.url else ""


def inventory(prefix: Path) -> list[Installed]:
    """All packages in a prefix, conda's first, each kind sorted by name.

    Broken records are left out. A distribution that is no conda package's is pip's.
    """
    found, owned = [], set()
    for _, record in records(prefix):
        folders = {
            str(Path(file).parent) for file in record.get("files") or [] if _is_metadata(file)
        }
        owned |= folders
        known = tuple(
            (canonicalize_name(item.metadata["Name"]), item.version)
            for folder in sorted(folders)
            if (item := _distribution(prefix / folder))
        )
        found.append(
            Installed(
                "conda",
                str(record["name"]),
                str(record["version"]),
                str(record.get("build") or ""),
                str(record.get("subdir") or ""),
                str(record.get("url") or ""),
                str(record.get("sha256") or ""),
                str(record.get("md5") or ""),
                str(record.get("license") or ""),
                tuple(map(str, record.get("depends") or ())),
                known,
            )
        )
    return sorted(found, key=lambda item: item.name) + _pip(prefix, owned)


def records(prefix: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """conda's records in a prefix, by the names of their files; broken ones are left out."""
    for path in sorted((prefix / "conda-meta").glob("*.json")):
        record = _record(path)
        if record is not None:
            yield path, record


def doubles(packages: list[Installed]) -> list[str]:
    """One sentence for each distribution that is there twice."""
    seen: dict[str, str] = {}
    found = []
    for item in packages:
        for name, version in item.distributions or ():
            said = f"{item.kind} ({version})"
            if name in seen:
                found.append(f"{name} was installed twice, by {seen[name]} and by {said}")
            seen[name] = said
    return found


def _record(path: Path) -> dict[str, Any] | None:
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            return None
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(record, dict) and record.get("name") and record.get("version")
    return record if known else None


def _is_metadata(file: str) -> bool:
    parts = file.rsplit("/", 2)
    return len(parts) > 1 and (
        file.endswith((".dist-info/METADATA", ".egg-info/PKG-INFO")) and "site-packages" in file
    )


def _distribution(folder: Path) -> Distribution | None:
    try:
        item = Distribution.at(folder)
        return item if item.metadata["Name"] else None
    except (OSError, ValueError, KeyError, UnicodeDecodeError):
        return None


def _pip(prefix: Path, owned: set[str]) -> list[Installed]:
    found = []
    for site in sorted((prefix / "lib").glob("python3*/site-packages")):
        for item in distributions(path=[str(site)]):
            path = getattr(item, "_path", None)
            if path is None or str(Path(path).relative_to(prefix)) in owned:
                continue
            try:
                name, version = canonicalize_name(item.metadata["Name"]), item.version
            except (KeyError, TypeError):
                continue
            licence = item.metadata["License-Expression"] or ""
            found.append(
                Installed(
                    "pip",
                    name,
                    version,
                    url=_origin(item),
                    license=licence,
                    depends=tuple(item.requires or ()),
                    distributions=((name, version),),
                )
            )
    return sorted(found, key=lambda item: item.name)


def _origin(item: Distribution) -> str:
    """Where a distribution that was not taken from an index came from (PEP 610)."""
    try:
        url = str(json.loads(item.read_text("direct_url.json") or "{}").get("url", ""))
    except (OSError, ValueError, AttributeError):
        return ""
    parts = urlsplit(url)
    return "" if parts.username or parts.scheme not in ("http", "https") else url
