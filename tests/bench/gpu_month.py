"""A laboratory's month under our policy and under first come, first served.

The same generated requests for each (tests/rig/month.py). Run by ``make bench``; writes
tests/bench/results/gpu_month.md.
"""

from __future__ import annotations

import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from rig.month import STUDENTS, Outcome, lab, play, trace
from spawner.gpu.policy.state import HOUR

RESULTS = Path(__file__).parent / "results" / "gpu_month.md"
DAYS = 30
LOAD = 1.2
TITLES = {
    "backfill": "LabCommons, backfill",
    "BestEffortFIFO": "LabCommons, BestEffortFIFO",
    "StrictFIFO": "LabCommons, StrictFIFO",
    "fcfs": "first come, first served, no limits",
    "first-fit": "the same, who fits passes",
}


def row(title: str, outcome: Outcome) -> str:
    waits = sorted(outcome.waits)
    class_ = sorted(outcome.in_class)
    seated = sum(wait <= 600 for wait in class_)
    return (
        f"| {title} | {outcome.utilisation:.1%} | {statistics.mean(waits) / HOUR:.2f} h "
        f"| {statistics.median(waits) / HOUR:.2f} h "
        f"| {waits[int(len(waits) * 0.95)] / HOUR:.1f} h | {waits[-1] / HOUR:.1f} h "
        f"| {outcome.worst_person:.1f} h | {outcome.jain:.3f} "
        f"| {seated} of {len(class_)} | {outcome.unfinished} |"
    )


def main() -> None:
    script = trace(DAYS, LOAD)
    asked = sum(one.length * one.claim.gpus for one in script) / HOUR
    rows = []
    for strategy, title in TITLES.items():
        rows.append(row(title, play(lab(strategy, DAYS), script, DAYS)))
        print(rows[-1], flush=True)
    RESULTS.write_text(
        f"""# A laboratory's month

60 people in six teams, 16 GPUs in two machines, {len(script)} requests that run {asked:.0f}
GPU-hours in all ({asked / (16 * 24 * DAYS):.0%} of what there is), generated from a seed
(`tests/rig/month.py`): day and night, weekends, four heavy users, a deadline, a class with a
reservation of 8 GPUs twice a week ({STUDENTS // 2} students). Time is simulated; the decisions are
those of `spawner.gpu.policy.decision`. {datetime.now(UTC):%Y-%m-%d}.

| | in use | wait, mean | median | 95 % | longest | worst person | fairness | seated | not started |
|---|---|---|---|---|---|---|---|---|---|
"""
        + "\n".join(rows)
        + """

In use: GPU-hours used of all there are. Fairness: of every person the GPUs held over those that
max-min fairness would have given, counted while somebody waits; Jain's index of these ratios, 1
when all are alike. Worst person: the highest mean wait of one person's requests. Seated:
students who start within 10 minutes. The baselines have no limits, shares, time limits or
reservations; people use their sessions for the same time there. Waits are those of the teams'
people, not of the students; what never started by the end of the month counts with its wait so
far.

The policy of 2026-11-21, before reservations, reclaim and ceilings were promises, gave the same
figures in the first three rows (the mean wait was not written down then): in this laboratory a
promise costs nobody a wait.
"""
    )


if __name__ == "__main__":
    main()
