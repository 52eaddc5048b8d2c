"""REST about people, and shutting somebody out here."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from commons.broadcasts import moment
from commons.errors import LabError
from commons.rights import NOT_LOOKED_AFTER, Action, can
from commons.scopes import SITE
from commons.store import blocks
from commons.store.blocks import Block
from commons.store.models import utcnow
from commons.web.operations import Count, Part, Query, Route, Sent, Time, Told, operation
from commons.web.pages import timezone_of
from commons.web.refused import Refused
from hub_ext.console import people_views
from hub_ext.console.handlers import Api
from hub_ext.console.people_views import Asked, Person
from hub_ext.console.server_api import Servers


class BlockTold(Told):
    """That somebody is shut out here."""

    reason: str
    by: str
    at: Time
    until: Time | None = Field(description="null: until it is taken back")
    carried_out: bool = Field(description="the hub has ended their logins")


class PersonTold(Told):
    """Somebody of the directory who has been here."""

    name: str
    admin: bool
    groups: dict[str, str] = Field(description="position by group, such as group:vision")
    seen: Time | None = Field(description="when they were last here")
    barred: str | None = Field(description="what the directory says against them")
    block: BlockTold | None
    home_bytes: int | None
    servers: list[str] = Field(description="that run, by their keys")
    leases: Count
    waiting: Count


class PeopleTold(Told):
    """People, as far as the viewer may know of them."""

    people: list[PersonTold]


class Which(Query):
    """Which people, in which order."""

    q: str = Field("", description="a part of the login name")
    group: str = Field("", description="such as group:vision or course:ml101")
    state: str = Field("", description="here, blocked, barred or admins")
    sort: str = Field("user", description="user, seen, servers or home")


class BlockBody(Sent):
    """Why, until when, and whether their servers and jobs end, too."""

    reason: str
    until: str | None = Field(None, description="a time, or for how long: 7d; none: no end")
    stop: bool = Field(False, description="their servers and jobs end, too")


class People(Servers):
    """What page and API do."""

    async def everybody(self, only: str = "") -> list[Person]:
        """Of whom the viewer may know; ``only`` one of them."""
        now, servers = await self.all()
        viewer = self.viewer
        return await self.read(lambda s: people_views.people(s, viewer, servers, now.seen, only))

    async def person(self, name: str) -> Person:
        """One. Raises Refused: for others than administrators as if everybody were there."""
        found = await self.everybody(name)
        if not found and can(self.viewer, Action.ADMINISTER, SITE):
            raise Refused(LabError(blocks.NOT_KNOWN(name=name[:80])), self.reading, 404)
        if not found:
            raise Refused(NOT_LOOKED_AFTER.error(), self.reading)
        return found[0]

    async def block(self, name: str, reason: str, until: str | None, stop: bool) -> Block:
        """Raises Refused."""
        self.need(Action.ADMINISTER)
        by, zone = self.viewer.name, str(timezone_of(self))

        def work(session: Session) -> Block:
            end = moment(until, zone, utcnow()) if until else None
            return blocks.put(session, name, by, reason, end, stop)

        found = await self.change(work)
        details: dict[str, Any] = {"done": "block", "of": name, "reason": found.reason}
        if found.until is not None:
            details["until"] = f"{found.until.isoformat(timespec='seconds')}Z"
        self.record("person-block", **details, stop=stop)
        return found

    async def unblock(self, name: str) -> None:
        """Raises Refused."""
        self.need(Action.ADMINISTER)
        await self.change(lambda s: blocks.take_back(s, name))
        self.record("person-block", done="unblock", of=name)


class PeopleApi(People, Api):
    """``GET api/v1/people``."""

    @operation(
        "People who have been here: of one's groups for leads, all for administrators",
        PeopleTold,
        query=Which,
    )
    async def get(self, query: Which) -> None:
        """In the order that is asked for."""
        asked = Asked.read(lambda name: str(getattr(query, name)))
        found = asked.in_order(one for one in await self.everybody() if asked.fits(one))
        self.reply({"people": [one.as_json() for one in found]})


class PersonApi(People, Api):
    """``GET api/v1/people/NAME``."""

    @operation("One person", PersonTold, refusals={404: "nobody of this name was here"})
    async def get(self, person: str) -> None:
        """Oneself, somebody of one's groups; anybody for administrators."""
        self.reply((await self.person(person)).as_json())


class BlockApi(People, Api):
    """``api/v1/people/NAME/block``: PUT and DELETE."""

    @operation("Shut somebody out here", PersonTold, body=BlockBody, admins=True)
    async def put(self, person: str, body: BlockBody) -> None:
        """Logins end within seconds, and tokens do not work for as long as it lasts."""
        await self.block(person, body.reason, body.until, body.stop)
        self.reply((await self.person(person)).as_json())

    @operation("Let somebody in again", PersonTold, admins=True)
    async def delete(self, person: str) -> None:
        """Tokens that they had made work again."""
        await self.unblock(person)
        self.reply((await self.person(person)).as_json())


_PERSON = {"person": Part("the login name")}
ROUTES = (
    Route("/api/v1/people", PeopleApi),
    Route("/api/v1/people/{person}", PersonApi, _PERSON),
    Route("/api/v1/people/{person}/block", BlockApi, _PERSON),
)
