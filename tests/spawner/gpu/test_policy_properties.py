"""The policy holds what it promises, in any laboratory that hypothesis can think of."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rig.lab import Lab, machine, request
from spawner.gpu.policy.budgets import window_end
from spawner.gpu.policy.decision import _apply, at_the_door, decide, held
from spawner.gpu.policy.extension import allowed
from spawner.gpu.policy.fairshare import FairTree
from spawner.gpu.policy.limits import LimitScope, budget_limits, count_limits
from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.plan import Plan
from spawner.gpu.policy.promises import missing
from spawner.gpu.policy.reasons import sentence
from spawner.gpu.policy.state import (
    HOUR,
    RECLAIM_NOTICE,
    SHORT,
    Budget,
    Claim,
    Decision,
    Quota,
    Reason,
    Settings,
    Slot,
    Snapshot,
    Usage,
    Window,
)

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
        "default": Quota(
            max_gpus=draw(st.none() | small),
            budget=draw(budgets),
            ceiling=draw(st.none() | small),
            own_gpus=draw(st.none() | small),
            time_limit=draw(st.sampled_from([None, None, None, 8 * HOUR])),
        ),
        "user:alice": Quota(
            max_gpus=draw(st.none() | small),
            max_by_type={"T4": draw(small)} if draw(st.booleans()) else {},
            ceiling=draw(st.none() | small),
            shares=draw(st.none() | st.just(3.0)),
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
        lambda n, start, length, gpus, subject, model, named: Window(
            f"r{n}",
            f"r{n}",
            subject,
            NOW + start * HOUR,
            NOW + (start + length) * HOUR,
            len(named) or gpus,
            "" if named else model,
            named,
        ),
        st.integers(0, 3),
        st.integers(-1, 40),
        st.integers(1, 6),
        st.integers(1, 4),
        st.sampled_from(["course:ml", "user:bob"]),
        st.sampled_from(["", "", "A100", "T4"]),
        st.sampled_from([(), (), ("n0-A100-0",), ("n0-A100-0", "n1-A100-0")]),
    ),
    max_size=2,
    unique_by=lambda window: window.reservation,
)
rules = st.builds(
    Settings,
    strategy=st.sampled_from(["backfill", "backfill", "BestEffortFIFO", "StrictFIFO"]),
    entry_penalty=st.booleans(),
    patience=st.sampled_from([12 * HOUR, 7 * 24 * HOUR]),
    worth=st.sampled_from([{}, {}, {"A100": 3.0, "T4": 0.5}]),
    charge_by_worth=st.booleans(),
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
    check_reclaim(lab, before, decision)
    assert not decide(lab.snapshot()).grants


def before_claim(snapshot: Snapshot, lease: str) -> Claim:
    return next(claim for claim in snapshot.claims if claim.id == lease)


def check_reclaim(lab: Lab, before: Snapshot, decision: Decision) -> None:
    """Of those who owe by today's quotas, at whole notice, for an owner within its own, and none
    that could be spared; what is told of the owner's start is true at once."""
    ended = [preemption.lease for preemption in decision.preemptions]
    assert len(ended) == len(set(ended))
    assert not set(ended) & set(decision.spared)
    held = {
        account: sum(c.gpus for c in lab.claims.values() if c.account == account and not c.waits)
        for account in lab.quotas
    }
    nominal = {account: quota.nominal or 0 for account, quota in lab.quotas.items()}
    for preemption in decision.preemptions:
        claim, owner = (before_claim(before, n) for n in (preemption.lease, preemption.wanted_by))
        assert held[claim.account] > nominal[claim.account]
        assert held[owner.account] + owner.gpus <= nominal[owner.account]
        assert lab.quotas[owner.account].cohort == lab.quotas[claim.account].cohort
        assert claim.exempt_until <= before.now
        assert claim.reservation is None
        assert preemption.stops_at >= before.now + RECLAIM_NOTICE
        if lab.settings.strategy == "backfill":
            told = next(v for v in decision.verdicts if v.lease == owner.id)
            assert told.expected_start is not None
            assert told.expected_start <= preemption.stops_at


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
        price = lab.settings.price(on[0].model)
        assert claim.weight == sum(device.weight * price for device in on)
        if claim.id in waited:
            assert all(device.offered for device in on)


