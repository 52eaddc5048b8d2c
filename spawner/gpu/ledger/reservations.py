"""Reservations in the store: made, listed, skipped for a day, cancelled; one transaction each."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import date, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons import notices
from commons.errors import BadRequest, NotAvailable, WrongValue
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import Keeper, accounts_known, groups_of_site, of_account
from commons.site import Site
from commons.store.models import GpuDevice, GpuReservation, utcnow
from commons.units import parse_duration
from spawner.gpu.ledger.snapshot import read_snapshot, reservation_of
from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.promises import Shortage, unkept
from spawner.gpu.policy.reasons import shown_moment
from spawner.gpu.policy.reservations import Reservation, clashes, occurrences
from spawner.gpu.policy.state import Window
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.document import DURATION, Label, TimeZone
from spawner.gpu.quotas.messages import NOT_A_MAPPING
from spawner.gpu.quotas.problems import Problem, ProblemsError, read_problems, unknown_name

DAY = 86400.0
AHEAD = 3660 * DAY
# For how long, from its first window on, clashes are looked for: a year of a weekly course.
HORIZON = 366 * DAY
LONGEST = 31 * DAY
# For how long, from its first window on, it is looked whether a new one can be kept.
WATCHED = 14 * DAY
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


DEVICE_UNKNOWN = Text(
    "device_unknown", N_("There is no GPU “{device}” here; “labcommons gpu list” names them.")
)
GPU_TYPE_UNKNOWN = Text(
    "gpu_type_unknown", N_("There is no GPU type “{model}” here. Types: {known}.")
)
RESERVATION_PAST = Text(
    "reservation_past", N_("This reservation is over already, or more than ten years ahead.")
)
DAY_NOT_RESERVED = Text(
    "day_not_reserved", N_("“{name}” is not on {day}, or that day is left out already.")
)
RESERVATION_CLASH = Text(
    "reservation_clash",
    N_("So many GPUs do not exist here: {gpus} were to be reserved."),
    dict.fromkeys(("start", "end"), shown_moment),
    when={
        "name": N_(
            "“{name}” ({subject}) is in the way: from {start} to {end} its GPUs are "
            "reserved. Choose another time, or fewer or other GPUs."
        )
    },
)
RESERVATION_UNKEPT = Text(
    "reservation_unkept",
    N_("As things are, this reservation cannot be kept. Nothing was saved. Reserve it anyway?"),
)
RESERVATION_AMBIGUOUS = Text(
    "reservation_ambiguous", N_("There are several reservations “{id}”; use the id.")
)
RESERVATION_UNKNOWN = Text(
    "reservation_unknown", N_("There is no reservation “{id}”, or it was cancelled.")
)
# Of one key, after its name.
NOT_A_MOMENT = Text("not_a_moment", N_("must be a day and a time, such as 2026-11-24T10:00"))
NOT_A_DAY = Text("not_a_day", N_("must be a day, such as 2026-12-18"))
NOT_A_GPU_COUNT = Text("not_a_gpu_count", N_("must be a whole number, 1 or more"))
NOT_A_WEEKDAY = Text("not_a_weekday", N_("must be mon, tue, wed, thu, fri, sat or sun"))
DURATION_OUT_OF_RANGE = Text("duration_out_of_range", N_("must be from a minute to 31 days"))
GPUS_OR_DEVICES = Text("gpus_or_devices", N_("needs either gpus, how many, or devices, which"))
TYPE_WITH_DEVICES = Text("type_with_devices", N_("gpu_type goes with gpus, not with devices"))
WEEKDAYS_NOT_WEEKLY = Text("weekdays_not_weekly", N_("weekdays goes with repeat: weekly"))
UNTIL_ONCE = Text("until_once", N_("until goes with repeat: daily or weekly"))
LONGER_THAN_INTERVAL = Text(
    "longer_than_interval", N_("duration must end before the next time begins")
)
UNTIL_BEFORE_START = Text("until_before_start", N_("until must not be before starts"))
NOT_ONE_OF_ACCOUNTS = Text("not_one_of_accounts", N_("must be one of: {known}"))
TEAM_OR_COURSE_ABSENT = Text(
    "team_or_course_absent", N_("there is no such team or course in the site file.")
)
DAY_WRONG = Text("day_wrong", N_("“{day}” is not a day, such as 2026-12-18."))


class ReservationError(ProblemsError):
    """What was asked for is no reservation."""

    text = Text("reservation_wrong", N_("This reservation cannot be made."))


class ReservationClash(NotAvailable):
    """Other reservations are in the way; ``clashes`` pairs each window with one of theirs."""

    def __init__(self, found: tuple[tuple[Window, Window], ...]) -> None:
        mine, other = found[0]
        self.clashes = found
        if mine is other or mine.reservation == other.reservation:
            super().__init__(RESERVATION_CLASH(gpus=mine.gpus))
            return
        super().__init__(
            RESERVATION_CLASH(
                gpus=mine.gpus,
                name=other.name,
                subject=other.subject,
                start=other.start,
                end=other.end,
            )
        )


class ReservationUnkept(NotAvailable):
    """It could not be kept as things are; ``reasons`` say why, of its first windows."""

    def __init__(self, shortage: Shortage) -> None:
        super().__init__(RESERVATION_UNKEPT(), *shortage.reasons)


# -- what may be asked ------------------------------------------------------------------------


def _wall(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(
        r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?", value
    ):
        raise WrongValue(NOT_A_MOMENT())
    return value


def _day(value: object) -> object:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value).isoformat()
        except ValueError:
            pass
    raise WrongValue(NOT_A_DAY())


def _gpus(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
        raise WrongValue(NOT_A_GPU_COUNT())
    return value


def _weekday(value: object) -> object:
    if isinstance(value, str) and value.lower()[:3] in WEEKDAYS:
        return WEEKDAYS.index(value.lower()[:3])
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 6:
        return value
    raise WrongValue(NOT_A_WEEKDAY())


def _duration(value: object) -> object:
    seconds = parse_duration(value)
    if not 60 <= seconds <= LONGEST:
        raise WrongValue(DURATION_OUT_OF_RANGE())
    return seconds


Repeat = Literal["once", "daily", "weekly"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class ReservationSpec(BaseModel):
    """What an administrator asks for. ``starts`` is wall time in ``timezone``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Label
    subject: str
    starts: Annotated[datetime, BeforeValidator(_wall), WithJsonSchema({"type": "string"})] = Field(
        description="wall time in the time zone: 2026-11-24T10:00"
    )
    duration: Annotated[int, BeforeValidator(_duration), DURATION]
    timezone: TimeZone = Field(description="IANA name, such as Europe/Berlin")
    gpus: Annotated[int, BeforeValidator(_gpus)] | None = None
    gpu_type: str = ""
    devices: list[str] = Field([], description="certain GPUs, instead of gpus")
    repeat: Repeat = "once"
    weekdays: list[
        Annotated[
            int, BeforeValidator(_weekday), WithJsonSchema({"type": "string", "enum": [*WEEKDAYS]})
        ]
    ] = []
    until: Annotated[str, BeforeValidator(_day)] | None = Field(None, description="the last day")
    anyway: bool = Field(False, description="also where it cannot be kept as things are")

    @model_validator(mode="after")
    def _together(self) -> ReservationSpec:
        if (self.gpus is None) == (not self.devices):
            raise WrongValue(GPUS_OR_DEVICES())
        if self.devices and self.gpu_type:
            raise WrongValue(TYPE_WITH_DEVICES())
        if self.weekdays and self.repeat != "weekly":
            raise WrongValue(WEEKDAYS_NOT_WEEKLY())
        if self.repeat == "once" and self.until:
            raise WrongValue(UNTIL_ONCE())
        longest = {"once": LONGEST, "daily": DAY, "weekly": DAY * (1 if self.weekdays else 7)}
        if self.duration > longest[self.repeat]:
            raise WrongValue(LONGER_THAN_INTERVAL())
        if self.until and self.until < self.starts.date().isoformat():
            raise WrongValue(UNTIL_BEFORE_START())
        return self


