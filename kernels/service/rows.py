"""The store's side of the registry: the catalog in, environments and sources in and out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from commons.store import EnvironmentVersion, RegisteredEnvironment, RegistrySource
from kernels.messages import Message, say, verbatim
from kernels.service.entries import CatalogRow, KernelEntry, Key, RegistryEntry, State

# Environments that a query names one by one; for more, it reads whole sources.
_FEW = 100


def catalog_stamp(session: Session) -> tuple[Any, ...]:
    """What changes when a version is built or removed; cheap enough to ask every second."""
    row = session.execute(
        select(
            func.count(EnvironmentVersion.id),
            func.max(EnvironmentVersion.id),
            func.max(EnvironmentVersion.created_at),
            func.max(EnvironmentVersion.deprecated_at),
            func.max(EnvironmentVersion.withdrawn_at),
            func.count(EnvironmentVersion.deprecated_at),
            func.count(EnvironmentVersion.withdrawn_at),
            func.sum(case((EnvironmentVersion.removed, 1), else_=0)),
        )
    ).one()
    return tuple(row)


def read_catalog(session: Session) -> list[CatalogRow]:
    """All built environments, by name and version; without their long lists of packages."""
    table = EnvironmentVersion
    rows = session.execute(
        select(
            table.name,
            table.version,
            table.prefix,
            table.python,
            table.kernelspecs,
            table.words,
            table.access,
            table.deprecated_at,
            table.withdrawn_at,
            table.withdrawn_reason,
            table.removed,
        ).order_by(table.name, table.version)
    )
    return [
        CatalogRow(
            row.name,
            row.version,
            row.prefix,
            row.python,
            row.kernelspecs,
            row.words,
            row.access,
            row.deprecated_at,
            _withdrawn(row),
        )
        for row in rows
    ]


def _withdrawn(row: Any) -> Message | None:
    if row.withdrawn_at:
        reason = row.withdrawn_reason
        return verbatim(reason) if reason else say("short_withdrawn")
    return say("removed") if row.removed else None


@dataclass(frozen=True)
class KnownSource:
    """What the store remembers of one source."""

    device: str
    state: State
    reason: Message | None
    since: datetime


def read_entries(session: Session) -> list[tuple[RegistryEntry, datetime]]:
    """All environments as the last pass left them, and when each was seen.

    Their kernels come without kernel.json.
    """
    return [
        (
            RegistryEntry(
                row.source,
                row.environment,
                row.version,
                row.label,
                row.prefix,
                row.python,
                _state(row.state),
                _read(row.reason),
                row.facts,
                tuple(
                    KernelEntry(kernel["name"], kernel["display_name"], kernel["language"])
                    for kernel in row.kernels
                ),
            ),
            row.last_seen,
        )
        for row in session.scalars(select(RegisteredEnvironment))
    ]


def read_sources(session: Session) -> dict[str, KnownSource]:
    """All sources on disk as the last pass left them."""
    return {
        row.source: KnownSource(row.device, _state(row.state), _read(row.reason), row.since)
        for row in session.scalars(select(RegistrySource))
    }


def _written(reason: Message | None) -> str:
    return json.dumps(reason.as_json()) if reason else ""


def _read(text: str) -> Message | None:
    """A reason as it is kept: JSON, or a sentence of an older version."""
    if not text:
        return None
    try:
        return Message.from_json(json.loads(text) if text.startswith("{") else text)
    except (ValueError, RecursionError):
        return verbatim(text)


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        return State.BROKEN


def write_entries(
    session: Session, changed: Sequence[RegistryEntry], removed: Sequence[Key], now: datetime
) -> None:
    """Write what changed and delete what is gone; harmless to repeat."""
    keys = [entry.key for entry in changed] + list(removed)
    query = select(RegisteredEnvironment).where(
        RegisteredEnvironment.source.in_({source for source, _, _ in keys})
    )
    if len(keys) <= _FEW:
        names = {environment for _, environment, _ in keys}
        query = query.where(RegisteredEnvironment.environment.in_(names))
    rows = {(row.source, row.environment, row.version): row for row in session.scalars(query)}
    for key in removed:
        if row := rows.pop(key, None):
            session.delete(row)
    for entry in changed:
        row = rows.get(entry.key)
        if row is None:
            row = RegisteredEnvironment(
                source=entry.source,
                environment=entry.environment,
                version=entry.version,
                first_seen=now,
                last_seen=now,
            )
            session.add(row)
        row.label, row.prefix, row.python = entry.label, entry.prefix, entry.python
        row.state, row.reason = entry.state.value, _written(entry.reason)
        row.facts = dict(entry.facts)
        row.kernels = [
            {"name": kernel.name, "display_name": kernel.display_name, "language": kernel.language}
            for kernel in entry.kernels
        ]
        if entry.state is not State.UNAVAILABLE:
            row.last_seen = now


def write_sources(session: Session, sources: Mapping[str, KnownSource]) -> None:
    """Write the sources; those not named stay, as their folders may come back."""
    for name, source in sources.items():
        row = session.get(RegistrySource, name)
        if row is None:
            row = RegistrySource(source=name)
            session.add(row)
        row.device, row.state = source.device, source.state.value
        row.reason, row.since = _written(source.reason), source.since


def touch(session: Session, sources: Iterable[str], now: datetime) -> None:
    """Note that all environments of these sources were seen, but for those that are lost."""
    session.execute(
        update(RegisteredEnvironment)
        .where(
            RegisteredEnvironment.source.in_(list(sources)),
            RegisteredEnvironment.state != State.UNAVAILABLE.value,
        )
        .values(last_seen=now)
    )
