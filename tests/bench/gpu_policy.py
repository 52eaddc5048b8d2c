"""How long one decision takes: 1,000 leases that run, 500 that wait, 100 quotas.

Run by ``make bench``; writes tests/bench/results/gpu_policy.md. Everything is generated from a
seed. ``--profile`` shows where the time goes instead; ``--beside FOLDER`` measures another version,
a checkout of its own, in turn with this one.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from rig.lab import Lab, machine, request
from spawner.gpu.policy.decision import decide
from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.state import HOUR, Budget, Quota, Settings, Snapshot, Window

RESULTS = Path(__file__).parent / "results" / "gpu_policy.md"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "60"))
NOW = 1_800_000_000.0
LIMITS = [2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR, 24 * HOUR]


def site() -> list[Device]:
    """1,264 GPUs: 120 machines with 8 A100, 30 with 8 L40S, 8 with 8 T4."""
    devices: list[Device] = []
    for model, memory, machines in (("A100", 80, 120), ("L40S", 48, 30), ("T4", 16, 8)):
        for number in range(machines):
            devices += machine(f"{model.lower()}-{number:03}", 8, model, memory)
    return devices


def quotas() -> dict[str, Quota]:
    """100: a default, 39 groups (a third in cohorts, a third with budgets), 60 people."""
    said = {"default": Quota(max_gpus=16, time_limit=24 * HOUR)}
    for number in range(39):
        quota = Quota(grp_gpus=60, shares=float(1 + number % 3))
        if number % 3 == 1:
            quota = replace(
                quota,
                nominal=26,
                cohort=f"cohort{number % 2}",
                borrowing_limit=20,
                lending_limit=20,
            )
        elif number % 3 == 2:
            quota = replace(quota, grp_budget=Budget(6000.0, window="week"))
        said[f"group:g{number}"] = quota
    for number in range(60):
        said[f"user:p{number}"] = Quota(max_gpus=12, budget=Budget(2000.0, half_life=168 * HOUR))
    return said


def snapshot(strategy: str, windows: bool, ended: int, seed: int = 1) -> Snapshot:
    """A site as the policy itself has filled it, full, with 500 requests waiting.

    ``ended`` leases are over just now, so that there is something to grant.
    """
    dice = random.Random(seed)
    lab = Lab(site(), quotas(), Settings(strategy=strategy), NOW - 30 * HOUR)  # type: ignore[arg-type]
    number = 0

    def ask() -> None:
        nonlocal number
        number += 1
        person = dice.randrange(300)
        claim = request(
            f"lease{number:05}",
            f"p{person}",
            lab.now - dice.random() * 600,
            dice.choices([1, 2, 4, 8], [93, 5, 1.5, 0.5])[0],
            f"group:g{person % 39}" if dice.random() < 0.9 else "",
            dice.choice(LIMITS),
            dice.choices(["", "A100", "L40S"], [3, 10, 2])[0],
        )
        lab.ask(claim)
        lab.lengths[claim.id] = (claim.time_limit or HOUR) * dice.uniform(0.5, 1.0)

    while lab.now < NOW - 1:
        while sum(claim.waits for claim in lab.claims.values()) < 900:
            ask()
        lab.pass_()
        lab.advance(min(NOW, lab.now + HOUR))
    lab.pass_()
    found = lab.snapshot()
    running = [claim for claim in found.claims if not claim.waits]
    assert len(running) >= 1000 + ended
    # As the figure is defined: 1,000 run and 500 wait. What is over that goes with its devices.
    gone = {slot.device for claim in running[1000 + ended :] for slot in claim.slots}
    waiting = [claim for claim in found.claims if claim.waits]
    found = replace(
        found,
        claims=(*running[ended : 1000 + ended], *waiting[:500]),
        devices=tuple(device for device in found.devices if device.id not in gone),
    )
    if windows:
        found = replace(
            found,
            windows=tuple(
                Window(f"r{n}", f"Course {n}", f"course:c{n}", start, start + 2 * HOUR, 16)
                for n in range(5)
                for day in range(14)
                for start in [NOW + (24 * day + 3 * n + 2) * HOUR]
            ),
        )
    return found


CASES = (
    ("backfill, nothing has ended", "backfill", False, 0),
    ("backfill, a lease has just ended", "backfill", False, 1),
    ("backfill, ten leases have just ended", "backfill", False, 10),
    ("backfill, one ended, five daily reservations of 16 GPUs", "backfill", True, 1),
    ("BestEffortFIFO, one ended", "BestEffortFIFO", False, 1),
)
# What another version runs: it makes the same sites with its own code, and decides when it is told.
OTHER = """
import gc, sys, time
sys.path.insert(0, "tests/bench")
import gpu_policy as bench
cases = [bench.snapshot(*one) for one in {cases}]
print("ready", flush=True)
for line in sys.stdin:
    gc.collect()
    began = time.process_time()
    bench.decide(cases[int(line)])
    print((time.process_time() - began) * 1000, flush=True)