def check(wanted: object, site: Site) -> ReservationSpec:
    """A well-formed reservation, for somebody who exists. Raises ReservationError."""
    if not isinstance(wanted, dict):
        raise ReservationError([Problem("", NOT_A_MAPPING())])
    try:
        spec = ReservationSpec.model_validate(wanted)
    except ValidationError as error:
        raise ReservationError(read_problems(error)) from error
    scope, known = of_account(spec.subject), groups_of_site(site)
    if scope and scope.keeper is Keeper.GROUP and scope not in known:
        subjects = [one.account for one in known]
        absent = TEAM_OR_COURSE_ABSENT(name=spec.subject)
        raise ReservationError([unknown_name("subject", absent, spec.subject, subjects)])
    if scope is None or not scope.owner.strip():
        raise ReservationError([Problem("subject", NOT_ONE_OF_ACCOUNTS(known=accounts_known()))])
    return spec


# -- the store --------------------------------------------------------------------------------


def create(
    session: Session,
    spec: ReservationSpec,
    by: str,
    now: float | None = None,
    skipped: Iterable[str] = (),
) -> GpuReservation:
    """Reserve, but for the days that are ``skipped`` (ISO 8601).

    Raises BadRequest for what is over already and for GPUs that do not exist, ReservationClash
    where another reservation is in the way, and, unless it is wanted ``anyway``, ReservationUnkept
    where as things are it, or another one because of it, could not be kept.
    """
    now = time.time() if now is None else now
    quota_store.lock(session)
    rows = {row.id: row for row in session.scalars(select(GpuDevice).where(GpuDevice.present))}
    missing = [one for one in spec.devices if one not in rows]
    if missing:
        raise BadRequest(DEVICE_UNKNOWN(device=missing[0]))
    models = sorted({row.model for row in rows.values()})
    if spec.gpu_type and spec.gpu_type not in models:
        raise BadRequest(GPU_TYPE_UNKNOWN(model=spec.gpu_type, known=", ".join(models)))
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
        skipped=sorted(skipped),
        created_by=by[:255],
    )
    new = reservation_of(row)
    first = next(iter(occurrences(new, now, now + AHEAD)), None)
    if first is None:
        raise BadRequest(RESERVATION_PAST())
    devices = [Device(one.id, one.model, one.memory) for one in rows.values()]
    # From its first window on; what reaches into that began at most the longest time before.
    start = max(now, first.start - LONGEST)
    found = clashes(new, map(reservation_of, standing(session)), devices, start, HORIZON)
    if found:
        raise ReservationClash(found)
    if not spec.anyway:
        _must_be_kept(session, new, first.end + WATCHED, now)
    session.add(row)
    quota_store.bump(session)
    session.flush()
    return row


