"""What was built outside images: the rows that console, command and kernels service read.

A row says what the build reported. The folders are the truth about what is there: somebody may
remove a personal environment in a terminal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.store.environments import TierEnvironment
from spawner.tiers.tier import Kind, Tier


def tier_of(row: TierEnvironment) -> Tier:
    """The tier of a row."""
    return Tier(Kind(row.tier), row.owner)


def as_json(row: TierEnvironment) -> dict[str, Any]:
    """A version as JSON-ready data, without its files; times in ISO 8601."""

    def iso(moment: datetime | None) -> str | None:
        return f"{moment.isoformat(timespec='seconds')}Z" if moment else None

    return {
        "source": tier_of(row).source,
        "owner": row.owner,
        "name": row.name,
        "version": row.version,
        "current": row.current,
        "tag": row.tag,
        "state": row.state,
        "pinned": row.pinned,
        "deprecated_at": iso(row.deprecated_at),
        "deprecated_reason": row.deprecated_reason,
        "withdrawn_at": iso(row.withdrawn_at),
        "withdrawn_reason": row.withdrawn_reason,
        "python": row.python,
        "packages": len(row.packages),
        "size_bytes": row.size,
        "lock_digest": row.lock_digest,
        "built_by": row.built_by,
        "created": iso(row.created_at),
    }


def versions(session: Session, tier: Tier, name: str) -> list[TierEnvironment]:
    """All versions of an environment, newest first."""
    return list(
        session.scalars(
            select(TierEnvironment)
            .where(
                TierEnvironment.tier == str(tier.kind),
                TierEnvironment.owner == tier.owner,
                TierEnvironment.name == name,
            )
            .order_by(TierEnvironment.created_at.desc(), TierEnvironment.id.desc())
        )
    )


def current(session: Session, tier: Tier, name: str) -> TierEnvironment | None:
    """The version that people use."""
    return next((row for row in versions(session, tier, name) if row.current), None)


def get(session: Session, tier: Tier, name: str, version: str) -> TierEnvironment | None:
    """One version by its name."""
    return next((row for row in versions(session, tier, name) if row.version == version), None)


def of_tiers(session: Session, tiers: Iterable[Tier]) -> list[TierEnvironment]:
    """All versions of all environments of some tiers, by name, newest first."""
    wanted = {(str(tier.kind), tier.owner) for tier in tiers}
    rows = session.scalars(
        select(TierEnvironment).order_by(
            TierEnvironment.name, TierEnvironment.created_at.desc(), TierEnvironment.id.desc()
        )
    )
    return [row for row in rows if (row.tier, row.owner) in wanted]


def tiers(session: Session) -> list[Tier]:
    """The tiers that have environments."""
    pairs = session.execute(select(TierEnvironment.tier, TierEnvironment.owner).distinct()).all()
    return sorted((Tier(Kind(kind), owner) for kind, owner in pairs), key=lambda t: t.source)


def record(
    session: Session,
    tier: Tier,
    name: str,
    version: str,
    *,
    built_by: str,
    created_at: datetime,
    facts: dict[str, Any],
    kept: Collection[str],
) -> TierEnvironment:
    """Write the version that people use from now on; forget those that are not ``kept``."""
    found = None
    for row in versions(session, tier, name):
        if row.version == version:
            found = row
        elif row.version not in kept:
            session.delete(row)
        row.current = row.version == version
    if found is None:
        found = TierEnvironment(
            tier=str(tier.kind),
            owner=tier.owner,
            name=name,
            version=version,
            built_by=built_by,
            created_at=created_at,
            current=True,
        )
        session.add(found)
    for field in ("python", "lock_digest", "size", "spec", "words", "lock"):
        setattr(found, field, facts[field])
    for field in ("packages", "kernels", "findings", "origin", "exports"):
        setattr(found, field, facts[field])
    if facts.get("tag"):
        found.tag = facts["tag"]
    session.flush()
    return found


@dataclass(frozen=True)
class Kept:
    """What a new build has to know of the versions before it: pinned ones, and tags' locks."""

    pinned: list[str]
    tags: dict[str, str]


def kept(session: Session, tier: Tier, name: str) -> Kept:
    """What stays whatever is built."""
    rows = versions(session, tier, name)
    return Kept(
        [row.version for row in rows if row.pinned],
        {row.tag: row.lock_digest for row in rows if row.tag},
    )


def remove(session: Session, tier: Tier, name: str) -> None:
    """Forget an environment with all its versions."""
    for row in versions(session, tier, name):
        session.delete(row)