def check_counts(lab: Lab, before: Snapshot, granted: set[str]) -> None:
    known = {device.id: device.model for device in lab.devices}
    running = [claim for claim in lab.claims.values() if not claim.waits]

    def held(scope: LimitScope) -> int:
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
        own = lab.quotas.get(f"user:{claim.user}", Quota())
        ceiling = lab.quotas["default"].ceiling if own.ceiling is None else own.ceiling
        if ceiling is not None and own.max_gpus is None:
            assert held(LimitScope(claim.user)) <= ceiling
        quota = lab.quotas.get(claim.account, Quota())
        used = held(LimitScope("", claim.account))
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
                    shared += max(0, held(LimitScope("", subject)) - (nominal - lends))
            assert shared <= lent


def check_reserved(lab: Lab, granted: set[str]) -> None:
    """What starts beside a reservation leaves its devices: the GPUs it reserves stay reachable."""
    people = [c for c in lab.claims.values() if c.id not in granted]
    open_to_short = [
        w
        for w in lab.windows
        if w.start + lab.settings.release_after <= lab.now < w.end
        and not any(w.subject in (c.account, f"user:{c.user}") for c in people)
    ]
    for claim in lab.claims.values():
        if claim.id not in granted:
            continue
        for window in lab.windows:
            own = window.subject in (claim.account, f"user:{claim.user}")
            lent = window in open_to_short
            if lent and (claim.time_limit or 2 * SHORT) <= SHORT:
                continue
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
                # A short lease on what nobody used is given back when its people come.
                and not (lent and (other.time_limit or 2 * SHORT) <= SHORT)
                for slot in other.slots
            }
            fitting = [
                device
                for device in lab.devices
                if device.offered
                and window.gpu_type in ("", device.model)
                and (not window.devices or device.id in window.devices)
            ]
            free = sum(device.id not in others for device in fitting)
            overlapping = sum(
                w.gpus for w in lab.windows if w.start < window.end and window.start < w.end
            )
            offered = len(fitting)
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
def test_all_that_holds_when_an_administrator_moves_requests(
    played: tuple[Lab, list[Step]], dice: random.Random
) -> None:
    """Before all, behind all, on hold: limits, budgets, slots and reservations hold; what waits
    keeps the order that was said, and what is on hold changes nothing for the others."""
    lab, script = played
    play(lab, script)
    for claim in [claim for claim in lab.claims.values() if claim.waits]:
        rank, paused = dice.choice((0, 1, -1)), dice.random() < 0.3
        said = {"rank": rank, "paused": paused, "moved_by": "carol", "moved_why": "so"}
        lab.claims[claim.id] = replace(claim, **said)  # type: ignore[arg-type]
    snapshot = lab.snapshot()
    paused_ones = {claim.id for claim in snapshot.claims if claim.waits and claim.paused}
    others = tuple(claim for claim in snapshot.claims if claim.id not in paused_ones)
    whole, without = decide(snapshot), decide(replace(snapshot, claims=others))
    assert (whole.grants, whole.preemptions) == (without.grants, without.preemptions)
    assert whole.verdicts[: len(without.verdicts)] == without.verdicts
    behind = whole.verdicts[len(without.verdicts) :]
    assert {verdict.lease for verdict in behind} == paused_ones
    assert all(
        [reason.code for reason in verdict.reasons] == ["queue_paused"] for verdict in behind
    )
    ranks = [lab.claims[verdict.lease].rank for verdict in without.verdicts]
    assert ranks == sorted(ranks, reverse=True)
    decided(lab)


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


def matching(windows: list[Window], snapshot: Snapshot, at: float) -> int:
    """How many wishes can be met at once, by augmenting paths: another way than the one tried."""

    def free_for(device: Device, wish: Window) -> bool:
        holders = [
            c
            for c in snapshot.claims
            if any(s.device == device.id for s in c.slots)
            and min(x for x in (c.ends_at, c.stops_at, float("inf")) if x is not None) > at
        ]
        mine = all(
            c.reservation == wish.reservation or wish.subject in (c.account, f"user:{c.user}")
            for c in holders
        )
        named = not wish.devices or device.id in wish.devices
        return device.offered and mine and named and wish.gpu_type in ("", device.model)

    wishes = [one for one in windows for _ in range(one.gpus)]
    given: dict[str, int] = {}

    def find(wish: int, seen: set[str]) -> bool:
        for device in snapshot.devices:
            if device.id not in seen and free_for(device, wishes[wish]):
                seen.add(device.id)
                if device.id not in given or find(given[device.id], seen):
                    given[device.id] = wish
                    return True
        return False

    return sum(find(wish, set()) for wish in range(len(wishes)))


