"""Tables of our database. All times are UTC, without time zone, as SQLite keeps them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from commons.leases import LeaseState


def utcnow() -> datetime:
    """Now, as the tables keep it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """Declarative base."""


class KeptReader(Base):
    """How a person reads (``commons.readers``); empty where it is not known."""

    __tablename__ = "readers"

    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    chosen: Mapped[str] = mapped_column(String(16))
    directory: Mapped[str] = mapped_column(String(64))
    timezone: Mapped[str] = mapped_column(String(64))


class GpuNode(Base):
    """A machine with GPUs; a drained one is not offered, what runs there goes on."""

    __tablename__ = "gpu_nodes"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    drained_at: Mapped[datetime | None] = mapped_column(DateTime)
    drained_by: Mapped[str | None] = mapped_column(String(255))
    drain_reason: Mapped[str | None] = mapped_column(String(255))


class GpuDevice(Base):
    """One GPU or MIG device that can be leased, as the inventory last saw it."""

    __tablename__ = "gpu_devices"

    id: Mapped[str] = mapped_column(String(96), primary_key=True)
    node: Mapped[str] = mapped_column(String(255), default="local")
    model: Mapped[str] = mapped_column(String(80))
    memory: Mapped[int] = mapped_column(BigInteger)  # bytes
    simulated: Mapped[bool] = mapped_column(Boolean, default=False)
    parent: Mapped[str] = mapped_column(String(96), default="")  # of a MIG device
    sharing: Mapped[str] = mapped_column(String(16), default="exclusive")
    slots: Mapped[int] = mapped_column(Integer, default=1)
    weight: Mapped[float] = mapped_column(Float(53), default=1.0)  # billing weight of a slot
    health: Mapped[str] = mapped_column(String(16), default="ok")  # ok, failing, lost
    health_reason: Mapped[str | None] = mapped_column(String(255))
    health_since: Mapped[datetime | None] = mapped_column(DateTime)
    drained_at: Mapped[datetime | None] = mapped_column(DateTime)
    drained_by: Mapped[str | None] = mapped_column(String(255))
    drain_reason: Mapped[str | None] = mapped_column(String(255))
    # False once the inventory no longer lists it: kept for the leases that name it.
    present: Mapped[bool] = mapped_column(Boolean, default=True)
    seen_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)


class Lease(Base):
    """Devices owed to one server of one person, from the request to after its container.

    The unique index allows each server at most one lease that has not ended.
    """

    __tablename__ = "gpu_leases"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), index=True)
    server_name: Mapped[str] = mapped_column(String(255), default="")
    state: Mapped[LeaseState] = mapped_column(
        Enum(
            LeaseState,
            native_enum=False,
            length=16,
            values_callable=lambda states: [state.value for state in states],
        ),
        index=True,
    )
    # What was asked.
    account: Mapped[str] = mapped_column(String(255), default="", index=True)
    gpus: Mapped[int] = mapped_column(Integer, default=1)
    gpu_type: Mapped[str] = mapped_column(String(80), default="")
    time_limit: Mapped[int | None] = mapped_column(Integer)  # seconds; None: no end
    # Of an administrator, as the hub knew: granted in maintenance, too.
    anytime: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    # With what the server is started again after a restart of the hub.
    user_options: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    # When what happened.
    requested_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    held_at: Mapped[datetime | None] = mapped_column(DateTime)
    active_at: Mapped[datetime | None] = mapped_column(DateTime)
    opened_at: Mapped[datetime | None] = mapped_column(DateTime)  # first used by a person
    ends_at: Mapped[datetime | None] = mapped_column(DateTime)  # by its time limit
    ended_at: Mapped[datetime | None] = mapped_column(DateTime, index=True)
    ended_reason: Mapped[str | None] = mapped_column(String(64))
    container_id: Mapped[str | None] = mapped_column(String(64))
    # What was granted.
    borrowed: Mapped[int] = mapped_column(Integer, default=0)
    exempt_until: Mapped[datetime | None] = mapped_column(DateTime)
    weight: Mapped[float] = mapped_column(Float(53), default=0.0)
    reservation_id: Mapped[str | None] = mapped_column(String(32))
    # What an administrator made of its place in the queue: 1 before all, -1 behind all; paused: it
    # waits until it is released. Who, and why.
    queue_rank: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    queue_paused: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    queue_by: Mapped[str] = mapped_column(String(255), default="", server_default="")
    queue_reason: Mapped[str] = mapped_column(String(500), default="", server_default="")
    # Why it waits, as the last pass saw it: {"position", "expected_start", "reasons"}.
    verdict: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    # How it is going to end: why (time_limit, idle, preempted, not_opened, ...) and when.
    stop_reason: Mapped[str | None] = mapped_column(String(64))
    stop_at: Mapped[datetime | None] = mapped_column(DateTime)
    warned_at: Mapped[datetime | None] = mapped_column(DateTime)
    keep_until: Mapped[datetime | None] = mapped_column(DateTime)  # asked not to be reclaimed
    devices: Mapped[list[LeaseDevice]] = relationship(
        back_populates="lease", cascade="all, delete-orphan", lazy="selectin"
    )

    __table_args__ = (
        Index(
            "uq_gpu_leases_live",
            "username",
            "server_name",
            unique=True,
            sqlite_where=text("state <> 'ended'"),
            postgresql_where=text("state <> 'ended'"),
        ),
    )


