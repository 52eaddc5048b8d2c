"""Reservations in the store: made, listed, skipped for a day, cancelled; one transaction each."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Collection
from datetime import date, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub_ext.i18n import N_
from hub_ext.site import Site
from hub_ext.store.models import GpuDevice, GpuReservation, utcnow
from spawner.errors import BadRequest, NotAvailable
from spawner.gpu import quotas
from spawner.gpu.devices import Device
from spawner.gpu.durations import parse_duration
from spawner.gpu.problems import Problem, ProblemsError, read_problems, unknown_name
from spawner.gpu.quota_document import Label, TimeZone
from spawner.gpu.reservations import clashes, occurrences
from spawner.gpu.snapshot import reservation_of
from spawner.gpu.state import Window

DAY = 86400.0
AHEAD = 3660 * DAY
# For how long, from its first window on, clashes are looked for: a year of a weekly course.
HORIZON = 366 * DAY
LONGEST = 31 * DAY
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class ReservationError(ProblemsError):
    """What was asked for is no reservation."""

    code = "reservation_wrong"


class ReservationClash(NotAvailable):
    """Other reservations are in the way; ``clashes`` pairs each window with one of theirs."""

    def __init__(self, found: tuple[tuple[Window, Window], ...]) -> None:
        mine, other = found[0]
        self.clashes = found
        if mine is other or mine.reservation == other.reservation:
            message = N_("So many GPUs do not exist here: {gpus} were to be reserved.")
        else:
            message = N_(
                "“{name}” ({subject}) is in the way: from {start} to {end} UTC its GPUs are "
                "reserved. Choose another time, or fewer or other GPUs."
            )
        params = {
            "gpus": mine.gpus,
            "name": other.name,
            "subject": other.subject,
            "start": f"{datetime.fromtimestamp(other.start, ZoneInfo('UTC')):%Y-%m-%d %H:%M}",
            "end": f"{datetime.fromtimestamp(other.end, ZoneInfo('UTC')):%Y-%m-%d %H:%M}",
        }
        super().__init__("reservation_clash", message, params)


# -- what may be asked ------------------------------------------------------------------------


def _wall(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(
        r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?", value
    ):
        raise ValueError(N_("must be a day and a time, such as 2026-11-24T10:00"))
    return value


def _day(value: object) -> object:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass
    raise ValueError(N_("must be a day, such as 2026-12-18"))


def _gpus(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
        raise ValueError(N_("must be a whole number, 1 or more"))
    return value


def _weekday(value: object) -> object:
    if isinstance(value, str) and value.lower()[:3] in WEEKDAYS:
        return WEEKDAYS.index(value.lower()[:3])
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 6:
        return value
    raise ValueError(N_("must be mon, tue, wed, thu, fri, sat or sun"))


def _duration(value: object) -> object:
    seconds = parse_duration(value)
    if not 60 <= seconds <= LONGEST:
        raise ValueError(N_("must be from a minute to 31 days"))
    return seconds


class ReservationSpec(BaseModel):
    """What an administrator asks for. ``starts`` is wall time in ``timezone``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Label
    subject: str
    starts: Annotated[datetime, BeforeValidator(_wall)]
    duration: Annotated[int, BeforeValidator(_duration)]
    timezone: TimeZone
    gpus: Annotated[int, BeforeValidator(_gpus)] | None = None
    gpu_type: str = ""
    devices: list[str] = []
    repeat: Literal["once", "daily", "weekly"] = "once"
    weekdays: list[Annotated[int, BeforeValidator(_weekday)]] = []
    until: Annotated[str, BeforeValidator(_day)] | None = None

    @model_validator(mode="after")
    def _together(self) -> ReservationSpec:
        if (self.gpus is None) == (not self.devices):
            raise ValueError(N_("needs either gpus, how many, or devices, which"))
        if self.devices and self.gpu_type:
            raise ValueError(N_("gpu_type goes with gpus, not with devices"))
        if self.weekdays and self.repeat != "weekly":
            raise ValueError(N_("weekdays goes with repeat: weekly"))
        if self.repeat == "once" and self.until:
            raise ValueError(N_("until goes with repeat: daily or weekly"))
        longest = {"once": LONGEST, "daily": DAY, "weekly": DAY * (1 if self.weekdays else 7)}
        if self.duration > longest[self.repeat]:
            raise ValueError(N_("duration must end before the next time begins"))
        if self.until and self.until < self.starts.date().isoformat():
            raise ValueError(N_("until must not be before starts"))
        return self


def check(wanted: object, site: Site) -> ReservationSpec:
    """A well-formed reservation, for somebody who exists. Raises ReservationError."""
    if not isinstance(wanted, dict):
        raise ReservationError([Problem("", N_("must be a mapping of keys"))])
    try:
        spec = ReservationSpec.model_validate(wanted)
    except ValidationError as error:
        raise ReservationError(read_problems(error)) from error
    kind, _, name = spec.subject.partition(":")
    known: dict[str, Collection[str]] = {
        "group": site.directory.teams,
        "course": site.directory.courses,
    }
    if kind in known and name not in known[kind]:
        subjects = [f"{one}:{each}" for one, names in known.items() for each in names]
        message = N_("there is no such team or course in the site file.")
        raise ReservationError([unknown_name("subject", message, spec.subject, subjects)])
    if kind not in (*known, "user") or not name.strip():
        raise ReservationError(
            [Problem("subject", N_("must be group:NAME, course:NAME or user:NAME"))]
        )
    return spec