def _must_be_kept(session: Session, new: Reservation, until: float, now: float) -> None:
    """Raise ReservationUnkept where a new reservation, or another for its sake, has too few."""
    before = read_snapshot(session, now, until - now)
    windows = (*before.windows, *occurrences(new, now, until))
    was = {(one.window.reservation, one.window.start): one for one in unkept(before, until)}
    for found in unkept(replace(before, windows=windows), until):
        known = was.get((found.window.reservation, found.window.start))
        if known is None or found.missing > known.missing:
            raise ReservationUnkept(found)


def unkept_soon(session: Session, now: float, ahead: float) -> tuple[Shortage, ...]:
    """Of the windows of the next ``ahead`` seconds those that cannot be kept as things are."""
    return unkept(read_snapshot(session, now, ahead), now + ahead)


def tell_unkept(session: Session, found: Collection[Shortage]) -> None:
    """Tell who made a reservation, and the person whom it is for, that it cannot be kept; once
    for each time that it is on.
    """
    rows = {row.id: row for row in standing(session)} if found else {}
    for one in found:
        row = rows.get(one.window.reservation)
        scope = of_account(row.subject) if row else None
        if row is None:
            continue
        people = {row.created_by}
        if scope is not None and scope.keeper is Keeper.PERSON:
            people.add(scope.owner)
        for person in people:
            notices.add(
                session,
                username=person,
                lease_id=None,
                code="reservation_unkept",
                data={"name": row.name, "start_at": one.window.start},
                key=f"reservation_unkept:{row.id}:{one.window.start:.0f}:{person}"[:160],
                more=one.reasons,
            )


def standing(session: Session) -> list[GpuReservation]:
    """All that have not been cancelled, by name."""
    query = select(GpuReservation).where(GpuReservation.cancelled_at.is_(None))
    return list(session.scalars(query.order_by(GpuReservation.name, GpuReservation.id)))


def get(session: Session, reservation_id: str) -> GpuReservation:
    """One that stands, by its id or, where only one has it, its name. Raises BadRequest."""
    found = [row for row in standing(session) if reservation_id in (row.id, row.name)]
    if len(found) != 1:
        text = RESERVATION_AMBIGUOUS if found else RESERVATION_UNKNOWN
        error = BadRequest(text(id=reservation_id[:80]))
        error.status = 404
        raise error
    return found[0]


def cancel(session: Session, reservation_id: str) -> GpuReservation:
    """Give the reserved GPUs back to everybody; what runs inside goes on."""
    quota_store.lock(session)
    row = get(session, reservation_id)
    row.cancelled_at = utcnow()
    quota_store.bump(session)
    return row


def skip(session: Session, reservation_id: str, day: str) -> GpuReservation:
    """Leave out one day (ISO 8601, in the reservation's zone). Raises BadRequest where the
    reservation is not on that day.
    """
    quota_store.lock(session)
    row = get(session, reservation_id)
    try:
        wanted = date.fromisoformat(day)
    except ValueError as error:
        raise BadRequest(DAY_WRONG(day=day[:40])) from error
    if wanted.isoformat() not in {start_day(row, window) for window in _around(row, wanted)}:
        raise BadRequest(DAY_NOT_RESERVED(name=row.name, day=wanted.isoformat()))
    row.skipped = sorted({*row.skipped, wanted.isoformat()})
    quota_store.bump(session)
    return row


def _around(row: GpuReservation, day: date) -> tuple[Window, ...]:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(row.timezone)).timestamp()
    return occurrences(reservation_of(row), noon - DAY, noon + DAY)


def start_day(row: GpuReservation, window: Window) -> str:
    """The day on which a window begins, in the reservation's zone: what ``skip`` takes."""
    return datetime.fromtimestamp(window.start, ZoneInfo(row.timezone)).date().isoformat()


def show(
    row: GpuReservation, start: float, end: float, unkept: Iterable[Shortage] = ()
) -> dict[str, Any]:
    """A reservation with its windows that overlap a span, as plain data; of ``unkept`` its own,
    whose ``reasons`` are messages.
    """
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
        "unkept": [
            {"start": one.window.start, "missing": one.missing, "reasons": list(one.reasons)}
            for one in unkept
            if one.window.reservation == row.id
        ],
    }
