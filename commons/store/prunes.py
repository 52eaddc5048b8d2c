"""What was removed of what nobody needs, and when; what is needed without a container."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from commons.leases import LeaseState
from commons.store.models import Lease, Prune, ServerStart, WarmStart, utcnow

KEPT = 30


def note(session: Session, removed: Iterable[Mapping[str, Any]], problem: str = "") -> None:
    """Write one down: rows of ``environments.prune.Removed``, and why it came to no end."""
    session.add(Prune(removed=[dict(one) for one in removed], problem=problem[:1000], at=utcnow()))
    session.flush()
    old = select(Prune.id).order_by(Prune.id.desc()).offset(KEPT)
    session.execute(delete(Prune).where(Prune.id.in_(list(session.scalars(old)))))


def last(session: Session) -> Prune | None:
    """The last one; None before the first."""
    return session.scalar(select(Prune).order_by(Prune.id.desc()).limit(1))


def freed(row: Prune) -> int:
    """Bytes that it gave back."""
    return sum(int(one.get("freed") or 0) for one in row.removed)


def asked_for(session: Session) -> dict[str, str]:
    """``name:version`` that a start, a place in the queue or a start ahead of time is for, by whom.

    There is no container of it yet.
    """
    found: dict[str, str] = {}
    for user, options in (
        *((row.username, row.user_options) for row in session.scalars(select(ServerStart))),
        *(
            (row.username, row.user_options)
            for row in session.scalars(select(Lease).where(Lease.state != LeaseState.ENDED))
        ),
        *(
            (row.created_by, row.user_options)
            for row in session.scalars(select(WarmStart).where(WarmStart.hold_until > utcnow()))
        ),
    ):
        environment = (options or {}).get("environment")
        if isinstance(environment, str):
            found.setdefault(environment, user)
    return found


def versions(removed: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Of each version that went, what the audit trail says."""
    pairs = (
        str(name).partition(":")
        for one in removed
        if one.get("kind") == "versions"
        for name in one.get("names") or ()
    )
    return [
        {"scope": "image", "environment": environment, "version": version}
        for environment, _, version in pairs
    ]
