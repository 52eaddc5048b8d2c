"""Tables of our database. All times are UTC, without time zone, as SQLite keeps them."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def utcnow() -> datetime:
    """Now, as the tables keep it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """Declarative base."""


class LeaseState(StrEnum):
    """A lease is held before its container exists, active while it runs, then ended."""

    HELD = "held"
    ACTIVE = "active"
    ENDED = "ended"


# The moves a lease may make; anything else is a defect and refused.
LEASE_MOVES: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.HELD: frozenset({LeaseState.ACTIVE, LeaseState.ENDED}),
    LeaseState.ACTIVE: frozenset({LeaseState.ENDED}),
    LeaseState.ENDED: frozenset(),
}


class GpuDevice(Base):
    """One GPU that can be leased, as the inventory last saw it."""

    __tablename__ = "gpu_devices"

    id: Mapped[str] = mapped_column(String(96), primary_key=True)
    node: Mapped[str] = mapped_column(String(255), default="local")
    model: Mapped[str] = mapped_column(String(80))
    memory: Mapped[int] = mapped_column(BigInteger)  # bytes
    simulated: Mapped[bool] = mapped_column(Boolean, default=False)
    # False once the inventory no longer lists it: kept for the leases that name it.
    present: Mapped[bool] = mapped_column(Boolean, default=True)
    seen_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)


class Lease(Base):
    """Devices owed to one server of one person, from before its container to after it.

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
    held_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    active_at: Mapped[datetime | None] = mapped_column(DateTime)
    ended_at: Mapped[datetime | None] = mapped_column(DateTime)
    ended_reason: Mapped[str | None] = mapped_column(String(64))
    container_id: Mapped[str | None] = mapped_column(String(64))
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
    """One device of a lease. The unique index makes a double lease impossible."""

    __tablename__ = "gpu_lease_devices"

    lease_id: Mapped[str] = mapped_column(ForeignKey("gpu_leases.id"), primary_key=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("gpu_devices.id"), primary_key=True)
    released_at: Mapped[datetime | None] = mapped_column(DateTime)
    lease: Mapped[Lease] = relationship(back_populates="devices")

    __table_args__ = (
        Index(
            "uq_gpu_lease_devices_live",
            "device_id",
            unique=True,
            sqlite_where=text("released_at IS NULL"),
            postgresql_where=text("released_at IS NULL"),
        ),
    )


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


class Kernel(Base):
    """One kernel that the registry has written for an environment version."""

    __tablename__ = "kernels"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(128))  # conda-<source>-<env>-<kernel>
    source: Mapped[str] = mapped_column(String(64))
    environment: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    display_name: Mapped[str] = mapped_column(String(255))
    language: Mapped[str] = mapped_column(String(64))
    prefix: Mapped[str] = mapped_column(String(255))
    registered_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)

    __table_args__ = (Index("uq_kernels", "name", "environment", "version", unique=True),)


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


class DirectoryFailures(Base):
    """Failed logins of a name or from an address, within the throttle's window."""

    __tablename__ = "directory_failures"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    times: Mapped[list[float]] = mapped_column(JSON)  # seconds since 1970
    last: Mapped[float] = mapped_column(Float(53))
