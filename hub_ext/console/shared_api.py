"""REST about the servers that a team or course uses together."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from commons.errors import LabError
from commons.rights import Action
from commons.scopes import Scope
from commons.web.openapi import Reason
from commons.web.operations import Part, Route, Sent, Time, Told, operation
from commons.web.refused import Refused
from hub_ext.console.handlers import Api, Base
from spawner import shared_servers
from spawner.shared_servers import SHARED_UNKNOWN, State


class SharedTold(Told):
    """One shared server."""

    scope: str = Field(description="the team or course, such as course-ml101")
    name: str
    account: str = Field(description="the hub's user whose server it is")
    options: dict[str, Any] = Field(description="as user_options")
    leads_only: bool = Field(description="entered by leads, instructors and assistants alone")
    members_run: bool = Field(description="started and stopped by all who may enter")
    state: State
    at: Time
    by: str = Field(description="who asked last for its start or end")
    reason: Reason | None = Field(description="why it did not start")
    people: list[str] = Field(description="who is in it; for who may enter")
    may_enter: bool
    may_run: bool


class SharedServers(Told):
    """Those that the viewer may enter, start or stop."""

    shared_servers: list[SharedTold]


class Shape(Sent):
    """What it is started with, and by whom it is used; it holds from the next start on."""

    options: dict[str, Any] = Field({}, description="as user_options: environment, size, gpus, …")
    leads_only: bool = Field(False, description="entered by leads, instructors, assistants alone")
    members_run: bool = Field(True, description="started and stopped by all who may enter")


class Asked(Sent):
    """What is asked of it."""

    up: bool = Field(description="true: start, false: stop")


class Changing(Base):
    """What page and API do."""

    def scope(self, source: str) -> Scope:
        """A team or course of the site. Raises Refused (404)."""
        try:
            return shared_servers.scope_in_site(source, self.site)
        except LabError as error:
            raise Refused(error, self.reading) from error

    async def save(
        self, scope: Scope, name: str, options: dict[str, Any], leads_only: bool, members_run: bool
    ) -> dict[str, Any]:
        """Make one, or change it; for who looks after the team or course."""
        self.need(Action.MAKE_SHARED, scope)
        viewer, site, reading = self.viewer, self.site, self.reading

        def work(session: Session) -> dict[str, Any]:
            row = shared_servers.save(
                session,
                scope,
                name,
                options,
                site,
                viewer.name,
                leads_only=leads_only,
                members_run=members_run,
            )
            return shared_servers.show(row, viewer, reading)

        return self._told("save", await self.change(work))

    async def ask(self, scope: Scope, name: str, up: bool) -> dict[str, Any]:
        """Have it started or stopped, where the viewer may."""
        viewer, site, reading = self.viewer, self.site, self.reading

        def work(session: Session) -> dict[str, Any]:
            row = shared_servers.get(session, scope, name)
            if not shared_servers.is_visible(viewer, row):
                raise shared_servers.gone(SHARED_UNKNOWN(scope=scope.source, name=name))
            shared_servers.may_run(viewer, row).check()
            shared_servers.ask(session, row, up, viewer.name, site)
            return shared_servers.show(row, viewer, reading)

        return self._told("start" if up else "stop", await self.change(work))

    async def remove(self, scope: Scope, name: str) -> dict[str, Any]:
        """Its name goes; the files of the account stay."""
        self.need(Action.MAKE_SHARED, scope)
        viewer, reading = self.viewer, self.reading

        def work(session: Session) -> dict[str, Any]:
            row = shared_servers.get(session, scope, name)
            shown = shared_servers.show(row, viewer, reading)
            shared_servers.remove(session, row)
            return shown

        return self._told("remove", await self.change(work))

    def _told(self, done: str, shown: dict[str, Any]) -> dict[str, Any]:
        about = {"scope": shown["scope"], "server": shown["name"]}
        self.record("shared-server-change", done=done, **about)
        return shown


class SharedServersApi(Api):
    """``GET api/v1/shared-servers``."""

    @operation("Servers that a team or course uses together, for who may enter", SharedServers)
    async def get(self) -> None:
        """By team and course, then by name."""
        viewer, site, reading = self.viewer, self.site, self.reading
        found = await self.read(
            lambda s: [
                shared_servers.show(row, viewer, reading)
                for row in shared_servers.visible(s, viewer, site)
            ]
        )
        self.reply({"shared_servers": found})


class SharedServerApi(Changing, Api):
    """``api/v1/shared-servers/SCOPE/NAME``: PUT, POST and DELETE."""

    @operation("Make one, or change it: for who leads the team or course", SharedTold, body=Shape)
    async def put(self, scope: str, server: str, body: Shape) -> None:
        """It is charged to the team or course."""
        self.reply(
            await self.save(
                self.scope(scope), server, body.options, body.leads_only, body.members_run
            )
        )

    @operation("Have it started or stopped, by who may", SharedTold, body=Asked)
    async def post(self, scope: str, server: str, body: Asked) -> None:
        """The hub begins within seconds; ``state`` says how far it is."""
        self.reply(await self.ask(self.scope(scope), server, body.up))

    @operation("Remove it; the files of its account stay", SharedTold)
    async def delete(self, scope: str, server: str) -> None:
        """Once it is stopped."""
        self.reply(await self.remove(self.scope(scope), server))


ROUTES = (
    Route("/api/v1/shared-servers", SharedServersApi),
    Route(
        "/api/v1/shared-servers/{scope}/{server}",
        SharedServerApi,
        {"scope": Part("a team or course, such as course-ml101"), "server": Part("its name")},
    ),
)