@MANY
@given(labs(), st.data())
def test_no_extension_takes_a_gpu_from_a_reservation(
    played: tuple[Lab, list[Step]], data: st.DataObject
) -> None:
    lab, script = played
    play(lab, script)
    running = sorted(c.id for c in lab.claims.values() if not c.waits and c.ends_at is not None)
    if not running or not lab.windows:
        return
    lease = data.draw(st.sampled_from(running))
    by = data.draw(st.sampled_from([HOUR, 3 * HOUR, 24 * HOUR]))
    before = lab.snapshot()
    got, _ = allowed(lease, by, before)
    claim = lab.claims[lease]
    assert claim.ends_at is not None
    after = replace(
        before,
        claims=tuple(
            replace(c, ends_at=max(claim.ends_at, lab.now) + got) if c.id == lease and got else c
            for c in before.claims
        ),
    )
    for at in {w.start for w in lab.windows} | {w.end - 1 for w in lab.windows}:
        open_then = [w for w in lab.windows if w.start <= at < w.end and at >= lab.now]
        if open_then:
            assert matching(open_then, after, at) >= matching(open_then, before, at)


@given(
    devices(),
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["", "A100", "T4"])), min_size=1, max_size=3
    ),
)
def test_what_is_missing_is_what_the_best_distribution_lacks(
    found: list[Device], wishes: list[tuple[int, str]]
) -> None:
    windows = [
        Window(f"r{n}", "r", "course:ml", NOW, NOW + HOUR, gpus, model)
        for n, (gpus, model) in enumerate(wishes)
    ]
    snapshot = Lab(found, windows=windows).snapshot()
    lacking = sum(missing(snapshot, NOW).values())
    assert lacking == sum(gpus for gpus, _ in wishes) - matching(windows, snapshot, NOW)


@MANY
@given(labs())
def test_several_accounts_give_no_more_than_the_most_generous_of_them(
    played: tuple[Lab, list[Step]],
) -> None:
    lab, script = played
    generous = {"group:vision": 2, "group:speech": 1, "course:ml": 1, "default": 1}
    lab.quotas = {subject: Quota(max_gpus=most) for subject, most in generous.items()}
    play(lab, script)
    lab.pass_()
    for user in PEOPLE:
        asked_for = {a for step in script for who, a, *_ in step.asked if who == user}
        held_now = sum(c.gpus for c in lab.claims.values() if c.user == user and not c.waits)
        assert held_now <= (2 if "group:vision" in asked_for else 1)


@MANY
@given(labs(), st.sampled_from([0.25, 2.0, 8.0]))
def test_charged_by_worth_each_gpu_counts_as_so_many(
    played: tuple[Lab, list[Step]], worth: float
) -> None:
    """Where all GPUs are worth as much, and budgets are that much larger, nothing is decided
    otherwise; what is used counts as so much more, and is what is said of budgets."""
    lab, script = played
    plain = replace(lab.settings, worth={}, charge_by_worth=False)
    priced = replace(plain, worth=dict.fromkeys(("A100", "T4", "L4"), worth), charge_by_worth=True)

    def with_budgets(one: Lab, times: float) -> Lab:
        def larger(budget: Budget | None) -> Budget | None:
            # A second more, so that no sum of floats decides whether the last lease fits.
            return budget and replace(budget, gpu_hours=(budget.gpu_hours + 1 / 3600) * times)

        quotas = {
            subject: replace(q, budget=larger(q.budget), grp_budget=larger(q.grp_budget))
            for subject, q in one.quotas.items()
        }
        return Lab(one.devices, quotas, one.settings, one.now, one.windows)

    lab.settings = priced
    charged = with_budgets(lab, worth)
    lab.settings = plain
    lab = with_budgets(lab, 1.0)
    for one in (lab, charged):
        play(one, script)
        one.pass_()
    assert {c.id: c.slots for c in charged.claims.values()} == {
        c.id: c.slots for c in lab.claims.values()
    }
    assert {c.id: c.weight for c in charged.claims.values()} == {
        c.id: c.weight * worth for c in lab.claims.values()
    }
    assert starts(charged.snapshot()) == starts(lab.snapshot())
    used, before = charged.usage(), lab.usage()
    assert used.budgets == {key: value * worth for key, value in before.budgets.items()}


