"""The catalog: which environments and versions there are, as plain records.

A row is written only after its image passed its checks, and says all that form, kernels
and spawner need, so that nobody has to look into an image. What a version is made of never
changes; what an administrator decided about it does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from commons.rights import Resource
from commons.scopes import IMAGE, Scope, listed
from commons.store import EnvironmentVersion
from commons.store.models import utcnow
from environments.about import MIDDLE


class NoSuchVersion(LookupError):
    """There is no such environment or version; the message says which ones there are."""


@dataclass(frozen=True)
class CatalogEntry:
    """One immutable version of an environment.

    Attributes:
        image: repository and tag, for people; servers start from ``image_id``.
        prefix: the environment's path in the image.
        python: the full version of its Python, or None.
        words: ``title`` and ``description``, each a text or texts by language; ``default`` and
            ``order``, its place in lists.
        main_packages: name and version of what the spec names, in its order.
        packages: name, version, build and channel of every package.
        kernelspecs: kernel.json contents by the kernel's own name.
        created_at: UTC, without time zone.
        tag: semantic version, or None.
        revision: of the repository that its folder is in, or None.
        size: bytes of its prefix.
        gpu: none, optional or required.
        server_size: the site's size of server that suits it, or None.
        access: ``teams`` and ``courses`` whose members may use it; empty: everyone.
        findings: what the site's rules said when it was built.
        pinned: kept by ``labcommons env prune`` whatever its age.
        deprecated_at, withdrawn_at: since when it should not, or cannot, be started.
        removed: True while its folder is not among the site's environments.
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
    tag: str | None = None
    revision: str | None = None
    size: int = 0
    cuda: str | None = None
    gpu: str = "none"
    server_size: str | None = None
    access: dict[str, Any] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)
    pinned: bool = False
    deprecated_at: datetime | None = None
    deprecated_reason: str | None = None
    withdrawn_at: datetime | None = None
    withdrawn_reason: str | None = None
    removed: bool = False

    @property
    def state(self) -> str:
        """``offered``, ``deprecated``, ``withdrawn`` or ``removed``."""
        if self.removed:
            return "removed"
        if self.withdrawn_at:
            return "withdrawn"
        return "deprecated" if self.deprecated_at else "offered"

    @property
    def is_offered(self) -> bool:
        """Whether a server can be started with it."""
        return self.state in ("offered", "deprecated")

    @property
    def runs_in(self) -> CatalogEntry:
        """The image environment that a server with it is started from: itself."""
        return self

    @property
    def groups(self) -> Sequence[Scope]:
        """The groups that alone may use it; none: it is for everybody."""
        return self.resource.audience

    @property
    def place(self) -> tuple[bool, int, str]:
        """Its place in lists: the site's default first, then by its order and its name."""
        order = self.words.get("order")
        return (
            self.words.get("default") is not True,
            order if isinstance(order, int) else MIDDLE,
            self.name,
        )

    @property
    def resource(self) -> Resource:
        """What rights about it depend on."""
        return Resource(IMAGE, audience=listed(self.access))

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON-ready data; times in ISO 8601."""
        times = {
            key: f"{moment.isoformat()}Z" if (moment := getattr(self, key)) else None
            for key in ("created_at", "deprecated_at", "withdrawn_at")
        }
        return asdict(self) | times | {"state": self.state}


_FIELDS = tuple(CatalogEntry.__dataclass_fields__)
# What administrators decide: a new build of the same version leaves it as it is.
_DECIDED = (
    "pinned",
    "deprecated_at",
    "deprecated_reason",
    "withdrawn_at",
    "withdrawn_reason",
)


def newest(
    session: Session, offered_only: bool = False, packages: bool = True
) -> dict[str, list[CatalogEntry]]:
    """All versions by environment name, as lists have them, newest version first.

    ``offered_only`` leaves out what cannot be started. ``packages``: False for who does not need
    the lists of packages, which are most of it; they are empty then.
    """
    rows = session.scalars(
        select(EnvironmentVersion)
        .options(*([] if packages else [defer(EnvironmentVersion.packages)]))
        .order_by(
            EnvironmentVersion.name,
            EnvironmentVersion.created_at.desc(),
            EnvironmentVersion.id.desc(),
        )
    )
    catalog: dict[str, list[CatalogEntry]] = {}
    for row in rows:
        entry = _entry(row) if packages else _entry(row, packages=[])
        if entry.is_offered or not offered_only:
            catalog.setdefault(row.name, []).append(entry)
    return dict(sorted(catalog.items(), key=lambda item: item[1][0].place))


def find(session: Session, name: str, suffix: str) -> CatalogEntry | None:
    """The version of an environment that ends in a digest, whatever day it was built."""
    versions = newest(session).get(name, [])
    return next((entry for entry in versions if entry.version.endswith(f"-{suffix}")), None)


def get(session: Session, name: str, version: str = "") -> CatalogEntry:
    """One version by its name or tag; the newest offered one where none is named.

    Raises NoSuchVersion.
    """
    catalog = newest(session)
    if name not in catalog:
        known = ", ".join(catalog) or "none"
        raise NoSuchVersion(f"there is no built environment {name!r}; there are: {known}")
    entries = catalog[name]
    if not version:
        return next((entry for entry in entries if entry.is_offered), entries[0])
    for entry in entries:
        if version in (entry.version, entry.tag):
            return entry
    known = ", ".join(entry.version for entry in entries)
    raise NoSuchVersion(f"{name} has no version {version!r}; there are: {known}")


def record(session: Session, entry: CatalogEntry) -> None:
    """Write a version; one of the same name and version is replaced, but for its decisions."""
    row = _row(session, entry.name, entry.version)
    fields = [name for name in _FIELDS if row is None or name not in _DECIDED]
    if row is None:
        row = EnvironmentVersion()
        session.add(row)
    for name in fields:
        setattr(row, name, getattr(entry, name))


def decide(session: Session, name: str, version: str, **values: Any) -> CatalogEntry:
    """Change what administrators decide about a version. Raises NoSuchVersion."""
    entry = get(session, name, version)
    row = _row(session, name, entry.version)
    assert row is not None
    for key, value in values.items():
        assert key in _DECIDED
        setattr(row, key, value)
    session.flush()
    return _entry(row)


def deprecate(session: Session, name: str, version: str, reason: str | None) -> CatalogEntry:
    """Say that a version should no more be used; it still can. None takes it back."""
    when = utcnow() if reason is not None else None
    return decide(session, name, version, deprecated_at=when, deprecated_reason=reason)


def withdraw(session: Session, name: str, version: str, reason: str | None) -> CatalogEntry:
    """Offer a version no more; servers that run it go on. None takes it back."""
    when = utcnow() if reason is not None else None
    return decide(session, name, version, withdrawn_at=when, withdrawn_reason=reason)


def pin(session: Session, name: str, version: str, pinned: bool) -> CatalogEntry:
    """Keep a version whatever its age, or no more."""
    return decide(session, name, version, pinned=pinned)


def set_present(session: Session, names: Collection[str]) -> list[str]:
    """Offer what has a folder, and nothing else. Gives the names that are no more offered."""
    gone: dict[str, None] = {}
    for row in session.scalars(select(EnvironmentVersion)):
        removed = row.name not in names
        if removed and not row.removed:
            gone[row.name] = None
        row.removed = removed
    return list(gone)


def delete(session: Session, name: str, version: str) -> None:
    """Forget a version; nothing where there is none."""
    if row := _row(session, name, version):
        session.delete(row)


def _row(session: Session, name: str, version: str) -> EnvironmentVersion | None:
    return session.scalars(
        select(EnvironmentVersion).where(
            EnvironmentVersion.name == name, EnvironmentVersion.version == version
        )
    ).one_or_none()


def _entry(row: EnvironmentVersion, **values: Any) -> CatalogEntry:
    read = {name: getattr(row, name) for name in _FIELDS if name not in values}
    return CatalogEntry(**read, **values)
