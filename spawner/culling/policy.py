"""When servers are stopped that nobody uses, or that are old: pure functions of what was seen.

Idle is: no kernel at work, and nothing done by a kernel or terminal. How long, is counted as for
GPUs (``spawner.gpu.watch.idle``): what is not known is never idle, nothing ends without a warning,
nor at a moment whose use is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from commons.site.culling import CullingRule
from spawner.gpu.watch import idle
from spawner.gpu.watch.idle import IdlePolicy, Tally, Use
from spawner.gpu.watch.server_activity import Jupyter


@dataclass(frozen=True)
class Facts:
    """What of a server decides which rule is its own.

    Attributes:
        groups: teams and courses of its owner, as ``team-NAME`` and ``course-NAME``.
    """

    size: str
    gpus: int
    groups: frozenset[str]


def rule_for(rules: Sequence[CullingRule], server: Facts) -> CullingRule | None:
    """The first rule that fits; None: it is never stopped."""
    return next((rule for rule in rules if _fits(rule, server)), None)


def _fits(rule: CullingRule, server: Facts) -> bool:
    groups = {f"team-{name}" for name in rule.teams} | {f"course-{name}" for name in rule.courses}
    return (
        (not rule.sizes or server.size in rule.sizes)
        and (not groups or bool(groups & server.groups))
        and (rule.gpus is None or rule.gpus == bool(server.gpus))
    )


def use_of(rule: CullingRule, said: Jupyter, now: float, recent: float) -> Use:
    """How a server is used; kernels at work do not count where the rule says so."""
    busy = said.busy_kernels
    return idle.jupyter_use(0 if busy and rule.over_busy else busy, said.last_activity, now, recent)


class Step(StrEnum):
    """What to do about a server."""

    NOTHING = "nothing"
    WARN_IDLE = "warn_idle"
    RESUME = "resume"  # the warning is no longer true: say so
    STOP_IDLE = "stop_idle"
    WARN_AGE = "warn_age"
    STOP_OLD = "stop_old"


STOPS = (Step.STOP_IDLE, Step.STOP_OLD)


@dataclass(frozen=True)
class Record:
    """What is kept of a server between two looks. Times are seconds since 1970.

    Attributes:
        old_at: when it is stopped for its age, once warned of that.
    """

    tally: Tally
    old_at: float | None = None
    keep_until: float | None = None
    kept: float = 0.0


def idle_policy(rule: CullingRule) -> IdlePolicy:
    """The rule's part about idleness."""
    return IdlePolicy(after=rule.after_seconds, grace=rule.warn_seconds, start_after=0.0)


def judge(
    rule: CullingRule, record: Record, *, started: float, busy: bool | None
) -> tuple[Step, Record]:
    """What to do now (at ``record.tally.at``), and what to keep.

    ``busy``: whether kernels are at work; None where that is not known. Age comes before idleness:
    what is going to be stopped for its age is not warned of anything else.
    """
    step, record = _age(rule, record, started, busy)
    if step is not Step.NOTHING or record.old_at is not None:
        return step, record
    decided, tally = idle.decide(
        record.tally, idle_policy(rule), started=started, keep_until=record.keep_until
    )
    return {
        idle.Step.NOTHING: Step.NOTHING,
        idle.Step.WARN: Step.WARN_IDLE,
        idle.Step.RESUME: Step.RESUME,
        idle.Step.STOP: Step.STOP_IDLE,
    }[decided], replace(record, tally=tally)


def _age(
    rule: CullingRule, record: Record, started: float, busy: bool | None
) -> tuple[Step, Record]:
    now, most = record.tally.at, rule.age_seconds
    if most is None:
        return Step.NOTHING, replace(record, old_at=None)
    end = started + most
    if record.old_at is None:
        if now < end - rule.warn_seconds:
            return Step.NOTHING, record
        tally = replace(record.tally, warned_at=None, stop_at=None)
        return Step.WARN_AGE, replace(record, tally=tally, old_at=max(end, now + rule.warn_seconds))
    # A busy kernel is waited for; where nobody knows, too.
    if now >= record.old_at and (rule.over_busy or busy is False):
        return Step.STOP_OLD, record
    return Step.NOTHING, record


def keep(record: Record, now: float, keep_for: float, at_most: float) -> Record | None:
    """The person wants to keep it: its stop is put off; None where the rule allows no more."""
    left = max(0.0, (record.keep_until or 0.0) - now)
    before = record.kept - left  # what an earlier press still gives is not counted twice
    more = max(0.0, min(keep_for, at_most - before))
    if more <= left:
        return None
    tally = replace(record.tally, warned_at=None, stop_at=None)
    return replace(record, tally=tally, keep_until=now + more, kept=before + more)
