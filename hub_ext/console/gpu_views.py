"""GPUs as the console shows them: who holds what, who waits and why, what may still be used."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.leases import LeaseState
from commons.principal import Principal
from commons.rights import Action, Resource, can
from commons.scopes import SITE, Keeper, of_account
from commons.store.models import GpuWatch, Lease, LeaseDevice
from spawner.gpu import views
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.snapshot import read_snapshot
from spawner.gpu.policy.forecast import (
    BudgetLeft,
    budgets_left,
    held,
    longest_time_limit,
    probe,
    usual_time_limit,
)
from spawner.gpu.policy.limits import LimitScope
from spawner.gpu.policy.state import HOUR, Snapshot
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.explain import settings_for
from spawner.options import show_bytes


def gpus(session: Session) -> dict[str, Any]:
    """Models of GPU with how many there are and how many are free; how many people wait."""
    found = transitions.availability(session)
    requests, wanted = views.count(session, views.WAITING)
    return {
        "simulated": found.simulated,
        "total": found.total,
        "free": found.free,
        "types": [
            {
                "model": kind.model,
                "memory": show_bytes(kind.memory),
                "memory_bytes": kind.memory,
                "total": kind.total,
                "free": kind.free,
            }
            for kind in found.types
        ],
        "waiting": {"requests": requests, "gpus": wanted},
    }


def sees_everyone(viewer: Principal) -> bool:
    """Whether whose everything is, is this viewer's to know."""
    return bool(can(viewer, Action.ADMINISTER, SITE))


def devices(session: Session, viewer: Principal) -> dict[str, Any]:
    """Every device with its state; which leases are on it is for administrators."""
    found, everyone = views.devices(session), sees_everyone(viewer)
    for device in found:
        device["memory"] = show_bytes(device["memory_bytes"])
        if not everyone:
            del device["leases"], device["drained_by"]
    return {"devices": found}


def holders(session: Session) -> dict[str, list[dict[str, Any]]]:
    """By device: who holds which slot, since and until when, and how it is used (for admins)."""
    query = (
        select(
            LeaseDevice.device_id, LeaseDevice.slot, Lease.username, Lease.server_name,
            Lease.held_at, Lease.ends_at, GpuWatch.gpu_percent, GpuWatch.use,
            GpuWatch.idle_seconds,
        )
        .join(Lease, Lease.id == LeaseDevice.lease_id)
        .outerjoin(GpuWatch, GpuWatch.lease_id == Lease.id)
        .where(LeaseDevice.released_at.is_(None))
        .order_by(LeaseDevice.device_id, LeaseDevice.slot)
    )  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = {}
    for row in session.execute(query):
        found.setdefault(row.device_id, []).append(
            {
                "slot": row.slot,
                "user": row.username,
                "server": row.server_name,
                "since": views.iso(row.held_at),
                "until": views.iso(row.ends_at),
                "percent": row.gpu_percent,
                "idle": row.idle_seconds if row.use == "idle" else None,
            }
        )
    return found


def leases(
    session: Session, viewer: Principal, say: views.Say, page: Part | None = None
) -> dict[str, Any]:
    """Who holds GPUs, oldest first, as far as the viewer may see it; of a ``page`` the first."""
    seen, more = _seen(session, views.HOLDING, viewer, say, page)
    return {
        "everyone": sees_everyone(viewer),
        # How many leases there are is no secret; whose they are is.
        "total": views.count(session, views.HOLDING)[0],
        "leases": seen,
        **({"more": more} if page else {}),
    }


def queue(
    session: Session, viewer: Principal, say: views.Say, page: Part | None = None
) -> dict[str, Any]:
    """Who waits, in order, as far as the viewer may see it; of a ``page`` the first."""
    requests, wanted = views.count(session, views.WAITING)
    seen, more = _seen(session, views.WAITING, viewer, say, page)
    return {
        "everyone": sees_everyone(viewer),
        "total": requests,
        "total_gpus": wanted,
        "requests": seen,
        **({"more": more} if page else {}),
    }


@dataclass(frozen=True)
class Part:
    """What of long lists a page shows, and what it has read already."""

    most: int
    known: views.Known


