"""What was built outside images: the rows that console, command and kernels service read.

A row says what the build reported. The folders are the truth about what is there: somebody may
remove a personal environment in a terminal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.store.environments import TierEnvironment
from hub_ext.store.models import utcnow
from spawner.environments.files import FILE_NAMES
from spawner.errors import BadRequest
from spawner.tiers.tier import Kind, Tier, check_name

# The version of what conda made and may change at any time; has no lock.
LIVE = "live"
# Of what a look found, and of a spec: packages, and characters.
MAX_PACKAGES, MAX_EXPORT, MAX_SPEC = 5000, 2 * 2**20, 256 * 1024


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


def seen(session: Session, tier: Tier, found: Sequence[Mapping[str, Any]]) -> None:
    """Make the rows of a person's tier say what was found in the folder, whoever made it."""
    there = {str(item["name"]): item for item in found if _is_name(item.get("name"))}
    for row in of_tiers(session, [tier]):
        item = there.get(row.name)
        if item is None or (row.version == LIVE and item.get("version") != LIVE):
            session.delete(row)
    session.flush()
    for name, item in there.items():
        version = str(item.get("version"))[:64]
        before = get(session, tier, name, version)
        if before is not None:
            for other in versions(session, tier, name):
                other.current = other is before
        # What we built is what we know it to be, whatever its folder says by now.
        if "packages" in item and (before is None or version == LIVE):
            facts = _facts_of(item, before)
            when = before.created_at if before is not None else utcnow()
            record(
                session, tier, name, version,
                built_by=tier.owner, created_at=when, facts=facts,
                kept={one.version for one in versions(session, tier, name)} - {LIVE},
            )  # fmt: skip


def _is_name(name: object) -> bool:
    with suppress(BadRequest):
        check_name(name)
        return True
    return False


def _facts_of(item: Mapping[str, Any], row: TierEnvironment | None) -> dict[str, Any]:
    """What a look said, each of the type that the table wants: it is a person's word."""
    packages, exports = item.get("packages"), item.get("exports")
    texts = {
        key: value
        for key, value in (exports if isinstance(exports, dict) else {}).items()
        if key in FILE_NAMES and isinstance(value, str) and len(value) <= MAX_EXPORT
    }
    spec = texts.get("environment.yml", "")
    return {
        "python": str(item["python"])[:32] if item.get("python") else None,
        "lock_digest": str(item.get("digest") or "")[:80].removeprefix("sha256:"),
        "size": row.size if row is not None else 0,
        "spec": (row.spec if row is not None else "") or (spec if len(spec) <= MAX_SPEC else ""),
        "words": row.words if row is not None else "",
        "lock": "",  # one that no lock of ours is: a copy is solved anew
        "packages": [
            {key: str(one.get(key) or "")[:200] for key in ("name", "version", "channel")}
            for one in (packages if isinstance(packages, list) else [])[:MAX_PACKAGES]
            if isinstance(one, dict)
        ],
        "kernels": {},
        "findings": row.findings if row is not None else [],
        "origin": row.origin if row is not None else None,
        "exports": texts,
    }


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
