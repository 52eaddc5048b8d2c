"""Whether what reservations promise can be kept, and what is in the way. Pure.

At one moment: the devices in service, less those that leases of others still hold then, are given
to the windows that are open at that moment: certain devices first, then a type, then any, as in
``reservations``. Leases only end as time goes on, so a window is worst off when it or another one
begins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from commons.scopes import own_account
from spawner.gpu.policy.admission_checks import nominal_cap
from spawner.gpu.policy.limits import NO_QUOTA
from spawner.gpu.policy.state import Claim, Reason, Snapshot, Window
from spawner.gpu.policy.timeline import INF


@dataclass(frozen=True)
class Shortage:
    """A window that cannot have all its GPUs at ``at``, with every reason.

    ``until``: when it can; None: not before its end, as far as can be known.
    """

    window: Window
    at: float
    missing: int
    until: float | None
    reasons: tuple[Reason, ...]


def unkept(snapshot: Snapshot, until: float) -> tuple[Shortage, ...]:
    """Of the windows that begin before ``until`` those that cannot be kept, the earliest first."""
    found = []
    for window in sorted(snapshot.windows, key=lambda w: (w.start, w.reservation)):
        if window.start < until and window.end > snapshot.now:
            reasons, at, missing, end = _reasons(window, snapshot)
            if reasons:
                found.append(Shortage(window, at, missing, end, reasons))
    return tuple(found)


def missing(snapshot: Snapshot, at: float, claims: Iterable[Claim] | None = None) -> dict[str, int]:
    """By reservation: how many GPUs a window that is open at a moment cannot have then."""
    claims = snapshot.claims if claims is None else claims
    return _missing([w for w in snapshot.windows if w.start <= at < w.end], snapshot, at, claims)


def moments(windows: Sequence[Window], start: float, end: float) -> set[float]:
    """When windows can become worse off in a span in which leases only end."""
    begins = {window.start for window in windows if start <= window.start < end}
    return begins | {start}


def released(snapshot: Snapshot) -> frozenset[Window]:
    """Open windows that none of their people use, or wait for, since ``release_after``."""
    after, now = snapshot.settings.release_after, snapshot.now
    return frozenset(
        window
        for window in snapshot.windows
        if window.start <= now < window.end
        and now - max(window.start, snapshot.left.get(window.reservation, 0.0)) >= after
        and not any(serves(claim, window) for claim in snapshot.claims)
    )


def _missing(
    windows: Collection[Window], snapshot: Snapshot, at: float, claims: Iterable[Claim]
) -> dict[str, int]:
    held: dict[str, list[Claim]] = {}  # by device
    for claim in claims:
        if claim.slots and _end(claim) > at:
            for slot in claim.slots:
                held.setdefault(slot.device, []).append(claim)
    left = {device.id: device for device in snapshot.devices if device.offered}
    short: dict[str, int] = {}
    # The order in which wishes are nested; of two alike the one that began first.
    order = sorted(windows, key=lambda w: (not w.devices, not w.gpu_type, w.start, w.reservation))
    for own in (True, False):  # first what a window's own people hold of it anyway
        for window in order:
            needed = short.get(window.reservation, len(window.devices) or window.gpus)
            for device in [*left.values()]:
                holders = held.get(device.id, [])
                ours = all(serves(claim, window) for claim in holders)
                if (
                    needed
                    and ours
                    and bool(holders) is own
                    and (device.id in window.devices or not window.devices)
                    and window.gpu_type in ("", device.model)
                ):
                    del left[device.id]
                    needed -= 1
            short[window.reservation] = needed
    return short


def _end(claim: Claim) -> float:
    ends = [end for end in (claim.ends_at, claim.stops_at) if end is not None]
    return min(ends, default=INF)


def serves(claim: Claim, window: Window) -> bool:
    """Whether a lease is one of those whom a window is for."""
    return claim.reservation == window.reservation or window.subject in (
        claim.account,
        own_account(claim.user),
    )


def _reasons(
    window: Window, snapshot: Snapshot
) -> tuple[tuple[Reason, ...], float, int, float | None]:
    reasons: list[Reason] = []
    begin, now = max(window.start, snapshot.now), snapshot.now
    worst, at = 0, begin
    for moment in sorted(moments(snapshot.windows, begin, window.end)):
        lacks = missing(snapshot, moment).get(window.reservation, 0)
        if lacks > worst:
            worst, at = lacks, moment
    end: float | None = at
    if worst:
        beside = [w for w in snapshot.windows if w.start <= at < w.end]

        def short(moment: float) -> int:
            """What is missing of it if the same windows were open at a later moment."""
            return _missing(beside, snapshot, moment, snapshot.claims)[window.reservation]

        away = missing(snapshot, at, ()).get(window.reservation, 0)
        if away:
            reasons.append(Reason("reserved_out_of_service", {"count": away, "start": at}))
        if worst > away:
            ends = sorted({_end(c) for c in snapshot.claims if c.slots and at < _end(c)} - {INF})
            end = next((e for e in ends if short(e) <= away), None)
            held = {"count": worst - away, "start": at}
            reasons.append(Reason("reserved_in_use", {**held, "until": end} if end else held))
        if away or (end is not None and end >= window.end):
            end = None
    most = subject_cap(window, snapshot)
    if most is not None and window.gpus > most:
        limit = {"subject": window.subject, "limit": most, "gpus": window.gpus}
        reasons.append(Reason("reserved_over_limit", limit))
        worst, end = max(worst, window.gpus - most), None
    return tuple(reasons), max(at, now), worst, end


def subject_cap(window: Window, snapshot: Snapshot) -> int | None:
    """The most GPUs that those whom a window is for may hold at once; None: no limit."""
    subject, quotas = window.subject, snapshot.quotas
    quota = quotas.get(subject, NO_QUOTA)
    models = {d.model for d in snapshot.devices if d.id in window.devices}
    model = window.gpu_type or (models.pop() if len(models) == 1 else "")
    caps = [
        quota.grp_gpus,
        quota.grp_by_type.get(model),
        nominal_cap(subject, quotas),
        # Of one person: what is said of them, whoever is charged.
        quota.max_gpus if subject.startswith("user:") else None,
    ]
    return min((cap for cap in caps if cap is not None), default=None)
