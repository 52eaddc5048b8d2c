"""Quotas in the store: what is set, what a document would change, and changing it.

Each change is one transaction, kept in ``gpu_quota_changes``, and counted in ``gpu_state``, by
which the hub notices it: it has effect at once and never ends what runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.store.models import (
    DirectoryPerson,
    GpuDevice,
    GpuQuota,
    GpuQuotaChange,
    GpuState,
    Lease,
    utcnow,
)
from commons.units import parse_duration
from spawner.gpu.policy.state import Budget, Quota, Settings, Subject
from spawner.gpu.quotas.document import Specs, check_spec, subjects_in_order

INSTALLED = "LabCommons"  # who set what a site begins with
_DURATIONS = frozenset(
    {
        "time_limit",
        "default_time_limit",
        "preempt_exempt",
        "half_life",
        "hold_time",
        "patience",
        "release_after",
    }
)


@dataclass(frozen=True)
class Change:
    """One key of one subject that is set, changed or removed; None: not there."""

    subject: Subject
    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.key}: {_show(self.after)}"
        if self.after is None:
            return f"- {self.key}: {_show(self.before)}"
        return f"~ {self.key}: {_show(self.before)} -> {_show(self.after)}"


# -- reading ----------------------------------------------------------------------------------


def specs(session: Session) -> Specs:
    """What is set, by subject, as the document says it."""
    rows = {row.subject: dict(row.spec) for row in session.scalars(select(GpuQuota))}
    return {subject: rows[subject] for subject in subjects_in_order(rows)}


def load(session: Session) -> tuple[Mapping[Subject, Quota], Settings]:
    """What is set, as the policy takes it."""
    return as_policy(specs(session))


def as_policy(said: Specs) -> tuple[Mapping[Subject, Quota], Settings]:
    """Checked specs, as the policy takes them."""
    found = dict(said)
    settings = found.pop("settings", {})
    zone = settings.get("timezone", "UTC")
    return {subject: _quota(spec, zone) for subject, spec in found.items()}, _settings(settings)


def idle_specs(session: Session) -> dict[Subject, dict[str, Any]]:
    """What is said of idle leases, by subject (``settings``: of all); durations in seconds."""
    return {
        subject: {
            key: value if key in ("gpu_percent", "cpu_percent", "exempt") else parse_duration(value)
            for key, value in spec["idle"].items()
        }
        for subject, spec in specs(session).items()
        if "idle" in spec
    }


def warn_before(session: Session) -> float | None:
    """Seconds before a lease's end that its holder is warned, where the document says so."""
    row = session.get(GpuQuota, "settings")
    return parse_duration(row.spec["warn_before"]) if row and "warn_before" in row.spec else None


