"""The console's part for environments of all scopes: the page, and what it asks for over REST."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, cast, get_args

from sqlalchemy.orm import Session

from commons.errors import BadRequest, LabError
from commons.i18n import N_
from commons.messages import Text
from commons.principal import Principal
from commons.rights import Action, can, check
from commons.scopes import Scope, parse_source, personal
from commons.signatures.check import ENVELOPE, Checker, read_file
from commons.web.operations import Part, Route, operation
from commons.web.pages import language_of
from commons.web.refused import Refused
from environments import compare
from environments.builds import decisions, editing, repository, service
from environments.builds.names import check_name
from environments.edit import Change
from environments.files import EXPORTS, FILE_NAMES, SBOM_FILE
from hub_ext.console import environment_schemas as schemas
from hub_ext.console import environment_views as views
from hub_ext.console.handlers import Api, Base, Page

log = logging.getLogger("labcommons.console")

# Operations that put a build into the queue.
_ASKED: dict[str, Any] = {
    "answer": schemas.OneBuild,
    "status": 202,
    "described": "it will be done; Location says where to look",
    "servers": True,
}


# What lies beside an image version, as exports do: format -> file.
PROOFS = {"sbom": SBOM_FILE, "provenance": ENVELOPE}
MOST_PROOF = 64 * 2**20  # bytes

EXPORT_FORMAT = Text(
    "export_format", N_("“{format}” is no format of an export; there are {formats}.")
)


class _Mine(Base):
    """What page and API share here: the site, the data folder, who asks."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """Called by tornado with what ``make_app`` gives."""
        super().initialize(**shared)
        self.data = data

    @property
    def checker(self) -> Checker:
        """Knows who has signed what; one for all requests, as it remembers what it has read."""
        if "signatures" not in self.settings:
            self.settings["signatures"] = Checker(self.site.signatures, self.data)
        return cast(Checker, self.settings["signatures"])

    @property
    def who(self) -> Principal:
        """Who asks."""
        return self.viewer


class EnvironmentsPage(_Mine, Page):
    """The page: what there is, what is being built, and how to have more."""

    async def get(self) -> None:
        """Render what the viewer may see."""
        lang, who, checker = language_of(self), self.who, self.checker

        def work(session: Session) -> dict[str, Any]:
            found = views.listing(session, who, lang, checker)
            return {
                "environments": found,
                "digest": views.digest(found),
                "builds": views.fresh_builds(session, who, self._),
            }

        def label(source: str) -> str:
            return parse_source(source, self.viewer.name).title(self._)

        self.render_page(
            "environments.html",
            here="environments",
            label=label,
            targets=views.targets(who),
            copy_targets=views.copy_targets(who),
            exports=list(FILE_NAMES),
            proofs=list(PROOFS),
            xsrf=self.xsrf_token.decode("ascii"),
            **await self.read(work),
        )


class _Asking(_Mine, Api):
    """An API whose refusals come from ``environments.builds``, in the language of the request.

    A server may work on its owner's personal environments, and on no others.
    """

    def scope(self, source: object, user: str = "") -> Scope:
        """The scope that a source names. Raises Refused.

        ``user``: whose personal one; another person's is looked at by administrators alone.
        """
        named = user if user and can(self.viewer, Action.SEE, personal(user)) else self.viewer.name
        try:
            return parse_source(source, named)
        except LabError as error:
            raise Refused(error, self._) from error

    @property
    def kept(self) -> editing.Kept:
        """What image versions were made from."""
        return editing.kept_in(self.data / "versions")

    def asked(self, job: Any) -> None:
        """202: it will be done, and this is where to look."""
        if self.viewer.server is not None:  # a person's own: by the hub, once it is done
            self.record("environment-request", job=job.id, asked=job.action, environment=job.name)
        self.set_header("Location", f"{self.hub_auth.base_url}api/v1/builds/{job.id}")
        self.reply({"build": views.build(job, self._)})


class EnvironmentsApi(_Asking):
    """``GET`` and ``POST api/v1/environments``."""

    @operation("Environments that one may use", schemas.Environments)
    async def get(self) -> None:
        """Environments that the viewer may use, with words in the language of the request."""
        lang, who, checker = language_of(self), self.who, self.checker
        found = await self.read(lambda s: views.listing(s, who, lang, checker))
        self.reply({"environments": found})

    @operation("Build an environment", body=schemas.NewEnvironment, **_ASKED)
    async def post(self, body: schemas.NewEnvironment) -> None:
        """Build one."""
        who = self.who
        scope, limits, address = self.scope(body.source), self.site.builds, _address(self)
        self.asked(
            await self.change(
                lambda s: service.create(
                    s, who, limits, scope, body.name, body.spec, body.words or "", address,
                )
            )
        )  # fmt: skip


class LookApi(_Asking):
    """``GET`` and ``POST api/v1/environments/look``: whether the list is as it was."""

    @operation(
        "Whether the list is as it was: a digest of names, versions and states", schemas.Digest
    )
    async def get(self) -> None:
        """A digest of names, versions and states: another one means that the list has changed."""
        who, lang, checker = self.who, language_of(self), self.checker
        found = await self.read(lambda s: views.listing(s, who, lang, checker))
        self.reply({"digest": views.digest(found)})

    @operation(
        "Find out what was made and removed in a terminal, at one's home",
        schemas.Looking,
        status=202,
        described="it is being looked; false: it was, just now",
    )
    async def post(self) -> None:
        """Find out what was made and removed in a terminal; asked often, it is done seldom."""
        who, limits = self.who, self.site.builds
        job = await self.change(lambda s: service.look(s, who, limits))
        self.reply({"looking": job is not None})


class EnvironmentApi(_Asking):
    """``GET`` and ``DELETE api/v1/environments/SOURCE/NAME``."""

    @operation(
        "One environment with its packages and versions",
        schemas.OneEnvironment,
        query=schemas.Whose,
        servers=True,
    )
    async def get(self, source: str, name: str, query: schemas.Whose) -> None:
        """One environment with all its packages and versions."""
        scope, who, lang = self.scope(source, query.user), self.who, language_of(self)
        checker = self.checker

        def work(session: Session) -> dict[str, Any]:
            check(who, Action.SEE, scope)
            if not scope.has_folder:
                for item in views.listing(session, who, lang, checker):
                    if item["source"] == source and item["name"] == name:
                        return views.image_details(session, who, item, checker, lang)
            versions = repository.versions(session, scope, check_name(name))
            shown = next((row for row in versions if row.current), None)
            if shown is None:
                raise _no_environment(scope, name)
            return views.details(shown, versions, lang)

        self.reply({"environment": await self.read(work)})

    @operation("Delete an environment, unless it is in use", **_ASKED)
    async def delete(self, source: str, name: str) -> None:
        """Delete it with all its versions; the job refuses where it is in use."""
        scope, who, limits, address = self.scope(source), self.who, self.site.builds, _address(self)
        self.asked(
            await self.change(lambda s: service.delete(s, who, limits, scope, name, address))
        )


class CopyApi(_Asking):
    """``POST api/v1/environments/SOURCE/NAME/copy``: clone, publish, promote."""

    @operation("Clone, publish or promote an environment", body=schemas.Copy, **_ASKED)
    async def post(self, source: str, name: str, body: schemas.Copy) -> None:
        """Copy it to another scope, or under another name."""
        who = self.who
        origin, target = self.scope(source), self.scope(body.to)
        limits, address = self.site.builds, _address(self)
        self.asked(
            await self.change(
                lambda s: service.copy(s, who, limits, origin, name, target, body.name, address)
            )
        )


class DeriveApi(_Asking):
    """``POST api/v1/environments/SOURCE/NAME/derive``: one's own, with other packages."""

    @operation(
        "Make one's own copy of an environment with packages added and removed; of one's own, "
        "a new version",
        body=schemas.Derived,
        **_ASKED,
    )
    async def post(self, source: str, name: str, body: schemas.Derived) -> None:
        """Ask for it; the build says what it is called."""
        who, origin = self.who, self.scope(source)
        limits, address, kept = self.site.builds, _address(self), self.kept
        # What an owner uses by way of a server is there for that server.
        groups = (self.current_user or {}).get("groups") or ()
        reader = None if who.server is None else Principal.from_groups(who.name, False, groups)

        def work(session: Session) -> Any:
            return editing.derive(
                session,
                who,
                limits,
                origin,
                name,
                _change(body),
                kept=kept,
                new_name=body.name,
                version=body.version,
                reader=reader,
                address=address,
            )

        self.asked(await self.change(work))


