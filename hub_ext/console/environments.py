"""The console's part for environments of all tiers: the page, and what it asks for over REST."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy.orm import Session
from tornado.web import Finish, HTTPError

from hub_ext.console import tiers
from hub_ext.console.handlers import MAX_BODY, Api, Base, Page
from hub_ext.i18n import N_
from hub_ext.pages import language_of
from hub_ext.store import StoreError
from hub_ext.store.environments import EnvironmentBuild
from kernels.hostile import parse_json
from spawner.environments import compare
from spawner.environments.files import EXPORTS, FILE_NAMES
from spawner.errors import BadRequest, SpawnerError
from spawner.tiers import asking, decisions, jobs, shelf
from spawner.tiers.rights import Person, check_see
from spawner.tiers.tier import Kind, Tier, check_name, parse_source

T = TypeVar("T")
log = logging.getLogger("labcommons.console")

_SOURCE = r"([a-z0-9][a-z0-9._-]{0,70})"
_NAME = r"([a-z0-9][a-z0-9._-]{0,63})"
_ID = r"([0-9a-f]{32})"


def routes(prefix: str, shared: dict[str, Any], data: Path) -> list[Any]:
    """The addresses of this part, for ``tornado.web.Application``."""
    mine = {**shared, "data": data}
    api = f"{prefix}api/v1/"
    return [
        (f"{prefix}environments", EnvironmentsPage, mine),
        (f"{api}environments", EnvironmentsApi, mine),
        (f"{api}environments/look", LookApi, mine),
        (f"{api}environments/{_SOURCE}/{_NAME}", EnvironmentApi, mine),
        (f"{api}environments/{_SOURCE}/{_NAME}/copy", CopyApi, mine),
        (f"{api}environments/{_SOURCE}/{_NAME}/export", ExportApi, mine),
        (f"{api}environments/{_SOURCE}/{_NAME}/diff", DiffApi, mine),
        (f"{api}environments/{_SOURCE}/{_NAME}/versions/{_NAME}/([a-z]+)", DecideApi, mine),
        (f"{api}builds", BuildsApi, mine),
        (f"{api}builds/{_ID}", BuildApi, mine),
        (f"{api}builds/{_ID}/(cancel|retry)", BuildActionApi, mine),
    ]


class _Mine(Base):
    """What page and API share here: the site, the data folder, who asks."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """Called by tornado with what ``routes`` gives."""
        super().initialize(**shared)
        self.data = data

    @property
    def who(self) -> Person:
        """The person with their positions."""
        return tiers.person(self.viewer)


class EnvironmentsPage(_Mine, Page):
    """The page: what there is, what is being built, and how to have more."""

    async def get(self) -> None:
        """Render what the viewer may see."""
        lang, who = language_of(self), self.who

        def work(session: Session) -> dict[str, Any]:
            found = tiers.listing(session, who, lang)
            return {
                "environments": found,
                "digest": tiers.digest(found),
                "builds": tiers.fresh_builds(session, who, self._),
            }

        def label(source: str) -> str:
            return tiers.tier_label(self._, source)

        self.render_page(
            "environments.html",
            here="environments",
            label=label,
            targets=tiers.targets(who),
            copy_targets=tiers.copy_targets(who),
            exports=list(FILE_NAMES),
            xsrf=self.xsrf_token.decode("ascii"),
            **await self.read(work),
        )


class _Asking(_Mine, Api):
    """An API whose refusals come from ``spawner.tiers``, in the language of the request.

    A server may work on its owner's personal environments, and on no others.
    """

    async def ask(self, work: Callable[[Session], T], reading: bool = False) -> T:
        """Work in a transaction; answers with code and sentence where it is refused."""
        try:
            return await (self.store.read(work) if reading else self.store.run(work))
        except SpawnerError as error:
            raise self.refuse(error) from error
        except StoreError as error:
            log.error("%s", error)
            raise HTTPError(503) from error

    def refuse(self, error: SpawnerError) -> Finish:
        """Answer with an error; what is returned is to be raised."""
        self.set_status(error.status)
        self.reply({"error": {"code": error.code, "message": error.sentence(self._)}})
        return Finish()

    def document(self) -> dict[str, Any]:
        """The JSON object that was sent."""
        try:
            found = parse_json(self.request.body or b"{}", MAX_BODY)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            sentence = N_("The request's body must be a JSON object.")
            raise self.refuse(BadRequest("not_json", sentence))
        return found

    def tier(self, source: object) -> Tier:
        """The tier that a source names."""
        try:
            return self.within_reach(parse_source(source, self._person_named()))
        except SpawnerError as error:
            raise self.refuse(error) from error

    def within_reach(self, tier: Tier) -> Tier:
        """The tier itself. Raises Refused for a server's token where it is not personal."""
        if self.viewer.server is not None and tier.kind is not Kind.PERSONAL:
            raise self.person_wanted()
        return tier

    def job(self, session: Session, job_id: str) -> EnvironmentBuild:
        """A job that is the viewer's business."""
        job = asking.find_build(session, self.who, job_id)
        self.within_reach(jobs.tier_of(job))
        return job

    def _person_named(self) -> str:
        """Whose personal tier: one's own; an administrator may look at another's (``?user=``)."""
        named = self.get_query_argument("user", "")
        return (
            named
            if named and self.viewer.admin and self.request.method == "GET"
            else (self.viewer.name)
        )

    def asked(self, job: Any) -> None:
        """202: it will be done, and this is where to look."""
        if self.viewer.server is not None:  # a person's own: by the hub, once it is done
            self.record("environment-request", job=job.id, asked=job.action, environment=job.name)
        self.set_status(202)
        self.set_header("Location", f"{self.hub_auth.base_url}api/v1/builds/{job.id}")
        self.reply({"build": tiers.build(job, self._)})