def tag(spec: Mapping[str, Any] | None) -> str:
    """A mark of what a spec says (an ETag), to notice that somebody else has changed it."""
    text = json.dumps(spec or {}, sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def history(session: Session, subject: str | None = None, limit: int = 50) -> list[GpuQuotaChange]:
    """The last changes, newest first."""
    query = select(GpuQuotaChange).order_by(GpuQuotaChange.id.desc()).limit(limit)
    if subject:
        query = query.where(GpuQuotaChange.subject == subject)
    return list(session.scalars(query))


def people(session: Session) -> set[str]:
    """Everybody who has logged in, or ever asked for a GPU."""
    return set(session.scalars(select(DirectoryPerson.name))) | set(
        session.scalars(select(Lease.username).distinct())
    )


def models(session: Session) -> set[str]:
    """The GPU types that the inventory sees."""
    return set(session.scalars(select(GpuDevice.model).where(GpuDevice.present).distinct()))


# -- changing ---------------------------------------------------------------------------------


def diff(old: Specs, new: Specs, prune: bool = False) -> tuple[Change, ...]:
    """What ``apply`` of ``new`` changes; subjects only in ``old`` go where ``prune`` is set."""
    changes = []
    for subject in subjects_in_order({**old, **new}):
        if subject not in new and not prune:
            continue
        before, after = old.get(subject, {}), new.get(subject, {})
        changes += [
            Change(subject, key, before.get(key), after.get(key))
            for key in dict.fromkeys([*before, *after])
            if before.get(key) != after.get(key)
        ]
    return tuple(changes)


def apply(session: Session, new: Specs, by: str, prune: bool = False) -> tuple[Change, ...]:
    """Make what is set that of ``new`` (checked specs), and say what changed.

    A subject that ``new`` names has afterwards exactly what it says; others stay, or go
    where ``prune`` is set.
    """
    lock(session)
    rows = {row.subject: row for row in session.scalars(select(GpuQuota))}
    changes = diff({subject: dict(row.spec) for subject, row in rows.items()}, new, prune)
    now = utcnow()
    for subject in dict.fromkeys(change.subject for change in changes):
        row, after = rows.get(subject), new.get(subject) or None
        session.add(
            GpuQuotaChange(
                at=now,
                by=by[:255],
                subject=subject,
                before=dict(row.spec) if row else None,
                after=after,
            )
        )
        if after is None:
            if row:
                session.delete(row)
        else:
            row = row or GpuQuota(subject=subject)
            row.spec, row.changed_at, row.changed_by = after, now, by[:255]
            session.add(row)
    if changes:
        bump(session)
    return changes


def begin(session: Session, most: int) -> bool:
    """Give a site that nobody has set anything for limits that are fair; False where somebody has.

    Every time limit ends, idle GPUs come back, and one person holds no more than ``most``,
    what one server may have.
    """
    if specs(session) or session.scalar(select(GpuQuotaChange.id).limit(1)) is not None:
        return False
    usual = {
        "ceiling": max(1, most),
        "time_limit": "7d",
        "default_time_limit": "8h",
        "idle": {"after": "2h"},
    }
    apply(session, {"default": check_spec("default", usual)}, INSTALLED)
    return True


def set_keys(
    session: Session, subject: Subject, values: Mapping[str, Any], by: str
) -> tuple[Change, ...]:
    """Set some keys of one subject; a value None removes its key. Raises QuotaDocumentError."""
    lock(session)
    row = session.get(GpuQuota, subject)
    spec = (dict(row.spec) if row else {}) | dict(values)
    checked = check_spec(subject, {k: v for k, v in spec.items() if v is not None})
    return apply(session, {subject: checked}, by)


def remove(session: Session, subject: Subject, by: str) -> tuple[Change, ...]:
    """Remove all that is said of one subject."""
    return apply(session, {subject: {}}, by)


def bump(session: Session) -> None:
    """Count a change, so that every process notices it."""
    lock(session).version += 1


def lock(session: Session) -> GpuState:
    """The row that writers of quotas and reservations take one after the other."""
    row = session.get(GpuState, 1, with_for_update=True)
    if row is None:
        row = GpuState(id=1, version=0)
        session.add(row)
        session.flush()
    return row


# -- as the policy takes it -------------------------------------------------------------------


def _quota(spec: Mapping[str, Any], zone: str) -> Quota:
    values: dict[str, Any] = {
        key: parse_duration(value) if key in _DURATIONS else value
        for key, value in spec.items()
        if key != "idle"
    }
    for key in ("budget", "grp_budget"):
        if key in values:
            values[key] = _budget(values[key], zone)
    return Quota(**values)


def _budget(spec: Mapping[str, Any], zone: str) -> Budget:
    half_life, window = spec.get("half_life"), spec.get("window")
    if window not in (None, "total") and zone != "UTC":
        window = f"{window}@{zone}"
    return Budget(
        gpu_hours=float(spec["gpu_hours"]),
        window=window,
        half_life=parse_duration(half_life) if half_life else None,
    )


def _settings(spec: Mapping[str, Any]) -> Settings:
    values: dict[str, Any] = {
        key: parse_duration(value) if key in _DURATIONS else value
        for key, value in spec.items()
        if key in Settings.__dataclass_fields__
    }
    return Settings(**values)


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def show_changes(changes: Iterable[Change]) -> str:
    """The changes as lines, by subject."""
    lines: list[str] = []
    subject = None
    for change in changes:
        if change.subject != subject:
            subject = change.subject
            lines.append(subject)
        lines.append(f"  {change}")
    return "\n".join(lines)
