"""The policy holds what it promises, in any laboratory that hypothesis can think of."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rig.lab import Lab, machine, request
from spawner.gpu.budgets import window_end
from spawner.gpu.devices import Device
from spawner.gpu.limits import Scope, budget_limits, count_limits
from spawner.gpu.policy import at_the_door, decide
from spawner.gpu.state import HOUR, Budget, Claim, Quota, Settings, Snapshot, Window

NOW = 1_800_000_000.0  # a Friday, 08:00 UTC
PEOPLE = ("alice", "bob", "carol")
ACCOUNTS = ("group:vision", "group:speech", "course:ml", "user")
MANY = settings(
    max_examples=int(os.environ.get("POLICY_EXAMPLES", "120")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Step:
    """So long after the one before, these ask."""

    after: float
    asked: tuple[tuple[str, str, int, float | None, str, float], ...]


@st.composite
def devices(draw: st.DrawFn) -> list[Device]:
    found = []
    for node in range(draw(st.integers(1, 2))):
        found += machine(f"n{node}", draw(st.integers(1, 4)))
        found += machine(f"n{node}", draw(st.integers(0, 2)), "T4", 16)
    if draw(st.booleans()):
        found += machine("n0", 2, "L4", 24, sharing="time-slicing", slots=2, weight=0.5)
    broken = draw(st.sets(st.integers(0, len(found) - 1), max_size=2))
    return [replace(d, drained=True) if n in broken else d for n, d in enumerate(found)]


small = st.integers(1, 5)
budgets = (
    st.none()
    | st.builds(
        Budget, st.integers(2, 40).map(float), window=st.sampled_from(["day", "week", "total"])
    )
    | st.builds(Budget, st.integers(2, 40).map(float), half_life=st.sampled_from([HOUR, 24 * HOUR]))
)


@st.composite
def quotas(draw: st.DrawFn) -> dict[str, Quota]:
    said = {
        "default": Quota(max_gpus=draw(st.none() | small), budget=draw(budgets)),
        "user:alice": Quota(
            max_gpus=draw(st.none() | small), shares=draw(st.none() | st.just(3.0))
        ),
        "course:ml": Quota(max_gpus=draw(st.none() | small), budget=draw(budgets)),
    }
    cohort = draw(st.sampled_from([None, "lab"]))
    for account in ("group:vision", "group:speech"):
        said[account] = Quota(
            grp_gpus=draw(st.none() | small),
            grp_by_type={"A100": draw(small)} if draw(st.booleans()) else {},
            grp_budget=draw(budgets),
            nominal=draw(st.none() | small),
            cohort=cohort,
            borrowing_limit=draw(st.none() | small),
            lending_limit=draw(st.none() | st.integers(0, 3)),
            preempt_exempt=draw(st.sampled_from([None, HOUR])),
        )
    return said


asked = st.tuples(
    st.sampled_from(PEOPLE),
    st.sampled_from(ACCOUNTS),
    st.integers(1, 4),
    st.sampled_from([HOUR, 2 * HOUR, 8 * HOUR, 30 * HOUR, None]),
    st.sampled_from(["", "", "A100", "T4", "L4"]),
    st.floats(0.1, 1.0),
)
steps = st.lists(
    st.builds(
        Step,
        st.floats(60, 20 * HOUR),
        st.lists(asked, max_size=5).map(tuple),
    ),
    min_size=1,
    max_size=6,
)
windows = st.lists(
    st.builds(
        lambda n, start, length, gpus, subject: Window(
            f"r{n}", f"r{n}", subject, NOW + start * HOUR, NOW + (start + length) * HOUR, gpus
        ),
        st.integers(0, 3),
        st.integers(-1, 40),
        st.integers(1, 6),
        st.integers(1, 4),
        st.sampled_from(["course:ml", "user:bob"]),
    ),
    max_size=2,
    unique_by=lambda window: window.reservation,
)
rules = st.builds(
    Settings,
    strategy=st.sampled_from(["backfill", "backfill", "BestEffortFIFO", "StrictFIFO"]),
    entry_penalty=st.booleans(),
    patience=st.sampled_from([12 * HOUR, 7 * 24 * HOUR]),
)


@st.composite
def labs(draw: st.DrawFn) -> tuple[Lab, list[Step]]:
    lab = Lab(draw(devices()), draw(quotas()), draw(rules), NOW, draw(windows))
    return lab, draw(steps)


def play(lab: Lab, script: list[Step]) -> None:
    """Let the steps come, up to the last: what that one asks for is not decided on."""
    for number, step in enumerate(script):
        target = lab.now + step.after
        while lab.next_end() < target:
            lab.advance(max(lab.now, lab.next_end()))
            decided(lab)
        lab.advance(target)
        for place, (user, account, gpus, limit, model, share) in enumerate(step.asked):
            claim = request(
                f"{number}-{place}",
                user,
                lab.now,
                gpus,
                f"user:{user}" if account == "user" else account,
                limit,
                model,
            )
            if not at_the_door(claim, lab.snapshot()):
                lab.ask(claim)
                if limit is not None:
                    lab.lengths[claim.id] = limit * share
        if number < len(script) - 1:
            decided(lab)


def decided(lab: Lab) -> None:
    before = lab.snapshot()
    decision = lab.pass_()
    check_slots(lab, before)
    check_counts(lab, before, {grant.lease for grant in decision.grants})
    check_reserved(lab, {grant.lease for grant in decision.grants})
    check_budgets(lab, {grant.lease for grant in decision.grants})
    waiting = {claim.id for claim in lab.claims.values() if claim.waits}
    assert {verdict.lease for verdict in decision.verdicts} == waiting
    assert [v.position for v in decision.verdicts] == list(range(1, len(waiting) + 1))
    for verdict in decision.verdicts:
        assert verdict.reasons
        if verdict.position == 1 and lab.settings.strategy == "backfill":
            assert verdict.reasons[0].code != "behind"
    ended = [preemption.lease for preemption in decision.preemptions]
    assert len(ended) == len(set(ended))
    for lease in ended:
        claim = before_claim(before, lease)
        assert claim.borrowed > 0
        assert claim.exempt_until <= before.now
        assert claim.reservation is None
    assert not decide(lab.snapshot()).grants


def before_claim(snapshot: Snapshot, lease: str) -> Claim:
    return next(claim for claim in snapshot.claims if claim.id == lease)


def check_slots(lab: Lab, before: Snapshot) -> None:
    known = {device.id: device for device in lab.devices}
    taken: set[object] = set()
    waited = {claim.id for claim in before.claims if claim.waits}
    for claim in lab.claims.values():
        if claim.waits:
            continue
        assert len(claim.slots) == claim.gpus
        assert not taken & set(claim.slots)
        taken.update(claim.slots)
        on = [known[slot.device] for slot in claim.slots]
        assert len({device.id for device in on}) == claim.gpus
        assert len({(device.node, device.model, device.weight) for device in on}) == 1
        assert claim.gpu_type in ("", on[0].model)
        assert all(slot.index < known[slot.device].slots for slot in claim.slots)
        assert claim.weight == sum(device.weight for device in on)
        if claim.id in waited:
            assert all(device.offered for device in on)


def check_counts(lab: Lab, before: Snapshot, granted: set[str]) -> None:
    known = {device.id: device.model for device in lab.devices}
    running = [claim for claim in lab.claims.values() if not claim.waits]

    def held(scope: Scope) -> int:
        return sum(
            claim.gpus
            for claim in running
            if scope.counts(claim.user, claim.account, known[claim.slots[0].device], lab.quotas)
        )

    for claim in running:
        if claim.id not in granted:
            continue
        for limit in count_limits(claim.user, claim.account, lab.quotas):
            scope = limit.scope
            if scope.model in ("", known[claim.slots[0].device]):
                assert held(scope) <= limit.most
        quota = lab.quotas.get(claim.account, Quota())
        used = held(Scope("", claim.account))
        if quota.cohort is None and quota.nominal is not None:
            assert used <= quota.nominal
        if quota.cohort is not None:
            if quota.borrowing_limit is not None:
                assert used <= (quota.nominal or 0) + quota.borrowing_limit
            shared, lent = 0, 0
            for subject, other in lab.quotas.items():
                if other.cohort == quota.cohort:
                    nominal = other.nominal or 0
                    lends = min(
                        nominal, nominal if other.lending_limit is None else other.lending_limit
                    )
                    lent += lends
                    shared += max(0, held(Scope("", subject)) - (nominal - lends))
            assert shared <= lent


def check_reserved(lab: Lab, granted: set[str]) -> None:
    """What starts beside a reservation leaves its devices: the GPUs it reserves stay reachable."""
    for claim in lab.claims.values():
        if claim.id not in granted:
            continue
        for window in lab.windows:
            own = window.subject in (claim.account, f"user:{claim.user}")
            ends = float("inf") if claim.ends_at is None else claim.ends_at
            if own or window.end <= lab.now or ends <= window.start:
                continue
            # Devices that somebody else will still hold when it begins, or holds inside it.
            others = {
                slot.device
                for other in lab.claims.values()
                if not other.waits
                and window.subject not in (other.account, f"user:{other.user}")
                and (other.ends_at is None or other.ends_at > max(window.start, lab.now))
                for slot in other.slots
            }
            free = sum(device.offered and device.id not in others for device in lab.devices)
            overlapping = sum(
                w.gpus for w in lab.windows if w.start < window.end and window.start < w.end
            )
            offered = sum(device.offered for device in lab.devices)
            if overlapping <= offered and len(lab.windows) == 1:
                late = granted_late(lab, window, granted)
                assert free + late >= min(window.gpus, offered)


def granted_late(lab: Lab, window: Window, granted: set[str]) -> int:
    """Devices that leases from before this pass hold beyond the window's start."""
    return sum(
        claim.gpus
        for claim in lab.claims.values()
        if not claim.waits
        and claim.id not in granted
        and (claim.ends_at is None or claim.ends_at > window.start)
    )


