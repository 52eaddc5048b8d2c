"""A laboratory's month, generated from a seed: who asks for GPUs when, and what comes of it.

60 people in six teams, two of them heavy users in each of two teams, 16 GPUs in two machines.
People ask by day more than by night and at weekends; one team has a deadline in the third week. A
course of 16 students has a class every Tuesday and Thursday from 10:00 to 12:00. How long a
session really lasts is drawn too; its time limit is the next round figure above.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rig.lab import Lab, machine, request
from spawner.gpu.policy.reservations import Reservation, occurrences
from spawner.gpu.policy.state import (
    HOUR,
    Claim,
    Decision,
    Grant,
    Quota,
    Settings,
    Slot,
    Snapshot,
    Verdict,
)

START = datetime(2026, 3, 2, tzinfo=UTC).timestamp()  # a Monday
DAY = 24 * HOUR
TEAMS = ("vision", "speech", "robots", "theory", "bio", "nlp")
GPUS = 16
LIMITS = [2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR, 24 * HOUR]
CLASS = Reservation(
    "ml101", "Machine learning", "course:ml101", 8, datetime(2026, 3, 3, 10), 2 * 3600,
    repeat="weekly", weekdays=(1, 3),
)  # fmt: skip
STUDENTS = 16
# By hour of the day: how much more likely than on average somebody asks.
BY_HOUR = (
    [0.3] * 7 + [0.6, 1.2, 2.2, 2.4, 2.0, 1.4, 1.9, 2.2, 2.0, 1.7, 1.3, 1.0, 0.8, 0.7] + [0.5] * 3
)


@dataclass(frozen=True)
class Asked:
    """One request of the trace, and how long it really runs (seconds)."""

    claim: Claim
    length: float


@dataclass
class Outcome:
    """What came of a trace."""

    waits: list[float] = field(default_factory=list)  # seconds, of every request but students'
    by_person: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    in_class: list[float] = field(default_factory=list)  # students' waits
    used: float = 0.0  # GPU-hours
    available: float = 0.0
    got: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    fair: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    unfinished: int = 0

    @property
    def utilisation(self) -> float:
        return self.used / self.available

    @property
    def jain(self) -> float:
        """Jain's index of service over max-min fair service, while somebody waits: 1 is fair."""
        ratios = [self.got[person] / fair for person, fair in self.fair.items() if fair > 0]
        return sum(ratios) ** 2 / (len(ratios) * sum(x * x for x in ratios)) if ratios else 1.0

    @property
    def worst_person(self) -> float:
        """The mean wait, in hours, of the person who waits longest on average."""
        return max(statistics.mean(waits) for waits in self.by_person.values()) / HOUR


