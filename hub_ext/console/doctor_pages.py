"""The page Health, and the same by REST: what ``labcommons doctor`` found last."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy.orm import Session

from commons.rights import Action
from commons.site import words_in
from commons.store.models import utcnow
from commons.version import news
from commons.web.operations import Count, Route, Time, Told, operation
from commons.web.pages import language_of
from hub_ext.console.handlers import Api, Page
from hub_ext.doctor import kept
from spawner.gpu.views import iso

Is = Literal["ok", "advice", "unknown", "warning", "broken"]


class Found(Told):
    """One thing that was looked at."""

    about: str
    state: Is
    cause: str
    remedy: str


class Looked(Told):
    """One check, and what it found."""

    check: str
    state: Is
    at: Time
    since: Time
    age_seconds: Count
    findings: list[Found]


class Health(Told):
    """All checks, the worst first."""

    state: Is
    checks: list[Looked]


def shown(session: Session, lang: str) -> dict[str, Any]:
    """What was found, in a language."""
    now = utcnow()
    rows = [
        {
            "check": row.name,
            "state": row.state,
            "at": iso(row.at),
            "since": iso(row.since),
            "age_seconds": max(0, int((now - row.at).total_seconds())),
            "findings": [
                {
                    "about": one["about"],
                    "state": one["state"],
                    "cause": words_in(one["cause"], lang),
                    "remedy": words_in(one["remedy"], lang) if one["remedy"] else "",
                }
                for one in row.findings
            ],
        }
        for row in kept.everything(session)
    ]
    return {"state": kept.worst(str(row["state"]) for row in rows), "checks": rows}


class HealthPage(Page):
    """``GET``: the list, which keeps itself true; ``POST``: look now. For administrators."""

    async def prepare(self) -> None:
        """Nobody else has anything to see here."""
        await super().prepare()
        self.need(Action.ADMINISTER)

    async def get(self) -> None:
        """The list."""
        lang = language_of(self)
        found = await self.read(lambda session: shown(session, lang))
        self.render_page("doctor.html", news=news(), **found)

    async def post(self) -> None:
        """Ask, and come back: the hub looks within seconds."""
        await self.change(kept.ask)
        self.redirect(f"{self.hub_auth.base_url}doctor?asked=1")


class HealthApi(Api):
    """``GET api/v1/doctor``."""

    @operation("What labcommons doctor found last (administrators)", Health)
    async def get(self) -> None:
        """The checks, the worst first."""
        self.need(Action.ADMINISTER)
        lang = language_of(self)
        self.reply(await self.read(lambda session: shown(session, lang)))


ROUTES = (Route("/api/v1/doctor", HealthApi),)
