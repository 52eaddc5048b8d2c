"""REST about reservations: everybody sees them, administrators make them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session

from commons.messages import Locale
from commons.rights import Action, check
from commons.scopes import SITE, Scope, of_account
from commons.store.models import GpuReservation
from commons.web.operations import Part, Route, operation
from commons.web.refused import Refused
from hub_ext.console import quota_schemas as schemas
from hub_ext.console.handlers import Api
from spawner.gpu import views
from spawner.gpu.ledger import reservations
from spawner.gpu.policy.promises import Shortage
from spawner.gpu.policy.state import Window

WEEK = 7 * 86400.0


def shown(
    row: GpuReservation, now: float, locale: Locale, unkept: Iterable[Shortage] = ()
) -> dict[str, Any]:
    """A reservation with its windows of the next seven days; times in ISO 8601."""
    found = reservations.show(row, now, now + WEEK, unkept)
    for window in found["windows"]:
        window["start"], window["end"] = views.iso(window["start"]), views.iso(window["end"])
    for one in found["unkept"]:
        one["start"] = views.iso(one["start"])
        one["reasons"] = [reason.as_json(locale) for reason in one["reasons"]]
    return found


def _whose(row: GpuReservation) -> Scope:
    return of_account(row.subject) or SITE


def clash_details(clash: reservations.ReservationClash) -> list[dict[str, Any]]:
    """The first clashes, for a program."""

    def window(one: Window) -> dict[str, Any]:
        return {
            "reservation": one.reservation,
            "name": one.name,
            "subject": one.subject,
            "start": views.iso(one.start),
            "end": views.iso(one.end),
        }

    return [{"wanted": window(mine), "with": window(other)} for mine, other in clash.clashes[:20]]


class ReservationsApi(Api):
    """``api/v1/reservations``: GET, and POST by administrators."""

    @operation("All that stand", schemas.Reservations)
    async def get(self) -> None:
        """All that stand, with their windows of the next seven days."""
        now = time.time()

        def work(session: Session) -> list[dict[str, Any]]:
            unkept = reservations.unkept_soon(session, now, reservations.WATCHED)
            return [shown(row, now, self.reading, unkept) for row in reservations.standing(session)]

        self.reply({"reservations": await self.read(work)})

    @operation(
        "Reserve",
        schemas.Reservation,
        status=201,
        body=reservations.ReservationSpec,
        refusals={
            409: "another one is in the way: error.clashes; or it cannot be kept as things are: "
            "error.reasons, and anyway reserves it all the same"
        },
        admins=True,
    )
    async def post(self, body: dict[str, Any]) -> None:
        """What is wrong with it, ``reservations.check`` says."""
        by, site, now = self.viewer.name, self.site, time.time()

        def work(session: Session) -> dict[str, Any]:
            spec = reservations.check(body, site)
            try:
                return shown(reservations.create(session, spec, by, now), now, self.reading)
            except reservations.ReservationClash as clash:
                raise Refused(clash, self._, clashes=clash_details(clash)) from clash

        made = await self.change(work)
        self.record("reservation-change", done="create", reservation=made["id"])
        self.reply(made)


class ReservationApi(Api):
    """``api/v1/reservations/ID``: GET, and DELETE by administrators and who looks after it."""

    @operation("One reservation", schemas.Reservation)
    async def get(self, reservation: str) -> None:
        """One, with its windows of the next seven days."""
        now = time.time()

        def work(session: Session) -> dict[str, Any]:
            unkept = reservations.unkept_soon(session, now, reservations.WATCHED)
            return shown(reservations.get(session, reservation), now, self.reading, unkept)

        self.reply(await self.read(work))

    @operation("Cancel it: for administrators, and who leads its team or course", schemas.Cancelled)
    async def delete(self, reservation: str) -> None:
        """Cancel it."""

        def work(session: Session) -> dict[str, Any]:
            check(self.viewer, Action.GIVE_UP, _whose(reservations.get(session, reservation)))
            row = reservations.cancel(session, reservation)
            return {"id": row.id, "name": row.name, "cancelled": True}

        done = await self.change(work)
        self.record("reservation-change", done="cancel", reservation=done["id"])
        self.reply(done)


class SkipApi(Api):
    """``POST api/v1/reservations/ID/skip``."""

    @operation(
        "Leave out a day: for administrators, and who leads its team or course",
        schemas.Reservation,
        body=schemas.Skip,
    )
    async def post(self, reservation: str, body: schemas.Skip) -> None:
        """Leave out one day."""
        day, now = body.day, time.time()

        def work(session: Session) -> dict[str, Any]:
            check(self.viewer, Action.GIVE_UP, _whose(reservations.get(session, reservation)))
            return shown(reservations.skip(session, reservation, day), now, self.reading)

        done = await self.change(work)
        self.record("reservation-change", done="skip", reservation=done["id"], day=day)
        self.reply(done)


_RESERVATION = {"reservation": Part("its id")}
ROUTES = (
    Route("/api/v1/reservations", ReservationsApi),
    Route("/api/v1/reservations/{reservation}", ReservationApi, _RESERVATION),
    Route("/api/v1/reservations/{reservation}/skip", SkipApi, _RESERVATION),
)