class EditApi(_Asking):
    """``POST api/v1/environments/SOURCE/NAME/edit``: a new version of it, from a changed text."""

    @operation("Change an environment: a new version of it", body=schemas.Edited, **_ASKED)
    async def post(self, source: str, name: str, body: schemas.Edited) -> None:
        """The version that people use stays until the new one is built."""
        who, scope, limits, address = self.who, self.scope(source), self.site.builds, _address(self)
        self.asked(
            await self.change(
                lambda s: editing.ask(s, who, limits, _draft(s, who, scope, name, body), address)
            )
        )


class PreviewApi(_Asking):
    """``POST api/v1/environments/SOURCE/NAME/preview``: the same, only shown."""

    @operation(
        "What an environment.yml would become, and how it differs",
        schemas.Preview,
        body=schemas.Edited,
        servers=True,
    )
    async def post(self, source: str, name: str, body: schemas.Edited) -> None:
        """Nothing is changed."""
        who, scope = self.who, self.scope(source)
        draft = await self.read(lambda s: _draft(s, who, scope, name, body))
        self.reply(draft.as_json())


class ExportApi(_Asking):
    """``GET …/environments/SOURCE/NAME/export?format=…&version=…``: to rebuild it elsewhere."""

    @operation("A file to rebuild it elsewhere", media="text/plain", query=schemas.Export)
    async def get(self, source: str, name: str, query: schemas.Export) -> None:
        """The file."""
        scope, who, wanted = self.scope(source, query.user), self.who, query.wanted
        if wanted in PROOFS:
            await self._proof(scope, name, query.version, PROOFS[wanted])
            return
        if wanted not in FILE_NAMES:
            error = BadRequest(EXPORT_FORMAT(format=wanted[:40], formats=[*FILE_NAMES, *PROOFS]))
            raise Refused(error, self._)
        file = FILE_NAMES[wanted]
        found, text = await self.read(
            lambda s: views.export(s, who, scope, name, query.version, wanted)
        )
        if text is None:
            path = self.data / "versions" / name / found / EXPORTS / file
            try:
                text = await asyncio.to_thread(path.read_text, "utf-8")
            except OSError as error:
                log.warning("%s: %s", path, error.strerror)
                raise Refused(service.no_export(name, found), self._) from error
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{file}"')
        self.finish(text)

    async def _proof(self, scope: Scope, name: str, version: str, file: str) -> None:
        """A file beside an image version: its bill of materials, or its signed statement."""
        who = self.who
        found = await self.read(lambda s: service.find_version(s, who, scope, name, version))
        path = self.checker.folder(name, found.version) / file
        try:
            if scope.has_folder:
                raise FileNotFoundError(0, "of images alone", file)
            raw = await asyncio.to_thread(read_file, path, MOST_PROOF)
        except (OSError, ValueError) as error:
            raise Refused(service.no_export(name, found.version), self._) from error
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{file}"')
        self.finish(raw)


