"""Known holes of versions that were built: what the last look at the advisories found."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from commons import notices
from commons.store.environments import EnvironmentHole, EnvironmentScanning
from commons.store.models import KernelUsage, utcnow
from commons.store.usage import LATELY

KEPT = 30  # looks
MOST = 50_000  # holes of all versions that are kept; far more than anybody could read
_SHOWN = 5  # names of holes in a notice


@dataclass(frozen=True, order=True)
class Version:
    """A version of an environment: ``image``, ``shared``, ``team-x``, …; ``owner`` of a personal"""

    source: str
    owner: str
    name: str
    version: str


@dataclass(frozen=True)
class Found:
    """A hole of a version, as ``environments.scan`` says it."""

    of: Version
    hole: str
    package: str
    package_version: str
    severity: str
    title: str = ""
    fixed: str = ""
    blocks: bool = False

    @property
    def key(self) -> tuple[Version, str, str, str]:
        return self.of, self.hole, self.package, self.package_version


def version_of(row: EnvironmentHole) -> Version:
    """Whose hole it is."""
    return Version(row.source, row.owner, row.name, row.version)


def record(
    session: Session, found: Collection[Found], versions: int, advisories: int
) -> tuple[int, int]:
    """Write down what one look found, in place of what the last one did; tell who uses what has
    holes that block and are new.

    Gives how many holes are new, and how many people are told.
    """
    now = utcnow()
    known = {
        (version_of(row), row.hole, row.package, row.package_version): row
        for row in session.scalars(select(EnvironmentHole))
    }
    wanted = {one.key: one for one in list(found)[:MOST]}
    for key, row in known.items():
        if key not in wanted:
            session.delete(row)
    new: list[Found] = []
    for key, one in wanted.items():
        mine = known.get(key)
        if mine is None:
            new.append(one)
            mine = EnvironmentHole(
                source=one.of.source,
                owner=one.of.owner,
                name=one.of.name,
                version=one.of.version,
                hole=one.hole,
                package=one.package,
                package_version=one.package_version,
                seen_at=now,
            )
            session.add(mine)
        mine.severity, mine.title, mine.fixed = one.severity, one.title, one.fixed
        mine.blocks = one.blocks
    session.flush()
    told = _tell(session, [one for one in new if one.blocks], now)
    note(session, versions, advisories)
    return len(new), told


def note(session: Session, versions: int = 0, advisories: int = 0, problem: str = "") -> None:
    """Write one look down."""
    row = EnvironmentScanning(versions=versions, advisories=advisories, problem=problem[:1000])
    session.add(row)
    session.flush()
    old = select(EnvironmentScanning.id).order_by(EnvironmentScanning.id.desc()).offset(KEPT)
    session.execute(
        delete(EnvironmentScanning).where(EnvironmentScanning.id.in_(list(session.scalars(old))))
    )


def last(session: Session) -> EnvironmentScanning | None:
    """The last look; None before the first."""
    query = select(EnvironmentScanning).order_by(EnvironmentScanning.id.desc()).limit(1)
    return session.scalar(query)


def everything(session: Session) -> dict[Version, list[EnvironmentHole]]:
    """All holes by version; those that block first."""
    order = (
        *(EnvironmentHole.source, EnvironmentHole.owner, EnvironmentHole.name),
        *(EnvironmentHole.version.desc(), EnvironmentHole.blocks.desc(), EnvironmentHole.package),
        EnvironmentHole.hole,
    )
    rows = session.scalars(select(EnvironmentHole).order_by(*order))
    found: dict[Version, list[EnvironmentHole]] = {}
    for row in rows:
        found.setdefault(version_of(row), []).append(row)
    return found


def counts(session: Session) -> dict[Version, int]:
    """How many holes that block each version has; those without any are not in it."""
    columns = (
        EnvironmentHole.source,
        EnvironmentHole.owner,
        EnvironmentHole.name,
        EnvironmentHole.version,
    )
    query = select(*columns, func.count()).where(EnvironmentHole.blocks).group_by(*columns)
    return {Version(*row[:4]): int(row[4]) for row in session.execute(query)}


def people(session: Session, now: datetime | None = None) -> dict[Version, list[str]]:
    """Who has started a kernel of which version lately (``usage.LATELY``)."""
    since = ((now or utcnow()) - LATELY).date()
    query = (
        select(
            KernelUsage.source, KernelUsage.environment, KernelUsage.version, KernelUsage.username
        )
        .where(KernelUsage.day >= since)
        .distinct()
        .order_by(KernelUsage.username)
    )
    found: dict[Version, list[str]] = {}
    for source, name, version, user in session.execute(query):
        owner = user if source == "personal" else ""
        found.setdefault(Version(source, owner, name, version), []).append(user)
    return found


def _tell(session: Session, new: Iterable[Found], now: datetime) -> int:
    """A notice for who uses a version, once for each day on which something new was found."""
    by_version: dict[Version, list[Found]] = {}
    for one in new:
        by_version.setdefault(one.of, []).append(one)
    users, told = people(session, now), set()
    for version, ones in by_version.items():
        holes = sorted({f"{one.package} ({one.hole})" for one in ones})
        for user in users.get(version, ()):
            is_new = notices.add(
                session,
                username=user,
                lease_id=None,
                code="environment_holes",
                data={
                    "environment": f"{version.name} {version.version}",
                    "holes": [*holes[:_SHOWN], *(["…"] if len(holes) > _SHOWN else [])],
                },
                key=f"holes:{now:%Y%m%d}:{version.source}/{version.name}:{version.version}:{user}"[
                    :160
                ],
                now=now,
            )
            if is_new:
                told.add(user)
    return len(told)