@MANY
@given(
    st.lists(
        st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(ACCOUNTS), st.integers(1, 100)),
        min_size=1,
        max_size=6,
    )
)
def test_what_somebody_used_counts_for_them_wherever_they_charge(
    past: list[tuple[str, str, int]],
) -> None:
    """Alice spread her use over other accounts than bob did his; neither comes sooner for it."""
    decayed: dict[tuple[str, str], float] = {}
    for alices, bobs, used in past:
        for user, account in (("alice", alices), ("bob", bobs)):
            charged = f"user:{user}" if account == "user" else account
            decayed[charged, user] = decayed.get((charged, user), 0.0) + used
            decayed[charged, ""] = decayed.get((charged, ""), 0.0) + used
    for accounts in (("user:alice", "user:bob"), ("group:new", "group:new")):
        for first, second in (("alice", "bob"), ("bob", "alice")):
            tree: FairTree[str] = FairTree(decayed, {})
            for age, user in enumerate((first, second)):
                tree.add(accounts[user == "bob"], user, float(age), user, user)
            assert [*tree.drain(lambda _: 0.0)] == [first, second]


USED = st.dictionaries(
    st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(PEOPLE)), st.integers(1, 50), max_size=8
)


def account_of(account: str, user: str) -> str:
    return f"user:{user}" if account == "user" else account


def order(used: dict[tuple[str, str], int], asked_for: dict[str, str], penalty: bool) -> list[str]:
    """Whose turn it is when all GPUs are busy; ``asked_for``: which account each one charges, who
    asked first comes first."""
    decayed: dict[tuple[str, str], float] = {}
    for (account, user), hours in used.items():
        for leaf in ("", user):
            key = account_of(account, user), leaf
            decayed[key] = decayed.get(key, 0.0) + hours * HOUR
    lab = Lab(machine("n", 1), settings=Settings(entry_penalty=penalty))
    lab.ask(request("busy", "dan", NOW, account="group:other"))
    lab.pass_()
    for age, (user, account) in enumerate(asked_for.items()):
        lab.ask(request(user, user, NOW + age - 10, account=account_of(account, user)))
    verdicts = decide(replace(lab.snapshot(), usage=Usage(decayed))).verdicts
    return [verdict.lease for verdict in verdicts]


@MANY
@given(USED, st.permutations(PEOPLE), st.data(), st.booleans())
def test_who_used_nothing_yet_comes_before_those_who_used_the_same_account(
    used: dict[tuple[str, str], int], people: list[str], data: st.DataObject, penalty: bool
) -> None:
    *others, new = people  # who asks last, and used nothing
    used = {(account, user): hours for (account, user), hours in used.items() if user != new}
    of_new = data.draw(st.sampled_from(ACCOUNTS))
    asked_for = {user: data.draw(st.sampled_from(ACCOUNTS)) for user in others}
    found = order(used, {**asked_for, new: of_new}, penalty)
    for user, account in asked_for.items():
        heavy = any(name == user for _, name in used)
        same = account == of_new or (account == "user" and (of_new, user) in used)
        if heavy and (same or of_new == "user"):
            assert found.index(new) < found.index(user)


@MANY
@given(USED, st.permutations(PEOPLE), st.data())
def test_nobody_comes_sooner_by_charging_themselves(
    used: dict[tuple[str, str], int], people: list[str], data: st.DataObject
) -> None:
    # With the entry penalty, what is taken before them in the same decision may turn the order of
    # two (some 2 of 10,000 comparisons of random labs).
    penalty = False
    asked_for = {user: data.draw(st.sampled_from(ACCOUNTS)) for user in people}
    for account, user in used:
        if account != "user":
            own = order(used, {**asked_for, user: "user"}, penalty)
            assert own.index(user) >= order(used, {**asked_for, user: account}, penalty).index(user)


