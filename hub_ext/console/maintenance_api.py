"""REST and page of maintenance."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from commons import maintenance
from commons.store.models import utcnow
from commons.web.operations import Route, Sent, Time, Told, operation
from commons.web.pages import timezone_of
from commons.web.refused import Refused
from hub_ext.console.handlers import Api, Page
from hub_ext.maintenance import AHEAD


class Working(Told):
    """A server that runs in maintenance, as the hub last saw it."""

    user: str
    server: str
    started: Time
    last_activity: Time
    busy_kernels: int | None = Field(description="kernels that work; null: not known")


class Maintenance(Told):
    """Whether there is maintenance; who asked for it, and who still works."""

    on: bool
    state: Literal["none", "planned", "on"]
    en: str | None
    zh: str | None
    since: Time | None = Field(description="its begin, also of one that is planned")
    ends_at: Time | None
    stop_at: Time | None
    by: str
    working: list[Working]


class NewMaintenance(Sent):
    """Maintenance, now or planned: a reason in one language at least."""

    en: str = ""
    zh: str = ""
    starts: str = Field("", description="a time or a duration from now; at once without")
    until: str = Field("", description="2026-11-24T18:00 in the time zone, or 4h after the begin")
    stop: str = Field("", description="when servers are stopped, as until; they are not without")
    timezone: str = Field("UTC", description="IANA name, such as Europe/Berlin")


class MaintenanceApi(Api):
    """``api/v1/maintenance``: GET, POST and DELETE, for administrators."""

    @operation("Maintenance now or planned, and who still works", Maintenance, admins=True)
    async def get(self) -> None:
        """As the store says."""
        self.need_admin()
        self.reply(await self.read(lambda s: maintenance.as_json(maintenance.found(s))))

    @operation(
        "Begin or plan maintenance", Maintenance, status=201, body=NewMaintenance, admins=True
    )
    async def post(self, body: NewMaintenance) -> None:
        """From its begin on nobody but administrators starts a server."""
        self.need_admin()
        by, asked = self.viewer.name, body.model_dump()
        found = await self.change(
            lambda s: maintenance.as_json(maintenance.start(s, **asked, by=by))
        )
        self.record("maintenance-change", done="start", begins=found["since"])
        self.reply(found)

    @operation("End maintenance, or cancel what is planned", Maintenance, admins=True)
    async def delete(self) -> None:
        """What waits in line starts."""
        self.need_admin()
        by = self.viewer.name
        found = await self.change(lambda s: maintenance.as_json(maintenance.stop(s, by)))
        self.record("maintenance-change", done="stop")
        self.reply(found)


FIELDS = ("en", "zh", "starts", "until", "stop", "timezone")


class MaintenancePage(Page):
    """``GET`` and ``POST`` of the form, for administrators."""

    async def prepare(self) -> None:
        """Nobody else has anything to see here."""
        await super().prepare()
        self.need_admin()

    async def get(self) -> None:
        """What goes on, and the form."""
        await self._show({})

    async def post(self) -> None:
        """Begin, and come back; what was wrong is said above the form, which stays."""
        sent = {key: self.get_body_argument(key, "").strip() for key in FIELDS}
        by = self.viewer.name
        asked: dict[str, Any] = {**sent, "timezone": sent["timezone"] or "UTC"}
        try:
            found = await self.change(
                lambda s: maintenance.as_json(maintenance.start(s, **asked, by=by))
            )
        except Refused as error:
            await self._show(sent, error.sentence, error.status_code)
        else:
            self.record("maintenance-change", done="start", begins=found["since"])
            self.redirect(f"{self.hub_auth.base_url}maintenance")

    async def _show(self, sent: dict[str, Any], wrong: str = "", status: int = 200) -> None:
        row = await self.read(maintenance.found)
        working = [
            {
                "busy_kernels": None,
                **one,
                **{
                    key: datetime.fromisoformat(one[key].removesuffix("Z"))
                    for key in ("started", "last_activity")
                },
            }
            for one in (row.working if row else ())
        ]
        self.set_status(status)
        self.render_page(
            "maintenance.html",
            row=row,
            planned=row is not None and row.starts_at > utcnow(),
            seen=row is not None and row.starts_at - AHEAD <= utcnow(),
            working=working,
            sent=sent,
            wrong=wrong,
            zone=timezone_of(self),
        )


ROUTES = (Route("/api/v1/maintenance", MaintenanceApi),)