def _seen(
    session: Session,
    states: Collection[LeaseState],
    viewer: Principal,
    say: views.Say,
    page: Part | None,
) -> tuple[list[dict[str, Any]], int]:
    """Those that are shown, and how many more the viewer may see."""
    known = page.known if page else views.known(session)
    # Who looks after nobody else has no need to read everybody's.
    every = sees_everyone(viewer)
    alone = "" if every or viewer.led else viewer.name
    rows = [
        row
        for row in views.live(session, states, alone)
        if every or can(viewer, Action.SEE_LEASE, Resource.charged(row.account, row.username))
    ]
    most = page.most if page else len(rows)
    return [views.lease(row, known, say) for row in rows[:most]], max(0, len(rows) - most)


def me(
    session: Session,
    viewer: Principal,
    say: views.Say,
    now: float,
    known: views.Known | None = None,
) -> dict[str, Any]:
    """What the viewer may use, holds and waits for."""
    accounts = viewer.accounts
    snapshot = read_snapshot(
        session, now, probes=tuple(probe(viewer.name, one, now) for one in accounts)
    )
    known = known or views.known(session)
    return {
        "name": viewer.name,
        "admin": viewer.admin,
        "leads": sorted(scope.account for scope in viewer.led),
        "accounts": [_account(session, snapshot, viewer.name, one) for one in accounts],
        "held": held(snapshot, LimitScope(viewer.name)),
        "leases": [views.lease(row, known, say) for row in views.live(session, user=viewer.name)],
    }


def explain(session: Session, user: str, account: str, now: float) -> dict[str, Any]:
    """Which limits hold for a person charging an account, where each stands, what is used."""
    snapshot = read_snapshot(session, now, probes=(probe(user, account, now),))
    return {"user": user, **_account(session, snapshot, user, account)}


def _account(session: Session, snapshot: Snapshot, user: str, account: str) -> dict[str, Any]:
    settings = settings_for(quota_store.specs(session), user, account)
    return {
        "account": account,
        "held": held(snapshot, LimitScope(user, account)),
        "held_by_all": held(snapshot, LimitScope("", account)),
        "time_limit": longest_time_limit(snapshot, user, account),
        "default_time_limit": usual_time_limit(snapshot, user, account),
        "limits": [
            {"key": s.key, "value": s.value, "source": s.source, "instead_of": list(s.hidden)}
            for s in settings
        ],
        "budgets": [_budget(one) for one in budgets_left(snapshot, user, account)],
    }


def _budget(one: BudgetLeft) -> dict[str, Any]:
    return {
        "subject": one.subject,
        "user": one.user or None,
        "gpu_hours": one.budget.gpu_hours,
        "window": one.budget.window.partition("@")[0] if one.budget.window else None,
        "half_life": one.budget.half_life,
        "used": round(one.used, 3),
        "promised": round(one.promised, 3) if one.promised != float("inf") else None,
        "left": round(one.left, 3),
    }


def usage(session: Session, viewer: Principal, now: float) -> dict[str, Any]:
    """Past use (decayed, as fair share counts it) and budgets, of whom the viewer may see."""
    asking = _whose(session, viewer)
    snapshot = read_snapshot(session, now, probes=tuple(probe(*one, now) for one in asking))
    charged = (*asking, *((claim.user, claim.account) for claim in snapshot.claims))
    budgets: dict[tuple[str, str], dict[str, Any]] = {}
    for user, account in charged:
        for one in budgets_left(snapshot, user, account):
            if _may_see(viewer, one.user, one.subject, account):
                budgets[one.subject, one.user] = _budget(one)
    return {
        "half_life": snapshot.settings.half_life,
        "accounts": [
            {"account": account, "user": user or None, "gpu_hours": round(seconds / HOUR, 3)}
            for (account, user), seconds in sorted(snapshot.usage.decayed.items())
            if _may_see(viewer, user, account, account)
        ],
        "budgets": [budgets[key] for key in sorted(budgets)],
    }


def _may_see(viewer: Principal, user: str, subject: str, account: str) -> bool:
    """One's own, what one leads; what all of one's team have together."""
    if can(viewer, Action.READ_USAGE, Resource.charged(account, user)):
        return True
    return not user and bool(can(viewer, Action.READ_TOTAL, of_account(subject) or SITE))


def _whose(session: Session, viewer: Principal) -> list[tuple[str, str]]:
    """People and accounts whose budgets are wanted though they may hold nothing."""
    found = [(viewer.name, account) for account in sorted(viewer.accounts)]
    if sees_everyone(viewer):
        for subject in quota_store.specs(session):
            if scope := of_account(subject):
                found.append((scope.owner if scope.keeper is Keeper.PERSON else "", subject))
    return found