# -- every reason is true, and all of them are enough -------------------------------------------

LIMITS = {
    "person_gpus": "max_gpus",
    "person_type": "max_by_type",
    "person_own": "own_gpus",
    "group_gpus": "grp_gpus",
    "group_type": "grp_by_type",
    "nominal": "nominal",
    "borrowing_limit": "borrowing_limit",
    "person_budget": "budget",
    "group_budget": "grp_budget",
}


def without(snapshot: Snapshot, claim: Claim, position: int, reason: Reason) -> Snapshot:
    """The laboratory as it would be if what the reason names were not in the way."""
    data, code = reason.params, reason.code.removesuffix("_never")
    if code == "behind":
        ahead = {v.lease for v in decide(snapshot).verdicts if v.position < position}
        return replace(snapshot, claims=tuple(c for c in snapshot.claims if c.id not in ahead))
    if code == "reserved":
        return replace(
            snapshot, windows=tuple(w for w in snapshot.windows if w.name != data["name"])
        )
    if code in ("gpus_busy", "one_node", "out_of_service"):
        node = f"new{len(snapshot.devices)}"
        model = str(data["type"]).partition(", ")[0] or "A100"
        alike = next((d for d in snapshot.devices if d.model == model), None)
        price = snapshot.settings.price(model)
        more = [
            Device(f"{node}-{n}", model, 1, node=node, weight=alike.weight if alike else price)
            for n in range(claim.gpus)
        ]
        return replace(snapshot, devices=(*snapshot.devices, *more))
    subject = f"user:{claim.user}" if code == "person_ceiling" else data.get("subject")
    if code == "cohort_full":
        subject = claim.account
    quota = snapshot.quotas.get(subject, Quota())
    if code == "cohort_full":
        quota = replace(quota, nominal=(quota.nominal or 0) + 100, lending_limit=None)
    elif code == "person_ceiling":
        quota = replace(quota, ceiling=100)
    elif code.startswith("time_limit"):
        quota = replace(quota, time_limit=None)
    elif code == "budget_needs_limit":
        quota = replace(quota, budget=None, grp_budget=None)
    elif code.endswith("_type"):
        name = LIMITS[code]
        quota = replace(quota, **{name: {**getattr(quota, name), data["type"]: 100}})
    elif code.endswith("_budget"):
        name = LIMITS[code]
        # What has no end is more than any budget.
        budget = data.get("promised", 0) is not None and replace(
            getattr(quota, name), gpu_hours=1e6
        )
        quota = replace(quota, **{name: budget or None})
    else:
        quota = replace(quota, **{LIMITS[code]: 100})
    return replace(snapshot, quotas={**snapshot.quotas, subject: quota})


def granted(snapshot: Snapshot, decision: Decision) -> Snapshot:
    """The laboratory once a decision's grants are written down."""
    grants = {grant.lease: grant for grant in decision.grants}
    claims = (
        held(claim, grants[claim.id], snapshot.now) if claim.id in grants else claim
        for claim in snapshot.claims
    )
    return replace(snapshot, claims=tuple(claims))