class LeaseDevice(Base):
    """One slot of a lease. The unique index makes a double lease impossible."""

    __tablename__ = "gpu_lease_devices"

    lease_id: Mapped[str] = mapped_column(ForeignKey("gpu_leases.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("gpu_devices.id"), primary_key=True)
    slot: Mapped[int] = mapped_column(Integer, primary_key=True, default=0)
    released_at: Mapped[datetime | None] = mapped_column(DateTime)
    lease: Mapped[Lease] = relationship(back_populates="devices")

    __table_args__ = (
        Index(
            "uq_gpu_lease_devices_live",
            "device_id",
            "slot",
            unique=True,
            sqlite_where=text("released_at IS NULL"),
            postgresql_where=text("released_at IS NULL"),
        ),
    )


class GpuUsage(Base):
    """What a lease has been charged: one row a lease, grown by each pass, closed at its end."""

    __tablename__ = "gpu_usage"

    lease_id: Mapped[str] = mapped_column(ForeignKey("gpu_leases.id"), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), index=True)
    account: Mapped[str] = mapped_column(String(255), index=True)
    weight: Mapped[float] = mapped_column(Float(53))
    started_at: Mapped[datetime] = mapped_column(DateTime)
    charged_to: Mapped[datetime] = mapped_column(DateTime, index=True)
    gpu_seconds: Mapped[float] = mapped_column(Float(53))  # weighted
    closed: Mapped[bool] = mapped_column(Boolean, default=False)


class GpuUsageSum(Base):
    """Closed leases' use, summed up by account, person and period, so that nobody has to scan
    the past: ``day``, ``week@Asia/Shanghai``, ``total``, or ``decay:SECONDS`` with that half-life.

    A row without account and person says that the period is kept.
    """

    __tablename__ = "gpu_usage_sums"

    account: Mapped[str] = mapped_column(String(255), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    period: Mapped[str] = mapped_column(String(64), primary_key=True)
    # A window's beginning; of a decaying sum, the moment of its value. Seconds since 1970.
    start: Mapped[float] = mapped_column(Float(53))
    gpu_seconds: Mapped[float] = mapped_column(Float(53))  # weighted


class GpuQuota(Base):
    """What the quotas document says of one subject (``settings`` for what concerns all)."""

    __tablename__ = "gpu_quotas"

    subject: Mapped[str] = mapped_column(String(255), primary_key=True)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    changed_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    changed_by: Mapped[str] = mapped_column(String(255), default="")


class GpuQuotaChange(Base):
    """One change of a subject's quota, for the question who changed it and what it was."""

    __tablename__ = "gpu_quota_changes"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    by: Mapped[str] = mapped_column(String(255), default="")
    subject: Mapped[str] = mapped_column(String(255), index=True)
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class GpuReservation(Base):
    """GPUs set aside for a group, course or person, once or again and again."""

    __tablename__ = "gpu_reservations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(255))
    gpus: Mapped[int] = mapped_column(Integer)
    gpu_type: Mapped[str] = mapped_column(String(80), default="")
    devices: Mapped[list[str]] = mapped_column(JSON, default=list)
    # Wall time in ``timezone`` (IANA), so that 10:00 stays 10:00 when clocks change.
    starts: Mapped[datetime] = mapped_column(DateTime)
    duration: Mapped[int] = mapped_column(Integer)  # seconds
    timezone: Mapped[str] = mapped_column(String(64))
    repeat: Mapped[str] = mapped_column(String(16), default="once")  # once, daily, weekly
    weekdays: Mapped[list[int]] = mapped_column(JSON, default=list)  # 0 is Monday
    until: Mapped[str | None] = mapped_column(String(10))  # the last day, ISO 8601
    skipped: Mapped[list[str]] = mapped_column(JSON, default=list)  # days left out, ISO 8601
    created_by: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    cancelled_at: Mapped[datetime | None] = mapped_column(DateTime)


class GpuNotice(Base):
    """Something a person has to be told: shown in the notebook and on pages, mailed where set."""

    __tablename__ = "gpu_notices"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    username: Mapped[str] = mapped_column(String(255), index=True)
    lease_id: Mapped[str | None] = mapped_column(String(32))
    server_name: Mapped[str | None] = mapped_column(String(255))  # where no lease says it
    code: Mapped[str] = mapped_column(String(64))  # as in commons.notice_kinds
    data: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    # One notice for one cause, however often a pass comes by.
    key: Mapped[str] = mapped_column(String(160), unique=True)
    seen_at: Mapped[datetime | None] = mapped_column(DateTime)
    mailed_at: Mapped[datetime | None] = mapped_column(DateTime)


class ServerEnd(Base):
    """How one server ended, its container's handle as the key: see ``commons.store.ends``."""

    __tablename__ = "server_ends"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    key: Mapped[str] = mapped_column(String(128), unique=True)
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow, index=True)
    username: Mapped[str] = mapped_column(String(255))
    server_name: Mapped[str] = mapped_column(String(255), default="")
    lease_id: Mapped[str | None] = mapped_column(String(32))
    cause: Mapped[str] = mapped_column(String(32))
    by: Mapped[str] = mapped_column(String(255), default="")
    message: Mapped[str] = mapped_column(String(1000), default="")
    data: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)

    __table_args__ = (Index("ix_server_ends_server", "username", "server_name"),)