def trace(days: int, load: float = 1.0, seed: int = 7) -> list[Asked]:
    """All requests of so many days, in order; ``load`` scales how often people ask."""
    dice = random.Random(seed)
    people = [(f"p{n:02}", TEAMS[n % len(TEAMS)]) for n in range(60)]
    heavy = {"p00", "p06", "p01", "p07"}
    asked: list[Asked] = []
    for person, team in people:
        often = load * (0.026 if person not in heavy else 0.15)  # per hour
        for hour in range(days * 24):
            day = hour // 24
            chance = often * BY_HOUR[hour % 24] * (0.35 if day % 7 >= 5 else 1.0)
            if team == "bio" and 14 <= day < 19:
                chance *= 3.0
            if dice.random() < chance:
                at = START + (hour + dice.random()) * HOUR
                gpus = dice.choices([1, 2, 4, 8], [74, 16, 8, 2])[0]
                length = min(24 * HOUR, max(600.0, dice.lognormvariate(0.9, 0.9) * HOUR))
                limit = next(limit for limit in LIMITS if limit >= length)
                claim = request(f"{person}-{hour:04}", person, at, gpus, f"group:{team}", limit)
                asked.append(Asked(claim, length))
    for window in occurrences(CLASS, START, START + days * DAY):
        for student in range(STUDENTS // 2):
            at = window.start + dice.random() * 300
            name = f"s{student:02}"
            claim = request(f"{name}-{at:.0f}", name, at, 1, "course:ml101", 2 * HOUR)
            asked.append(Asked(claim, dice.uniform(1.2, 1.9) * HOUR))
    return sorted(asked, key=lambda one: one.claim.requested_at)


def quotas() -> dict[str, Quota]:
    """What such a lab might set: eight GPUs a person, twelve a team, a day at the longest."""
    said = {"default": Quota(max_gpus=8, time_limit=24 * HOUR)}
    for team in TEAMS:
        said[f"group:{team}"] = Quota(grp_gpus=12)
    said["course:ml101"] = Quota(max_gpus=1)
    return said


def first_come(block: bool) -> Callable[[Snapshot], Decision]:
    """First come, first served, without limits, shares or reservations.

    ``block``: the first that does not fit holds up all behind it; else they pass it.
    """

    def decide(snapshot: Snapshot) -> Decision:
        taken = {slot for claim in snapshot.claims for slot in claim.slots}
        free: dict[str, list[str]] = defaultdict(list)
        for device in snapshot.devices:
            if Slot(device.id) not in taken:
                free[device.node].append(device.id)
        grants, verdicts, blocked = [], [], False
        for claim in sorted(snapshot.claims, key=lambda c: (c.requested_at, c.id)):
            if not claim.waits:
                continue
            fits = [node for node, ids in sorted(free.items()) if len(ids) >= claim.gpus]
            if fits and not blocked:
                node = min(fits, key=lambda node: len(free[node]))
                ids = [free[node].pop(0) for _ in range(claim.gpus)]
                grants.append(
                    Grant(claim.id, tuple(Slot(i) for i in ids), weight=float(claim.gpus))
                )
            else:
                blocked = block
                verdicts.append(Verdict(claim.id, len(verdicts) + 1, ()))
        return Decision(tuple(grants), tuple(verdicts))

    return decide


def play(lab: Lab, script: Sequence[Asked], days: int) -> Outcome:
    """Let a trace happen."""
    outcome = Outcome()
    end = START + days * DAY
    boundaries = sorted({t for w in lab.windows for t in (w.start, w.end) if START < t < end})
    waiting = list(script)
    lab.now = START
    sample = START
    arrivals = 0
    while lab.now < end:
        moments = [end, sample, lab.next_end()]
        if arrivals < len(waiting):
            moments.append(waiting[arrivals].claim.requested_at)
        moments += boundaries[:1]
        lab.advance(max(lab.now, min(moments)))
        while boundaries and boundaries[0] <= lab.now:
            boundaries.pop(0)
        while arrivals < len(waiting) and waiting[arrivals].claim.requested_at <= lab.now:
            one = waiting[arrivals]
            lab.ask(one.claim)
            lab.lengths[one.claim.id] = one.length
            arrivals += 1
        lab.pass_()
        if lab.now >= sample:
            sample += HOUR / 2
            _sample(lab, outcome)
    for one in script:
        claim = one.claim
        started = lab.started.get(claim.id)
        outcome.unfinished += started is None
        wait = (started if started is not None else end) - claim.requested_at
        if claim.account == "course:ml101":
            outcome.in_class.append(wait)
        else:
            outcome.waits.append(wait)
            outcome.by_person[claim.user].append(wait)
    outcome.used = sum((p.end - p.start) * p.rate for p in lab.books()) / HOUR
    outcome.available = GPUS * days * 24.0
    return outcome


def _sample(lab: Lab, outcome: Outcome) -> None:
    """Who has how many GPUs, and who would have in max-min fairness, while somebody waits."""
    held: dict[str, int] = defaultdict(int)
    wants: dict[str, int] = defaultdict(int)
    contested = False
    for claim in lab.claims.values():
        wants[claim.user] += claim.gpus
        contested = contested or claim.waits
        if not claim.waits:
            held[claim.user] += claim.gpus
    if not contested:
        return
    left, people = float(GPUS), sorted(wants, key=lambda person: wants[person])
    for place, person in enumerate(people):
        fair = min(wants[person], left / (len(people) - place))
        left -= fair
        outcome.fair[person] += fair
        outcome.got[person] += held[person]


def lab(strategy: str, days: int) -> Lab:
    """The lab under one of our strategies, or under ``fcfs`` or ``first-fit``."""
    devices = machine("n0", GPUS // 2) + machine("n1", GPUS // 2)
    if strategy in ("fcfs", "first-fit"):
        return Lab(devices, decide=first_come(strategy == "fcfs"))
    windows = occurrences(CLASS, START, START + (days + 14) * DAY)
    settings = Settings(strategy=strategy)  # type: ignore[arg-type]
    return Lab(devices, quotas(), settings, windows=windows)
