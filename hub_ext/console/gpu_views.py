"""GPUs as the console shows them: who holds what, who waits and why, what may still be used."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy.orm import Session

from hub_ext.console.viewer import Viewer
from hub_ext.store.models import LeaseState
from spawner.gpu import board, ledger, quotas
from spawner.gpu.explain import settings_for
from spawner.gpu.limits import Scope
from spawner.gpu.outlook import (
    BudgetLeft,
    budgets_left,
    held,
    longest_time_limit,
    probe,
    usual_time_limit,
)
from spawner.gpu.snapshot import read_snapshot
from spawner.gpu.state import HOUR, Snapshot
from spawner.options import show_bytes


def gpus(session: Session) -> dict[str, Any]:
    """Models of GPU with how many there are and how many are free; how many people wait."""
    found = ledger.availability(session)
    requests, wanted = board.count(session, board.WAITING)
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


def devices(session: Session, viewer: Viewer) -> dict[str, Any]:
    """Every device with its state; which leases are on it is for administrators."""
    found = board.devices(session)
    for device in found:
        device["memory"] = show_bytes(device["memory_bytes"])
        if not viewer.admin:
            del device["leases"], device["drained_by"]
    return {"devices": found}


def leases(session: Session, viewer: Viewer, say: board.Say) -> dict[str, Any]:
    """Who holds GPUs, oldest first, as far as the viewer may see it."""
    return {
        "everyone": viewer.admin,
        # How many leases there are is no secret; whose they are is.
        "total": board.count(session, board.HOLDING)[0],
        "leases": _seen(session, board.HOLDING, viewer, say),
    }


def queue(session: Session, viewer: Viewer, say: board.Say) -> dict[str, Any]:
    """Who waits, in order, as far as the viewer may see it."""
    requests, wanted = board.count(session, board.WAITING)
    return {
        "everyone": viewer.admin,
        "total": requests,
        "total_gpus": wanted,
        "requests": _seen(session, board.WAITING, viewer, say),
    }


def _seen(
    session: Session, states: Collection[LeaseState], viewer: Viewer, say: board.Say
) -> list[dict[str, Any]]:
    by_id = board.known_devices(session)
    # Who looks after nobody else has no need to read everybody's.
    alone = "" if viewer.admin or viewer.leads else viewer.name
    return [
        board.lease(row, by_id, say)
        for row in board.live(session, states, alone)
        if viewer.looks_after(row.username, row.account)
    ]


def me(session: Session, viewer: Viewer, say: board.Say, now: float) -> dict[str, Any]:
    """What the viewer may use, holds and waits for."""
    accounts = (*viewer.accounts, f"user:{viewer.name}")
    snapshot = read_snapshot(
        session, now, probes=tuple(probe(viewer.name, one, now) for one in accounts)
    )
    by_id = board.known_devices(session)
    return {
        "name": viewer.name,
        "admin": viewer.admin,
        "leads": sorted(viewer.leads),
        "accounts": [_account(session, snapshot, viewer.name, one) for one in accounts],
        "held": held(snapshot, Scope(viewer.name)),
        "leases": [board.lease(row, by_id, say) for row in board.live(session, user=viewer.name)],
    }


def explain(session: Session, user: str, account: str, now: float) -> dict[str, Any]:
    """Which limits hold for a person charging an account, where each stands, what is used."""
    snapshot = read_snapshot(session, now, probes=(probe(user, account, now),))
    return {"user": user, **_account(session, snapshot, user, account)}


def _account(session: Session, snapshot: Snapshot, user: str, account: str) -> dict[str, Any]:
    settings = settings_for(quotas.specs(session), user, account)
    return {
        "account": account,
        "held": held(snapshot, Scope(user, account)),
        "held_by_all": held(snapshot, Scope("", account)),
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


def usage(session: Session, viewer: Viewer, now: float) -> dict[str, Any]:
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


def _may_see(viewer: Viewer, user: str, subject: str, account: str) -> bool:
    """One's own, what one leads; what all of one's team have together."""
    if viewer.admin or account in viewer.leads:
        return True
    return user == viewer.name or (not user and subject in viewer.accounts)


def _whose(session: Session, viewer: Viewer) -> list[tuple[str, str]]:
    """People and accounts whose budgets are wanted though they may hold nothing."""
    accounts = {*viewer.accounts, *viewer.leads, f"user:{viewer.name}"}
    found = [(viewer.name, account) for account in sorted(accounts)]
    if viewer.admin:
        for subject in quotas.specs(session):
            kind, _, name = subject.partition(":")
            if kind in ("group", "course", "user"):
                found.append((name if kind == "user" else "", subject))
    return found