# -- the store --------------------------------------------------------------------------------


def create(
    session: Session, spec: ReservationSpec, by: str, now: float | None = None
) -> GpuReservation:
    """Reserve. Raises BadRequest for what is over already and for GPUs that do not exist,
    ReservationClash where another reservation is in the way.
    """
    now = time.time() if now is None else now
    quotas.lock(session)
    rows = {row.id: row for row in session.scalars(select(GpuDevice).where(GpuDevice.present))}
    missing = [one for one in spec.devices if one not in rows]
    if missing:
        raise BadRequest(
            "device_unknown",
            N_("There is no GPU “{device}” here; “labcommons gpu list” names them."),
            {"device": missing[0]},
        )
    models = sorted({row.model for row in rows.values()})
    if spec.gpu_type and spec.gpu_type not in models:
        raise BadRequest(
            "gpu_type_unknown",
            N_("There is no GPU type “{model}” here. Types: {known}."),
            {"model": spec.gpu_type, "known": ", ".join(models)},
        )
    row = GpuReservation(
        id=uuid.uuid4().hex[:12],
        name=spec.name,
        subject=spec.subject,
        gpus=len(spec.devices) or spec.gpus or 0,
        gpu_type=spec.gpu_type,
        devices=spec.devices,
        starts=spec.starts,
        duration=spec.duration,
        timezone=spec.timezone,
        repeat=spec.repeat,
        weekdays=sorted(set(spec.weekdays)),
        until=spec.until,
        skipped=[],
        created_by=by[:255],
    )
    new = reservation_of(row)
    first = next(iter(occurrences(new, now, now + AHEAD)), None)
    if first is None:
        raise BadRequest(
            "reservation_past",
            N_("This reservation is over already, or more than ten years ahead."),
        )
    devices = [Device(one.id, one.model, one.memory) for one in rows.values()]
    # From its first window on; what reaches into that began at most the longest time before.
    start = max(now, first.start - LONGEST)
    found = clashes(new, map(reservation_of, standing(session)), devices, start, HORIZON)
    if found:
        raise ReservationClash(found)
    session.add(row)
    quotas.bump(session)
    session.flush()
    return row


def standing(session: Session) -> list[GpuReservation]:
    """All that have not been cancelled, by name."""
    query = select(GpuReservation).where(GpuReservation.cancelled_at.is_(None))
    return list(session.scalars(query.order_by(GpuReservation.name, GpuReservation.id)))


def get(session: Session, reservation_id: str) -> GpuReservation:
    """One that stands, by its id or, where only one has it, its name. Raises BadRequest."""
    found = [row for row in standing(session) if reservation_id in (row.id, row.name)]
    if len(found) != 1:
        error = BadRequest(
            "reservation_unknown",
            N_("There are several reservations “{id}”; use the id.")
            if found
            else N_("There is no reservation “{id}”, or it was cancelled."),
            {"id": reservation_id[:80]},
        )
        error.status = 404
        raise error
    return found[0]


def cancel(session: Session, reservation_id: str) -> GpuReservation:
    """Give the reserved GPUs back to everybody; what runs inside goes on."""
    quotas.lock(session)
    row = get(session, reservation_id)
    row.cancelled_at = utcnow()
    quotas.bump(session)
    return row


def skip(session: Session, reservation_id: str, day: str) -> GpuReservation:
    """Leave out one day (ISO 8601, in the reservation's zone). Raises BadRequest where the
    reservation is not on that day.
    """
    quotas.lock(session)
    row = get(session, reservation_id)
    try:
        wanted = date.fromisoformat(day)
    except ValueError as error:
        raise BadRequest(
            "day_wrong", N_("“{day}” is not a day, such as 2026-12-18."), {"day": day[:40]}
        ) from error
    if wanted.isoformat() not in {start_day(row, window) for window in _around(row, wanted)}:
        raise BadRequest(
            "day_not_reserved",
            N_("“{name}” is not on {day}, or that day is left out already."),
            {"name": row.name, "day": wanted.isoformat()},
        )
    row.skipped = sorted({*row.skipped, wanted.isoformat()})
    quotas.bump(session)
    return row


def _around(row: GpuReservation, day: date) -> tuple[Window, ...]:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(row.timezone)).timestamp()
    return occurrences(reservation_of(row), noon - DAY, noon + DAY)


def start_day(row: GpuReservation, window: Window) -> str:
    """The day on which a window begins, in the reservation's zone: what ``skip`` takes."""
    return datetime.fromtimestamp(window.start, ZoneInfo(row.timezone)).date().isoformat()


def show(row: GpuReservation, start: float, end: float) -> dict[str, Any]:
    """A reservation with its windows that overlap a span, as plain data ready for JSON."""
    return {
        "id": row.id,
        "name": row.name,
        "subject": row.subject,
        "gpus": row.gpus,
        "gpu_type": row.gpu_type,
        "devices": row.devices,
        "starts": row.starts.isoformat(timespec="minutes"),
        "duration": row.duration,
        "timezone": row.timezone,
        "repeat": row.repeat,
        "weekdays": [WEEKDAYS[day] for day in row.weekdays],
        "until": row.until,
        "skipped": row.skipped,
        "created_by": row.created_by,
        "windows": [
            {"start": window.start, "end": window.end, "day": start_day(row, window)}
            for window in occurrences(reservation_of(row), start, end)
        ],
    }
