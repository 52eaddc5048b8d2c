"""The list as plain folders on JUPYTER_PATH, for programs that know no other list.

nbconvert, papermill, ``jupyter console`` and ``jupyter kernelspec list`` cannot be told which
kernel list to use; in this folder they find the same names. Kernels start by ``kernels.launch``,
so that a Jupyter of any environment can start them. Names that notebooks of elsewhere have
(``python3``, ``conda-env-NAME-py``) and earlier names are there as well. Each file appears whole,
and only what carries our marker is ever changed or removed.
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
from kernels.elsewhere import language_of, taken
from kernels.kernel_list import ListedKernel, Menu
from kernels.kernelspec import slug
from kernels.registered import Registered

_FILE = "kernel.json"
# Of elsewhere's names those that are usual; what they mean is decided when one is started.
_USUAL = (
    *("python3", "python2", "python", "ir", "julia", ".venv", "venv"),
    *("base", "conda-base-py", "conda-root-py", "conda-base-r"),
)
# Environments that have such a name of their own; of more, the rest has none in folders.
_MOST = 200
_KINDS = {"python": "py", "R": "r"}


def write(
    root: str, listed: Menu, chosen: str = "", registered: Mapping[str, Registered] | None = None
) -> None:
    """Make ``<root>/kernels`` agree with the list. Raises OSError.

    ``chosen`` is the environment whose kernels names of elsewhere mean where none is active;
    ``registered`` are the person's own kernels.

    The folder has to be ours: in /tmp somebody else could have made it.
    """
    folder = Path(root, "kernels")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = os.lstat(folder)
    if seen.st_uid != os.geteuid() or not stat.S_ISDIR(seen.st_mode):
        raise PermissionError(f"{folder} belongs to somebody else; remove it")
    wanted = _elsewhere(listed, chosen)
    # Those with a hash that is not theirs any more are found by our own list alone.
    wanted |= {
        name: listed.entries[now].document
        for name, now in listed.earlier.items()
        if now.startswith(name)
    }
    wanted |= {name: each.document for name, each in (registered or {}).items()}
    wanted |= {name: entry.document for name, entry in listed.entries.items()}
    for name, document in wanted.items():
        file = folder / name / _FILE
        raw = json.dumps(_document(document, file), indent=1).encode()
        if not file.exists() or file.read_bytes() != raw:
            file.parent.mkdir(exist_ok=True)
            files.replace(str(file), raw)
    for path in folder.iterdir():
        if path.name not in wanted and not path.is_symlink() and _is_ours(path / _FILE):
            shutil.rmtree(path, ignore_errors=True)


def _document(document: Mapping[str, Any], file: Path) -> dict[str, Any]:
    metadata = {k: v for k, v in document["metadata"].items() if k != "kernel_provisioner"}
    return {**document, "argv": launch.command(str(file)), "metadata": metadata}


def _elsewhere(listed: Menu, chosen: str) -> dict[str, dict[str, Any]]:
    """Kernelspecs of the names of elsewhere, for languages of which there is a kernel."""
    usable = [entry for entry in listed.entries.values() if entry.is_healthy]
    languages = {entry.document["language"].lower() for entry in usable}
    found: dict[str, dict[str, Any]] = {}
    for name in (*_USUAL, *_of_nb_conda(usable[:_MOST])):
        language = language_of(name) or ""
        if language.lower() in languages and name not in listed.hidden:
            found[name] = _stand_in(name, language, listed, chosen)
    return found


def _of_nb_conda(usable: Iterable[ListedKernel]) -> Iterable[str]:
    for entry in usable:
        kind = _KINDS.get(entry.document["language"])
        if kind:
            yield f"conda-env-{slug(entry.environment.place.environment, 80)}-{kind}"


def _stand_in(name: str, language: str, listed: Menu, chosen: str) -> dict[str, Any]:
    meant = taken(name, language, listed, [chosen])
    shown = meant.kernel.document["display_name"] if meant else language.capitalize()
    return {
        "display_name": f"{name}: {shown}",
        "language": language,
        "env": {},
        "interrupt_mode": "signal",
        "metadata": {
            "labcommons": {
                "stands_for": meant.kernel.name if meant else "",
                # An environment that is named is meant, whichever is active.
                "fixed": name.startswith("conda-env-"),
            }
        },
    }


def _is_ours(file: Path) -> bool:
    try:
        document: Any = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    return isinstance(metadata, Mapping) and isinstance(metadata.get("labcommons"), Mapping)
