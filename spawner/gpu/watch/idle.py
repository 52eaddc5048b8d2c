"""When GPUs that nobody uses are taken back: pure functions of samples and a policy.

Idle is: the GPU's utilisation under ``gpu_percent`` **and** nothing going on in Jupyter or on the
CPU, for ``after`` seconds (docs/gpu.md). Work without the GPU is preparation, and counts for
``preparation`` seconds after the GPU was last used: what only looks busy keeps no GPU for ever.
Where the driver tells no utilisation (MIG), or tells it of a GPU that several share, the processes
on it count. What is not known is never idle: that time counts for nothing. A warning comes
``grace`` seconds before the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from spawner.gpu.devices.inventory import Reading

MINUTE, HOUR = 60.0, 3600.0


@dataclass(frozen=True)
class IdlePolicy:
    """When idle GPUs are reclaimed from a person. Times in seconds.

    Attributes:
        after: this long idle, the warning included; None: never reclaimed.
        gpu_percent: a utilisation below this is idle.
        cpu_percent: CPU use of the whole server from which it works, in percent of one core.
        preparation: how long work without the GPU counts; 0: use of the GPU alone counts.
        grace: from the warning to the end.
        busy_queue_after: instead of ``after`` while others wait, if that is shorter.
        start_after: the first part of a server's life, which never counts.
        keep_alive: how long pressing "Keep" puts it off.
        keep_alive_cap: the most that one server can be put off in all.
        exempt: never reclaimed.
    """

    after: float | None = None
    gpu_percent: float = 5.0
    cpu_percent: float = 20.0
    preparation: float = 4 * HOUR
    grace: float = 15 * MINUTE
    busy_queue_after: float | None = None
    start_after: float = 30 * MINUTE
    keep_alive: float = 4 * HOUR
    keep_alive_cap: float = 24 * HOUR
    exempt: bool = False

    @classmethod
    def of(cls, *specs: Mapping[str, Any] | None) -> IdlePolicy:
        """From ``idle`` mappings of a quotas document, most specific first: each key on its own."""
        names = [field.name for field in fields(cls)]
        found = {}
        for name in names:
            for spec in specs:
                if spec and name in spec:
                    found[name] = spec[name]
                    break
        return cls(**found)

    def limit(self, others_wait: bool) -> float | None:
        """Seconds of idleness after which it ends; None: never."""
        if self.exempt:
            return None
        waits = self.busy_queue_after if others_wait else None
        return min((x for x in (self.after, waits) if x is not None), default=None)


class Use(StrEnum):
    """How GPUs were used at one look."""

    ACTIVE = "active"
    PREPARING = "preparing"  # work, but the GPU is idle
    IDLE = "idle"
    UNKNOWN = "unknown"


class Part(StrEnum):
    """What a lease holds of a device."""

    WHOLE = "whole"
    MIG = "mig"
    SLOT = "slot"


def gpu_use(
    part: Part, reading: Reading | None, policy: IdlePolicy, own: frozenset[int] | None = None
) -> Use:
    """How one device was used. ``own``: the host's numbers of the server's processes, if known."""
    if reading is None:
        return Use.UNKNOWN
    if part is Part.WHOLE and reading.percent is not None:
        return Use.ACTIVE if reading.percent >= policy.gpu_percent else Use.IDLE
    if reading.processes is None:
        return Use.UNKNOWN
    if part is not Part.SLOT:
        return Use.ACTIVE if reading.processes else Use.IDLE
    if own is None:
        return Use.UNKNOWN
    mine = [process for process in reading.processes if process.pid in own]
    # A process whose utilisation is not told may be working.
    busy = any(p.percent is None or p.percent >= policy.gpu_percent for p in mine)
    return Use.ACTIVE if busy else Use.IDLE


def combined(uses: Iterable[Use]) -> Use:
    """Of several devices, or of GPU and Jupyter: active if any is, idle if all are."""
    found = set(uses)
    if Use.ACTIVE in found:
        return Use.ACTIVE
    return Use.IDLE if found == {Use.IDLE} else Use.UNKNOWN


def work_use(jupyter: Use, cores: float | None, policy: IdlePolicy) -> Use:
    """What a server does whose GPU is idle; ``cores`` of CPU that it uses, None where not known."""
    if jupyter is Use.ACTIVE or (cores is not None and cores * 100 >= policy.cpu_percent):
        return Use.PREPARING
    return Use.IDLE if jupyter is Use.IDLE and cores is not None else Use.UNKNOWN


def jupyter_use(
    busy_kernels: int | None, last_activity: float | None, now: float, recent: float
) -> Use:
    """What goes on in Jupyter: a kernel that works, or anything in the last ``recent`` seconds.

    ``busy_kernels`` and ``last_activity`` are None where the server did not say.
    """
    if busy_kernels or (last_activity is not None and now - last_activity < recent):
        return Use.ACTIVE
    if busy_kernels is None or last_activity is None:
        return Use.UNKNOWN
    return Use.IDLE


@dataclass(frozen=True)
class Tally:
    """How long a lease has been idle, and what was said about it. Times as seconds since 1970.

    Attributes:
        at: the last look; ``use`` what it saw.
        idle: seconds known to be idle since the last look that saw it active.
        stop_at: when it ends, once warned; None without a warning.
        warnings: how many there were; numbers their notices.
        prepared: seconds of work since the GPU was last used.
    """

    at: float
    use: Use = Use.UNKNOWN
    idle: float = 0.0
    warned_at: float | None = None
    stop_at: float | None = None
    warnings: int = 0
    prepared: float = 0.0


def advance(
    tally: Tally, at: float, use: Use, longest: float, preparation: float = math.inf
) -> Tally:
    """Count another look. Only the time between two idle looks is idle, and no more of it than
    ``longest`` (a machine that slept, a clock that jumped). Preparation is activity, up to its
    limit; after that it is idle.
    """
    passed = min(max(0.0, at - tally.at), longest)
    if use is Use.ACTIVE:
        return replace(tally, at=at, use=use, idle=0.0, prepared=0.0)
    if use is Use.PREPARING:
        tally = replace(tally, prepared=tally.prepared + passed)
        if tally.prepared <= preparation:
            return replace(tally, at=at, use=Use.ACTIVE, idle=0.0)
        use = Use.IDLE
    both = use is Use.IDLE and tally.use is Use.IDLE
    return replace(tally, at=at, use=use, idle=tally.idle + (passed if both else 0.0))


class Step(StrEnum):
    """What to do about a lease."""

    NOTHING = "nothing"
    WARN = "warn"
    RESUME = "resume"  # a warning is no longer true: say so
    STOP = "stop"


def decide(
    tally: Tally,
    policy: IdlePolicy,
    *,
    started: float,
    keep_until: float | None = None,
    others_wait: bool = False,
) -> tuple[Step, Tally]:
    """What to do now (at ``tally.at``), and the tally as it is after that.

    Nothing ends without a warning of ``grace`` seconds before it, nor at a moment whose use is
    not known, nor before ``started + start_after`` or ``keep_until``.
    """
    now = tally.at
    limit = policy.limit(others_wait)
    safe_until = max(started + policy.start_after, keep_until or 0.0)
    if limit is None or tally.use is Use.ACTIVE or now < safe_until - policy.grace:
        return _resume(tally, kept=tally.use is not Use.ACTIVE)
    if tally.stop_at is not None:
        if tally.idle + policy.grace < limit:  # the limit was raised, or nobody waits any more
            return _resume(tally, kept=False)
        if tally.use is Use.IDLE and now >= max(tally.stop_at, safe_until):
            return Step.STOP, tally
        return Step.NOTHING, tally
    if tally.use is Use.IDLE and tally.idle + policy.grace >= limit:
        stop_at = max(now + policy.grace, safe_until)
        warned = replace(tally, warned_at=now, stop_at=stop_at, warnings=tally.warnings + 1)
        return Step.WARN, warned
    return Step.NOTHING, tally


def _resume(tally: Tally, kept: bool) -> tuple[Step, Tally]:
    """Take a warning back. ``kept``: the person pressed the button, and was told already."""
    if tally.stop_at is None:
        return Step.NOTHING, tally
    quiet = replace(tally, warned_at=None, stop_at=None)
    return (Step.NOTHING if kept else Step.RESUME), quiet


def keep_seconds(policy: IdlePolicy, kept: float) -> float:
    """How long "Keep" puts it off now, of what the cap leaves; 0 when that is used up."""
    return max(0.0, min(policy.keep_alive, policy.keep_alive_cap - kept))