"""


def beside(folder: Path) -> list[str]:
    """Rows: milliseconds of the other version and of this one, and the median of their ratios."""
    code = OTHER.format(cases=[case[1:] for case in CASES])
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
            text=True,
        )
        for root in (folder.resolve(), TESTS.parent)
    ]

    def ask(one: subprocess.Popen[str], case: int) -> float:
        assert one.stdin is not None
        assert one.stdout is not None
        one.stdin.write(f"{case}\n")
        one.stdin.flush()
        return float(one.stdout.readline())

    for one in both:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    rounds = [
        [[ask(one, case) for one in both] for case in range(len(CASES))] for _ in range(ROUNDS)
    ]
    for one in both:
        one.kill()
    rows = []
    for case, (title, *_) in enumerate(CASES):
        pairs = [every[case] for every in rounds]
        other, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(mine / theirs for theirs, mine in pairs)
        rows.append(f"| {title} | {other:.1f} | {ours:.1f} | {ratio:.2f} |")
        print(rows[-1], flush=True)
    return rows


def measure(found: Snapshot) -> tuple[list[float], str]:
    """Milliseconds of processor time of one decision, many times, and what it decided."""
    decision = decide(found)
    times = []
    for _ in range(ROUNDS):
        gc.collect()
        start = time.process_time()
        assert decide(found) == decision
        times.append((time.process_time() - start) * 1000)
    starts = sum(verdict.expected_start is not None for verdict in decision.verdicts)
    return times, (
        f"{len(decision.grants)} granted, {len(decision.verdicts)} wait "
        f"({starts} with an expected start), {len(decision.preemptions)} preempted"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--profile", action="store_true", help="show where the time goes")
    arguments.add_argument("--beside", type=Path, metavar="FOLDER", help="another version")
    given = arguments.parse_args()
    profile = given.profile
    rows = []
    for title, strategy, windows, ended in CASES:
        found = snapshot(strategy, windows, ended)
        if profile:
            cProfile.runctx("decide(found)", globals(), {"found": found}, sort="tottime")
            return
        times, outcome = measure(found)
        times.sort()
        rows.append(
            f"| {title} | {statistics.median(times):.1f} | {times[0]:.1f} "
            f"| {times[int(len(times) * 0.95)]:.1f} | {outcome} |"
        )
        print(rows[-1], flush=True)
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    load = os.getloadavg()[0]
    RESULTS.write_text(
        f"""# One decision of the policy

1,000 leases that run on some 1,100 GPUs (whole ones, three models, about 150 machines), 500 that
wait, 100 quotas (limits of people and groups, two cohorts with nominal quotas, budgets in windows
and decaying), everything generated from a seed and filled by the policy itself. Milliseconds of
processor time of `decide`, {ROUNDS} times each, in one process; nothing is kept between them.

{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores of {cpu}, Python {platform.python_version()},
load {load:.1f} of other work while it ran.

| | median | min | 95 % | decided |
|---|---|---|---|---|
"""
        + "\n".join(rows)
        + "\n"
        + (_compared(given.beside) if given.beside else "")
    )


def _compared(folder: Path) -> str:
    words = ["git", "log", "-1", "--format=%h of %cs"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    rows = "\n".join(beside(folder))
    return f"""
Beside version {done.stdout.strip()}, in turn in one run: medians, and the median of the ratios.

| | before | now | ratio |
|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    main()
