"""REST about reservations: everybody sees them, administrators make them."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy.orm import Session

from hub_ext.console.handlers import Api, Refused
from hub_ext.i18n import N_
from hub_ext.store.models import GpuReservation
from spawner.gpu import board
from spawner.gpu import reservation_store as reservations
from spawner.gpu.state import Window

WEEK = 7 * 86400.0


def shown(row: GpuReservation, start: float, end: float) -> dict[str, Any]:
    """A reservation with its windows in a span; times in ISO 8601."""
    found = reservations.show(row, start, end)
    for window in found["windows"]:
        window["start"], window["end"] = board.iso(window["start"]), board.iso(window["end"])
    return found


def clash_details(clash: reservations.ReservationClash) -> list[dict[str, Any]]:
    """The first clashes, for a program."""

    def window(one: Window) -> dict[str, Any]:
        return {
            "reservation": one.reservation,
            "name": one.name,
            "subject": one.subject,
            "start": board.iso(one.start),
            "end": board.iso(one.end),
        }

    return [{"wanted": window(mine), "with": window(other)} for mine, other in clash.clashes[:20]]


class ReservationsApi(Api):
    """``api/v1/reservations``: GET, and POST by administrators."""

    async def get(self) -> None:
        """All that stand, with their windows of the next seven days."""
        now = time.time()

        def work(session: Session) -> list[dict[str, Any]]:
            return [shown(row, now, now + WEEK) for row in reservations.standing(session)]

        self.reply({"reservations": await self.read(work)})

    async def post(self) -> None:
        """Reserve; 409 with the clash where another one is in the way."""
        self.need_admin()
        sent = self.body(**dict.fromkeys(reservations.ReservationSpec.model_fields, object))
        wanted = {key: value for key, value in sent.items() if value is not None}
        by, site, now = self.viewer.name, self.site, time.time()

        def work(session: Session) -> dict[str, Any]:
            spec = reservations.check(wanted, site)
            try:
                return shown(reservations.create(session, spec, by, now), now, now + WEEK)
            except reservations.ReservationClash as clash:
                raise Refused(
                    409, clash.code, clash.sentence(self._), clashes=clash_details(clash)
                ) from clash

        made = await self.change(work)
        self.record("reservation-change", done="create", reservation=made["id"])
        self.set_status(201)
        self.reply(made)


class ReservationApi(Api):
    """``api/v1/reservations/ID``: GET, and DELETE by administrators and who looks after it."""

    async def get(self, reservation_id: str) -> None:
        """One, with its windows of the next seven days."""
        now = time.time()
        self.reply(
            await self.read(
                lambda session: shown(reservations.get(session, reservation_id), now, now + WEEK)
            )
        )

    async def delete(self, reservation_id: str) -> None:
        """Cancel it."""

        def work(session: Session) -> dict[str, Any]:
            self.need_lead(reservations.get(session, reservation_id))
            row = reservations.cancel(session, reservation_id)
            return {"id": row.id, "name": row.name, "cancelled": True}

        done = await self.change(work)
        self.record("reservation-change", done="cancel", reservation=done["id"])
        self.reply(done)

    def need_lead(self, row: GpuReservation) -> None:
        """Raises Refused for whom the reservation is not to give up."""
        if not self.viewer.admin and row.subject not in self.viewer.leads:
            sentence = self._(
                N_("Only an administrator, or who looks after the team or course, may do this.")
            )
            raise Refused(403, "not_yours", sentence)


class SkipApi(ReservationApi):
    """``POST api/v1/reservations/ID/skip``."""

    async def get(self, reservation_id: str) -> None:
        """Nothing to read here."""
        self.send_error(405)

    async def delete(self, reservation_id: str) -> None:
        """Nothing to delete here."""
        self.send_error(405)

    async def post(self, reservation_id: str) -> None:
        """Leave out one day."""
        day, now = self.body(day=str)["day"] or "", time.time()

        def work(session: Session) -> dict[str, Any]:
            self.need_lead(reservations.get(session, reservation_id))
            return shown(reservations.skip(session, reservation_id, day), now, now + WEEK)

        done = await self.change(work)
        self.record("reservation-change", done="skip", reservation=done["id"], day=day)
        self.reply(done)
