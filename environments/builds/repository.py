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

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session, defer

from commons.errors import BadRequest
from commons.scopes import Scope
from commons.store.environments import ScopeEnvironment
from commons.store.models import utcnow
from environments.builds.drift import change_of, with_drift
from environments.builds.names import check_name
from environments.files import FILE_NAMES, SPEC_FILE
from environments.kinds import MAX_TEXT, Kind, kind_of

# The version of what conda made and may change at any time; has no lock.
LIVE = "live"
# Of what a look found, and of a spec: packages, and characters.
MAX_PACKAGES, MAX_EXPORT = 5000, 2 * 2**20


def editable(row: ScopeEnvironment) -> str:
    """The text to change: of what was built from a lock or pixi's manifest, its environment.yml."""
    if kind_of(row.spec) is Kind.SPEC:
        return row.spec
    return str((row.exports or {}).get(SPEC_FILE) or row.spec)


def scope_of(row: ScopeEnvironment) -> Scope:
    """The scope of a row."""
    return Scope(row.scope, row.owner)


def as_json(row: ScopeEnvironment) -> dict[str, Any]:
    """A version as JSON-ready data, without its files; times in ISO 8601."""

    def iso(moment: datetime | None) -> str | None:
        return f"{moment.isoformat(timespec='seconds')}Z" if moment else None

    return {
        "source": scope_of(row).source,
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


def versions(session: Session, scope: Scope, name: str) -> list[ScopeEnvironment]:
    """All versions of an environment, newest first."""
    return list(
        session.scalars(
            select(ScopeEnvironment)
            .where(
                ScopeEnvironment.scope == scope.kind,
                ScopeEnvironment.owner == scope.owner,
                ScopeEnvironment.name == name,
            )
            .order_by(ScopeEnvironment.created_at.desc(), ScopeEnvironment.id.desc())
        )
    )


def current(session: Session, scope: Scope, name: str) -> ScopeEnvironment | None:
    """The version that people use."""
    return next((row for row in versions(session, scope, name) if row.current), None)


def get(session: Session, scope: Scope, name: str, version: str) -> ScopeEnvironment | None:
    """One version by its name."""
    return next((row for row in versions(session, scope, name) if row.version == version), None)


def of_scopes(
    session: Session, scopes: Iterable[Scope], packages: bool = True
) -> list[ScopeEnvironment]:
    """All versions of all environments of some scopes, by name, newest first.

    ``packages``: False leaves the lists of packages, most of it, until they are asked for.
    """
    wanted = {(scope.kind, scope.owner) for scope in scopes}
    key = tuple_(ScopeEnvironment.scope, ScopeEnvironment.owner)
    rows = session.scalars(
        select(ScopeEnvironment)
        .options(*([] if packages else [defer(ScopeEnvironment.packages)]))
        .where(key.in_(wanted))
        .order_by(
            ScopeEnvironment.name, ScopeEnvironment.created_at.desc(), ScopeEnvironment.id.desc()
        )
    )
    return list(rows)


def scopes(session: Session) -> list[Scope]:
    """The scopes that have environments."""
    pairs = session.execute(select(ScopeEnvironment.scope, ScopeEnvironment.owner).distinct()).all()
    return sorted((Scope(kind, owner) for kind, owner in pairs), key=lambda t: t.source)


def record(
    session: Session,
    scope: Scope,
    name: str,
    version: str,
    *,
    built_by: str,
    created_at: datetime,
    facts: dict[str, Any],
    kept: Collection[str],
) -> ScopeEnvironment:
    """Write the version that people use from now on; forget those that are not ``kept``."""
    found = None
    for row in versions(session, scope, name):
        if row.version == version:
            found = row
        elif row.version not in kept:
            session.delete(row)
        row.current = row.version == version
    if found is None:
        found = ScopeEnvironment(
            scope=scope.kind,
            owner=scope.owner,
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


def seen(
    session: Session, scope: Scope, found: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Make the rows of a person's scope say what was found in the folder, whoever made it.

    Returns what was changed by hand and not known before, for the audit trail.
    """
    news: list[dict[str, Any]] = []
    there = {str(item["name"]): item for item in found if _is_name(item.get("name"))}
    for row in of_scopes(session, [scope]):
        item = there.get(row.name)
        if item is None or (row.version == LIVE and item.get("version") != LIVE):
            session.delete(row)
    session.flush()
    for name, item in there.items():
        version = str(item.get("version"))[:64]
        before = get(session, scope, name, version)
        if before is not None:
            for other in versions(session, scope, name):
                other.current = other is before
            if version != LIVE and "changes" in item:
                known = change_of(before.findings)
                before.findings = with_drift(name, before.findings, item["changes"])
                if (change := change_of(before.findings)) not in (None, known):
                    news.append({"environment": name, "version": version, **change})
        # What we built is what we know it to be, whatever its folder says by now.
        if "packages" in item and (before is None or version == LIVE):
            facts = _facts_of(item, before)
            if version == LIVE:  # made in a terminal, and what is in it is other than it was
                news.append({"environment": name, "version": version})
            when = before.created_at if before is not None else utcnow()
            record(
                session, scope, name, version,
                built_by=scope.owner, created_at=when, facts=facts,
                kept={one.version for one in versions(session, scope, name)} - {LIVE},
            )  # fmt: skip
    return news


def _is_name(name: object) -> bool:
    with suppress(BadRequest):
        check_name(name)
        return True
    return False


def _facts_of(item: Mapping[str, Any], row: ScopeEnvironment | None) -> dict[str, Any]:
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
        "spec": (row.spec if row is not None else "") or (spec if len(spec) <= MAX_TEXT else ""),
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


def kept(session: Session, scope: Scope, name: str) -> Kept:
    """What stays whatever is built."""
    rows = versions(session, scope, name)
    return Kept(
        [row.version for row in rows if row.pinned],
        {row.tag: row.lock_digest for row in rows if row.tag},
    )


def remove(session: Session, scope: Scope, name: str) -> None:
    """Forget an environment with all its versions."""
    for row in versions(session, scope, name):
        session.delete(row)
