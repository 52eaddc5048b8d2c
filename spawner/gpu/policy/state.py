"""What the allocation decides on: plain frozen data. Times are seconds since 1970, UTC.

``snapshot`` reads it from the store, ``policy.decide`` turns it into a ``Decision``, ``admission``
writes that down, all in one transaction. Terms are Slurm's and Kueue's (docs/gpu.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from commons.leases import LeaseState
from commons.messages import Message
from spawner.gpu.policy.placement import Device

HOUR = 3600.0
# Seconds between being told that borrowed GPUs go back, and being stopped for it.
RECLAIM_NOTICE = 300.0
# Seconds: the longest lease on GPUs of a reservation that nobody uses.
SHORT = HOUR

_WAITING = (LeaseState.REQUESTED, LeaseState.QUEUED)

# Who is charged: "user:NAME" for oneself, else a team or a course.
# "default" is nobody's, and holds what is not said elsewhere.
Subject = str


@dataclass(frozen=True, order=True)
class Slot:
    """The unit of leasing: a whole device (slot 0), or one share slot of a shared one."""

    device: str
    index: int = 0


@dataclass(frozen=True)
class Claim:
    """A lease that has not ended, as far as the policy needs it.

    Attributes:
        account: the subject charged: ``group:vision``, ``course:ml101`` or ``user:alice``.
        gpus: how many devices (or share slots), all of one model on one node.
        gpu_type: a model, or "" for any.
        time_limit: seconds, or None for no end.
        slots: what it holds; empty while it waits.
        ends_at: when its time limit is over; None while it waits, or without a limit.
        borrowed: GPUs of it beyond its account's nominal quota.
        exempt_until: until then nobody may preempt it.
        weight: billing weight of all it holds together (each slot's ``Device.weight`` added:
            1 for a GPU, g/7 for MIG, 1/n for a share slot).
        reservation: the reservation it runs inside, if any.
        stops_at: when a stop that is already decided on comes (preempted, idle, not opened).
        reclaimed: whether that stop gives borrowed GPUs back: each decision looks again whether
            it is still needed.
        anytime: it may start in maintenance, too (an administrator's).
        rank: 1, 0 or -1: an administrator put it before all others, or behind them.
        paused: an administrator lets it wait until they release it.
        moved_by, moved_why: who did either, and what they said.
    """

    id: str
    user: str
    account: Subject
    state: LeaseState
    gpus: int
    requested_at: float
    gpu_type: str = ""
    time_limit: float | None = None
    slots: tuple[Slot, ...] = ()
    held_at: float | None = None
    ends_at: float | None = None
    borrowed: int = 0
    exempt_until: float = 0.0
    weight: float = 0.0
    reservation: str | None = None
    stops_at: float | None = None
    reclaimed: bool = False
    anytime: bool = False
    rank: int = 0
    paused: bool = False
    moved_by: str = ""
    moved_why: str = ""

    @property
    def waits(self) -> bool:
        """Whether it still has to be decided on."""
        return self.state in _WAITING


@dataclass(frozen=True)
class Budget:
    """GPU-hours (Slurm GrpTRESMins) that a subject may use: in a window, or decaying.

    Exactly one of ``window`` and ``half_life``. Weighted hours: a MIG g/7 or a share slot 1/n
    counts as that fraction. A window is ``total``, or ``day``, ``week`` or ``month``, with the
    time zone whose midnight begins it: ``week@Asia/Shanghai`` (UTC without one).
    """

    gpu_hours: float
    window: str | None = None
    half_life: float | None = None  # seconds


@dataclass(frozen=True)
class Quota:
    """What a quotas document says of one subject; None: not said here.

    For the person (user, else course or group charged, else default):
        max_gpus: MaxTRESPerUser: the most one person holds at once; ``max_by_type`` by model.
        max_queued: requests one person may have waiting.
        time_limit, default_time_limit: seconds; the most, and what counts when none is asked.
        budget: GPU-hours of each person.
    For the person over all accounts (user, else default):
        ceiling: the most one person holds at once, whatever is charged.
        own_gpus: the most one person holds at once while charged themselves.
    For a group or course as a whole:
        grp_gpus: GrpTRES: the most all of it hold at once; ``grp_by_type`` by model.
        grp_budget: GPU-hours of all together.
        nominal, borrowing_limit, lending_limit, cohort: Kueue's.
        shares: its weight for fair share among its siblings (also for users).
        preempt_exempt: seconds that a borrowed lease is safe from being reclaimed.
    """

    max_gpus: int | None = None
    max_by_type: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    max_queued: int | None = None
    time_limit: float | None = None
    default_time_limit: float | None = None
    budget: Budget | None = None
    ceiling: int | None = None
    own_gpus: int | None = None
    grp_gpus: int | None = None
    grp_by_type: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    grp_budget: Budget | None = None
    nominal: int | None = None
    borrowing_limit: int | None = None
    lending_limit: int | None = None
    cohort: str | None = None
    shares: float | None = None
    preempt_exempt: float | None = None


@dataclass(frozen=True)
class Settings:
    """What the quotas document says of all: how the queue is ordered and filled.

    Attributes:
        half_life: seconds after which past use counts half for fair share.
        entry_penalty: charge a request's GPU-hours for fair share when it is admitted.
        strategy: StrictFIFO blocks behind the head, BestEffortFIFO skips what does not fit;
            backfill starts what delays no higher request's expected start.
        hold_time: seconds in which a granted server must be opened.
        patience: a request that has waited so many seconds goes before fair share, oldest first.
        release_after: seconds after which a reservation that nobody of its people uses is open to
            leases of ``SHORT`` at most.
        worth: what one GPU of a model is worth, 1 without: "any" takes the least that serves.
        charge_by_worth: budgets and fair share count a GPU times its worth (Slurm
            TRESBillingWeights).
    """

    half_life: float = 7 * 24 * HOUR
    entry_penalty: bool = True
    strategy: Literal["backfill", "BestEffortFIFO", "StrictFIFO"] = "backfill"
    hold_time: float = 600.0
    patience: float = 7 * 24 * HOUR
    release_after: float = 900.0
    worth: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    charge_by_worth: bool = False

    def price(self, model: str) -> float:
        """What the billing weight of a model is multiplied by."""
        return self.worth.get(model, 1.0) if self.charge_by_worth else 1.0


@dataclass(frozen=True)
class Window:
    """One occurrence of a reservation: from ``start`` to ``end`` its GPUs are the subject's.

    ``devices`` names certain devices; without, ``gpus`` of ``gpu_type`` ("" for any). Who may
    start inside are those charged to ``subject``, or that very person for ``user:NAME``.
    """

    reservation: str
    name: str
    subject: Subject
    start: float
    end: float
    gpus: int
    gpu_type: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Past use in weighted GPU-seconds, up to the snapshot's ``now``, running leases included.

    Attributes:
        decayed: with the fair share's half-life, by account and user: a lease counts for its
            account (``("group:vision", "")``) and its user there (``("group:vision", "alice")``).
        budgets: what counts against each budget, in its window or decayed, by the key of
            ``limits.budget_limits``: ``group:vision``, ``user:alice``, or
            ``group:vision/alice`` for a person's budget that the account says.
    """

    decayed: Mapping[tuple[Subject, str], float] = field(default_factory=dict)
    budgets: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """All that a decision rests on, at one moment.

    ``left``: when the last lease inside a reservation ended, of those that are open.
    ``closed_until``: until when there is maintenance, ``inf`` for an end that nobody knows.
    """

    now: float
    devices: tuple[Device, ...]
    claims: tuple[Claim, ...]
    quotas: Mapping[Subject, Quota]
    usage: Usage = Usage()
    windows: tuple[Window, ...] = ()
    settings: Settings = Settings()
    left: Mapping[str, float] = field(default_factory=dict)
    closed_until: float | None = None

    def closed(self, claim: Claim) -> bool:
        """Whether maintenance keeps a request from starting."""
        return self.closed_until is not None and not claim.anytime


# Why something waits or is refused. Its texts are in ``reasons``; ``params`` are plain JSON values,
# times as seconds since 1970.
Reason = Message


@dataclass(frozen=True)
class Grant:
    """A request gets these slots now."""

    lease: str
    slots: tuple[Slot, ...]
    borrowed: int = 0
    exempt_until: float = 0.0
    weight: float = 1.0
    reservation: str | None = None


class Verdict(NamedTuple):
    """A request waits: its place (1 is next), when it can be expected to start, and why."""

    lease: str
    position: int
    reasons: tuple[Reason, ...]
    expected_start: float | None = None


@dataclass(frozen=True)
class Preemption:
    """A borrowed lease has to end at ``stops_at`` so that its lender's request can start."""

    lease: str
    wanted_by: str
    stops_at: float


@dataclass(frozen=True)
class Decision:
    """What to write down: in this order, and nothing else."""

    grants: tuple[Grant, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    preemptions: tuple[Preemption, ...] = ()
    spared: tuple[str, ...] = ()  # leases that were to be reclaimed and need not end any more
