"""The catalog: which environments and versions there are, as plain records.

A row is written only after its image passed its checks, and says all that form, kernels
and spawner need, so that nobody has to look into an image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.store import EnvironmentVersion


@dataclass(frozen=True)
class CatalogEntry:
    """One immutable version of an environment.

    Attributes:
        image: repository and tag, for people; servers start from ``image_id``.
        prefix: the environment's path in the image.
        python: the full version of its Python, or None.
        words: ``title`` and ``description``, each a text or texts by language.
        main_packages: name and version of what the spec names, in its order.
        packages: name, version, build and channel of every package.
        kernelspecs: kernel.json contents by the kernel's own name.
        created_at: UTC, without time zone.
    """

    name: str
    version: str
    image: str
    image_id: str
    prefix: str
    python: str | None
    lock_digest: str
    channels: list[str]
    words: dict[str, Any]
    main_packages: list[dict[str, str]]
    packages: list[dict[str, str]]
    kernelspecs: dict[str, Any]
    created_at: datetime

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON-ready data; times in ISO 8601."""
        return asdict(self) | {"created_at": f"{self.created_at.isoformat()}Z"}


_FIELDS = tuple(CatalogEntry.__dataclass_fields__)


def newest(session: Session) -> dict[str, list[CatalogEntry]]:
    """All versions by environment name, in the order of the names, newest version first."""
    rows = session.scalars(
        select(EnvironmentVersion).order_by(
            EnvironmentVersion.name,
            EnvironmentVersion.created_at.desc(),
            EnvironmentVersion.id.desc(),
        )
    )
    catalog: dict[str, list[CatalogEntry]] = {}
    for row in rows:
        catalog.setdefault(row.name, []).append(_entry(row))
    return catalog


def find(session: Session, name: str, suffix: str) -> CatalogEntry | None:
    """The version of an environment that ends in a digest, whatever day it was built."""
    versions = newest(session).get(name, [])
    return next((entry for entry in versions if entry.version.endswith(f"-{suffix}")), None)


def record(session: Session, entry: CatalogEntry) -> None:
    """Write a version; one of the same name and version is replaced as a whole."""
    row = session.scalars(
        select(EnvironmentVersion).where(
            EnvironmentVersion.name == entry.name, EnvironmentVersion.version == entry.version
        )
    ).one_or_none()
    if row is None:
        row = EnvironmentVersion()
        session.add(row)
    for field in _FIELDS:
        setattr(row, field, getattr(entry, field))


def _entry(row: EnvironmentVersion) -> CatalogEntry:
    return CatalogEntry(**{field: getattr(row, field) for field in _FIELDS})