class DiffApi(_Asking):
    """``GET api/v1/environments/SOURCE/NAME/diff?from=…&to=…``: which packages differ."""

    @operation(
        "Which packages differ between two versions, by default the last two",
        schemas.Difference,
        query=schemas.Between,
    )
    async def get(self, source: str, name: str, query: schemas.Between) -> None:
        """By default between the newest version and the one before it."""
        scope, who = self.scope(source, query.user), self.who
        left, right = await self.read(
            lambda s: views.two_versions(s, who, scope, name, query.before, query.after)
        )
        changes = compare.compare(left[1], right[1])
        self.reply(
            {"from": left[0], "to": right[0], "changes": [change.as_json() for change in changes]}
        )


class DecideApi(_Asking):
    """``POST …/environments/SOURCE/NAME/versions/VERSION/(pin|tag|deprecate|withdraw)``."""

    @operation("Decide about a version", schemas.Decided, body=schemas.Decision, servers=True)
    async def post(
        self, source: str, name: str, version: str, what: str, body: schemas.Decision
    ) -> None:
        """Decide, or take a decision back."""
        who, scope = self.who, self.scope(source)
        limits, address = self.site.builds, _address(self)
        value = None if body.undo else body.reason if body.tag is None else body.tag

        def work(session: Session) -> tuple[dict[str, Any], dict[str, Any] | None]:
            found, job = decisions.decide(
                session,
                who,
                limits,
                scope,
                name,
                version,
                cast(decisions.What, what),
                value,
                address,
            )
            return views.version(found), views.build(job, self._) if job else None

        found, job = await self.change(work)
        self.record(
            "environment-decide",
            scope=scope.source,
            environment=name,
            version=found["version"],
            decision=what,
            undone=value is None,
            **({"why": value} if value else {}),
        )
        self.reply({"version": found, "build": job})


class BuildsApi(_Asking):
    """``GET api/v1/builds``."""

    @operation("One's newest builds", schemas.Builds)
    async def get(self) -> None:
        """The newest builds that are the viewer's business."""
        who = self.who
        self.reply({"builds": await self.read(lambda session: views.builds(session, who, self._))})


class BuildApi(_Asking):
    """``GET api/v1/builds/ID?offset=…``: how far it is, and its log from an offset on."""

    @operation(
        "How far a build is, and its log from an offset on",
        schemas.FollowedBuild,
        query=schemas.From,
        servers=True,
    )
    async def get(self, build: str, query: schemas.From) -> None:
        """State, percentage and a part of the log."""
        found = await self.read(
            lambda s: views.with_text(service.find_build(s, self.who, build), self._)
        )
        text, end = await asyncio.to_thread(
            views.log_part, self.data / "builds" / build, query.offset
        )
        self.reply({"build": found, "log": text, "offset": end})


