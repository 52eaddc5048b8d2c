"""What can never be granted as it is asked for, said at the door. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from spawner.gpu.policy.budgets import TINY
from spawner.gpu.policy.limits import (
    NO_QUOTA,
    budget_limits,
    count_limits,
    person_ceiling,
    person_limit,
)
from spawner.gpu.policy.state import Claim, Quota, Reason, Snapshot, Subject


def at_the_door(claim: Claim, snapshot: Snapshot) -> tuple[Reason, ...]:
    """Every reason for which a request can never be granted, whoever else holds what.

    Empty when it can be granted at some time. The request itself may be in the snapshot.
    """
    return tuple(_never(claim, snapshot))


def _never(claim: Claim, snapshot: Snapshot) -> Iterator[Reason]:
    """What is never possible, in the order in which a person would ask."""
    if claim.gpus < 1:
        yield Reason("gpus_invalid", {"gpus": claim.gpus})
        return
    yield from _devices(claim, snapshot)
    yield from _counts(claim, snapshot)
    yield from _times(claim, snapshot)
    waiting = sum(
        other.waits and other.user == claim.user and other.id != claim.id
        for other in snapshot.claims
    )
    queued = person_limit("max_queued", claim.user, claim.account, snapshot.quotas)
    if queued and claim.waits and waiting >= queued[0]:
        yield Reason("queued_most", {"limit": queued[0], "waiting": waiting, "subject": queued[1]})


def _devices(claim: Claim, snapshot: Snapshot) -> Iterator[Reason]:
    pools: dict[tuple[str, float, str], int] = {}
    for device in snapshot.devices:
        key = device.model, device.weight, device.node
        pools[key] = pools.get(key, 0) + 1
    if not pools:
        yield Reason("no_gpus")
        return
    models = sorted({model for model, _, _ in pools})
    if claim.gpu_type not in ("", *models):
        yield Reason("type_unknown", {"type": claim.gpu_type, "known": models})
        return
    most = max(count for key, count in pools.items() if claim.gpu_type in ("", key[0]))
    if claim.gpus > most:
        yield Reason("more_than_exist", {"gpus": claim.gpus, "most": most, "type": claim.gpu_type})


def _counts(claim: Claim, snapshot: Snapshot) -> Iterator[Reason]:
    models = (
        {device.model for device in snapshot.devices} if not claim.gpu_type else {claim.gpu_type}
    )
    tight: dict[str, Reason] = {}
    ceiling = person_ceiling(claim.user, (), snapshot.quotas)
    for limit in (
        *count_limits(claim.user, claim.account, snapshot.quotas),
        *((ceiling,) if ceiling else ()),
    ):
        if claim.gpus <= limit.most:
            continue
        reason = Reason(
            f"{limit.code}_never",
            {
                "subject": limit.source,
                "limit": limit.most,
                "gpus": claim.gpus,
                "type": limit.scope.model,
            },
        )
        if not limit.scope.model:
            yield reason
        else:
            tight.setdefault(limit.scope.model, reason)
    if models and models <= tight.keys():
        yield tight[min(models)]
    most = nominal_cap(claim.account, snapshot.quotas)
    if most is not None and claim.gpus > most:
        yield Reason("nominal_never", {"subject": claim.account, "limit": most, "gpus": claim.gpus})


def lendable(quota: Quota) -> int:
    """What an account lends of its nominal quota (Kueue ``lendingLimit``)."""
    nominal = quota.nominal or 0
    return nominal if quota.lending_limit is None else min(nominal, quota.lending_limit)


def nominal_cap(account: Subject, quotas: Mapping[Subject, Quota]) -> int | None:
    """The most an account may hold with all it could borrow; None: no such limit."""
    quota = quotas.get(account, NO_QUOTA)
    if quota.cohort is None:
        return quota.nominal
    nominal = quota.nominal or 0
    others = sum(
        lendable(other)
        for subject, other in quotas.items()
        if other.cohort == quota.cohort and subject != account
    )
    if quota.borrowing_limit is not None:
        others = min(others, quota.borrowing_limit)
    return nominal + others


def _times(claim: Claim, snapshot: Snapshot) -> Iterator[Reason]:
    found = person_limit("time_limit", claim.user, claim.account, snapshot.quotas)
    if found and claim.time_limit is None:
        yield Reason("time_limit_needed", {"limit": found[0], "subject": found[1]})
    elif found and claim.time_limit is not None and claim.time_limit > found[0]:
        yield Reason(
            "time_limit_most",
            {"limit": found[0], "asked": claim.time_limit, "subject": found[1]},
        )
    weights = [device.weight for device in snapshot.devices if claim.gpu_type in ("", device.model)]
    weight = min(weights, default=1.0)
    for budget in budget_limits(claim.user, claim.account, snapshot.quotas):
        if claim.time_limit is None:
            yield Reason("budget_needs_limit", {"subject": budget.source})
            continue
        need = claim.gpus * weight * claim.time_limit
        if need > budget.budget.gpu_hours * 3600.0 + TINY or math.isnan(need):
            yield Reason(
                f"{budget.code}_never",
                {
                    "subject": budget.source,
                    "budget": budget.budget.gpu_hours,
                    "need": need / 3600.0,
                },
            )
