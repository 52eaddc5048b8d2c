"""What is vulnerable, who uses it, and what fixes it: a page for administrators, and by REST."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from sqlalchemy.orm import Session

from commons import holes
from commons.i18n import choose_timezone
from commons.rights import Action
from commons.store.models import utcnow
from commons.web.operations import Count, Route, Time, Told, operation
from environments.vulnerable import vulnerable
from hub_ext.console.handlers import Api, Page
from hub_ext.disk_prune import moment

SHOWN = 100  # versions
SHOWN_HOLES = 20  # of one


class Hole(Told):
    """One known hole of one package."""

    id: str
    package: str
    version: str
    severity: str
    title: str
    fixed: str
    blocks: bool
    since: Time


class One(Told):
    """A version with holes, or with a Python without security fixes."""

    source: str
    owner: str
    name: str
    version: str
    offered: bool
    blocks: bool
    python: str
    python_end: str | None
    take: str
    ask_for: list[str]
    users: Count
    people: list[str]
    holes: list[Hole]


class Looked(Told):
    """When it was last looked for holes, and why that came to no end."""

    at: Time
    versions: Count
    advisories: Count
    problem: str


class Everything(Told):
    """All of them, those that concern most people first."""

    looked: Looked | None
    vulnerable: list[One]


def shown(session: Session) -> dict[str, Any]:
    """What page and REST say."""
    last = holes.last(session)
    return {
        "looked": last
        and {
            "at": f"{last.at.isoformat()}Z",
            "versions": last.versions,
            "advisories": last.advisories,
            "problem": last.problem,
        },
        "vulnerable": [one.as_json() for one in vulnerable(session, utcnow().date())],
    }


class VulnerablePage(Page):
    """``GET vulnerable``."""

    async def get(self) -> None:
        """The list."""
        self.need(Action.ADMINISTER)
        found = await self.read(shown)
        scan, zone = self.site.environments.scan, choose_timezone(self.site.servers.timezone)
        at = scan.rescan_time()
        due = moment(at, zone, utcnow() + timedelta(days=1)) if at else None
        self.render_page(
            "vulnerable.html",
            has_advisories=scan.advisories is not None,
            due=due and due.replace(tzinfo=UTC).isoformat(),
            looked=found["looked"],
            total=len(found["vulnerable"]),
            ones=found["vulnerable"][:SHOWN],
            most=SHOWN_HOLES,
        )


class VulnerableApi(Api):
    """``GET api/v1/vulnerable``."""

    @operation("What is vulnerable, who uses it, what fixes it (administrators)", Everything)
    async def get(self) -> None:
        """All of it."""
        self.need(Action.ADMINISTER)
        self.reply(await self.read(shown))


ROUTES = (Route("/api/v1/vulnerable", VulnerableApi),)