class ServerRun(Base):
    """What a server or job had while it ran, its container's handle as the key: ``store.runs``."""

    __tablename__ = "server_runs"

    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    username: Mapped[str] = mapped_column(String(255))
    server_name: Mapped[str] = mapped_column(String(255))
    account: Mapped[str] = mapped_column(String(255))
    environment: Mapped[str] = mapped_column(String(255))  # without its version
    cpu: Mapped[float] = mapped_column(Float(53))  # cores
    memory: Mapped[int] = mapped_column(BigInteger)  # bytes that it was promised
    lease_id: Mapped[str | None] = mapped_column(String(32))
    began_at: Mapped[datetime] = mapped_column(DateTime)
    ended_at: Mapped[datetime | None] = mapped_column(DateTime, index=True)


class UsageFigures:
    """What was used: see ``spawner.usage.days.Figures``."""

    gpu_seconds: Mapped[float] = mapped_column(Float(53))  # a slice or share is a part of one
    charged_seconds: Mapped[float] = mapped_column(Float(53))  # as budgets count them
    idle_seconds: Mapped[float] = mapped_column(Float(53))  # of gpu_seconds
    cpu_seconds: Mapped[float] = mapped_column(Float(53))  # cores that were had, not used
    memory_seconds: Mapped[float] = mapped_column(Float(53))  # GiB
    wait_seconds: Mapped[float] = mapped_column(Float(53))  # of what was granted then
    longest_wait: Mapped[float] = mapped_column(Float(53))
    waits: Mapped[int] = mapped_column(Integer)
    servers: Mapped[int] = mapped_column(Integer)  # that began then
    jobs: Mapped[int] = mapped_column(Integer)


class UsageDay(UsageFigures, Base):
    """What was used on a day by one person for one account, of one environment and GPU model.

    Made from leases and runs by ``spawner.usage.rollup``, and made again while a day may change.
    """

    __tablename__ = "usage_days"

    day: Mapped[date] = mapped_column(Date, primary_key=True)  # by the clocks of the quotas
    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    account: Mapped[str] = mapped_column(String(255), primary_key=True)
    environment: Mapped[str] = mapped_column(String(255), primary_key=True)
    model: Mapped[str] = mapped_column(String(80), primary_key=True)  # "" without a GPU

    __table_args__ = (
        Index("ix_usage_days_username", "username", "day"),
        Index("ix_usage_days_account", "account", "day"),
    )


class UsageMonth(UsageFigures, Base):
    """The days of a month by one column of theirs: what is asked of a long time is read quickly."""

    __tablename__ = "usage_months"

    column: Mapped[str] = mapped_column(String(16), primary_key=True)
    month: Mapped[date] = mapped_column(Date, primary_key=True)  # its first day
    value: Mapped[str] = mapped_column(String(255), primary_key=True)


class UsageMark(Base):
    """How far the sums of days are, and by which clocks; which monthly reports went out."""

    __tablename__ = "usage_marks"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)


class SentNotebook(Base):
    """A notebook that somebody sent, until the receiver throws it away or it is too old."""

    __tablename__ = "sent_notebooks"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    sender: Mapped[str] = mapped_column(String(255))
    username: Mapped[str] = mapped_column(String(255), index=True)  # the receiver's
    name: Mapped[str] = mapped_column(String(200))
    environment: Mapped[str] = mapped_column(String(200))  # name:version, as the sender had it
    size: Mapped[int] = mapped_column(Integer)  # bytes of its text
    packed: Mapped[bytes] = mapped_column(LargeBinary)  # zlib

    __table_args__ = (Index("ix_sent_notebooks_sender", "sender", "at"),)


class RefusedSender(Base):
    """Somebody from whom a person takes no notebooks."""

    __tablename__ = "refused_senders"

    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    sender: Mapped[str] = mapped_column(String(255), primary_key=True)


