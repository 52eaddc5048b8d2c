"""The policy by example: fair share, budgets, borrowing, reservations, and the words for it."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.leases import LeaseState
from rig.lab import Lab, machine, request
from rig.month import lab as month_lab
from rig.month import play, trace
from spawner.gpu.policy import reasons
from spawner.gpu.policy.budgets import Account, decay, decayed_use, window_end, window_start
from spawner.gpu.policy.decision import at_the_door, decide
from spawner.gpu.policy.fairshare import FairTree
from spawner.gpu.policy.reasons import SENTENCES, sentence
from spawner.gpu.policy.state import HOUR, Budget, Quota, Reason, Settings, Snapshot, Window

NOW = 1_800_000_000.0


def plain(message: str) -> str:
    return message


def codes(lab: Lab, lease: str) -> list[str]:
    verdict = next(v for v in decide(lab.snapshot()).verdicts if v.lease == lease)
    return [reason.code for reason in verdict.reasons]


# -- fair share ---------------------------------------------------------------------------


def test_people_of_the_account_that_used_less_come_first() -> None:
    usage = {
        ("a", ""): 100.0,
        ("a", "x"): 0.0,
        ("a", "y"): 100.0,
        ("b", ""): 10.0,
        ("b", "z"): 10.0,
    }
    ranks = FairTree[str](usage, {}).ranks()
    assert ranks == {("b", "z"): 3, ("a", "x"): 2, ("a", "y"): 1}


def test_shares_weigh_use_and_nothing_used_comes_before_all() -> None:
    usage = {
        ("a", ""): 100.0,
        ("a", "x"): 100.0,
        ("b", ""): 60.0,
        ("b", "z"): 60.0,
        ("c", "w"): 0.0,
    }
    ranks = FairTree[str](usage, {"a": Quota(shares=2)}).ranks()
    assert sorted(ranks, key=lambda leaf: -ranks[leaf]) == [("c", "w"), ("a", "x"), ("b", "z")]


def test_people_of_accounts_that_tie_are_compared_with_each_other() -> None:
    usage = {
        ("a", ""): 60.0, ("a", "x"): 50.0, ("a", "y"): 10.0,
        ("b", ""): 60.0, ("b", "z"): 30.0, ("b", "w"): 30.0,
    }  # fmt: skip
    ranks = FairTree[str](usage, {}).ranks()
    assert ranks == {("a", "y"): 4, ("b", "z"): 3, ("b", "w"): 3, ("a", "x"): 1}


def test_requests_of_one_person_do_not_come_in_one_block() -> None:
    lab = Lab(machine("n", 2))
    for n in range(3):
        lab.ask(request(f"a{n}", "alice", NOW - 100 + n))
    lab.ask(request("b0", "bob", NOW))
    decision = lab.pass_()
    assert [grant.lease for grant in decision.grants] == ["a0", "b0"]


def test_who_has_waited_too_long_goes_before_fair_share() -> None:
    lab = Lab(machine("n", 1), settings=Settings(patience=HOUR))
    lab.ask(request("before", "heavy", NOW, limit=10 * HOUR))
    lab.pass_()
    lab.ask(request("heavy", "heavy", NOW))
    lab.advance(NOW + 10 * HOUR)
    lab.ask(request("light", "light", lab.now))
    assert [grant.lease for grant in lab.pass_().grants] == ["heavy"]


# -- budgets ------------------------------------------------------------------------------


def test_windows_begin_at_midnight_on_monday_and_on_the_first() -> None:
    at = datetime(2026, 12, 31, 15, tzinfo=UTC).timestamp()  # a Thursday
    for window, begins, ends in (
        ("day", "2026-12-31", "2027-01-01"),
        ("week", "2026-12-28", "2027-01-04"),
        ("month", "2026-12-01", "2027-01-01"),
    ):
        assert datetime.fromtimestamp(window_start(window, at), UTC).date().isoformat() == begins
        assert datetime.fromtimestamp(window_end(window, at), UTC).date().isoformat() == ends


def test_windows_begin_by_the_clocks_of_their_time_zone() -> None:
    def utc(at: float) -> str:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")

    at = datetime(2027, 3, 28, 12, tzinfo=UTC).timestamp()  # the clocks went forward at 01:00 UTC
    day, week = "day@Europe/Berlin", "week@Europe/Berlin"
    assert utc(window_start(day, at)) == "2027-03-27 23:00"
    assert utc(window_end(day, at)) == "2027-03-28 22:00"
    assert utc(window_start(week, at)) == "2027-03-21 23:00"
    assert utc(window_end(week, at)) == "2027-03-28 22:00"
    assert utc(window_end("month@Asia/Shanghai", at)) == "2027-03-31 16:00"
    assert utc(window_start("month@Asia/Shanghai", at)) == "2027-02-28 16:00"


@given(st.floats(0, 1e6), st.floats(1, 1e5), st.floats(0, 1e6), st.floats(600, 1e6))
def test_decayed_use_is_the_sum_of_its_parts(
    start: float, length: float, later: float, half_life: float
) -> None:
    end, at = start + length, start + length + later
    middle = start + length / 3
    whole = decayed_use(2.0, start, end, at, half_life)
    parts = decayed_use(2.0, start, middle, at, half_life) + decayed_use(
        2.0, middle, end, at, half_life
    )
    assert whole == pytest.approx(parts)
    assert whole <= 2.0 * length * (1 + 1e-9)
    assert decayed_use(2.0, start, end, end, half_life) * decay(later, half_life) == pytest.approx(
        whole
    )


def test_a_budget_is_open_again_when_its_window_begins_anew() -> None:
    account = Account(NOW, Budget(10, window="day"), 9 * HOUR, [])
    assert account.earliest(1, HOUR, NOW) == NOW
    assert account.earliest(1, 2 * HOUR, NOW) == window_end("day", NOW)
    assert account.earliest(1, 11 * HOUR, NOW) == float("inf")


def test_a_decaying_budget_is_open_again_when_enough_has_decayed() -> None:
    account = Account(NOW, Budget(10, half_life=24 * HOUR), 10 * HOUR, [])
    assert account.earliest(1, 5 * HOUR, NOW) == pytest.approx(NOW + 24 * HOUR, abs=2)


def test_what_runs_is_held_against_the_budget() -> None:
    lab = Lab(machine("n", 4), {"group:v": Quota(grp_budget=Budget(10, window="week"))})
    lab.ask(request("a", "alice", NOW, 1, "group:v", 6 * HOUR))
    lab.ask(request("b", "bob", NOW, 1, "group:v", 6 * HOUR))
    decision = lab.pass_()
    assert len(decision.grants) == 1
    (reason,) = decision.verdicts[0].reasons
    assert reason.code == "group_budget"
    assert (reason.params["used"], reason.params["promised"], reason.params["need"]) == (0, 6, 6)
    # At the latest when the week ends.
    assert reason.params["until"] == decision.verdicts[0].expected_start


# -- borrowing ----------------------------------------------------------------------------

COHORT = {
    "group:owner": Quota(nominal=4, cohort="lab"),
    "group:guest": Quota(nominal=2, cohort="lab", preempt_exempt=HOUR),
}


def test_what_others_do_not_use_can_be_borrowed_and_is_taken_back() -> None:
    lab = Lab(machine("n", 6), COHORT)
    for n in range(5):
        lab.ask(request(f"g{n}", f"guest{n}", NOW + n, 1, "group:guest", 20 * HOUR))
    grants = lab.pass_().grants
    assert sum(grant.borrowed for grant in grants) == 3
    lab.ask(request("mine", "owner", NOW, 3, "group:owner", 2 * HOUR))
    assert not lab.pass_().preemptions  # exempt for an hour
    lab.advance(NOW + 2 * HOUR)
    ended = [preemption.lease for preemption in lab.pass_().preemptions]
    assert len(ended) == 2  # one GPU is free: only as many as needed
    assert not lab.pass_().preemptions  # they are stopping: nobody else is needed
    lab.advance(lab.now + 301)
    assert [grant.lease for grant in lab.pass_().grants] == ["mine"]


def borrowers(*limits: float) -> Lab:
    """Six GPUs of three accounts, all with the guests: two of their own, four borrowed."""
    lab = Lab(machine("n", 6), {**COHORT, "group:guest": Quota(nominal=2, cohort="lab")})
    for n, limit in enumerate(limits):
        lab.ask(request(f"g{n}", f"guest{n}", NOW + n, 1, "group:guest", limit))
    lab.pass_()
    return lab


def test_what_is_borrowed_in_part_is_taken_only_where_nothing_else_will_do() -> None:
    """Kind: ways of asking that would keep borrowed GPUs for good."""
    lab = Lab(machine("n", 6), {**COHORT, "group:guest": Quota(nominal=2, cohort="lab")})
    lab.ask(request("big", "guest", NOW, 5, "group:guest", 20 * HOUR))
    lab.pass_()
    lab.ask(request("small", "guest", NOW, 1, "group:guest", 20 * HOUR))
    lab.pass_()
    lab.ask(request("one", "owner", NOW, 1, "group:owner", 2 * HOUR))
    assert [p.lease for p in lab.pass_().preemptions] == ["small"]
    lab.ask(request("two", "owner", NOW, 1, "group:owner", 2 * HOUR))
    assert [p.lease for p in lab.pass_().preemptions] == ["big"]


def test_an_account_within_its_nominal_quota_keeps_what_it_has() -> None:
    lab = Lab(machine("n", 6), COHORT)
    lab.ask(request("mine", "guest", NOW, 2, "group:guest", 20 * HOUR))
    lab.ask(request("theirs", "owner", NOW, 4, "group:owner", 20 * HOUR))
    lab.pass_()
    lab.ask(request("more", "owner", NOW, 1, "group:owner", 2 * HOUR))
    lab.advance(NOW + 2 * HOUR)
    assert not lab.pass_().preemptions


def test_nobody_is_stopped_for_what_comes_free_by_itself_as_soon() -> None:
    """One borrowed GPU comes free in two minutes, within the notice; another in an hour."""
    lab = borrowers(*[HOUR] * 5, 120)
    lab.ask(request("mine", "owner", NOW, 1, "group:owner", 2 * HOUR))
    decision = lab.pass_()
    assert not decision.preemptions
    assert decision.verdicts[0].expected_start == NOW + 120
    lab.ask(request("both", "owner", NOW, 1, "group:owner", 2 * HOUR))
    assert len(lab.pass_().preemptions) == 1  # the second one is not covered by that


def test_the_owner_is_told_of_the_reclaim_at_once() -> None:
    lab = borrowers(*[HOUR] * 6)
    lab.ask(request("mine", "owner", NOW, 2, "group:owner", 2 * HOUR))
    decision = lab.pass_()
    assert decision.verdicts[0].expected_start == decision.preemptions[0].stops_at == NOW + 300


def test_a_plan_to_stop_lives_no_longer_than_what_it_is_for() -> None:
    lab = borrowers(*[HOUR] * 6)
    lab.ask(request("mine", "owner", NOW, 1, "group:owner", 2 * HOUR))
    (planned,) = lab.pass_().preemptions
    lab.advance(NOW + 60)
    again = lab.pass_()
    assert not again.preemptions
    assert not again.spared  # still needed, and the same lease
    # Another one gives its GPU back before: the owner takes that.
    other = next(c.id for c in lab.claims.values() if c.id not in ("mine", planned.lease))
    del lab.claims[other]
    decision = lab.pass_()
    assert [grant.lease for grant in decision.grants] == ["mine"]
    assert decision.spared == (planned.lease,)
    lab.ask(request("second", "owner", NOW, 1, "group:owner", 2 * HOUR))
    (planned,) = lab.pass_().preemptions
    del lab.claims["second"]  # cancelled
    assert lab.pass_().spared == (planned.lease,)


def test_what_is_owed_is_judged_by_the_quotas_of_now() -> None:
    """Two within a nominal quota of two, which is lowered to one afterwards."""
    lab = Lab(machine("n", 2), {"group:a": Quota(nominal=2, cohort="lab")})
    for n in range(2):
        lab.ask(request(f"a{n}", "ann", NOW, 1, "group:a", 20 * HOUR))
    lab.pass_()
    lab.quotas = {
        "group:a": Quota(nominal=1, cohort="lab", preempt_exempt=HOUR),
        "group:b": Quota(nominal=1, cohort="lab"),
    }
    lab.ask(request("mine", "bob", NOW, 1, "group:b", 2 * HOUR))
    assert not lab.pass_().preemptions  # safe for an hour from its grant
    lab.advance(NOW + HOUR)
    assert len(lab.pass_().preemptions) == 1
    lab.ask(request("more", "bob", NOW, 1, "group:b", 2 * HOUR))  # beyond b's own
    assert not lab.pass_().preemptions


def test_what_is_reclaimed_is_not_given_to_those_behind() -> None:
    """One GPU is free, the owner needs two, one is reclaimed: the free one waits for it."""
    lab = borrowers(*[20 * HOUR] * 5)
    lab.ask(request("mine", "owner", NOW, 2, "group:owner", 2 * HOUR))
    lab.ask(request("late", "guest9", NOW + 1, 1, "group:guest", HOUR))
    decision = lab.pass_()
    assert not decision.grants
    assert len(decision.preemptions) == 1
    lab.advance(NOW + 301)
    assert [grant.lease for grant in lab.pass_().grants] == ["mine"]


def test_lending_and_borrowing_limits() -> None:
    quotas = {
        "group:owner": Quota(nominal=4, cohort="lab", lending_limit=1),
        "group:guest": Quota(nominal=2, cohort="lab"),
        "group:poor": Quota(cohort="lab", borrowing_limit=1),
    }
    lab = Lab(machine("n", 6), quotas)
    for n in range(5):
        lab.ask(request(f"g{n}", f"guest{n}", NOW + n, 1, "group:guest"))
    assert len(lab.pass_().grants) == 3
    lab = Lab(machine("n", 6), quotas)
    for n in range(3):
        lab.ask(request(f"p{n}", f"poor{n}", NOW + n, 1, "group:poor"))
    assert len(lab.pass_().grants) == 1
    assert codes(lab, "p1") == ["borrowing_limit"]


# -- devices ------------------------------------------------------------------------------


def test_the_smallest_type_that_fits_and_the_fullest_machine() -> None:
    lab = Lab(machine("n0", 2) + machine("n1", 4, "T4", 16) + machine("n2", 2, "T4", 16))
    lab.ask(request("one", "alice", NOW))
    (grant,) = lab.pass_().grants
    assert grant.slots[0].device.startswith("n2-T4")
    lab.ask(request("four", "bob", NOW, 4))
    (grant,) = lab.pass_().grants
    assert {slot.device[:2] for slot in grant.slots} == {"n1"}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (("RTX A6000", 48), ("A100-PCIE-40GB", 40)),
        (("NVIDIA RTX PRO 6000 Blackwell", 96), ("NVIDIA H100 80GB HBM3", 80)),
        (("NVIDIA GeForce RTX 4090", 24), ("Tesla V100-SXM2-16GB", 16)),
        (("Tesla T4", 16), ("Tesla V100-SXM2-16GB", 16)),
        (("NVIDIA L40S", 48), ("Tesla V100S-PCIE-32GB", 32)),
        (("NVIDIA RTX PRO 6000 Blackwell", 97), ("NVIDIA H20", 96)),
        (("NVIDIA GeForce RTX 4090", 24), ("NVIDIA A100-SXM4-80GB", 80)),
    ],
)
def test_any_takes_a_model_with_hbm_last(first: tuple[str, int], then: tuple[str, int]) -> None:
    lab = Lab(machine("n", 1, *then) + machine("n", 1, *first))
    lab.ask(request("any", "alice", NOW))
    (grant,) = lab.pass_().grants
    assert first[0] in grant.slots[0].device


def test_a_hundred_that_wait_are_told_when_they_start_however_many_start_now() -> None:
    lab = Lab(machine("n", 8))
    for n in range(8 + 101):
        lab.ask(request(f"r{n:03}", f"p{n:03}", NOW + n))
    decision = decide(lab.snapshot())
    assert len(decision.grants) == 8
    told = [verdict.expected_start is not None for verdict in decision.verdicts]
    assert told == [True] * 100 + [False]


def test_any_takes_what_the_site_says_is_worth_least() -> None:
    worth = {"A100": 2.0, "H100": 4.0, "A6000": 3.0}
    lab = Lab(
        machine("n", 1, "H100") + machine("n", 1, "A6000", 48) + machine("n", 1, "A100", 40),
        settings=Settings(worth=worth),
    )
    for n in range(3):
        lab.ask(request(f"any{n}", f"p{n}", NOW + n))
    taken = [grant.slots[0].device for grant in lab.pass_().grants]
    assert taken == ["n-A100-0", "n-A6000-0", "n-H100-0"]


def test_a_limit_that_was_lowered_meanwhile_holds_when_it_is_granted() -> None:
    lab = Lab(machine("n", 1))
    lab.ask(request("runs", "bob", NOW))
    lab.pass_()
    lab.ask(request("long", "alice", NOW, limit=8 * HOUR))
    lab.ask(request("short", "carol", NOW + 1, limit=HOUR))
    lab.quotas = {"default": Quota(time_limit=2 * HOUR)}
    lab.advance(NOW + 2 * HOUR)
    decision = lab.pass_()
    assert [grant.lease for grant in decision.grants] == ["short"]
    assert [reason.code for reason in decision.verdicts[0].reasons] == ["time_limit_most"]


def test_shared_devices_are_filled_one_after_the_other_one_slot_each() -> None:
    lab = Lab(machine("n", 2, sharing="mps", slots=2, weight=0.5))
    for n in range(2):
        lab.ask(request(f"s{n}", f"p{n}", NOW + n))
    grants = lab.pass_().grants
    assert len({grant.slots[0].device for grant in grants}) == 1
    lab.ask(request("two", "q", NOW, 2))
    assert codes(lab, "two") == ["one_node"]  # two slots are free, of one GPU
    assert [grant.weight for grant in grants] == [0.5, 0.5]


# -- reservations -------------------------------------------------------------------------


def reserved(start: float, end: float, gpus: int = 1) -> Window:
    return Window("r", "Lecture", "course:ml", NOW + start, NOW + end, gpus)


def test_before_a_reservation_only_what_ends_in_time_starts() -> None:
    lab = Lab(machine("n", 2), windows=[reserved(2 * HOUR, 4 * HOUR, 2)])
    lab.ask(request("short", "alice", NOW, limit=2 * HOUR))
    lab.ask(request("long", "bob", NOW, limit=3 * HOUR))
    lab.ask(request("roster", "carol", NOW, account="course:ml", limit=9 * HOUR))
    assert {grant.lease for grant in lab.pass_().grants} == {"short", "roster"}
    lab = Lab(machine("n", 2), windows=[reserved(2 * HOUR, 4 * HOUR, 2)])
    lab.ask(request("long", "bob", NOW, limit=3 * HOUR))
    (verdict,) = lab.pass_().verdicts
    assert [reason.code for reason in verdict.reasons] == ["reserved"]
    assert verdict.expected_start == NOW + 4 * HOUR


def test_what_nobody_uses_of_a_reservation_goes_to_short_leases_and_comes_back() -> None:
    lab = Lab(machine("n", 2), windows=[reserved(0, 4 * HOUR, 2)])
    lab.ask(request("short", "alice", NOW, limit=HOUR))
    lab.ask(request("long", "bob", NOW, limit=2 * HOUR))
    lab.advance(NOW + 899)
    assert not lab.pass_().grants
    lab.advance(NOW + 900)
    assert [grant.lease for grant in lab.pass_().grants] == ["short"]
    # Its people come: the free one at once, the other one with notice.
    for n in range(2):
        lab.ask(request(f"s{n}", f"student{n}", NOW + 1000 + n, account="course:ml"))
    decision = lab.pass_()
    assert [grant.lease for grant in decision.grants] == ["s0"]
    assert [(p.lease, p.wanted_by) for p in decision.preemptions] == [("short", "s1")]
    assert next(v for v in decision.verdicts if v.lease == "s1").expected_start == NOW + 1200
    del lab.claims["s1"]
    assert lab.pass_().spared == ("short",)


def test_only_what_was_lent_of_a_reservation_is_taken_back() -> None:
    """A longer lease began meanwhile on a GPU that was never reserved: it stays."""
    lab = Lab(machine("n", 2), windows=[reserved(0, 4 * HOUR, 1)])
    lab.advance(NOW + 900)
    lab.ask(request("long", "bob", NOW, limit=8 * HOUR))
    lab.ask(request("short", "alice", NOW + 1, limit=HOUR))
    assert {grant.lease for grant in lab.pass_().grants} == {"long", "short"}
    lab.ask(request("s1", "student", NOW + 1000, account="course:ml"))
    assert [one.lease for one in lab.pass_().preemptions] == ["short"]


def test_a_reservation_is_not_given_away_between_two_servers_of_its_people() -> None:
    lab = Lab(machine("n", 1), windows=[reserved(0, 4 * HOUR, 1)])
    lab.ask(request("short", "alice", NOW, limit=HOUR))
    lab.advance(NOW + HOUR)
    snapshot = replace(lab.snapshot(), left={"r": lab.now - 60})
    assert not decide(snapshot).grants
    assert decide(replace(snapshot, left={"r": lab.now - 900})).grants
    never = replace(snapshot, left={}, settings=Settings(release_after=31 * 24 * HOUR))
    assert not decide(never).grants


def test_inside_it_the_gpus_are_the_rosters_and_its_end_kills_nothing() -> None:
    lab = Lab(machine("n", 2), windows=[reserved(-60, HOUR, 1)])
    for n in range(2):
        lab.ask(request(f"other{n}", f"p{n}", NOW - 1000, limit=HOUR))
    lab.pass_()
    lab.ask(request("roster", "carol", NOW, account="course:ml", limit=8 * HOUR))
    (grant,) = lab.pass_().grants
    assert (grant.lease, grant.reservation) == ("roster", "r")
    lab.advance(NOW + HOUR)
    assert not lab.claims["roster"].waits


# -- the queue ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "started"),
    [("backfill", {"short"}), ("BestEffortFIFO", {"short", "long"}), ("StrictFIFO", set())],
)
def test_what_may_pass_a_request_that_does_not_fit(strategy: str, started: set[str]) -> None:
    lab = Lab(machine("n", 4), settings=Settings(strategy=strategy))  # type: ignore[arg-type]
    lab.ask(request("running", "x", NOW, 2, limit=4 * HOUR))
    lab.pass_()
    lab.ask(request("wide", "a", NOW, 4))
    lab.ask(request("short", "b", NOW + 1, 1, limit=4 * HOUR))
    lab.ask(request("long", "c", NOW + 2, 1, limit=5 * HOUR))
    assert {grant.lease for grant in lab.pass_().grants} == started


@pytest.mark.parametrize("strategy", ["backfill", "BestEffortFIFO", "StrictFIFO"])
@pytest.mark.parametrize("hours", [2.0, float("inf")])
def test_in_maintenance_nothing_starts_but_what_may_anytime(strategy: str, hours: float) -> None:
    lab = borrowers(20 * HOUR)
    lab.settings = Settings(strategy=strategy)  # type: ignore[arg-type]
    lab.ask(request("mine", "owner", NOW, 6, "group:owner"))
    lab.ask(request("old", "a", NOW - 30 * 24 * HOUR, 1))
    lab.ask(replace(request("admin", "b", NOW, 1, limit=9 * HOUR), anytime=True))
    lab.closed_until = NOW + hours * HOUR
    decided = lab.pass_()
    assert [grant.lease for grant in decided.grants] == ["admin"]
    assert not decided.preemptions, "for whom nothing starts nobody has to end"
    for verdict in decided.verdicts:
        why = next(r for r in verdict.reasons if r.code == "maintenance_waits")
        assert why.params["until"] == (None if hours > 9 else lab.closed_until)
        assert verdict.expected_start is None or verdict.expected_start >= lab.closed_until
    assert {v.lease for v in decided.verdicts} == {"mine", "old"}
    lab.devices = [replace(device, drained=True) for device in lab.devices]
    assert codes(lab, "old") == ["maintenance_waits", "out_of_service"]
    lab.devices = [replace(device, drained=False) for device in lab.devices]
    lab.closed_until = None
    assert "old" in [grant.lease for grant in lab.pass_().grants]


def test_an_administrator_moves_requests_and_lets_them_wait() -> None:
    lab = Lab(machine("n", 1), {"user:late": Quota(shares=0.001)})
    for name in ("first", "second", "late"):
        lab.ask(request(name, name, NOW, 1))
    usual = [verdict.lease for verdict in decide(lab.snapshot()).verdicts]
    last = usual[-1]
    lab.claims[last] = replace(lab.claims[last], rank=1)
    assert [grant.lease for grant in decide(lab.snapshot()).grants] == [last]
    said = {"moved_by": "carol", "moved_why": "Ask me"}
    lab.claims[last] = replace(lab.claims[last], rank=0, paused=True, **said)  # type: ignore[arg-type]
    decision = decide(lab.snapshot())
    assert last not in [grant.lease for grant in decision.grants]
    verdict = next(v for v in decision.verdicts if v.lease == last)
    words = sentence(verdict.reasons[0], str)
    assert words.startswith("carol lets this request wait until it is released: Ask me. ")
    lab.claims[usual[0]] = replace(lab.claims[usual[0]], rank=-1, **said)  # type: ignore[arg-type]
    assert codes(lab, usual[0])[-1] == "queue_behind_all"


def test_a_verdict_names_every_limit_with_its_numbers() -> None:
    lab = Lab(
        machine("n", 2),
        {"default": Quota(max_gpus=1), "group:v": Quota(grp_gpus=1)},
    )
    lab.ask(request("one", "alice", NOW, 1, "group:v", 2 * HOUR))
    lab.pass_()
    lab.ask(request("two", "alice", NOW, 1, "group:v"))
    (verdict,) = lab.pass_().verdicts
    assert [reason.code for reason in verdict.reasons] == ["person_gpus", "group_gpus"]
    assert verdict.expected_start == NOW + 2 * HOUR
    assert sentence(verdict.reasons[1], plain, now=NOW) == (
        "The people of team v hold 1 of their 1 GPUs, until 10:00 UTC."
    )


def test_at_the_door_only_what_is_never_possible_is_refused() -> None:
    quotas = {
        "default": Quota(max_gpus=2, time_limit=4 * HOUR, max_queued=1),
        "group:v": Quota(grp_budget=Budget(3, window="day")),
    }
    snapshot = Snapshot(NOW, tuple(machine("n", 4)), (), quotas)

    def refused(**asked: object) -> list[str]:
        claim = request("x", "alice", NOW, **asked)  # type: ignore[arg-type]
        return [reason.code for reason in at_the_door(claim, snapshot)]

    assert refused() == []
    assert refused(gpus=3) == ["person_gpus_never"]
    assert refused(gpus=5) == ["more_than_exist", "person_gpus_never"]
    assert refused(gpu_type="H100") == ["type_unknown"]
    assert refused(limit=None) == ["time_limit_needed"]
    assert refused(limit=5 * HOUR) == ["time_limit_most"]
    assert refused(limit=4 * HOUR, account="group:v") == ["group_budget_never"]
    waiting = replace(request("w", "alice", NOW), state=LeaseState.QUEUED)
    snapshot = replace(snapshot, claims=(waiting,))
    assert refused() == ["queued_most"]


def test_devices_that_are_drained_or_lost_are_not_offered() -> None:
    devices = machine("n", 2)
    lab = Lab([replace(devices[0], drained=True), replace(devices[1], health="lost")])
    lab.ask(request("a", "alice", NOW))
    (verdict,) = lab.pass_().verdicts
    assert verdict.reasons[0].code == "out_of_service"
    assert verdict.expected_start is None


# -- words --------------------------------------------------------------------------------


def test_every_reason_has_a_sentence_whose_placeholders_can_be_filled() -> None:
    data = {
        "subject": "group:vision", "limit": 4, "held": 3, "gpus": 2, "type": "A100", "most": 1,
        "known": ["A100", "T4"], "waiting": 2, "asked": 7200, "budget": 10, "used": 2.5, "need": 4,
        "promised": 3, "cohort": "lab", "free": 1, "total": 8, "offered": 3, "name": "Lecture",
        "start": NOW, "end": NOW + HOUR, "count": 3, "until": NOW + 70 * HOUR,
        "by": "carol", "why": "so",
    }  # fmt: skip
    for code, variants in SENTENCES.items():
        words = sentence(Reason(code, data), plain, ZoneInfo("Europe/Berlin"), NOW)
        assert "–" not in words, code
        assert words.endswith(".")
        one_or_many, timed = variants
        many = one_or_many if isinstance(one_or_many, tuple) else (one_or_many,)
        for variant in filter(None, (*many, timed)):
            assert all(
                name is None or name.isidentifier()
                for _, name, _, _ in string.Formatter().parse(variant)
            )


def test_times_are_shown_in_the_readers_zone() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert reasons.moment(NOW, plain, berlin, NOW) == "09:00"
    assert reasons.moment(NOW + 24 * HOUR, plain, berlin, NOW) == "tomorrow 09:00"
    assert reasons.moment(NOW + 72 * HOUR, plain, berlin, NOW) == "Monday 09:00"
    assert reasons.moment(NOW + 24 * 30 * HOUR, plain, None, NOW) == "2027-02-14 08:00 UTC"


def test_values_are_never_formatted_again_and_reasons_are_plain_json() -> None:
    reason = Reason("type_unknown", {"type": "{known}", "known": ["A"]})
    assert "“{known}”" in sentence(reason, plain)
    lab = Lab(machine("n", 1))
    for n in range(3):
        lab.ask(request(f"l{n}", f"p{n}", NOW, limit=None))
    for verdict in lab.pass_().verdicts:
        for reason in verdict.reasons:
            json.dumps(dict(reason.params), allow_nan=False)


# -- a lab's days -------------------------------------------------------------------------


def test_two_days_of_a_lab_are_fairer_than_first_come_first_served() -> None:
    script = trace(2, load=1.6)
    ours = play(month_lab("backfill", 2), script, 2)
    fcfs = play(month_lab("fcfs", 2), script, 2)
    assert ours.jain > fcfs.jain
    assert sum(ours.waits) < sum(fcfs.waits)
    assert all(wait <= 600 for wait in ours.in_class)
    assert ours.utilisation >= fcfs.utilisation - 0.02
