"""One transaction of the allocation: what is asked, what is decided, all written down.

``admit`` takes the lock, writes what is asked, decides on all that waits, and writes the decision
down. Any process may do it at any time (``run_pass``); in the hub ``admission`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import notices
from commons.leases import LeaseState
from commons.store.models import Lease
from spawner.gpu.ledger import reservations, transitions, usage
from spawner.gpu.ledger.snapshot import LIVE, RECLAIMED, periods, read_quotas, read_snapshot
from spawner.gpu.ledger.usage import moment, seconds
from spawner.gpu.policy.decision import at_the_door, decide
from spawner.gpu.policy.limits import usual_time_limit
from spawner.gpu.policy.promises import unkept
from spawner.gpu.policy.state import (
    Claim,
    Decision,
    Quota,
    Reason,
    Slot,
    Snapshot,
    Subject,
    Verdict,
)


@dataclass(frozen=True)
class Ask:
    """A server asks for GPUs.

    Attributes:
        time_limit: seconds; None takes what the quotas say for those who ask for none.
        wait: False: be refused where it cannot start now.
        anytime: an administrator's: it may start in maintenance, too.
    """

    username: str
    server_name: str
    account: Subject
    gpus: int
    gpu_type: str = ""
    time_limit: float | None = None
    user_options: Mapping[str, Any] = field(default_factory=dict)
    wait: bool = True
    anytime: bool = False


@dataclass(frozen=True)
class Standing:
    """Where a lease stands.

    Attributes:
        lease: its id; "" where it was refused and none was written.
        reasons: why it was refused, or why it waits.
    """

    lease: str
    state: LeaseState
    slots: tuple[Slot, ...] = ()
    reasons: tuple[Reason, ...] = ()
    verdict: Verdict | None = None
    ended_reason: str = ""

    @property
    def held(self) -> bool:
        """Whether its slots are its own."""
        return self.state in (LeaseState.HELD, LeaseState.ACTIVE)


@dataclass(frozen=True)
class Outcome:
    """What a transaction did: the decision, and where those who asked stand, in their order."""

    decision: Decision
    standings: tuple[Standing, ...] = ()


def run_pass(session: Session, now: datetime | None = None) -> Decision:
    """Decide on all that waits, and write it down. Any process may call it at any time."""
    return admit(session, (), now).decision


def admit(
    session: Session,
    asks: Sequence[Ask],
    now: datetime | None = None,
    all_verdicts: bool = True,
) -> Outcome:
    """Write requests, decide on all that waits, write that down.

    A server that waits, or holds what it now asks for again, keeps its lease and its age. Without
    ``all_verdicts`` only those who ask get theirs written.
    """
    now = transitions.lock(session, now)
    quotas, settings = read_quotas(session)
    usage.keep_periods(session, seconds(now), periods(quotas, settings))
    standings: list[Standing | None] = [None] * len(asks)
    new: dict[int, Claim] = {}
    kept = _take_up(session, asks, now)
    probes = [_claim(ask, quotas, now) for ask in asks]
    snapshot = read_snapshot(session, seconds(now), probes=tuple(probes))
    snapshot = replace(snapshot, claims=tuple(claim for claim in snapshot.claims if claim.id))
    for number, (ask, claim) in enumerate(zip(asks, probes, strict=True)):
        if number in kept:
            continue
        reasons = at_the_door(claim, snapshot)
        if reasons:
            standings[number] = Standing("", LeaseState.ENDED, reasons=reasons)
            continue
        new[number] = _write(session, ask, claim, now)
        snapshot = replace(snapshot, claims=(*snapshot.claims, new[number]))
    decision = decide(snapshot)
    _write_decision(session, snapshot, decision, now, all_verdicts)
    if all_verdicts and snapshot.windows:
        reservations.tell_unkept(session, unkept(snapshot, snapshot.now + reservations.DAY))
    found = _standings(snapshot, decision)
    refused = {}
    for number, ask in enumerate(asks):
        if standings[number] is None:
            lease = kept.get(number) or new[number].id
            standing = found[lease]
            if not ask.wait and not standing.held:
                refused[lease] = "not_available"
                standing = Standing("", LeaseState.ENDED, reasons=standing.reasons)
            standings[number] = standing
    if refused:
        transitions.end_all(session, refused, now)
    return Outcome(decision, tuple(s for s in standings if s is not None))


def _take_up(session: Session, asks: Sequence[Ask], now: datetime) -> dict[int, str]:
    """Leases that servers have already: kept where they fit what is asked, else ended."""
    if not asks:
        return {}
    rows = session.scalars(
        select(Lease).where(
            Lease.username.in_({ask.username for ask in asks}), Lease.state.in_(LIVE)
        )
    )
    live = {(row.username, row.server_name): row for row in rows}
    kept, over = {}, {}
    for number, ask in enumerate(asks):
        lease = live.get((ask.username, ask.server_name))
        if lease is None:
            continue
        same = (lease.gpus, lease.gpu_type, lease.account) == (ask.gpus, ask.gpu_type, ask.account)
        same = same and ask.time_limit in (None, lease.time_limit)
        if same and lease.state is not LeaseState.ACTIVE and lease.stop_at is None:
            kept[number] = lease.id
            lease.user_options, lease.anytime = dict(ask.user_options), ask.anytime
        else:
            over[lease.id] = "replaced"
    session.flush()
    if over:
        transitions.end_all(session, over, now)
    return kept


def _claim(ask: Ask, quotas: Mapping[Subject, Quota], now: datetime) -> Claim:
    limit = ask.time_limit
    if limit is None:
        limit = usual_time_limit(ask.username, ask.account, quotas)
    return Claim(
        id="",
        user=ask.username,
        account=ask.account,
        state=LeaseState.REQUESTED,
        gpus=ask.gpus,
        requested_at=seconds(now),
        gpu_type=ask.gpu_type,
        time_limit=limit,
        anytime=ask.anytime,
    )


def _write(session: Session, ask: Ask, claim: Claim, now: datetime) -> Claim:
    lease = transitions.request(
        session,
        username=ask.username,
        server_name=ask.server_name,
        account=ask.account,
        gpus=ask.gpus,
        gpu_type=ask.gpu_type,
        time_limit=claim.time_limit,
        user_options=ask.user_options,
        anytime=ask.anytime,
        now=now,
    )
    return replace(claim, id=lease.id, time_limit=lease.time_limit)


def _write_decision(
    session: Session, snapshot: Snapshot, decision: Decision, now: datetime, all_verdicts: bool
) -> None:
    transitions.hold(session, decision.grants, now)
    fresh = {claim.id for claim in snapshot.claims if claim.state is LeaseState.REQUESTED}
    verdicts = [v for v in decision.verdicts if v.lease in fresh]
    if all_verdicts and len(verdicts) < len(decision.verdicts):
        stored = {
            row.id: row.verdict
            for row in session.execute(
                select(Lease.id, Lease.verdict).where(Lease.state == LeaseState.QUEUED)
            )
        }
        verdicts += [
            verdict
            for verdict in decision.verdicts
            if verdict.lease not in fresh
            and transitions.as_json(verdict) != stored.get(verdict.lease)
        ]
    transitions.queue(session, verdicts)
    claims = {claim.id: claim for claim in snapshot.claims}
    for preemption in decision.preemptions:
        at = moment(preemption.stops_at)
        if transitions.plan_stop(session, preemption.lease, RECLAIMED, at):
            lender = claims[preemption.wanted_by].account
            notices.add(
                session,
                username=claims[preemption.lease].user,
                lease_id=preemption.lease,
                code="preempted_soon",
                data={"account": lender, "stop_at": seconds(at)},
                key=f"preempted_soon:{preemption.lease}:{int(preemption.stops_at)}",
            )
    for lease in decision.spared:
        if transitions.spare(session, lease):
            notices.add(
                session,
                username=claims[lease].user,
                lease_id=lease,
                code="reclaim_withdrawn",
                data={},
                key=f"reclaim_withdrawn:{lease}:{int(claims[lease].stops_at or 0)}",
            )


def _standings(snapshot: Snapshot, decision: Decision) -> dict[str, Standing]:
    return {
        claim.id: Standing(claim.id, claim.state, slots=claim.slots) for claim in snapshot.claims
    } | changes(decision)


def read_standings(session: Session, leases: Iterable[str]) -> dict[str, Standing]:
    """Where leases stand, as the store has it."""
    rows = session.scalars(select(Lease).where(Lease.id.in_(list(leases))))
    found = {}
    for row in rows:
        verdict = transitions.verdict_of(row.id, row.verdict) if row.verdict else None
        found[row.id] = Standing(
            row.id,
            row.state,
            tuple(Slot(device.device_id, device.slot) for device in row.devices),
            verdict.reasons if verdict else (),
            verdict,
            row.ended_reason or "",
        )
    return found


def changes(decision: Decision) -> dict[str, Standing]:
    """Where those stand whom a decision concerns."""
    found = {
        grant.lease: Standing(grant.lease, LeaseState.HELD, slots=grant.slots)
        for grant in decision.grants
    }
    for verdict in decision.verdicts:
        found[verdict.lease] = Standing(
            verdict.lease, LeaseState.QUEUED, reasons=verdict.reasons, verdict=verdict
        )
    return found
