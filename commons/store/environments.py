"""Tables of environments: the jobs that build those outside images, what was built, known holes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Enum,
    Index,
    Integer,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from commons.store.models import Base, utcnow


class BuildState(StrEnum):
    """A job waits, runs, and ends in one of three ways."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


# The moves a job may make. A running one goes back to the queue when the hub was restarted.
BUILD_MOVES: dict[BuildState, frozenset[BuildState]] = {
    BuildState.QUEUED: frozenset({BuildState.RUNNING, BuildState.CANCELLED, BuildState.FAILED}),
    BuildState.RUNNING: frozenset(
        {BuildState.QUEUED, BuildState.DONE, BuildState.FAILED, BuildState.CANCELLED}
    ),
    BuildState.DONE: frozenset(),
    BuildState.FAILED: frozenset(),
    BuildState.CANCELLED: frozenset(),
}


class EnvironmentBuild(Base):
    """One job: what shall become of one environment. The index lets one run for each."""

    __tablename__ = "environment_builds"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    action: Mapped[str] = mapped_column(String(16))  # create, publish, promote, delete, decide
    scope: Mapped[str] = mapped_column(String(16))  # a row of commons.scopes
    owner: Mapped[str] = mapped_column(String(255), default="")
    name: Mapped[str] = mapped_column(String(64))
    requested_by: Mapped[str] = mapped_column(String(255), index=True)
    address: Mapped[str | None] = mapped_column(String(64))  # the request's, for the audit trail
    # environment.yml and labcommons.yml; a lock where the packages are decided already.
    spec: Mapped[str] = mapped_column(Text, default="")
    words: Mapped[str] = mapped_column(Text, default="")
    lock: Mapped[str] = mapped_column(Text, default="")
    origin: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # of a copy: source, name, version
    state: Mapped[BuildState] = mapped_column(
        Enum(
            BuildState,
            native_enum=False,
            length=16,
            values_callable=lambda states: [state.value for state in states],
        ),
        index=True,
    )
    percent: Mapped[int] = mapped_column(Integer, default=0)
    message: Mapped[str] = mapped_column(Text, default="")  # in English
    # The same for other languages: {"text": as the catalogue has it, "values": {…}}.
    said: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    version: Mapped[str | None] = mapped_column(String(64))  # what came of it, or is decided about
    cancel_asked: Mapped[bool] = mapped_column(Boolean, default=False)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    queued_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    started_at: Mapped[datetime | None] = mapped_column(DateTime)
    ended_at: Mapped[datetime | None] = mapped_column(DateTime)

    __table_args__ = (
        Index(
            "uq_environment_builds_running",
            "scope",
            "owner",
            "name",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
    )


class ScopeEnvironment(Base):
    """One version of a personal, team, course or shared environment, as its build reported it."""

    __tablename__ = "scope_environments"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    scope: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str] = mapped_column(String(255), default="")
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    current: Mapped[bool] = mapped_column(Boolean, default=True)  # what envs/NAME leads to
    built_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    python: Mapped[str | None] = mapped_column(String(32))
    lock_digest: Mapped[str] = mapped_column(String(80), default="")
    size: Mapped[int] = mapped_column(BigInteger, default=0)  # bytes on disk
    spec: Mapped[str] = mapped_column(Text, default="")
    words: Mapped[str] = mapped_column(Text, default="")
    # Large, and wanted for one environment at a time.
    lock: Mapped[str] = mapped_column(Text, default="", deferred=True)
    exports: Mapped[dict[str, str]] = mapped_column(JSON, deferred=True)  # text by format
    packages: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    kernels: Mapped[dict[str, Any]] = mapped_column(JSON)
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    origin: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    tag: Mapped[str | None] = mapped_column(String(64))  # semantic version
    # What its owner, lead or administrator decided since; a new build of it leaves that.
    pinned: Mapped[bool] = mapped_column(Boolean, default=False)
    deprecated_at: Mapped[datetime | None] = mapped_column(DateTime)
    deprecated_reason: Mapped[str | None] = mapped_column(String(500))
    withdrawn_at: Mapped[datetime | None] = mapped_column(DateTime)
    withdrawn_reason: Mapped[str | None] = mapped_column(String(500))

    @property
    def state(self) -> str:
        """``offered``, ``deprecated`` or ``withdrawn``."""
        if self.withdrawn_at:
            return "withdrawn"
        return "deprecated" if self.deprecated_at else "offered"

    __table_args__ = (
        Index("uq_scope_environments", "scope", "owner", "name", "version", unique=True),
    )


class EnvironmentHole(Base):
    """One known hole of one package of one version; ``seen_at`` is when it was first found."""

    __tablename__ = "environment_holes"

    source: Mapped[str] = mapped_column(String(80), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64), primary_key=True)
    hole: Mapped[str] = mapped_column(String(100), primary_key=True)
    package: Mapped[str] = mapped_column(String(128), primary_key=True)
    package_version: Mapped[str] = mapped_column(String(64), primary_key=True)
    severity: Mapped[str] = mapped_column(String(16))
    title: Mapped[str] = mapped_column(String(200), default="")
    fixed: Mapped[str] = mapped_column(String(64), default="")
    blocks: Mapped[bool] = mapped_column(default=False)  # it would be refused if it were built now
    seen_at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)


class EnvironmentScanning(Base):
    """One look at all versions; the last ones are kept."""

    __tablename__ = "environment_scannings"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime, default=utcnow)
    versions: Mapped[int] = mapped_column(Integer, default=0)
    advisories: Mapped[int] = mapped_column(Integer, default=0)
    problem: Mapped[str] = mapped_column(Text, default="")  # why it came to no end
