"""What REST about quotas and reservations takes and answers."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from commons.web.openapi import Problem, Reason
from commons.web.operations import Count, Query, Sent, Time, Told
from spawner.gpu.ledger.reservations import Repeat, Weekday
from spawner.gpu.quotas.document import AccountSpec, QuotaDocument, SettingsSpec


class Quota(AccountSpec, SettingsSpec):
    """What is set for one subject: of a person, group or course, or of the settings of all."""

    model_config = ConfigDict(title="Quota")


class Change(Told):
    """One key of one subject."""

    subject: str
    key: str
    before: Any
    after: Any


class Quotas(Told):
    """What is set, by subject, and the same as a document."""

    quotas: dict[str, Quota]
    document: QuotaDocument


class SubjectQuota(Told):
    """What is set for a subject, and what was changed."""

    subject: str
    quota: Quota
    changes: list[Change]


class Apply(Sent):
    """A document, and how it is applied."""

    document: Any = Field(
        None,
        description="quotas.yaml as a mapping, or its text",
        json_schema_extra={"type": ["object", "string"]},
    )
    dry_run: bool = Field(False, description="only say what it would change")
    prune: bool = Field(False, description="remove what it does not name")
    strict: bool = Field(False, description="refuse unknown people and GPU types")


class Affected(Told):
    """A request or lease that a change touches."""

    lease: str
    user: str
    account: str
    gpus: Count
    gpu_type: str


class Moved(Affected):
    """A request whose expected start would be another; null: not known."""

    before: Time | None
    after: Time | None
    sooner: bool


class Effects(Told):
    """What a change would do now."""

    starts: list[Affected] = Field(description="would start at once")
    waits: list[Affected] = Field(description="would start now, and would wait then")
    moved: list[Moved]
    ends: list[Affected] = Field(description="would have to give borrowed GPUs back")
    people: list[str] = Field(description="who hold or wait, and whose limits change")


class Applied(Told):
    """What was, or would be, changed."""

    effects: Effects | None = Field(description="of a dry run")

    applied: bool
    changes: list[Change]
    warnings: list[Problem]


class OfSubject(Query):
    """Whose history."""

    subject: str | None = Field(None, description="of this subject alone")


class PastChange(Told):
    """What was set for a subject before and after; null: nothing."""

    at: Time
    by: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class History(Told):
    """The last changes, newest first."""

    changes: list[PastChange]


# -- reservations -----------------------------------------------------------------------------


class Window(Told):
    """One time that is reserved."""

    start: Time
    end: Time
    day: str


class Unkept(Told):
    """A window that cannot have all its GPUs."""

    start: Time
    missing: Count = Field(description="GPUs")
    reasons: list[Reason]


class Reservation(Told):
    """GPUs that are kept for somebody at certain times."""

    id: str
    name: str
    subject: str
    gpus: Count | None
    gpu_type: str
    devices: list[str] = Field(description="certain GPUs, instead of gpus")
    starts: str = Field(description="wall time in the time zone: 2026-11-24T10:00")
    duration: Count = Field(description="seconds")
    timezone: str = Field(description="IANA name, such as Europe/Berlin")
    repeat: Repeat
    weekdays: list[Weekday]
    until: str | None = Field(description="the last day")
    skipped: list[str] = Field(description="days that are left out")
    created_by: str
    windows: list[Window] = Field(description="of the next seven days")
    unkept: list[Unkept] = Field(
        description="windows of the next two weeks that cannot be kept as things are"
    )


class Reservations(Told):
    """All that stand."""

    reservations: list[Reservation]


class Cancelled(Told):
    """The reservation that is no more."""

    id: str
    name: str
    cancelled: bool


class Skip(Sent):
    """A day to leave out."""

    day: str = Field("", description="such as 2026-12-24")
