"""REST for notebooks that people send each other (docs/sharing.md)."""

from __future__ import annotations

import asyncio
import logging
import zlib
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field
from sqlalchemy.orm import Session

from commons.errors import BadRequest, LabError, NotAllowed
from commons.scopes import Keeper, Scope, parse_source, positions_in
from commons.web.operations import Count, Part, Route, Sent, Time, Told, operation
from commons.web.refused import Refused
from hub_ext.console import inbox
from hub_ext.console.gpu_schemas import Changed
from hub_ext.console.handlers import Api
from hub_ext.console.hub_people import ask_hub

log = logging.getLogger(__name__)
_Called = Annotated[str, Field(min_length=1, max_length=255)]


class Notebook(Told):
    """A notebook that somebody sent."""

    id: int
    at: Time
    sender: str
    name: str
    environment: str = Field(description="the server's, name:version")
    size: Count


class Whole(Notebook):
    """With its text."""

    notebook: str


class Inbox(Told):
    """What was sent to one, newest first."""

    notebooks: list[Notebook]
    refused: list[str] = Field(description="people from whom one takes none")


class Send(Sent):
    """A copy of a notebook, for somebody."""

    to: _Called = Field(description="a login name, or team-NAME, course-NAME")
    name: Annotated[str, Field(max_length=200)] = Field(description="the file's, without folders")
    environment: Annotated[str, Field(max_length=200)] = ""
    notebook: str = Field(description="its text, compressed by zlib, in base64")


class SentTo(Told):
    """For how many people."""

    sent: Count
    group: bool = Field(description="it was for all of a group; none is for who never signed in")


class Refuse(Sent):
    """From whom no more is taken; with false, again."""

    sender: _Called
    refused: bool = True


class InboxApi(Api):
    """``GET`` and ``POST api/v1/inbox``."""

    @operation("Notebooks that were sent to one", Inbox, servers=True)
    async def get(self) -> None:
        """The viewer's."""
        name = self.viewer.name

        def work(session: Session) -> dict[str, Any]:
            found = [_shown(row) for row in inbox.waiting_for(session, name)]
            return {"notebooks": found, "refused": inbox.refused(session, name)}

        self.reply(await self.read(work))

    @operation("Send a copy of a notebook to a person, a team, a course", SentTo, body=Send,
               servers=True)  # fmt: skip
    async def post(self, body: Send) -> None:
        """To people of the viewer's teams and courses; to all of a course by who teaches it."""
        try:
            parcel = await asyncio.to_thread(inbox.read, body.name, body.environment, body.notebook)
            receivers, alone = await self._receivers(body.to.strip())
        except LabError as error:
            raise Refused(error, self._) from error
        sender = self.viewer.name
        done = await self.change(
            lambda session: inbox.send(session, sender, receivers, parcel, alone)
        )
        if not done and not alone:
            nobody = set(receivers) <= {sender}
            why = inbox.NOBODY_YET if nobody else inbox.NOT_TAKEN
            raise Refused(NotAllowed(why(name=body.to.strip())), self._)
        self.reply({"sent": done, "group": not alone})

    async def _receivers(self, to: str) -> tuple[list[str], bool]:
        """Who gets it, and whether that is one person. Raises NotAllowed, HTTPError."""
        mine = positions_in(await self._groups(self.viewer.name))
        group = _group(to.lower())
        if group is not None:
            word = mine.get(group, "")
            teaches = any(one.leads and one.word == word for one in group.row.positions)
            if not word:
                raise NotAllowed(inbox.NO_ONE(name=to))
            if group.kind == "course" and not teaches:
                raise NotAllowed(inbox.NOT_YOUR_COURSE(name=to))
            names: set[str] = set()
            for hub_group in {
                name.replace("{name}", group.owner)
                for one in group.row.positions
                for name in one.groups
            }:
                model = await self._ask(f"groups/{quote(hub_group, safe='')}")
                names |= set(map(str, (model or {}).get("users") or ()))
            return sorted(names), False
        name = inbox.login_name(to)
        if name == self.viewer.name:
            raise NotAllowed(inbox.TO_ONESELF(name=name))
        theirs = positions_in(await self._groups(name))
        # Said of who does not exist, too: nobody learns who does.
        if not mine.keys() & theirs.keys():
            raise NotAllowed(inbox.NO_ONE(name=to))
        return [name], True

    async def _groups(self, name: str) -> list[str]:
        model = await self._ask(f"users/{quote(name, safe='')}")
        return [str(one) for one in (model or {}).get("groups") or ()]

    async def _ask(self, path: str) -> Any:
        return await ask_hub(self.hub_auth, path)


class OneApi(Api):
    """``GET`` and ``DELETE api/v1/inbox/ID``."""

    @operation("A notebook that was sent, with its text", Whole, servers=True)
    async def get(self, number: str) -> None:
        """One of the viewer's."""
        name = self.viewer.name

        def work(session: Session) -> dict[str, Any]:
            row = inbox.take(session, name, int(number))
            return _shown(row) | {"notebook": zlib.decompress(row.packed).decode()}

        self.reply(await self.read(work))

    @operation("Throw away a notebook that was sent, or was opened", Changed, servers=True)
    async def delete(self, number: str) -> None:
        """One of the viewer's; a copy that was opened stays as their file."""
        name = self.viewer.name
        await self.change(lambda session: inbox.drop(session, name, int(number)))
        self.reply({"changed": 1})


class RefusedApi(Api):
    """``POST api/v1/inbox/refused``."""

    @operation("Take no more notebooks from somebody, or do again", Changed, body=Refuse,
               servers=True)  # fmt: skip
    async def post(self, body: Refuse) -> None:
        """The viewer's own choice; what was sent and not opened is thrown away."""
        name = self.viewer.name
        changed = await self.change(
            lambda session: inbox.refuse(session, name, inbox.login_name(body.sender), body.refused)
        )
        self.reply({"changed": changed})


def _group(to: str) -> Scope | None:
    try:
        scope = parse_source(to, "")
    except BadRequest:
        return None
    return scope if scope.keeper is Keeper.GROUP else None


def _shown(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "at": row.at.isoformat(timespec="seconds") + "Z",
        "sender": row.sender,
        "name": row.name,
        "environment": row.environment,
        "size": row.size,
    }


_NUMBER = {"number": Part("of a notebook that was sent", "[0-9]{1,9}")}
ROUTES = (
    Route("/api/v1/inbox", InboxApi),
    Route("/api/v1/inbox/refused", RefusedApi),
    Route("/api/v1/inbox/{number}", OneApi, _NUMBER),
)