def check_budgets(lab: Lab, granted: set[str]) -> None:
    """Even if everything runs to its limit, no budget is overspent, in this window or later."""
    books = lab.books()
    for claim in lab.claims.values():
        if claim.id not in granted:
            continue
        for limit in budget_limits(claim.user, claim.account, lab.quotas):
            allowed = limit.budget.gpu_hours * 3600 + 1e-3
            scope = limit.scope
            running = [
                other
                for other in lab.claims.values()
                if not other.waits and scope.counts(other.user, other.account, "", lab.quotas)
            ]
            if any(other.ends_at is None for other in running):
                raise AssertionError("a lease without an end under a budget")
            promised = sum(o.weight * (o.ends_at - lab.now) for o in running)  # type: ignore[operator]
            assert lab.used(limit, books) + promised <= allowed
            if limit.budget.window and limit.budget.window != "total":
                boundary = window_end(limit.budget.window, lab.now)
                later = sum(o.weight * max(0.0, o.ends_at - boundary) for o in running)  # type: ignore[operator]
                assert later <= allowed


@MANY
@given(labs())
def test_limits_budgets_slots_and_reservations_hold_whatever_is_asked(
    played: tuple[Lab, list[Step]],
) -> None:
    lab, script = played
    play(lab, script)


@MANY
@given(labs(), st.randoms(use_true_random=False))
def test_the_order_in_which_things_are_listed_does_not_matter(
    played: tuple[Lab, list[Step]], dice: random.Random
) -> None:
    lab, script = played
    play(lab, script)
    snapshot = lab.snapshot()
    claims, found = list(snapshot.claims), list(snapshot.devices)
    dice.shuffle(claims)
    dice.shuffle(found)
    assert decide(snapshot) == decide(replace(snapshot, claims=tuple(claims), devices=tuple(found)))