class AnnouncedStop(Base):
    """A server that an administrator stops at a time that its owner was told."""

    __tablename__ = "announced_stops"

    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    server_name: Mapped[str] = mapped_column(String(255), primary_key=True)
    by: Mapped[str] = mapped_column(String(255))
    message: Mapped[str] = mapped_column(String(500))
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    stop_at: Mapped[datetime] = mapped_column(DateTime)


class GpuWatch(Base):
    """How a running lease uses its GPUs, as last seen: one row a lease (spawner.gpu.watch.idle)."""

    __tablename__ = "gpu_watch"

    lease_id: Mapped[str] = mapped_column(ForeignKey("gpu_leases.id"), primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime)
    use: Mapped[str] = mapped_column(String(16))  # active, idle, unknown
    gpu_percent: Mapped[float | None] = mapped_column(Float(53))
    idle_seconds: Mapped[float] = mapped_column(Float(53), default=0.0)
    warned_at: Mapped[datetime | None] = mapped_column(DateTime)
    stop_at: Mapped[datetime | None] = mapped_column(DateTime)
    warnings: Mapped[int] = mapped_column(Integer, default=0)
    kept_seconds: Mapped[float] = mapped_column(Float(53), default=0.0)  # of its keep-alive
    # Of work without the GPU since it was last used.
    prepared_seconds: Mapped[float] = mapped_column(Float(53), default=0.0, server_default="0")
    # Of all its time; ``idle_seconds`` begins again whenever it is used.
    idle_total: Mapped[float] = mapped_column(Float(53), default=0.0, server_default="0")


class ServerWatch(Base):
    """How a running server is used, as last seen, its container's handle as the key, where the site
    stops those that nobody uses (spawner.culling). Times are seconds since 1970.
    """

    __tablename__ = "server_watch"

    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), index=True)
    server_name: Mapped[str] = mapped_column(String(255))
    at: Mapped[float] = mapped_column(Float(53))
    use: Mapped[str] = mapped_column(String(16), default="unknown")  # active, idle, unknown
    idle_seconds: Mapped[float] = mapped_column(Float(53), default=0.0)
    warned_at: Mapped[float | None] = mapped_column(Float(53))
    stop_at: Mapped[float | None] = mapped_column(Float(53))
    warnings: Mapped[int] = mapped_column(Integer, default=0)
    old_at: Mapped[float | None] = mapped_column(Float(53))  # when it is stopped for its age
    keep_until: Mapped[float | None] = mapped_column(Float(53))
    kept_seconds: Mapped[float] = mapped_column(Float(53), default=0.0)
    # What its rule says of "Keep".
    keep_for: Mapped[float] = mapped_column(Float(53))
    keep_at_most: Mapped[float] = mapped_column(Float(53))
    # It is being stopped, or is going to be at once.
    stopping: Mapped[bool] = mapped_column(Boolean, default=False)


class HealthCheck(Base):
    """What one check of ``labcommons doctor`` found last, and since when it is so."""

    __tablename__ = "health_checks"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))  # ok, advice, unknown, warning, broken
    at: Mapped[datetime] = mapped_column(DateTime)
    since: Mapped[datetime] = mapped_column(DateTime)
    asked: Mapped[bool] = mapped_column(Boolean, default=False)  # somebody wants to know now
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON)


class GpuState(Base):
    """One row: the number of the last change, and the latest time seen (clocks jump)."""

    __tablename__ = "gpu_state"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)  # always 1
    version: Mapped[int] = mapped_column(BigInteger, default=0)
    latest: Mapped[datetime] = mapped_column(DateTime, default=utcnow)


class EnvironmentVersion(Base):
    """One built, immutable version of an image environment."""

    __tablename__ = "environment_versions"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    image: Mapped[str] = mapped_column(String(255))  # repository:tag
    image_id: Mapped[str] = mapped_column(String(80))  # sha256:… of the image's configuration
    prefix: Mapped[str] = mapped_column(String(255))  # the environment's path in the image
    python: Mapped[str | None] = mapped_column(String(32))
    lock_digest: Mapped[str] = mapped_column(String(80))
    channels: Mapped[list[str]] = mapped_column(JSON)
    # Titles and descriptions by language, the packages the spec names, and all of them.
    words: Mapped[dict[str, Any]] = mapped_column(JSON)
    main_packages: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    packages: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    # kernel.json contents by the kernel's own name, as found in the prefix.
    kernelspecs: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    tag: Mapped[str | None] = mapped_column(String(64))  # semantic version
    revision: Mapped[str | None] = mapped_column(String(64))  # of the folder's repository
    size: Mapped[int] = mapped_column(BigInteger, default=0)  # bytes of the prefix
    cuda: Mapped[str | None] = mapped_column(String(32))
    gpu: Mapped[str] = mapped_column(String(16), default="none")  # none, optional, required
    server_size: Mapped[str | None] = mapped_column(String(64))  # the site's size that suits it
    # Teams and courses whose members may use it; empty lists: everyone.
    access: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    # What the site's rules said when it was built.
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    # What an administrator decided since; a new build of the same version leaves it.
    pinned: Mapped[bool] = mapped_column(Boolean, default=False)
    deprecated_at: Mapped[datetime | None] = mapped_column(DateTime)
    deprecated_reason: Mapped[str | None] = mapped_column(String(500))
    withdrawn_at: Mapped[datetime | None] = mapped_column(DateTime)
    withdrawn_reason: Mapped[str | None] = mapped_column(String(500))
    # True while its folder is not among the site's environments.
    removed: Mapped[bool] = mapped_column(Boolean, default=False)

    __table_args__ = (Index("uq_environment_versions", "name", "version", unique=True),)


