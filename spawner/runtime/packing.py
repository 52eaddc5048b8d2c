"""A folder's files as a tar stream: how they are sent to be published."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import IO


def pack(folder: Path, stream: IO[bytes]) -> None:
    """Files, folders and links by their paths in the folder; a file of two names comes twice."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in [folder, *sorted(folder.rglob("*"))]:
            status = path.lstat()
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.mode = status.st_mode & 0o777
            if stat.S_ISLNK(status.st_mode):
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
                tar.addfile(entry)
            elif stat.S_ISDIR(status.st_mode):
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            elif stat.S_ISREG(status.st_mode):
                entry.size = status.st_size
                with path.open("rb") as file:
                    tar.addfile(entry, file)