@MANY
@given(labs())
def test_a_later_request_never_moves_an_earlier_ones_start(
    played: tuple[Lab, list[Step]],
) -> None:
    lab, script = played
    # First come, first served: the youngest is the last.
    lab.settings = Settings(strategy="backfill", entry_penalty=False, half_life=1e-3)
    lab.quotas = {
        subject: replace(quota, cohort=None, nominal=None) for subject, quota in lab.quotas.items()
    }
    play(lab, script)
    lab.claims = {
        name: replace(claim, requested_at=float(place)) if claim.waits else claim
        for place, (name, claim) in enumerate(lab.claims.items())
    }
    snapshot = replace(lab.snapshot(), usage=replace(lab.usage(), decayed={}))
    waiting = [claim for claim in snapshot.claims if claim.waits]
    if not waiting:
        return
    youngest = max(waiting, key=lambda claim: claim.requested_at)
    without = replace(snapshot, claims=tuple(c for c in snapshot.claims if c is not youngest))
    assert starts(without) == {k: v for k, v in starts(snapshot).items() if k != youngest.id}


def starts(snapshot: Snapshot) -> dict[str, float | None]:
    decision = decide(snapshot)
    found: dict[str, float | None] = {grant.lease: snapshot.now for grant in decision.grants}
    return found | {v.lease: v.expected_start for v in decision.verdicts}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from([HOUR, 3 * HOUR]), st.integers(0, 4)),
        min_size=3,
        max_size=6,
    ),
    st.sampled_from(["backfill", "BestEffortFIFO", "StrictFIFO"]),
    st.booleans(),
)
def test_nobody_starves(
    flood: list[tuple[int, float, int]], strategy: str, same_group: bool
) -> None:
    """A heavy user wants a whole machine; others, who have used nothing, never stop asking."""
    patience = 6 * HOUR
    lab = Lab(
        machine("n", 4),
        {"group:all": Quota(grp_gpus=4)},
        Settings(strategy=strategy, patience=patience),  # type: ignore[arg-type]
    )
    account = "group:all" if same_group else "user:heavy"
    lab.ask(request("before", "heavy", lab.now, 2, account, 20 * HOUR))
    lab.pass_()
    begin = lab.now
    lab.advance(begin + 60)
    lab.ask(request("big", "heavy", lab.now, 4, account, 2 * HOUR))
    number = 0
    # Until then: the patience, then what ran and what was older, each to its limit.
    deadline = begin + 20 * HOUR + patience + 3 * 3 * HOUR
    while "big" not in lab.started:
        assert lab.now <= deadline, "starved"
        for gpus, limit, pause in flood:
            number += 1
            user = f"light{number}"
            lab.ask(
                request(
                    f"f{number}",
                    user,
                    lab.now,
                    gpus,
                    "group:all" if same_group else f"user:{user}",
                    limit,
                )
            )
            lab.pass_()
            lab.advance(lab.now + pause * 600 + 300)
        # Those who lose patience leave, so that the queue stays short.
        waiting = [c for c in lab.claims.values() if c.waits and c.id != "big"]
        for claim in waiting[:-12]:
            del lab.claims[claim.id]