class CancelBuildApi(_Asking):
    """``POST api/v1/builds/ID/cancel``."""

    @operation("Cancel a build", **_ASKED)
    async def post(self, build: str) -> None:
        """It ends soon."""
        who = self.who
        self.asked(await self.change(lambda s: service.cancel(s, who, build)))


class CorrectBuildApi(_Asking):
    """``POST api/v1/builds/ID/correct``."""

    @operation("Build what failed, with its text corrected", body=schemas.Corrected, **_ASKED)
    async def post(self, build: str, body: schemas.Corrected) -> None:
        """Another build, of the corrected text."""
        who, limits, address = self.who, self.site.builds, _address(self)
        self.asked(
            await self.change(
                lambda s: editing.ask(s, who, limits, _correction(s, who, build, body), address)
            )
        )


class PreviewBuildApi(_Asking):
    """``POST api/v1/builds/ID/preview``: the same, only shown."""

    @operation(
        "What the text of a failed build would become, and how it differs",
        schemas.Preview,
        body=schemas.Corrected,
        servers=True,
    )
    async def post(self, build: str, body: schemas.Corrected) -> None:
        """Nothing is changed."""
        who = self.who
        self.reply((await self.read(lambda s: _correction(s, who, build, body))).as_json())


class RetryBuildApi(_Asking):
    """``POST api/v1/builds/ID/retry``."""

    @operation("Ask for a build again", **_ASKED)
    async def post(self, build: str) -> None:
        """Another build of the same."""
        who, limits, address = self.who, self.site.builds, _address(self)
        self.asked(await self.change(lambda s: service.retry(s, who, limits, build, address)))


def _change(body: schemas.Changes) -> Change:
    return Change(tuple(body.add), tuple(body.pip), tuple(body.remove), tuple(body.channels))


def _draft(
    session: Session, who: Principal, scope: Scope, name: str, body: schemas.Edited
) -> editing.Draft:
    return editing.draft_edit(
        session, who, scope, name, _change(body), spec=body.spec, words=body.words, base=body.base
    )


def _correction(
    session: Session, who: Principal, build: str, body: schemas.Corrected
) -> editing.Draft:
    return editing.draft_correction(
        session, who, build, _change(body), spec=body.spec, words=body.words
    )


def _no_environment(scope: Scope, name: str) -> LabError:
    return service.NotThere(service.NO_ENVIRONMENT(name=name, scope=scope.source))


def _address(handler: Any) -> str | None:
    address = handler.request.remote_ip
    return str(address)[:64] if address else None


_WHICH = {
    "source": Part(
        "image, shared, team-NAME, course-NAME or personal", "[a-z0-9][a-z0-9._-]{0,70}"
    ),
    "name": Part("of the environment", "[a-z0-9][a-z0-9._-]{0,63}"),
}
_VERSION = {
    **_WHICH,
    "version": Part("or its tag", "[a-z0-9][a-z0-9._-]{0,63}"),
    "what": Part("is decided", "[a-z]+", get_args(decisions.What)),
}
_BUILD = {"build": Part("its id", "[0-9a-f]{32}")}
ROUTES = (
    Route("/api/v1/environments", EnvironmentsApi),
    Route("/api/v1/environments/look", LookApi),
    Route("/api/v1/environments/{source}/{name}", EnvironmentApi, _WHICH),
    Route("/api/v1/environments/{source}/{name}/copy", CopyApi, _WHICH),
    Route("/api/v1/environments/{source}/{name}/derive", DeriveApi, _WHICH),
    Route("/api/v1/environments/{source}/{name}/edit", EditApi, _WHICH),
    Route("/api/v1/environments/{source}/{name}/preview", PreviewApi, _WHICH),
    Route("/api/v1/environments/{source}/{name}/export", ExportApi, _WHICH),
    Route("/api/v1/environments/{source}/{name}/diff", DiffApi, _WHICH),
    Route("/api/v1/environments/{source}/{name}/versions/{version}/{what}", DecideApi, _VERSION),
    Route("/api/v1/builds", BuildsApi),
    Route("/api/v1/builds/{build}", BuildApi, _BUILD),
    Route("/api/v1/builds/{build}/cancel", CancelBuildApi, _BUILD),
    Route("/api/v1/builds/{build}/correct", CorrectBuildApi, _BUILD),
    Route("/api/v1/builds/{build}/preview", PreviewBuildApi, _BUILD),
    Route("/api/v1/builds/{build}/retry", RetryBuildApi, _BUILD),
)
