"""What is in a folder of environments, whoever made it; looked at with its owner's rights."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from commons.errors import BadRequest
from environments.builds.names import VERSIONS, check_name
from environments.builds.repository import LIVE
from environments.errors import BuildError
from environments.export import FORMATS, export_prefix
from environments.inventory import inventory
from environments.stamp import read_stamp
from kernels.current import changes

MAX_ENVIRONMENTS = 200
# Entries of a folder that are looked at, and bytes of one look's answer: what has no room in it
# is told by the next one.
MAX_ENTRIES, MAX_ANSWER = 5000, 6 * 2**20


def look(environments: Path, known: dict[str, str]) -> list[dict[str, Any]]:
    """The environments in a folder; ``known`` are digests by name of what need not be read again.

    Each has name, version and digest; what is new has packages and exports too. Raises OSError
    where the folder cannot be read: what is out of sight is not gone.
    """
    try:
        with os.scandir(environments) as found:
            entries = sorted(islice(found, MAX_ENTRIES), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    there = [entry for entry in entries if _is_one(entry)][:MAX_ENVIRONMENTS]
    answer, room = [], MAX_ANSWER
    for entry in there:
        one = _one(Path(entry.path), known.get(entry.name))
        for left_out in ("exports", "packages", "changes"):
            if len(json.dumps(one)) > room:
                one.pop(left_out, None)
        room -= len(json.dumps(one))
        answer.append(one)
    return answer


def _is_one(entry: os.DirEntry[str]) -> bool:
    with suppress(BadRequest, OSError):
        check_name(entry.name)
        return entry.name != VERSIONS and Path(entry.path, "conda-meta", "history").is_file()
    return False


def _one(prefix: Path, known: str | None) -> dict[str, Any]:
    records = prefix / "conda-meta"
    stamp = read_stamp(prefix)
    if stamp is not None and prefix.is_symlink():
        version, digest = stamp.version, f"sha256:{stamp.lock_digest.removeprefix('sha256:')}"
    else:
        names = "\n".join(sorted(path.name for path in records.glob("*.json")))
        version, digest = LIVE, f"{LIVE}:{hashlib.sha256(names.encode()).hexdigest()}"
    short: dict[str, Any] = {"name": prefix.name, "version": version, "digest": digest}
    if version != LIVE:
        short["changes"] = changes(str(prefix.resolve()))
    if digest == known:
        return short
    packages = inventory(prefix)
    exports = {}
    for name in FORMATS:
        with suppress(BuildError, OSError):
            exports[name] = export_prefix(prefix, name)
    pythons = [item.version for item in packages if item.name == "python"]
    return short | {
        "python": pythons[0] if pythons else None,
        "packages": [
            {"name": item.name, "version": item.version, "channel": item.channel or item.kind}
            for item in packages
        ],
        "exports": exports,
    }