class RegisteredEnvironment(Base):
    """One environment as the kernel registry last saw it, with the kernels it has written.

    ``version`` is an image environment's, or that of a scope's when it was built here, else
    ``live``. ``last_seen`` is kept up to date within minutes.
    """

    __tablename__ = "registered_environments"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    source: Mapped[str] = mapped_column(String(96))  # image, shared, team-<t>, course-<c>
    environment: Mapped[str] = mapped_column(String(255))
    version: Mapped[str] = mapped_column(String(64))
    label: Mapped[str] = mapped_column(String(128))  # the source, for people
    prefix: Mapped[str] = mapped_column(String(1024))
    python: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)  # a message in JSON
    # title (a text, or texts by language), deprecated (a date), access (sources; none: everybody).
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)
    kernels: Mapped[list[dict[str, str]]] = mapped_column(JSON)  # name, display_name, language
    first_seen: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    last_seen: Mapped[datetime] = mapped_column(DateTime, default=utcnow)

    __table_args__ = (
        Index("uq_registered_environments", "source", "environment", "version", unique=True),
    )


class RegistrySource(Base):
    """A folder of environments as the registry last saw it.

    ``device`` tells an emptied folder from a file system that is not mounted.
    """

    __tablename__ = "registry_sources"

    source: Mapped[str] = mapped_column(String(96), primary_key=True)
    device: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)  # a message in JSON
    # Since when it is in this state.
    since: Mapped[datetime] = mapped_column(DateTime, default=utcnow)


class KernelUsage(Base):
    """How often one person started one kernel on one day (UTC)."""

    __tablename__ = "kernel_usage"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    day: Mapped[date] = mapped_column(Date, index=True)
    username: Mapped[str] = mapped_column(String(255))
    kernel: Mapped[str] = mapped_column(String(128))
    source: Mapped[str] = mapped_column(String(96))
    environment: Mapped[str] = mapped_column(String(255))
    version: Mapped[str] = mapped_column(String(64))
    starts: Mapped[int] = mapped_column(Integer)
    last_start: Mapped[datetime] = mapped_column(DateTime)

    __table_args__ = (
        Index(
            "uq_kernel_usage",
            "day",
            "username",
            "kernel",
            "source",
            "environment",
            "version",
            unique=True,
        ),
    )


class DirectoryPerson(Base):
    """A person of the hub as the directory last spoke of them. Times are seconds since 1970."""

    __tablename__ = "directory_people"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)  # in the hub
    # The directory's stable id (entryUUID, objectGUID): one name in the hub for each.
    directory_id: Mapped[str | None] = mapped_column(String(64), unique=True)
    confirmed: Mapped[float] = mapped_column(Float(53))
    barred: Mapped[float | None] = mapped_column(Float(53))
    reason: Mapped[str | None] = mapped_column(String(64))
    dismissed: Mapped[bool] = mapped_column(Boolean, default=False)
    roles: Mapped[dict[str, Any]] = mapped_column(JSON)


class PersonBlock(Base):
    """Somebody who may not come in here, whatever the directory says (commons.store.blocks)."""

    __tablename__ = "person_blocks"

    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    reason: Mapped[str] = mapped_column(String(500))  # they read it at the login
    by: Mapped[str] = mapped_column(String(255))
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    until: Mapped[datetime | None] = mapped_column(DateTime)  # None: until it is taken back
    stops: Mapped[bool] = mapped_column(Boolean, default=False)  # their servers, too
    acted_at: Mapped[datetime | None] = mapped_column(DateTime)  # the hub has ended their logins


class DirectoryFailures(Base):
    """Failed logins of a name or from an address, within the throttle's window."""

    __tablename__ = "directory_failures"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    times: Mapped[list[float]] = mapped_column(JSON)  # seconds since 1970
    last: Mapped[float] = mapped_column(Float(53))