class EnvironmentsApi(_Asking):
    """``GET`` and ``POST api/v1/environments``."""

    for_servers = ("POST",)

    async def get(self) -> None:
        """Environments that the viewer may use, with words in the language of the request."""
        lang, who = language_of(self), self.who
        self.reply({"environments": await self.read(lambda s: tiers.listing(s, who, lang))})

    async def post(self) -> None:
        """Build one from ``{"source", "name", "spec", "words"?}``."""
        body, who = self.document(), self.who
        tier, limits, address = self.tier(body.get("source")), self.site.builds, _address(self)
        self.asked(
            await self.ask(
                lambda s: asking.create(
                    s, who, limits, tier, body.get("name"), body.get("spec"),
                    body.get("words") or "", address,
                )
            )
        )  # fmt: skip


class LookApi(_Asking):
    """``GET`` and ``POST api/v1/environments/look``: whether the list is as it was."""

    async def get(self) -> None:
        """A digest of names, versions and states: another one means that the list has changed."""
        who, lang = self.who, language_of(self)
        found = await self.read(lambda s: tiers.listing(s, who, lang))
        self.reply({"digest": tiers.digest(found)})

    async def post(self) -> None:
        """Find out what was made and removed in a terminal; asked often, it is done seldom."""
        who, limits = self.who, self.site.builds
        job = await self.ask(lambda s: asking.look(s, who, limits))
        self.set_status(202)
        self.reply({"looking": job is not None})


class EnvironmentApi(_Asking):
    """``GET`` and ``DELETE api/v1/environments/SOURCE/NAME``."""

    for_servers = ("GET", "DELETE")

    async def get(self, source: str, name: str) -> None:
        """One environment with all its packages and versions."""
        tier, who, lang = self.tier(source), self.who, language_of(self)

        def work(session: Session) -> dict[str, Any]:
            check_see(who, tier)
            if tier.kind is Kind.IMAGE:
                for item in tiers.listing(session, who, lang):
                    if item["source"] == source and item["name"] == name:
                        return tiers.image_details(session, who, item)
            versions = shelf.versions(session, tier, check_name(name))
            shown = next((row for row in versions if row.current), None)
            if shown is None:
                raise _no_environment(tier, name)
            return tiers.details(shown, versions, lang)

        self.reply({"environment": await self.ask(work, reading=True)})

    async def delete(self, source: str, name: str) -> None:
        """Delete it with all its versions; the job refuses where it is in use."""
        tier, who, limits, address = self.tier(source), self.who, self.site.builds, _address(self)
        self.asked(await self.ask(lambda s: asking.delete(s, who, limits, tier, name, address)))


class CopyApi(_Asking):
    """``POST api/v1/environments/SOURCE/NAME/copy``: clone, publish, promote."""

    for_servers = ("POST",)

    async def post(self, source: str, name: str) -> None:
        """Copy it to ``{"to": source, "name"?}``."""
        body, who = self.document(), self.who
        origin, target = self.tier(source), self.tier(body.get("to"))
        limits, address = self.site.builds, _address(self)
        self.asked(
            await self.ask(
                lambda s: asking.copy(
                    s, who, limits, origin, name, target, body.get("name"), address
                )
            )
        )


