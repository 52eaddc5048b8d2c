"""Teams, for who leads them: people, what they hold and wait for, usage, environments, folder."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.rights import Action, can
from commons.scopes import Scope, groups_of_site
from commons.store import DiskUse, RegisteredEnvironment
from commons.units import amount
from commons.web.operations import Count, Part, Route, Time, Told, operation
from commons.web.refused import Refused
from hub_ext.console.gpu_schemas import Lease
from hub_ext.console.handlers import Api, Base, Page
from hub_ext.console.hub_people import ask_hub
from spawner.gpu import views
from spawner.gpu.ledger import reservations
from spawner.gpu.quotas import quota_store
from spawner.storage import Limits
from spawner.usage import report
from spawner.usage.report import EVERYTHING, Asked, By

TEAM_UNKNOWN = Text("team_unknown", N_("There is no team “{name}” here."))
DAYS = 30  # of usage
AHEAD = 14 * 86400.0  # seconds of reservations
LONGEST = 500  # people, environments


class TeamUse(Told):
    """What its people used lately, charged to it."""

    first: str
    last: str
    gpu_hours: float
    cpu_hours: float
    mean_wait_seconds: float


class TeamMember(Told):
    """Somebody in the team."""

    name: str
    lead: bool
    gpu_hours: float = Field(description="lately, charged to the team")
    holds: Count = Field(description="GPUs, charged to the team")
    waits: Count = Field(description="GPUs that were asked for, charged to the team")


class TeamEnvironment(Told):
    """An environment in its folder."""

    name: str
    version: str
    python: str | None
    state: str


class TeamReservation(Told):
    """GPUs that are set aside for it."""

    id: str
    name: str
    gpus: Count
    gpu_type: str
    next: Time | None = Field(description="when it next begins; null: not within two weeks")


class TeamFolder(Told):
    """What its folder has of the disk."""

    bytes: Count
    limit: Count | None
    at: Time


class Team(Told):
    """A team, as who looks after it sees it."""

    name: str
    members: list[TeamMember]
    usage: TeamUse
    holds: Count = Field(description="GPUs that are charged to it")
    limit: Count | None = Field(description="the most that all of it hold at once")
    leases: list[Lease]
    queue: list[Lease]
    reservations: list[TeamReservation]
    environments: list[TeamEnvironment]
    folder: TeamFolder | None = Field(description="null until it was measured")


class TeamName(Told):
    """A team that one looks after."""

    name: str
    holds: Count
    waits: Count = Field(description="requests")


class Teams(Told):
    """Those that one looks after; for administrators, all."""

    teams: list[TeamName]


class _Teams(Base):
    """What page and REST have in common."""

    def mine(self) -> list[Scope]:
        """The teams that the viewer looks after."""
        return [
            one
            for one in groups_of_site(self.site)
            if one.kind == "team" and can(self.viewer, Action.LOOK_AFTER, one)
        ]

    async def names(self) -> list[dict[str, Any]]:
        """Each with what it holds and waits for."""
        mine = self.mine()

        def work(session: Session) -> list[dict[str, Any]]:
            rows = views.live(session)
            return [
                {
                    "name": one.owner,
                    "holds": _gpus(r for r in rows if r.account == one.account and _holds(r)),
                    "waits": sum(r.account == one.account and not _holds(r) for r in rows),
                }
                for one in mine
            ]

        return await self.read(work)

    async def team(self, name: str) -> dict[str, Any]:
        """All that there is to see of one. Raises Refused, HTTPError."""
        scope = Scope("team", name)
        self.need(Action.LOOK_AFTER, scope)
        if scope not in groups_of_site(self.site):
            error = BadRequest(TEAM_UNKNOWN(name=name[:80]))
            error.status = 404
            raise Refused(error, self.reading)
        people: dict[str, bool] = {}  # whether they lead it
        for position in reversed(scope.row.positions):
            group = position.groups[-1].replace("{name}", name)
            model = await ask_hub(self.hub_auth, f"groups/{quote(group, safe='')}")
            for one in (model or {}).get("users") or ():
                people[str(one)] = position.leads
        say, storage = self.say, self.site.storage
        return await self.read(lambda s: _team(s, scope, people, say, Limits(s, storage)))


def _holds(row: Any) -> bool:
    return row.state in views.HOLDING


def _gpus(rows: Any) -> int:
    return sum(row.gpus for row in rows)


def _team(
    session: Session, scope: Scope, people: dict[str, bool], say: views.Say, limits: Limits
) -> dict[str, Any]:
    account, name = scope.account, scope.owner
    rows = [row for row in views.live(session) if row.account == account]
    holding, waiting = [r for r in rows if _holds(r)], [r for r in rows if not _holds(r)]
    last = report.today(session)
    asked = Asked(last - timedelta(days=DAYS - 1), last, By.PERSON, account)
    used = report.make(session, asked, EVERYTHING)
    hours = {person: figures.gpu_seconds / 3600 for person, figures in used.lines}
    known, disk = views.known(session), session.get(DiskUse, ("teams", name))
    spec = quota_store.specs(session).get(account, {})
    # Who left, and still holds or has used something, is among them.
    everybody = sorted({*people, *hours, *(row.username for row in rows)})[:LONGEST]
    query = (
        select(RegisteredEnvironment)
        .where(RegisteredEnvironment.source == scope.source)
        .order_by(RegisteredEnvironment.environment, RegisteredEnvironment.version.desc())
        .limit(LONGEST)
    )
    return {
        "name": name,
        "members": [
            {
                "name": person,
                "lead": people.get(person, False),
                "gpu_hours": round(hours.get(person, 0.0), 3),
                "holds": _gpus(row for row in holding if row.username == person),
                "waits": _gpus(row for row in waiting if row.username == person),
            }
            for person in everybody
        ],
        "usage": {
            "first": asked.first.isoformat(),
            "last": last.isoformat(),
            "gpu_hours": round(used.all.gpu_seconds / 3600, 3),
            "cpu_hours": round(used.all.cpu_seconds / 3600, 3),
            "mean_wait_seconds": round(used.all.mean_wait, 1),
        },
        "holds": _gpus(holding),
        "limit": spec.get("grp_gpus"),
        "leases": [views.lease(row, known, say) for row in holding],
        "queue": [views.lease(row, known, say) for row in waiting],
        "reservations": _reservations(session, account),
        "environments": [
            {
                "name": row.environment,
                "version": row.version,
                "python": row.python,
                "state": row.state,
            }
            for row in session.scalars(query)
        ],
        "folder": disk
        and {"bytes": disk.bytes, "limit": limits.of("teams", name), "at": views.iso(disk.at)},
    }


def _reservations(session: Session, account: str) -> list[dict[str, Any]]:
    now, found = time.time(), []
    for row in reservations.standing(session):
        if row.subject != account:
            continue
        shown = reservations.show(row, now, now + AHEAD)
        coming = [window["start"] for window in shown["windows"] if window["end"] > now]
        found.append(
            {
                **{key: shown[key] for key in ("id", "name", "gpus", "gpu_type")},
                "next": views.iso(min(coming)) if coming else None,
            }
        )
    return found


class TeamsPage(_Teams, Page):
    """``GET teams``."""

    async def get(self) -> None:
        """Who leads one alone is shown that one."""
        found = await self.names()
        if len(found) == 1:
            self.redirect(f"{self.hub_auth.base_url}teams/{quote(found[0]['name'], safe='')}")
        else:
            self.render_page("teams.html", teams=found)


class TeamPage(_Teams, Page):
    """``GET teams/NAME``."""

    async def get(self, name: str) -> None:
        """For who looks after it."""
        found = await self.team(name)
        self.render_page(
            "team.html",
            team=found,
            account=Scope("team", name).account,
            bytes_words=amount,
            others=len(self.mine()) > 1,
        )


class TeamsApi(_Teams, Api):
    """``GET api/v1/teams``."""

    @operation("The teams that one looks after; for administrators, all", Teams)
    async def get(self) -> None:
        """By name."""
        self.reply({"teams": await self.names()})


class TeamApi(_Teams, Api):
    """``GET api/v1/teams/NAME``."""

    @operation(
        "A team: its people, what they hold, wait for and used, its environments and folder; for "
        "who leads it, and administrators",
        Team,
        refusals={403: "for who looks after it", 404: "no such team"},
    )
    async def get(self, team: str) -> None:
        """One."""
        self.reply(await self.team(team))


ROUTES = (
    Route("/api/v1/teams", TeamsApi),
    Route("/api/v1/teams/{team}", TeamApi, {"team": Part("a team of the site file")}),
)