class ServerStart(Base):
    """A server that somebody asked for, until it runs or has come to nothing."""

    __tablename__ = "server_starts"

    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    server_name: Mapped[str] = mapped_column(String(255), primary_key=True)
    user_options: Mapped[dict[str, Any]] = mapped_column(JSON)
    asked_at: Mapped[datetime] = mapped_column(DateTime)
    tries: Mapped[int] = mapped_column(Integer)


class WarmStart(Base):
    """Servers that are started ahead of time for people: for whom, from when until when."""

    __tablename__ = "warm_starts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(255))  # a team or course; empty: ``people`` alone
    people: Mapped[list[str]] = mapped_column(JSON)  # empty: all who are in it when it begins
    user_options: Mapped[dict[str, Any]] = mapped_column(JSON)
    starts_at: Mapped[datetime] = mapped_column(DateTime)
    hold_until: Mapped[datetime] = mapped_column(DateTime)
    created_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    begun_at: Mapped[datetime | None] = mapped_column(DateTime)  # since then its servers are rows
    cancelled_at: Mapped[datetime | None] = mapped_column(DateTime)


class Course(Base):
    """A course, as its course.yaml says it, and what was made of that."""

    __tablename__ = "courses"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    # The reservations of its timetable: the key of each window, and the reservation's id.
    reservations: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    changed_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    changed_by: Mapped[str] = mapped_column(String(255))


class CoursePerson(Base):
    """Somebody whom a roster puts into a course, beside those whom the directory does."""

    __tablename__ = "course_people"

    course: Mapped[str] = mapped_column(String(64), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), primary_key=True, index=True)
    position: Mapped[str] = mapped_column(String(16))  # as scopes.Position.word
    added_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    added_by: Mapped[str] = mapped_column(String(255))


class CourseCode(Base):
    """With it somebody puts themselves on a course's roster; gone once it is taken back."""

    __tablename__ = "course_codes"

    code: Mapped[str] = mapped_column(String(32), primary_key=True)
    course: Mapped[str] = mapped_column(String(64), index=True)
    expires_at: Mapped[datetime] = mapped_column(DateTime)
    uses_left: Mapped[int] = mapped_column(Integer)
    created_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)


class HandedIn(Base):
    """What somebody handed in of a course, or gives back to its people: asked, taken, kept.

    The row is there before anything is read; ``asked_at`` is when the server was asked.
    """

    __tablename__ = "handed_in"
    __table_args__ = (
        Index("ix_handed_in_course", "course", "handin", "team"),
        Index("ix_handed_in_state", "state", "asked_at"),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # handin, feedback, autograde
    course: Mapped[str] = mapped_column(String(64))
    handin: Mapped[str] = mapped_column(String(64))
    # Whose it is: a login name, or @ and the name of a group; of feedback, empty.
    team: Mapped[str] = mapped_column(String(255))
    username: Mapped[str] = mapped_column(String(255))  # who asked
    # For whom it was handed in; of feedback, who gets some, each once it is there.
    members: Mapped[list[str]] = mapped_column(JSON)
    # In the home of who asked; of autograde, the id of what is graded.
    path: Mapped[str] = mapped_column(String(1000))
    asked_at: Mapped[datetime] = mapped_column(DateTime)
    due_at: Mapped[datetime | None] = mapped_column(DateTime)  # as it was for them then
    state: Mapped[str] = mapped_column(String(16))  # asked, taken, kept, refused
    ended_at: Mapped[datetime | None] = mapped_column(DateTime)
    # Why it was refused, or what is in its way; commons.messages as JSON.
    message: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    digest: Mapped[str] = mapped_column(String(64), default="")  # SHA-256 of the manifest
    files: Mapped[int] = mapped_column(Integer, default=0)
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    left_out: Mapped[int] = mapped_column(Integer, default=0)
    # What was signed, and how; of autograde, what it gave.
    receipt: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class HandInExtension(Base):
    """Another deadline for somebody, for a group or (``team`` empty) for all."""

    __tablename__ = "handin_extensions"

    course: Mapped[str] = mapped_column(String(64), primary_key=True)
    handin: Mapped[str] = mapped_column(String(64), primary_key=True)
    team: Mapped[str] = mapped_column(String(255), primary_key=True)
    due_at: Mapped[datetime] = mapped_column(DateTime)
    given_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    given_by: Mapped[str] = mapped_column(String(255))


class HandInGroup(Base):
    """Who hands in together."""

    __tablename__ = "handin_groups"

    course: Mapped[str] = mapped_column(String(64), primary_key=True)
    handin: Mapped[str] = mapped_column(String(64), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))


