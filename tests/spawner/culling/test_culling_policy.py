"""When servers are stopped that nobody uses, or that are old, whatever happens to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from commons.site.culling import CullingRule
from spawner.culling import policy
from spawner.culling.policy import Facts, Record, Step
from spawner.gpu.watch import idle
from spawner.gpu.watch.idle import Tally, Use
from spawner.gpu.watch.server_activity import Jupyter

PLAIN = Facts("small", 0, frozenset())


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({}, True),
        ({"sizes": ["small", "large"]}, True),
        ({"sizes": ["large"]}, False),
        ({"gpus": False}, True),
        ({"gpus": True}, False),
        ({"teams": ["vision"]}, False),
    ],
)
def test_a_rule_fits_by_size_and_gpus(rule: dict[str, object], fits: bool) -> None:
    found = policy.rule_for([CullingRule(**rule)], PLAIN)  # type: ignore[arg-type]
    assert (found is not None) is fits


def test_the_first_rule_that_fits_holds_for_teams_and_courses() -> None:
    course = CullingRule(courses=["ml101"], after="30m")
    team = CullingRule(teams=["vision"], courses=["cv"], gpus=True, after="2h")
    rest = CullingRule(after="8h")
    rules = [course, team, rest]
    student = Facts("small", 1, frozenset({"course-ml101", "team-vision"}))
    assert policy.rule_for(rules, student) is course
    assert policy.rule_for(rules, replace(student, groups=frozenset({"team-vision"}))) is team
    assert policy.rule_for(rules, Facts("small", 0, frozenset({"team-vision"}))) is rest
    assert policy.rule_for(rules[:2], PLAIN) is None


@pytest.mark.parametrize(
    "wrong",
    [{"after": "10m"}, {"max_age": "15m"}, {"after": "soon"}, {"warn": 0}, {"after": "8h", "x": 1}],
)
def test_a_rule_that_could_not_be_kept_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CullingRule(**wrong)  # type: ignore[arg-type]


RULES = st.builds(
    CullingRule,
    after=st.sampled_from([None, "20m", "1h"]),
    max_age=st.sampled_from([None, "90m", "3h"]),
    warn=st.sampled_from(["5m", "15m"]),
    keep=st.sampled_from(["30m", "2h"]),
    keep_at_most=st.sampled_from(["1h", "2h"]),
    over_busy=st.booleans(),
)
# Seconds since the last look; kernels at work, the age of their last activity; is "Keep" pressed.
LOOKS = st.lists(
    st.tuples(
        st.sampled_from([20.0, 60.0, 400.0, 90_000.0]),
        st.sampled_from([None, 0, 0, 0, 1]),
        st.sampled_from([0.0, 1000.0, 1e9]),
        st.booleans(),
    ),
    max_size=80,
)


@given(RULES, LOOKS)
def test_nothing_ends_unwarned_at_work_kept_or_unknown(
    rule: CullingRule, looks: list[tuple[float, int | None, float, bool]]
) -> None:
    """Of every course of events: clocks that jump, servers that do not answer, "Keep"."""
    started = now = 1e9
    record, warned, kept_until, most = Record(Tally(now)), {}, 0.0, 0.0  # type: ignore[var-annotated]
    for passed, busy, ago, pressed in looks:
        now += passed
        said = Jupyter() if busy is None else Jupyter(busy, now - ago)
        use = policy.use_of(rule, said, now, 120.0)
        record = replace(record, tally=idle.advance(record.tally, now, use, 180.0))
        step, record = policy.judge(
            rule, record, started=started, busy=None if busy is None else bool(busy)
        )
        match step:
            case Step.WARN_IDLE | Step.WARN_AGE:
                warned[step] = now
            case Step.RESUME:
                warned.pop(Step.WARN_IDLE)
            case Step.STOP_IDLE:
                assert rule.after_seconds is not None
                assert now - warned[Step.WARN_IDLE] >= rule.warn_seconds
                assert use is Use.IDLE
                assert not busy or rule.over_busy
                assert now >= kept_until
                assert record.tally.idle >= rule.after_seconds - rule.warn_seconds
                return
            case Step.STOP_OLD:
                assert rule.age_seconds is not None
                assert now - warned[Step.WARN_AGE] >= rule.warn_seconds
                assert now >= started + rule.age_seconds
                assert busy == 0 or rule.over_busy
                return
        if pressed:
            longer = policy.keep(record, now, *rule.keep_seconds)
            if longer is None:
                assert record.kept > 0
            else:
                record, kept_until = longer, longer.keep_until or 0.0
                warned.pop(Step.WARN_IDLE, None)
                most = max(most, record.kept)
                assert kept_until - now <= rule.keep_seconds[0]
        assert most <= rule.keep_seconds[1]


@given(RULES)
def test_what_nobody_uses_ends_and_what_is_old(rule: CullingRule) -> None:
    """Watched every minute, idle all the time: it ends when the rule says, and only then."""
    started = now = 1e9
    record = Record(Tally(now, Use.IDLE))
    steps = []
    while now < started + 4 * 3600:
        now += 60
        record = replace(record, tally=idle.advance(record.tally, now, Use.IDLE, 180.0))
        step, record = policy.judge(rule, record, started=started, busy=False)
        steps += [] if step is Step.NOTHING else [(step, now - started)]
        if step in policy.STOPS:
            break
    limits = [at for at in (rule.after_seconds, rule.age_seconds) if at]
    if not limits:
        assert steps == []
        return
    (first, at), (last, ended) = steps[0], steps[-1]
    assert ended - at >= rule.warn_seconds
    assert min(limits) <= ended <= min(limits) + 60
    assert (first, last) in (
        (Step.WARN_IDLE, Step.STOP_IDLE),
        (Step.WARN_AGE, Step.STOP_OLD),
    )
