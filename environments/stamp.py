"""What a prefix says of itself: the folder ``conda-meta/labcommons``.

Not a ``.json`` beside conda's records: conda, mamba and py-rattler read each of those as a
package and refuse the whole environment when one is none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commons.site import Words
from environments.files import FOLDER, LOCK_FILE, SBOM_FILE, SPEC_FILE, STAMP_FILE, WORDS_FILE
from kernels import files
from kernels.hostile import parse_json

if TYPE_CHECKING:
    from environments.spec import EnvironmentSpec

SCHEMA = 1
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Stamp:
    """One version of an environment, as its own prefix knows it.

    Attributes:
        version: date of the lock and digest, such as 20261121-1a2b3c4d.
        tag: semantic version, or None.
        source: the scope: image, shared, team-<team>, course-<course>, personal.
        created: when its packages were chosen, ISO 8601 with Z.
        cuda: CUDA version of its packages, or None.
        deprecated: ISO date, or None.
        withdrawn: the reason, or None.
    """

    name: str
    version: str
    source: str
    lock_digest: str
    created: str
    tag: str | None = None
    python: str | None = None
    cuda: str | None = None
    title: Words | None = None
    deprecated: str | None = None
    withdrawn: str | None = None


def iso(moment: datetime) -> str:
    """A moment as stamps have it, such as 2026-11-21T10:00:00Z."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def read_stamp(prefix: Path) -> Stamp | None:
    """What a prefix says of itself; None where it says nothing that can be understood."""
    try:
        raw, _ = files.read(prefix / FOLDER / STAMP_FILE, _MAX_BYTES + 1)
        document: Any = parse_json(raw, _MAX_BYTES)
        if not isinstance(document, dict):
            return None
        known: dict[str, Any] = {field.name: document.get(field.name) for field in fields(Stamp)}
    except (OSError, ValueError):
        return None
    required = ("name", "version", "source", "lock_digest", "created")
    texts = [value for key, value in known.items() if key != "title"]
    if not all(isinstance(known[key], str) for key in required):
        return None
    if not all(value is None or isinstance(value, str) for value in texts):
        return None
    if not isinstance(known["title"], str | dict | None):
        return None
    return Stamp(**known)


def write_stamp(prefix: Path, stamp: Stamp) -> None:
    """Write it, whole or not at all."""
    folder = prefix / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{STAMP_FILE}.part"
    document = {"schema": SCHEMA, **asdict(stamp)}
    partial.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False))
    partial.rename(folder / STAMP_FILE)


def keep_sources(prefix: Path, spec: EnvironmentSpec, lock: Path, sbom: str) -> None:
    """Put what a version was made from into it, so that it can be exported and made again."""
    folder = prefix / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC_FILE).write_text(spec.text, "utf-8")
    if spec.words_text is not None:
        (folder / WORDS_FILE).write_text(spec.words_text, "utf-8")
    (folder / LOCK_FILE).write_bytes(lock.read_bytes())
    (folder / SBOM_FILE).write_text(sbom, "utf-8")
