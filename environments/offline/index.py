"""The channel's index, ``repodata.json`` of each subfolder, written from what the note has.

What a package needs is said anew each time: how a requirement reads depends on the versions that
the channel has. The packages themselves stay as they are, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from environments.offline.match import match_spec
from environments.offline.note import INDEXES, Kept


def index_digest(channel: Path) -> str | None:
    """SHA-256 of a channel's index; None where there is none."""
    digest = hashlib.sha256()
    try:
        for index in INDEXES:
            digest.update((channel / index).read_bytes())
    except OSError:
        return None
    return digest.hexdigest()


def write_index(channel: Path, packages: Mapping[str, Kept]) -> None:
    """Write the index of some packages, by their paths; each file appears whole."""
    versions = defaultdict[str, set[str]](set)
    for kept in packages.values():
        versions[kept.index["name"]].add(kept.index["version"])
    read: dict[str, str] = {}
    for requirement in {text for kept in packages.values() for text in kept.requires}:
        wanted = Requirement(requirement)
        read[requirement] = match_spec(wanted, versions[canonicalize_name(wanted.name)])
    for path in INDEXES:
        subdir = path.partition("/")[0]
        records = {
            place.partition("/")[2]: _record(kept, read)
            for place, kept in packages.items()
            if place.startswith(f"{subdir}/")
        }
        document = {
            "info": {"subdir": subdir},
            "packages": {},
            "packages.conda": records,
            "removed": [],
            "repodata_version": 1,
        }
        (channel / subdir).mkdir(parents=True, exist_ok=True)
        partial = channel / f"{path}.part"
        partial.write_text(json.dumps(document, indent=1, sort_keys=True))
        partial.rename(channel / path)
        (channel / f"{path}.zst").unlink(missing_ok=True)  # an earlier version's


def _record(kept: Kept, read: Mapping[str, str]) -> dict[str, Any]:
    depends = {*kept.index["depends"], *(read[text] for text in kept.requires)}
    return {
        **kept.index,
        "depends": sorted(depends),
        "sha256": kept.sha256,
        "md5": kept.md5,
        "size": kept.size,
    }
