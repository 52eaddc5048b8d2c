"""What REST about GPUs takes and answers: devices, leases, the queue, use, notices."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from commons.leases import LeaseState
from commons.web.openapi import Reason
from commons.web.operations import Count, Query, Sent, Time, Told
from spawner.gpu.quotas.document import DURATION

_ACCOUNT = "who is charged: user:NAME, group:NAME or course:NAME"


# -- GPUs -------------------------------------------------------------------------------------


class GpuModel(Told):
    """A model of GPU, and how many of it there are."""

    model: str
    memory: str
    memory_bytes: Count
    total: Count
    free: Count


class Waiting(Told):
    """How many requests wait, and for how many GPUs."""

    requests: Count
    gpus: Count


class Gpus(Told):
    """Models of GPU; how many people wait."""

    simulated: bool
    total: Count
    free: Count
    types: list[GpuModel]
    waiting: Waiting


class Device(Told):
    """A GPU or a part of one."""

    id: str
    node: str
    model: str
    memory: str
    memory_bytes: Count
    simulated: bool
    parent: str | None = Field(description="the GPU that it is a part of")
    sharing: str = Field(description="exclusive, or how its slots share it")
    slots: Count
    slots_held: Count
    weight: float = Field(description="what an hour of it counts")
    health: str
    drained: bool
    drained_by: str | None = Field(None, description="for administrators")
    drained_node: bool = Field(description="all of its machine is")
    reason: str | None = Field(description="of the drain or the failure")
    state: Literal["free", "shared", "leased", "drained", "failing", "lost", "gone"]
    leases: list[str] = Field([], description="for administrators")


class Devices(Told):
    """Every GPU."""

    devices: list[Device]


class Drain(Sent):
    """What is to be offered to nobody new."""

    target: str = Field("", description="a GPU's id or a machine")
    reason: str = Field("", description="shown to everybody")


class Drained(Told):
    """What was done."""

    kind: Literal["device", "node"]
    target: str
    devices: list[str]
    running: Count = Field(description="servers that still run there")
    unkept: list[str] = Field(description="reservations that cannot be kept now, by name")


# -- leases -----------------------------------------------------------------------------------


class HeldGpu(Told):
    """A GPU of a lease."""

    id: str
    model: str
    node: str
    slot: Count
    simulated: bool
    shared: bool = Field(description="by time-slicing or MPS: not isolated")


class Place(Told):
    """Where a request stands in the queue."""

    position: Count | None = Field(description="1 is next")
    expected_start: Time | None
    reasons: list[Reason]


class Stop(Told):
    """Why and when a server is going to be stopped."""

    reason: str
    at: Time | None


class Moved(Told):
    """What an administrator made of a request's place in the queue."""

    to: Literal["front", "back", "usual"]
    held: bool = Field(description="it waits until it is released")
    by: str
    reason: str


class Lease(Told):
    """GPUs that somebody holds or waits for."""

    id: str
    user: str
    server: str = Field(description="empty for the person's default server")
    asked_by: str | None = Field(description="of a shared server: who had it started")
    account: str = Field(description=_ACCOUNT)
    state: LeaseState
    count: Count
    gpu_type: str = Field(description="what was asked for; empty for any")
    gpus: list[HeldGpu]
    requested_at: Time
    since: Time
    time_limit: Annotated[float, Field(ge=0)] | None = Field(description="seconds")
    ends_at: Time | None
    keep_until: Time | None = Field(description="until when it is not stopped for idle GPUs")
    borrowed: Count
    out_of_reach: bool = Field(description="whether its server can no longer open its GPUs")
    stop: Stop | None
    waiting: Place | None
    moved: Moved | None


class Extended(Lease):
    """A lease whose end was moved."""

    extended_by: Annotated[float, Field(gt=0)] = Field(description="seconds")
    message: str = Field(description="why it is less than was asked for; else empty")
    reasons: list[Reason]


class Leases(Told):
    """Who holds GPUs."""

    everyone: bool = Field(description="whether these are all")
    total: Count
    leases: list[Lease]


class Queue(Told):
    """Who waits."""

    everyone: bool = Field(description="whether these are all")
    total: Count
    total_gpus: Count
    requests: list[Lease]


class Cancel(Sent):
    """What the owner of a server that runs is told, where it is not the owner who asks."""

    message: str = Field("", max_length=500)


