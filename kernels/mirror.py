"""The list as plain folders on JUPYTER_PATH, for programs that know no other list.

nbconvert, papermill, ``jupyter console`` and ``jupyter kernelspec list`` cannot be told which
kernel list to use; in this folder they find the same names. Kernels start by ``kernels.launch``,
so that a Jupyter of any environment can start them. Each file appears whole, and only what
carries our marker is ever changed or removed.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kernels import files, launch
from kernels.menu import Entry

_FILE = "kernel.json"


def write(root: str, entries: Iterable[Entry]) -> None:
    """Make ``<root>/kernels`` agree with the entries. Raises OSError.

    The folder has to be ours: in /tmp somebody else could have made it.
    """
    folder = Path(root, "kernels")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = os.lstat(folder)
    if seen.st_uid != os.geteuid() or not stat.S_ISDIR(seen.st_mode):
        raise PermissionError(f"{folder} belongs to somebody else; remove it")
    wanted = {entry.name: entry for entry in entries}
    for name, entry in wanted.items():
        file = folder / name / _FILE
        raw = json.dumps(_document(entry, file), indent=1).encode()
        if not file.exists() or file.read_bytes() != raw:
            file.parent.mkdir(exist_ok=True)
            files.replace(str(file), raw)
    for path in folder.iterdir():
        if path.name not in wanted and not path.is_symlink() and _is_ours(path / _FILE):
            shutil.rmtree(path, ignore_errors=True)


def _document(entry: Entry, file: Path) -> dict[str, Any]:
    metadata = {k: v for k, v in entry.document["metadata"].items() if k != "kernel_provisioner"}
    return {**entry.document, "argv": launch.command(str(file)), "metadata": metadata}


def _is_ours(file: Path) -> bool:
    try:
        document: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    return isinstance(metadata, Mapping) and isinstance(metadata.get("labcommons"), Mapping)
