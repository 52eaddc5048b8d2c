"""Idle is known to be idle, long enough, after a warning: nothing else ends anybody's work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner.gpu.devices.inventory import Process, Reading
from spawner.gpu.watch import idle
from spawner.gpu.watch.idle import IdlePolicy, Part, Step, Tally, Use
from spawner.gpu.watch.server_activity import Jupyter, read_answers

POLICY = IdlePolicy(after=3600, grace=900, start_after=0)


@pytest.mark.parametrize(
    ("part", "reading", "own", "use"),
    [
        (Part.WHOLE, Reading(4.9), None, Use.IDLE),
        (Part.WHOLE, Reading(5), None, Use.ACTIVE),
        (Part.WHOLE, None, None, Use.UNKNOWN),
        (Part.WHOLE, Reading(None, None), None, Use.UNKNOWN),
        (Part.WHOLE, Reading(None, ()), None, Use.IDLE),
        (Part.WHOLE, Reading(0, (Process(1),)), None, Use.IDLE),
        (Part.MIG, Reading(None, ()), None, Use.IDLE),
        (Part.MIG, Reading(None, (Process(1),)), None, Use.ACTIVE),
        (Part.MIG, Reading(None, None), None, Use.UNKNOWN),
        # Of a shared GPU only the server's own processes count.
        (Part.SLOT, Reading(99, (Process(1, 99),)), frozenset({2}), Use.IDLE),
        (Part.SLOT, Reading(99, (Process(1, 99),)), frozenset({1}), Use.ACTIVE),
        (Part.SLOT, Reading(99, (Process(1, None),)), frozenset({1}), Use.ACTIVE),
        (Part.SLOT, Reading(99, (Process(1, 0),)), frozenset({1}), Use.IDLE),
        (Part.SLOT, Reading(0, None), frozenset({1}), Use.UNKNOWN),
        (Part.SLOT, Reading(0, ()), None, Use.UNKNOWN),
    ],
)
def test_how_a_device_was_used(
    part: Part, reading: Reading | None, own: frozenset[int] | None, use: Use
) -> None:
    assert idle.gpu_use(part, reading, POLICY, own) is use


def test_of_several_one_active_is_enough_and_one_unknown_forbids_idle() -> None:
    assert idle.combined([Use.IDLE, Use.ACTIVE, Use.UNKNOWN]) is Use.ACTIVE
    assert idle.combined([Use.IDLE, Use.UNKNOWN]) is Use.UNKNOWN
    assert idle.combined([Use.IDLE, Use.IDLE]) is Use.IDLE
    assert idle.combined([]) is Use.UNKNOWN


def test_a_working_kernel_is_activity_and_silence_is_not_idleness() -> None:
    assert idle.jupyter_use(1, 0.0, 1000, 120) is Use.ACTIVE
    assert idle.jupyter_use(0, 900, 1000, 120) is Use.ACTIVE
    assert idle.jupyter_use(0, 0.0, 1000, 120) is Use.IDLE
    assert idle.jupyter_use(None, None, 1000, 120) is Use.UNKNOWN


def test_a_servers_answers_are_checked() -> None:
    kernel = {"execution_state": "busy", "last_activity": "2026-11-21T10:00:00.5Z"}
    assert read_answers([kernel], []) == Jupyter(1, 1795255200.5)
    assert read_answers([], []) == Jupyter(0, 0.0)
    assert read_answers({"message": "no"}, []) == Jupyter()
    assert read_answers(["x"], []) == Jupyter()
    with pytest.raises((ValueError, KeyError)):
        read_answers([{"last_activity": "yesterday"}], [])


def test_each_key_comes_from_the_nearest_that_says_it() -> None:
    person, account, default = {"grace": 60}, {"after": 100}, {"after": 200, "gpu_percent": 1}
    policy = IdlePolicy.of(person, None, account, default)
    assert (policy.grace, policy.after, policy.gpu_percent) == (60, 100, 1)
    assert IdlePolicy.of().limit(others_wait=True) is None, "nobody is reclaimed unless it is said"


def test_it_is_shorter_when_people_wait_but_never_longer() -> None:
    policy = IdlePolicy(after=3600, busy_queue_after=600)
    assert (policy.limit(False), policy.limit(True)) == (3600, 600)
    assert IdlePolicy(after=600, busy_queue_after=3600).limit(True) == 600
    assert replace(policy, exempt=True).limit(True) is None


def follow(
    uses: list[Use], policy: IdlePolicy = POLICY, every: float = 60, keep_until: float | None = None
) -> list[tuple[int, Step]]:
    """The steps taken, by number of the look, of a server that started at 0."""
    tally, taken = Tally(0.0), []
    for number, use in enumerate(uses):
        tally = idle.advance(tally, number * every, use, 3 * every)
        step, tally = idle.decide(tally, policy, started=0.0, keep_until=keep_until)
        if step is not Step.NOTHING:
            taken.append((number, step))
    return taken


IDLE, ACTIVE, UNKNOWN = Use.IDLE, Use.ACTIVE, Use.UNKNOWN


def test_a_warning_comes_before_the_end_and_use_takes_it_back() -> None:
    # An hour idle, with a quarter of an hour's warning: warned at 45 minutes, ended at 60.
    assert follow([IDLE] * 70)[:2] == [(45, Step.WARN), (60, Step.STOP)]
    steps = follow([IDLE] * 50 + [ACTIVE] + [IDLE] * 70)
    assert steps[:4] == [(45, Step.WARN), (50, Step.RESUME), (96, Step.WARN), (111, Step.STOP)]


def test_time_that_is_not_known_counts_for_nothing() -> None:
    assert follow([IDLE, UNKNOWN] * 100) == []
    assert follow([IDLE] * 40 + [UNKNOWN] * 500) == []
    # After the warning, too, the end waits for a look that knows.
    assert follow([IDLE] * 46 + [UNKNOWN] * 100) == [(45, Step.WARN)]


@given(st.lists(st.sampled_from([IDLE, ACTIVE, Use.PREPARING]), max_size=100), st.floats(0, 4e4))
def test_work_without_the_gpu_counts_up_to_the_limit(uses: list[Use], preparation: float) -> None:
    tally, worked = Tally(0.0), 0.0
    for number, use in enumerate(uses):
        before, tally = tally, idle.advance(tally, number * 600.0, use, 1800.0, preparation)
        if use is ACTIVE:
            worked = 0.0
        elif use is Use.PREPARING:
            worked += 600.0 if number else 0.0
            assert (tally.use is ACTIVE) == (worked <= preparation)
            assert tally.idle >= before.idle or worked <= preparation
        assert tally.prepared == worked


def test_a_machine_that_slept_was_not_idle_meanwhile() -> None:
    tally = idle.advance(Tally(0.0, IDLE, 100.0), 36000.0, IDLE, 180.0)
    assert tally.idle == 280.0
    assert idle.advance(tally, 0.0, IDLE, 180.0).idle == 280.0, (
        "nor is it less for a clock set back"
    )


def test_the_beginning_does_not_count_and_keeping_puts_it_off() -> None:
    late = replace(POLICY, start_after=2 * 3600)
    assert follow([IDLE] * 130, late) == [(105, Step.WARN), (120, Step.STOP)] + [
        (n, Step.STOP) for n in range(121, 130)
    ]
    assert follow([IDLE] * 121, keep_until=7200)[:2] == [(105, Step.WARN), (120, Step.STOP)]


def test_keeping_takes_a_warning_back_without_a_word() -> None:
    warned = Tally(3000.0, IDLE, 3000.0, 2700.0, 3600.0, 1)
    step, tally = idle.decide(warned, POLICY, started=0.0, keep_until=20000.0)
    assert (step, tally.stop_at) == (Step.NOTHING, None)


def test_a_warning_for_those_who_waited_is_taken_back_when_nobody_waits() -> None:
    policy = replace(POLICY, busy_queue_after=1200)
    tally = Tally(1200.0, IDLE, 1200.0)
    step, tally = idle.decide(tally, policy, started=0.0, others_wait=True)
    assert step is Step.WARN
    step, tally = idle.decide(tally, policy, started=0.0, others_wait=False)
    assert (step, tally.stop_at) == (Step.RESUME, None)


def test_keep_alive_has_a_cap() -> None:
    policy = IdlePolicy(keep_alive=4 * 3600, keep_alive_cap=6 * 3600)
    assert idle.keep_seconds(policy, 0) == 4 * 3600
    assert idle.keep_seconds(policy, 4 * 3600) == 2 * 3600
    assert idle.keep_seconds(policy, 6 * 3600) == 0


@given(
    st.lists(st.sampled_from(list(Use)), max_size=200),
    st.floats(60, 7200),
    st.floats(0, 7200),
    st.floats(1, 600),
    st.floats(0, 20000),
)
def test_nothing_ends_without_a_full_warning_at_a_moment_known_to_be_idle(
    uses: list[Use], after: float, grace: float, every: float, start_after: float
) -> None:
    policy = IdlePolicy(after=after, grace=grace, start_after=start_after)
    tally, last_active = Tally(0.0), 0.0
    for number, use in enumerate(uses):
        now = number * every
        if use is ACTIVE:
            last_active = now
        tally = idle.advance(tally, now, use, 3 * every)
        step, tally = idle.decide(tally, policy, started=0.0)
        if step is Step.STOP:
            assert use is IDLE
            assert tally.warned_at is not None
            assert now - tally.warned_at >= grace
            assert now - last_active >= max(after - grace, grace) - 1e-6
            assert now >= start_after