class PlaceWanted(Sent):
    """What is to be made of a request's place in the queue."""

    to: Literal["front", "back", "usual", "hold", "release"] = Field(
        description="usual: where the rules put it; hold: it waits until it is released"
    )
    reason: str = Field("", max_length=500, description="which the person reads")


class Extend(Sent):
    """By how much a lease is to be longer."""

    by: Annotated[Any, DURATION] = None


# -- what holds and what is used --------------------------------------------------------------


class Budget(Told):
    """GPU-hours, and what is left of them."""

    subject: str = Field(description="where the budget is set")
    user: str | None = Field(description="whose it is; null: of all together")
    gpu_hours: float
    window: str | None
    half_life: float | None = Field(description="seconds")
    used: float
    promised: float | None = Field(description="to what runs; null: without end")
    left: float


class Limit(Told):
    """One limit that holds."""

    key: str
    value: Any
    source: str
    instead_of: list[str] = Field(description="hidden by it")


class Account(Told):
    """What holds for who is charged."""

    account: str = Field(description=_ACCOUNT)
    held: Count
    held_by_all: Count
    time_limit: float | None = Field(description="the most, in seconds")
    default_time_limit: float | None
    limits: list[Limit]
    budgets: list[Budget]


class Used(Told):
    """GPU-hours that were used."""

    account: str
    user: str | None
    gpu_hours: float


class UsageFound(Told):
    """Use, decayed as fair share counts it, and budgets."""

    half_life: float
    accounts: list[Used]
    budgets: list[Budget]


class Me(Told):
    """What one may use, holds and waits for."""

    name: str
    admin: bool
    leads: list[str]
    accounts: list[Account]
    held: Count
    leases: list[Lease]


class Explained(Account):
    """Which limits hold for a person."""

    user: str


class Charged(Query):
    """On whose account."""

    account: str = Field("", description="who is charged; the person by default")


# -- notices ----------------------------------------------------------------------------------


class Notice(Told):
    """Something that somebody has to be told."""

    id: int
    at: Time
    code: str
    level: Literal["info", "warning", "error"]
    sentence: str
    actions: list[Literal["extend", "keep", "open", "refuse"]] = Field(
        description="what can be done with the lease, or with the notebook that was sent"
    )
    lease: str | None
    server: str | None = Field(description="empty for the person's default server")
    seen: bool
    more: str = Field(description="figures, and what to do; may be empty")
    ended: bool = Field(description="whether it says why the server has ended")
    notebook: int | None = Field(description="the number of a notebook that somebody sent")
    sender: str = Field(description="who sent it")


class Notices(Told):
    """What one has to be told, and what one's servers hold."""

    notices: list[Notice]
    leases: list[Lease]
    gpu_percent: dict[str, float | None] = Field(description="how much GPUs are used, by lease")
    words: dict[str, str] = Field(description="of the notebook's own, in the reader's language")


class Seen(Sent):
    """Which notices have been seen."""

    ids: list[Any] = Field([], json_schema_extra={"items": {"type": "integer", "minimum": 1}})


Size = Annotated[int, Field(ge=0, le=2**60)]
Called = Annotated[str, Field(max_length=255)]


class Process(Sent):
    """What used most memory: a program, and the notebook that it is of."""

    name: Called = ""
    what: Called = ""
    memory_bytes: Size = 0


class OwnNotice(Sent):
    """What a server tells its owner about itself; amounts are bytes."""

    code: Literal[
        "kernel_out_of_memory", "kernel_ended", "process_out_of_memory",
        "memory_high", "tmp_high", "disk_high",
    ]  # fmt: skip
    event: str = Field(pattern="^[0-9a-f]{32}$", description="the same is told once")
    what: Called = Field("", description="the notebook or kernel that it is about")
    how: str = Field("", max_length=20, description="exit status or name of a signal")
    count: int = Field(1, ge=1, le=10**6)
    place: Literal["", "/tmp", "/dev/shm"] = ""  # noqa: S108
    used_bytes: Size = 0
    limit_bytes: Size = 0
    shared_bytes: Size = Field(0, description="of the memory used, files kept in it")
    peak_bytes: Size = Field(0, description="the most that the kernel had")
    largest: Process | None = None


class Keep(Sent):
    """A server of one's own."""

    server: Annotated[str, Field(max_length=255)] = Field("", description="its name")


class Kept(Told):
    """Until when it is not stopped for want of use."""

    keep_until: Time


class Noted(Told):
    """The notice; null where it was told before, or where too many were in this hour."""

    id: int | None


class Changed(Told):
    """How many were changed."""

    changed: Count
