"""Writing conda packages: format version 2 (``.conda``), byte for byte the same each time.

The format is conda's own: a zip of ``metadata.json`` and two zstd-compressed tars, the
files (``pkg-``) and what is said of them (``info-``).
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from packaging.requirements import Requirement

from environments.offline.match import match_spec

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdFile
else:
    from backports.zstd import ZstdFile

# The time of every file, so that equal contents make equal packages: 2024-01-01 UTC.
EPOCH = 1704067200
# Replaced by the environment's path at installation; as long as conda-build's, so that
# any path fits in its place.
PLACEHOLDER = ("/opt/labcommons_build_placeholder" + "_placehold" * 30)[:255]
_LEVEL = 7  # 9 makes packages 3 % smaller and takes twice the time
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Member:
    """One file of a package, or a symlink when ``link`` is set.

    Attributes:
        path: below the environment's prefix.
        mode: permission bits.
        has_prefix: True where the data contains PLACEHOLDER.
    """

    path: str
    data: bytes = b""
    mode: int = 0o644
    link: str | None = None
    has_prefix: bool = False


@dataclass(frozen=True)
class Metadata:
    """What the solver knows of a package (``info/index.json``).

    ``depends`` are conda's match specs, ``requires`` are PyPI's requirements. ``prerelease``: the
    solver takes it only where nothing else will do, as pip does.
    """

    name: str
    version: str
    build: str
    depends: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    noarch: Literal["", "python", "generic"] = ""
    license: str = ""
    site_packages: str | None = None
    prerelease: bool = False

    @classmethod
    def read(cls, folder: Path) -> Metadata:
        """That of an unpacked package which has no requirements of PyPI's: a Python."""
        index = json.loads((folder / "info/index.json").read_bytes())
        return cls(
            name=index["name"],
            version=index["version"],
            build=index["build"],
            depends=tuple(index["depends"]),
            license=index["license"],
            site_packages=index.get("python_site_packages_path"),
        )

    @property
    def subdir(self) -> str:
        """The channel's subfolder that the package belongs in."""
        return "noarch" if self.noarch else "linux-64"

    @property
    def stem(self) -> str:
        """The file's name without ``.conda``."""
        return f"{self.name}-{self.version}-{self.build}"

    @property
    def path(self) -> str:
        """The package's path in a channel."""
        return f"{self.subdir}/{self.stem}.conda"

    def index(self) -> dict[str, Any]:
        """The document ``info/index.json``."""
        needs = {match_spec(Requirement(text)) for text in self.requires}
        document: dict[str, Any] = {
            "name": self.name,
            "version": self.version,
            "build": self.build,
            "build_number": 0,
            "subdir": self.subdir,
            "depends": sorted({*self.depends, *needs}),
            "license": self.license,
            "timestamp": EPOCH * 1000,
        }
        if self.noarch:
            document["noarch"] = self.noarch
        else:
            document |= {"arch": "x86_64", "platform": "linux"}
        if self.prerelease:
            document["track_features"] = "prerelease"
        if self.site_packages:
            document["python_site_packages_path"] = self.site_packages
        return document


def write_package(
    channel: Path,
    metadata: Metadata,
    members: Iterable[Member],
    entry_points: Iterable[str] = (),
) -> Path:
    """Write a package into a channel's folder, whole or not at all.

    ``entry_points`` (``name = module:function``) are for noarch packages, whose programs
    are made at installation. Only one member's data is held in memory at a time.
    """
    target = channel / metadata.path
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target.parent) as payload:
        paths = _write_payload(payload, members)
        info = _info(metadata, paths, list(entry_points))
        partial = target.with_suffix(".part")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            _put(archive, "metadata.json", io.BytesIO(b'{"conda_pkg_format_version": 2}'))
            payload.seek(0)
            _put(archive, f"pkg-{metadata.stem}.tar.zst", payload)
            _put(archive, f"info-{metadata.stem}.tar.zst", _packed(info))
    partial.rename(target)
    return target


def _write_payload(payload: IO[bytes], members: Iterable[Member]) -> list[dict[str, Any]]:
    """Write the files; returns what ``info/paths.json`` says of them."""
    paths = []
    with _compressed(payload) as tar:
        for member in members:
            tar.addfile(_header(member), io.BytesIO(member.data))
            entry: dict[str, Any] = {
                "_path": member.path,
                "path_type": "softlink" if member.link is not None else "hardlink",
                "sha256": hashlib.sha256(member.data).hexdigest(),
                "size_in_bytes": len(member.data),
            }
            if member.has_prefix:
                entry |= {"file_mode": "text", "prefix_placeholder": PLACEHOLDER}
            paths.append(entry)
    return sorted(paths, key=lambda entry: str(entry["_path"]))


def _info(
    metadata: Metadata, paths: list[dict[str, Any]], entry_points: list[str]
) -> dict[str, bytes]:
    prefixed = [path["_path"] for path in paths if "prefix_placeholder" in path]
    files = {
        "info/index.json": _json(metadata.index()),
        "info/paths.json": _json({"paths": paths, "paths_version": 1}),
        "info/about.json": _json({"license": metadata.license}),
        "info/files": "".join(f"{path['_path']}\n" for path in paths).encode(),
    }
    if prefixed:
        lines = "".join(f'"{PLACEHOLDER}" text "{path}"\n' for path in prefixed)
        files["info/has_prefix"] = lines.encode()
    if metadata.noarch == "python":
        noarch = {"type": "python", "entry_points": entry_points}
        files["info/link.json"] = _json({"noarch": noarch, "package_metadata_version": 1})
    return files


def _packed(files: Mapping[str, bytes]) -> IO[bytes]:
    buffer = io.BytesIO()
    with _compressed(buffer) as tar:
        for path, data in sorted(files.items()):
            tar.addfile(_header(Member(path, data)), io.BytesIO(data))
    buffer.seek(0)
    return buffer


@contextmanager
def _compressed(file: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """A tar that is written through zstd into an open file."""
    with (
        ZstdFile(file, "wb", level=_LEVEL) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        yield tar


def _header(member: Member) -> tarfile.TarInfo:
    header = tarfile.TarInfo(member.path)
    header.mtime, header.mode, header.size = EPOCH, member.mode, len(member.data)
    if member.link is not None:
        header.type, header.linkname = tarfile.SYMTYPE, member.link
    return header


def _put(archive: zipfile.ZipFile, name: str, source: IO[bytes]) -> None:
    entry = zipfile.ZipInfo(name, _ZIP_TIME)
    entry.external_attr = 0o644 << 16
    with archive.open(entry, "w", force_zip64=True) as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)


def _json(document: object) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode()