class ExportApi(_Asking):
    """``GET …/environments/SOURCE/NAME/export?format=…&version=…``: to rebuild it elsewhere."""

    async def get(self, source: str, name: str) -> None:
        """The file."""
        tier, who = self.tier(source), self.who
        wanted = self.get_query_argument("format", "environment.yml")
        version = self.get_query_argument("version", "")
        if wanted not in FILE_NAMES:
            raise self.refuse(
                BadRequest(
                    "export_format",
                    N_("“{format}” is no format of an export; there are {formats}."),
                    {"format": wanted[:40], "formats": ", ".join(FILE_NAMES)},
                )
            )
        file = FILE_NAMES[wanted]
        found, text = await self.ask(
            lambda s: tiers.export(s, who, tier, name, version, wanted), reading=True
        )
        if text is None:
            path = self.data / "versions" / name / found / EXPORTS / file
            try:
                text = await asyncio.to_thread(path.read_text, "utf-8")
            except OSError as error:
                log.warning("%s: %s", path, error.strerror)
                raise self.refuse(asking.no_export(name, found)) from error
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{file}"')
        self.finish(text)


class DiffApi(_Asking):
    """``GET api/v1/environments/SOURCE/NAME/diff?from=…&to=…``: which packages differ."""

    async def get(self, source: str, name: str) -> None:
        """By default between the newest version and the one before it."""
        tier, who = self.tier(source), self.who
        before, after = (self.get_query_argument(key, "") for key in ("from", "to"))
        left, right = await self.ask(
            lambda s: tiers.two_versions(s, who, tier, name, before, after), reading=True
        )
        changes = compare.compare(left[1], right[1])
        self.reply(
            {"from": left[0], "to": right[0], "changes": [change.as_json() for change in changes]}
        )


class DecideApi(_Asking):
    """``POST …/environments/SOURCE/NAME/versions/VERSION/(pin|tag|deprecate|withdraw)``."""

    for_servers = ("POST",)

    async def post(self, source: str, name: str, version: str, what: str) -> None:
        """Decide as ``{"reason"?, "tag"?, "undo"?}`` says."""
        body, who, tier = self.document(), self.who, self.tier(source)
        limits, address = self.site.builds, _address(self)
        value = None if body.get("undo") is True else str(body.get("tag", body.get("reason", "")))

        def work(session: Session) -> tuple[dict[str, Any], dict[str, Any] | None]:
            found, job = decisions.decide(
                session,
                who,
                limits,
                tier,
                name,
                version,
                cast(decisions.What, what),
                value,
                address,
            )
            return tiers.version(found), tiers.build(job, self._) if job else None

        found, job = await self.ask(work)
        self.record(
            "environment-decide",
            tier=tier.source,
            environment=name,
            version=found["version"],
            decision=what,
            undone=value is None,
            **({"why": value} if value else {}),
        )
        self.reply({"version": found, "build": job})


class BuildsApi(_Asking):
    """``GET api/v1/builds``."""

    async def get(self) -> None:
        """The newest builds that are the viewer's business."""
        who = self.who
        self.reply({"builds": await self.read(lambda session: tiers.builds(session, who, self._))})


class BuildApi(_Asking):
    """``GET api/v1/builds/ID?offset=…``: how far it is, and its log from an offset on."""

    for_servers = ("GET",)

    async def get(self, job_id: str) -> None:
        """State, percentage and a part of the log."""
        found = await self.ask(lambda s: tiers.build(self.job(s, job_id), self._), reading=True)
        try:
            offset = max(0, int(self.get_query_argument("offset", "0")))
        except ValueError:
            offset = 0
        text, end = await asyncio.to_thread(tiers.log_part, self.data / "builds" / job_id, offset)
        self.reply({"build": found, "log": text, "offset": end})


class BuildActionApi(_Asking):
    """``POST api/v1/builds/ID/cancel`` and ``…/retry``."""

    for_servers = ("POST",)

    async def post(self, job_id: str, action: str) -> None:
        """Cancel it, or ask for it again."""
        who, limits, address = self.who, self.site.builds, _address(self)

        def work(session: Session) -> EnvironmentBuild:
            self.job(session, job_id)
            if action == "cancel":
                return asking.cancel(session, who, job_id)
            return asking.retry(session, who, limits, job_id, address)

        self.asked(await self.ask(work))


def _no_environment(tier: Tier, name: str) -> SpawnerError:
    return asking.NotThere(
        "no_environment", asking.NO_ENVIRONMENT, {"name": name, "tier": tier.source}
    )


def _address(handler: Any) -> str | None:
    address = handler.request.remote_ip
    return str(address)[:64] if address else None
