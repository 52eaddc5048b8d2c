"""The page of reservations: the week, the list, and an administrator's form."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta
from datetime import time as wall
from itertools import pairwise
from typing import Any

from sqlalchemy.orm import Session

from commons.rights import Action, can
from commons.scopes import SITE, groups_of_site, of_account
from commons.store.models import GpuReservation
from commons.web.pages import timezone_of
from commons.web.refused import Refused
from hub_ext.console.handlers import Page
from spawner.gpu.ledger import reservations
from spawner.gpu.quotas import quota_store

FIELDS = (
    "name",
    "subject",
    "starts",
    "duration",
    "timezone",
    "gpus",
    "gpu_type",
    "repeat",
    "until",
)


FARTHEST = timedelta(days=366)


def _plan(week: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Days with what is reserved on them, in minutes after midnight: what is drawn to be dragged
    over. On a day of a clock change it is as the clock says."""
    found = []
    for column in week:
        day = column["day"]

        def minutes(at: float, day: datetime = day) -> int:
            there = datetime.fromtimestamp(at, day.tzinfo)
            return (there.date() - day.date()).days * 1440 + there.hour * 60 + there.minute

        found.append(
            {
                "day": day.date().isoformat(),
                "windows": [
                    {
                        "name": window["row"]["name"],
                        "from": max(0, minutes(window["start"])),
                        "to": min(1440, minutes(window["end"])),
                    }
                    for window in column["windows"]
                ],
            }
        )
    return found


class Reservations(Page):
    """``GET`` and, for administrators, ``POST`` of the form."""

    async def get(self) -> None:
        """The week and the list."""
        await self._show({}, [])

    async def post(self) -> None:
        """Reserve, and come back; what was wrong is said beside the form, which stays filled."""
        self.need_admin()
        sent = {key: self.get_body_argument(key, "").strip() for key in FIELDS}
        wanted: dict[str, Any] = {key: value for key, value in sent.items() if value}
        wanted["weekdays"] = (
            self.get_body_arguments("weekdays") if sent["repeat"] == "weekly" else []
        )
        if sent["gpus"].isdecimal():
            wanted["gpus"] = int(sent["gpus"])
        wanted["anyway"] = bool(self.get_body_argument("anyway", ""))
        if sent["repeat"] == "once":
            wanted.pop("until", None)
        by, site = self.viewer.name, self.site
        looks = self.get_body_argument("do", "") == "look"

        def work(session: Session) -> GpuReservation:
            with session.begin_nested() as nested:
                row = reservations.create(session, reservations.check(wanted, site), by)
                if looks:  # it could be made: that is all that was asked
                    nested.rollback()
            return row

        try:
            row = await self.change(work)
        except Refused as error:
            problems = [(one["path"], one["message"]) for one in error.details.get("problems", ())]
            sent_again = {**sent, "weekdays": wanted["weekdays"]}
            if error.code == "reservation_unkept":
                sent_again["unkept"] = True
                problems = [("", one["sentence"]) for one in error.details["reasons"]]
            await self._show(sent_again, problems or [("", error.sentence)], error.status_code)
        else:
            if looks:
                await self._show({**sent, "weekdays": wanted["weekdays"], "possible": True}, [])
                return
            self.record("reservation-change", done="create", reservation=row.id)
            self.redirect(f"{self.hub_auth.base_url}reservations")

    def _span(self, today: date) -> tuple[date, int]:
        """The first day that is shown, and how many are: a week, or five from a Monday on."""
        try:
            first = date.fromisoformat(self.get_query_argument("from", ""))
        except ValueError:
            first = today
        first = min(max(first, today - FARTHEST), today + FARTHEST)
        if self.get_query_argument("view", "") != "month":
            return first, 7
        return first - timedelta(days=first.weekday()), 35

    async def _show(
        self, sent: dict[str, Any], problems: list[tuple[str, str]], status: int = 200
    ) -> None:
        zone, viewer = timezone_of(self), self.viewer
        midnight = datetime.now(zone).replace(hour=0, minute=0, second=0, microsecond=0)
        today, start = midnight.date(), time.time()
        first, count = self._span(today)
        days = [datetime.combine(first + timedelta(days=n), wall(), zone) for n in range(count + 1)]
        ends = days.pop()
        end = max(ends, midnight + timedelta(days=7)).timestamp()

        def work(session: Session) -> dict[str, Any]:
            unkept = reservations.unkept_soon(session, start, reservations.WATCHED)
            rows = [
                reservations.show(
                    row, min(start, days[0].timestamp()), max(end, start) + 21 * 86400, unkept
                )
                for row in reservations.standing(session)
            ]
            return {"rows": rows, "models": sorted(quota_store.models(session))}

        found = await self.read(work)
        for row in found["rows"]:
            row["mine"] = bool(can(viewer, Action.GIVE_UP, of_account(row["subject"]) or SITE))
            row["unkept"] = [
                reason.in_words(self.reading)
                for one in row["unkept"][:1]
                for reason in one["reasons"]
            ]
            row["coming"] = [w for w in row["windows"] if w["end"] > start][:6]
        week = [
            {
                "day": day,
                "windows": sorted(
                    (
                        {**window, "row": row}
                        for row in found["rows"]
                        for window in row["windows"]
                        if window["start"] < after.timestamp() and window["end"] > day.timestamp()
                    ),
                    key=lambda window: window["start"],
                ),
            }
            for day, after in pairwise([*days, ends])
        ]
        subjects = [scope.account for scope in groups_of_site(self.site) if scope.account]
        self.set_status(status)
        self.render_page(
            "reservations.html",
            rows=found["rows"],
            models=found["models"],
            week=week,
            today=today,
            first=first,
            month=count > 7,
            earlier=first - timedelta(days=count),
            later=first + timedelta(days=count),
            plan=_plan(week) if count == 7 else None,
            zone=zone,
            words_of=lambda keys, words: [words[key] for key in keys],
            at=lambda moment: datetime.fromtimestamp(moment, zone),
            subjects=subjects,
            weekdays=reservations.WEEKDAYS,
            sent=sent,
            problems=problems,
        )
