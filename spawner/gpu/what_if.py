"""What other quotas would do now: who starts, who waits shorter or longer. Writes nothing.

The decision that the hub would make is made of a changed snapshot (``policy.decide`` is pure).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from spawner.gpu import views
from spawner.gpu.ledger.snapshot import read_snapshot
from spawner.gpu.policy.decision import decide
from spawner.gpu.policy.state import Claim, Decision, Verdict
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.document import Specs
from spawner.gpu.quotas.explain import settings_for

# Differences of expected starts that are none: seconds.
_SAME = 60.0


@dataclass(frozen=True)
class Moved:
    """A request whose expected start is another; None: not known."""

    claim: Claim
    before: float | None
    after: float | None

    @property
    def sooner(self) -> bool:
        """Whether that is good for whom it belongs to."""
        return (self.after or float("inf")) < (self.before or float("inf"))


@dataclass(frozen=True)
class Effects:
    """What a change does now.

    Attributes:
        starts: requests that start at once, and do not without it.
        stays: those that would start now, and would wait with it.
        moved: those that go on waiting, for a shorter or longer time.
        ends: leases that would have to give borrowed GPUs back.
        people: of those who hold or wait, whose limits change.
    """

    starts: tuple[Claim, ...]
    stays: tuple[Claim, ...]
    moved: tuple[Moved, ...]
    ends: tuple[Claim, ...]
    people: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For REST and commands."""
        return {
            "starts": [_told(claim) for claim in self.starts],
            "waits": [_told(claim) for claim in self.stays],
            "moved": [
                {
                    **_told(one.claim),
                    "before": views.iso(one.before),
                    "after": views.iso(one.after),
                    "sooner": one.sooner,
                }
                for one in self.moved
            ],
            "ends": [_told(claim) for claim in self.ends],
            "people": list(self.people),
        }


def _told(claim: Claim) -> dict[str, Any]:
    return {
        "lease": claim.id,
        "user": claim.user,
        "account": claim.account,
        "gpus": claim.gpus,
        "gpu_type": claim.gpu_type,
    }


def look(session: Session, new: Specs, now: float) -> Effects:
    """What ``new``, all that would be set, does at ``now`` (seconds since 1970)."""
    old = quota_store.specs(session)
    snapshot = read_snapshot(session, now)
    before, after = (
        decide(one)
        for one in (snapshot, read_snapshot(session, now, rules=quota_store.as_policy(new)))
    )
    claims = {claim.id: claim for claim in snapshot.claims}
    started, starts = _granted(before), _granted(after)
    was, will = _verdicts(before), _verdicts(after)
    moved = [
        Moved(claims[lease], was[lease].expected_start, verdict.expected_start)
        for lease, verdict in will.items()
        if lease in was and not _same(was[lease].expected_start, verdict.expected_start)
    ]
    told = {one.lease for one in before.preemptions}
    return Effects(
        tuple(claims[one] for one in sorted(starts - started)),
        tuple(claims[one] for one in sorted(started - starts)),
        tuple(moved),
        tuple(claims[one.lease] for one in after.preemptions if one.lease not in told),
        tuple(
            sorted(
                {
                    claim.user
                    for claim in snapshot.claims
                    if settings_for(old, claim.user, claim.account)
                    != settings_for(new, claim.user, claim.account)
                }
            )
        ),
    )


def _granted(decision: Decision) -> set[str]:
    return {grant.lease for grant in decision.grants}


def _verdicts(decision: Decision) -> dict[str, Verdict]:
    return {verdict.lease: verdict for verdict in decision.verdicts}


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < _SAME