class CourseMark(Base):
    """What somebody got for a hand-in."""

    __tablename__ = "course_marks"

    course: Mapped[str] = mapped_column(String(64), primary_key=True)
    handin: Mapped[str] = mapped_column(String(64), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    mark: Mapped[str] = mapped_column(String(40))
    comment: Mapped[str] = mapped_column(String(2000), default="")
    changed_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    changed_by: Mapped[str] = mapped_column(String(255))


class SharedServer(Base):
    """A server of a team's or course's own account, which its people use together."""

    __tablename__ = "shared_servers"

    scope: Mapped[str] = mapped_column(String(80), primary_key=True)  # such as course-ml101
    name: Mapped[str] = mapped_column(String(30), primary_key=True)
    user_options: Mapped[dict[str, Any]] = mapped_column(JSON)
    leads_only: Mapped[bool] = mapped_column(Boolean)  # who may enter
    members_run: Mapped[bool] = mapped_column(Boolean)  # whether all who enter may start and stop
    created_by: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))  # spawner.shared_servers.State
    at: Mapped[datetime] = mapped_column(DateTime)  # since when it is so
    by: Mapped[str] = mapped_column(String(255))  # who asked last for its start or end
    reason: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # why it did not start
    people: Mapped[list[str]] = mapped_column(JSON)  # who is in, as far as is known


class CourseLook(Base):
    """A look at a student's notebook (courses.looks): asked for, then allowed for a time or not."""

    __tablename__ = "course_looks"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    course: Mapped[str] = mapped_column(String(64))
    username: Mapped[str] = mapped_column(String(255), index=True)  # whose notebook
    server_name: Mapped[str] = mapped_column(String(255))
    asked_by: Mapped[str] = mapped_column(String(255))
    asked_at: Mapped[datetime] = mapped_column(DateTime)
    state: Mapped[str] = mapped_column(String(16))  # courses.looks.State
    path: Mapped[str] = mapped_column(Text)  # once it is allowed
    until: Mapped[datetime] = mapped_column(DateTime)  # of the question, then of the look


class CourseMaterials(Base):
    """What came of fetching a course's materials, and who wants them fetched."""

    __tablename__ = "course_materials"

    course: Mapped[str] = mapped_column(String(64), primary_key=True)
    asked_at: Mapped[datetime | None] = mapped_column(DateTime)  # somebody, for the last time
    tried_at: Mapped[datetime | None] = mapped_column(DateTime)  # when the last fetch began
    fetched_at: Mapped[datetime | None] = mapped_column(DateTime)  # … the last good one
    source: Mapped[str] = mapped_column(String(750), default="")  # that the last one was of
    revision: Mapped[str] = mapped_column(String(40), default="")
    files: Mapped[int] = mapped_column(Integer, default=0)
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    left_out: Mapped[list[list[str]]] = mapped_column(JSON, default=list)  # path, why
    more_left_out: Mapped[int] = mapped_column(Integer, default=0)
    # Why the last one failed; commons.messages as JSON.
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON)


class CourseEnd(Base):
    """Whether a course is frozen: nobody writes, people still read (commons.frozen)."""

    __tablename__ = "course_ends"

    course: Mapped[str] = mapped_column(String(64), primary_key=True)
    frozen_at: Mapped[datetime | None] = mapped_column(DateTime)
    changed_by: Mapped[str] = mapped_column(String(255), default="")
    # Of a day on which it was, or is to be, frozen by itself: not again for the same one.
    frozen_for: Mapped[str] = mapped_column(String(10), default="")
    told_for: Mapped[str] = mapped_column(String(10), default="")


class CourseWork(Base):
    """An archive of a course that is made, or its removal; ``courses.term_keeper`` sees to it."""

    __tablename__ = "course_works"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    course: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(8))  # archive, remove
    state: Mapped[str] = mapped_column(String(8), index=True)
    asked_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    asked_by: Mapped[str] = mapped_column(String(255))
    ended_at: Mapped[datetime | None] = mapped_column(DateTime)
    # Why it failed, or what is in its way; commons.messages as JSON.
    message: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    all_bytes: Mapped[int] = mapped_column(BigInteger, default=0)  # of what is read
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)  # read so far
    files: Mapped[int] = mapped_column(Integer, default=0)
    left_out: Mapped[int] = mapped_column(Integer, default=0)
    packed: Mapped[int] = mapped_column(BigInteger, default=0)  # bytes before the signature
    size: Mapped[int] = mapped_column(BigInteger, default=0)  # of the file
    statement: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # what is signed


class ExamSitting(Base):
    """Somebody who has begun an exam: until it has ended they have its server and no other."""

    __tablename__ = "exam_sittings"

    course: Mapped[str] = mapped_column(String(64), primary_key=True)
    exam: Mapped[str] = mapped_column(String(40), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), primary_key=True, index=True)
    options: Mapped[dict[str, Any]] = mapped_column(JSON)  # user_options of its server
    begun_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    ends_at: Mapped[datetime] = mapped_column(DateTime)  # this person's own end
    ended_at: Mapped[datetime | None] = mapped_column(DateTime)  # its server is gone
    collected_at: Mapped[datetime | None] = mapped_column(DateTime)  # the instructors' to read