def check_true(snapshot: Snapshot, claim: Claim, position: int, reason: Reason) -> None:
    data = reason.params
    known = {device.id: device.model for device in snapshot.devices}
    running = [other for other in snapshot.claims if not other.waits]
    if reason.code == "behind":
        assert 0 < data["count"] == position - 1
    elif reason.code in ("person_gpus", "person_own", "person_ceiling"):
        mine = sum(other.gpus for other in running if other.user == claim.user)
        assert data["held"] <= mine
        assert data["held"] + claim.gpus > data["limit"]
        if reason.code == "person_ceiling":
            assert data["held"] == mine
    elif reason.code in ("group_gpus", "group_type", "nominal", "borrowing_limit"):
        theirs = [other for other in running if other.account == claim.account]
        if "type" in data:
            theirs = [other for other in theirs if known[other.slots[0].device] == data["type"]]
        assert data["held"] == sum(other.gpus for other in theirs)
        assert data["held"] + claim.gpus > data["limit"]
    elif reason.code.endswith("_budget"):
        # None: without an end, which a budget of before did not forbid.
        parts = [data[name] for name in ("used", "promised", "need")]
        assert None in parts or sum(parts) > data["budget"] - 1e-6
    elif reason.code == "reserved":
        window = next(w for w in snapshot.windows if w.name == data["name"])
        assert (window.start, window.end) == (data["start"], data["end"])
        assert window.end > snapshot.now
        assert window.subject not in (claim.account, f"user:{claim.user}")
        ends = float("inf") if claim.time_limit is None else snapshot.now + claim.time_limit
        assert window.start < ends
    elif reason.code in ("gpus_busy", "one_node"):
        taken = {slot for other in running for slot in other.slots}
        of_type = [d for d in snapshot.devices if d.offered and d.model in data["type"].split(", ")]
        if not data["type"]:
            of_type = [device for device in snapshot.devices if device.offered]
        slots = [Slot(device.id, index) for device in of_type for index in range(device.slots)]
        assert data["total"] == len(slots)
        assert data["free"] == sum(slot not in taken for slot in slots)
        assert (data["free"] < claim.gpus) == (reason.code == "gpus_busy")


@MANY
@given(labs(), st.none() | quotas(), st.none() | devices())
def test_every_reason_is_true_and_without_all_that_are_told_it_starts(
    played: tuple[Lab, list[Step]], later: dict[str, Quota] | None, found: list[Device] | None
) -> None:
    lab, script = played
    play(lab, script)
    lab.pass_()
    # While they wait, limits are lowered, and other GPUs fail or are drained.
    lab.quotas = later or lab.quotas
    drained = {device.id for device in found or () if device.drained}
    lab.devices = [replace(d, drained=d.drained or d.id in drained) for d in lab.devices]
    waiting = [claim for claim in lab.claims.values() if claim.waits]
    for claim in waiting[:2]:
        snapshot, told = lab.snapshot(), []
        for _ in range(40):
            decision = decide(snapshot)
            verdict = next((v for v in decision.verdicts if v.lease == claim.id), None)
            if verdict is None:
                break
            assert verdict.reasons
            snapshot = after = granted(snapshot, decision)
            for reason in verdict.reasons:
                check_true(after, claim, verdict.position, reason)
                assert ".." not in sentence(reason, str)
                assert (reason.code, reason.params) not in told[-1:]
                snapshot = without(snapshot, claim, verdict.position, reason)
            told = [(reason.code, reason.params) for reason in verdict.reasons]
        assert verdict is None, told


@MANY
@given(labs())
def test_a_plan_that_goes_on_is_the_plan_of_what_is_written_down(
    made: tuple[Lab, list[Step]],
) -> None:
    lab, script = made
    play(lab, script)
    plan = Plan(lab.snapshot())
    queue = [plan.request(claim) for claim in plan.waiting]
    granted = []
    for one in queue:
        found = plan.place(one)
        if found.start <= lab.now and len(granted) < 2:
            granted.append(plan.grant(one, found))
        else:
            plan.take(one, found)
    written = _apply(plan.snapshot, granted)
    plan.begin(written)
    fresh = Plan(written)
    assert [lease.claim for lease in plan.running] == [lease.claim for lease in fresh.running]
    assert plan.reserved_now() == fresh.reserved_now()
    for claim in fresh.waiting:
        assert planned(plan, claim) == planned(fresh, claim)


def planned(plan: Plan, claim: Claim) -> object:
    """Where a request is planned, and everything that the plan says of it."""
    request = plan.request(claim)
    found = plan.place(request)
    weight = found.kind.weight if found.kind else 1.0
    shut = {
        gate.reason(request.count, weight, request.duration, until): until
        for gate, until in found.gates.items()
    }
    free = plan.counted(request.kinds), plan.most_free(request.kinds)
    taken = [
        (pool.node, pool.places[index].device.id, slot, pool.places[index].windows)
        for pool, index, slot in plan.take(request, found)
    ]
    kinds = [kind.model for kind in found.kinds]
    return found.start, found.never, shut, kinds, free, taken, plan.held(claim.account)
