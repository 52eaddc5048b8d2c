"""The process in which packages of a channel are read, and its index is made.

What reads an archive that somebody sent has no more than a memory, a time and a file's size of its
own; what it says is a JSON document (``environments.worker``).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from commons.errors import LabError
from commons.messages import Message
from commons.site import Channels, Environments
from environments import worker
from environments.channels.inspect import Found, Limits, NotTaken, inspect
from environments.errors import BuildError
from environments.messages import channels as texts

if sys.version_info >= (3, 14):
    from compression.zstd import compress
else:
    from backports.zstd import compress

CHECK_TIMEOUT, INDEX_TIMEOUT = 300, 120  # seconds
_MEMORY, _CPU = 2 * 2**30, 240  # bytes of addresses; seconds
_INDEXES = ("noarch", "linux-64")
# index_fs takes 19, which is two of its two seconds for 5,000 packages, for a seventh less.
_LEVEL = 9


# Of who asks -------------------------------------------------------------------------------------


def check(path: Path, file: str, channels: Channels, environments: Environments) -> Found:
    """Have a package read and judged. Raises NotTaken, or BuildError where that cannot be done."""
    request = {
        "path": str(path),
        "file": file,
        "entries": channels.entries,
        "unpacked": channels.unpacked_bytes,
        "scan": environments.scan.model_dump(mode="json"),
    }
    limits = (f"--as={_MEMORY}", f"--cpu={_CPU}", "--fsize=8388608", "--core=0", "--nofile=256")
    try:
        answer = worker.call("check", request, CHECK_TIMEOUT, module=__name__, limits=limits)
    except BuildError as error:
        raise NotTaken(texts.TOOK_TOO_LONG(file=file, reason=error.message)) from error
    if "refused" in answer:
        raise NotTaken(Message.from_json(answer["refused"]))
    found = answer["found"]
    pairs = tuple((str(name), str(version)) for name, version in found.pop("distributions"))
    return Found(**found, distributions=pairs)


def index(folder: Path, removed: Mapping[str, Sequence[str]]) -> None:
    """Index a channel's folder; ``removed``: files that are withdrawn, by subdir.

    Raises BuildError.
    """
    request = {"folder": str(folder), "removed": {key: list(one) for key, one in removed.items()}}
    worker.call("index", request, INDEX_TIMEOUT, module=__name__)


# In the child ------------------------------------------------------------------------------------


def _check(request: Mapping[str, Any]) -> dict[str, Any]:
    file = request["file"]
    try:
        found = inspect(
            Path(request["path"]), file, Limits(request["entries"], request["unpacked"])
        )
        _scan(found, file, Environments.model_validate({"scan": request["scan"]}))
    except (MemoryError, RecursionError):
        return {"refused": texts.NO_ARCHIVE(file=file).as_json()}
    except LabError as error:
        return {"refused": error.message.as_json()}
    return {"found": asdict(found)}


def _scan(found: Found, file: str, settings: Environments) -> None:
    """Known holes of what Python knows it by. Raises NotTaken, or BuildError of the advisories."""
    from environments.scan import SEVERITIES, advisories, match

    scan = settings.scan
    if not scan.advisories or scan.threshold == "never" or not found.distributions:
        return
    for hole in match([found], advisories(scan.advisories)):
        if hole.id not in scan.ignore and SEVERITIES.index(hole.severity) >= SEVERITIES.index(
            scan.threshold
        ):
            raise NotTaken(texts.HOLES(file=file, id=hole.id, severity=hole.severity))


def _index(request: Mapping[str, Any]) -> dict[str, Any]:
    from rattler.index import index_fs

    folder = Path(request["folder"])
    for subdir in _INDEXES:
        (folder / subdir).mkdir(exist_ok=True)
    asyncio.run(index_fs(folder, write_zst=False))
    for place in folder.iterdir():
        path = place / "repodata.json"
        if place.is_symlink() or not path.is_file():
            continue
        document = json.loads(path.read_bytes())
        document["removed"] = sorted(request["removed"].get(place.name, ()))
        raw = json.dumps(document, separators=(",", ":")).encode()
        _write(path, raw)
        _write(place / "repodata.json.zst", compress(raw, _LEVEL))
    return {}


def _write(path: Path, data: bytes) -> None:
    """As a new file: the one that is there may have a name in the folder before, too."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    worker.main({"check": _check, "index": _index})
