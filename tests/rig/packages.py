"""Conda packages that are made by hand, as they should be and as nobody should have to take."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

import environments


def _installed() -> str:
    """Where the package is that a process of its own imports (``environments.worker``)."""
    code = "import environments; print(environments.__file__)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


# Of tests in which such a process reads packages.
here_is_installed = pytest.mark.skipif(
    _installed() != environments.__file__, reason="what is installed is another checkout"
)


def member(
    name: str,
    data: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
) -> tuple[tarfile.TarInfo, bytes]:
    """An entry of a tar."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.size = kind, link, mode, len(data)
    return entry, data


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Its bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry, data in members:
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def index(name: str = "tool", version: str = "1.0", **more: Any) -> dict[str, Any]:
    """An ``info/index.json``."""
    found = {
        "name": name, "version": version, "build": "0", "build_number": 0, "depends": [],
        "noarch": "generic", "subdir": "noarch",
    }  # fmt: skip
    return {key: value for key, value in (found | more).items() if value is not ...}


def paths(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> tuple[tarfile.TarInfo, bytes]:
    """The ``info/paths.json`` of some files."""
    found = [
        {"_path": entry.name, "path_type": "hardlink", "size_in_bytes": len(data),
         "sha256": hashlib.sha256(data).hexdigest()}
        for entry, data in members if entry.isfile()
    ]  # fmt: skip
    return member("info/paths.json", json.dumps({"paths": found, "paths_version": 1}).encode())


def conda(
    file: Path,
    about: Mapping[str, Any] | bytes | None = None,
    members: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
    info: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
    parts: Mapping[str, bytes] | None = None,
    stem: str = "",
) -> Path:
    """Write a ``.conda``; ``parts`` are more of the zip, or other ones."""
    about = index() if about is None else about
    raw = about if isinstance(about, bytes) else json.dumps(about).encode()
    members = list(members)
    said = [member("info/index.json", raw), paths(members), *info]
    stem = stem or file.name.removesuffix(".conda")
    found = {
        "metadata.json": b'{"conda_pkg_format_version": 2}',
        f"info-{stem}.tar.zst": zstd.compress(tar(said)),
        f"pkg-{stem}.tar.zst": zstd.compress(tar(members)),
    } | dict(parts or {})
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in found.items():
            archive.writestr(name, data)
    return file


def tar_bz2(
    file: Path,
    about: Mapping[str, Any] | None = None,
    members: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
) -> Path:
    """Write a ``.tar.bz2``."""
    raw, members = json.dumps(index() if about is None else about).encode(), list(members)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bz2.compress(tar([member("info/index.json", raw), paths(members), *members])))
    return file