class Broadcast(Base):
    """A message to everybody (commons.broadcasts), or maintenance (commons.maintenance)."""

    __tablename__ = "broadcasts"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # info, warning, maintenance
    texts: Mapped[dict[str, str]] = mapped_column(JSON)  # by language, one at least
    starts_at: Mapped[datetime] = mapped_column(DateTime)
    ends_at: Mapped[datetime | None] = mapped_column(DateTime)  # None: when it is withdrawn
    created_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    withdrawn_at: Mapped[datetime | None] = mapped_column(DateTime)
    withdrawn_by: Mapped[str] = mapped_column(String(255), default="")
    # Of maintenance: when servers are stopped, and those that the hub last saw running.
    stop_at: Mapped[datetime | None] = mapped_column(DateTime)
    working: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)


class Job(Base):
    """A program that somebody has run without their server, or one task of an array (``jobs``)."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    username: Mapped[str] = mapped_column(String(255), index=True)
    # Of an array: the number of its first task, which all of it is called by; which task it is,
    # and how many of them run at once.
    array: Mapped[int | None] = mapped_column(Integer, index=True)
    task: Mapped[int | None] = mapped_column(Integer)
    at_once: Mapped[int | None] = mapped_column(Integer)
    # What was asked.
    command: Mapped[list[str]] = mapped_column(JSON)
    folder: Mapped[str] = mapped_column(String(1000), default="")  # below the home
    options: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)  # as user_options
    time_limit: Mapped[int | None] = mapped_column(Integer)  # seconds
    after: Mapped[list[int]] = mapped_column(JSON, default=list)
    retries: Mapped[int] = mapped_column(Integer, default=0)
    preemptible: Mapped[bool] = mapped_column(Boolean, default=False)
    # name:version, chosen when it was taken on; "" until then.
    environment: Mapped[str] = mapped_column(String(300), default="")
    # How far it is (jobs.records.State), and why.
    state: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    handle: Mapped[str] = mapped_column(String(128), default="")
    stop: Mapped[str] = mapped_column(String(16), default="")  # why it is to end, once it is
    stopped_by: Mapped[str] = mapped_column(String(255), default="")
    # Nothing is left of its last container and lease.
    settled: Mapped[bool] = mapped_column(Boolean, default=True, index=True)
    exit_code: Mapped[int | None] = mapped_column(Integer)
    memory_peak: Mapped[int | None] = mapped_column(BigInteger)  # bytes
    gpu_peak: Mapped[float | None] = mapped_column(Float(53))  # percent
    submitted_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    started_at: Mapped[datetime | None] = mapped_column(DateTime)
    ended_at: Mapped[datetime | None] = mapped_column(DateTime, index=True)

    # A number is never another job's, also of one that is forgotten.
    __table_args__ = ({"sqlite_autoincrement": True},)


class DiskUse(Base):
    """What one folder of homes, teams or courses has of the disk, as it was last measured."""

    __tablename__ = "disk_use"

    area: Mapped[str] = mapped_column(String(16), primary_key=True)  # commons.site.storage.AREAS
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    largest: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # {"folder", "bytes"}
    whole: Mapped[bool] = mapped_column(Boolean)  # or the time was over before the end
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)


class Prune(Base):
    """One removal of what nobody needs (``labcommons disk prune``); the last ones are kept."""

    __tablename__ = "prunes"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    removed: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # environments.prune.Removed
    problem: Mapped[str] = mapped_column(Text, default="")  # why it came to no end


class WarmServer(Base):
    """One person's server of a warm start, and what became of it (spawner.warm.records.State)."""

    __tablename__ = "warm_servers"

    warm_id: Mapped[str] = mapped_column(ForeignKey("warm_starts.id"), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), default="waiting")
    tries: Mapped[int] = mapped_column(Integer, default=0)
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)  # of the state
    server_name: Mapped[str] = mapped_column(String(255), default="")  # of theirs, that it is
    container: Mapped[str] = mapped_column(String(128), default="")  # once it is ready
    reason: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # a message: why it is so
    # What the person had chosen last, which is theirs again when nobody comes.
    chosen: Mapped[dict[str, Any] | None] = mapped_column(JSON)

    __table_args__ = (Index("ix_warm_servers_state", "state"),)


class SshKey(Base):
    """A public key with which somebody reaches their servers by SSH (commons.store.ssh_keys)."""

    __tablename__ = "ssh_keys"

    username: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    line: Mapped[str] = mapped_column(Text)  # kind and key, without the comment
    name: Mapped[str] = mapped_column(String(100))
    added_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    added_by: Mapped[str] = mapped_column(String(255))
    used_at: Mapped[datetime | None] = mapped_column(DateTime)
