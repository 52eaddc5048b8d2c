"""Requests to the service: REST and the page; events are in ``stream``.

Who asks, languages, headers and refusals are the console's (``commons.web.handlers``).
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from tornado.web import HTTPError, StaticFileHandler

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Message, Text
from commons.principal import Principal
from commons.rights import ADMINS_ONLY, Action, can
from commons.scopes import SITE
from commons.store import StoreError
from commons.store.models import utcnow
from commons.store.usage import LATELY, uses
from commons.tokens import server_of
from commons.web import handlers as console
from commons.web.operations import operation
from commons.web.pages import language_of
from commons.web.refused import Refused
from kernels.service import page, schemas
from kernels.service.counting import Counter, Report, ReportError, believed, read_report
from kernels.service.entries import Key, RegistryEntry
from kernels.service.registrar import Registrar, told
from kernels.service.visible import may_see, visible

NOT_REFRESHED = Text("not_refreshed", N_("The registry could not be brought up to date: {reason}"))
TOO_MANY_REPORTS = Text("too_many_reports", N_("Too many reports; try again in ten seconds."))
LOGIN_UNFINISHED = Text(
    "kernels_login_unfinished", N_("The login did not finish. Open “Kernels” again.")
)


class _Shared(console.Base):
    """What page and API have in common."""

    registrar: Registrar
    counter: Counter

    def initialize(  # type: ignore[override]
        self, registrar: Registrar, counter: Counter, **shared: Any
    ) -> None:
        """Called by tornado with what ``make_app`` gives."""
        super().initialize(store=registrar.store, **shared)
        self.registrar, self.counter = registrar, counter

    @property
    def everything(self) -> bool:
        """Whether the viewer may know what is of everybody."""
        return bool(can(self.viewer, Action.ADMINISTER, SITE))

    def told(self, entry: RegistryEntry, last_used: Any) -> dict[str, Any]:
        """An environment as answers show it."""
        when = last_used.get(entry.key)
        used = f"{when.isoformat(timespec='seconds')}Z" if when else None
        return told(entry, language_of(self)) | {"last_used": used}

    def visible(self) -> list[RegistryEntry]:
        """The environments this person may see, in the order of their keys."""
        entries = visible(self.viewer, self.registrar.entries.values())
        return sorted(entries, key=lambda entry: entry.key)

    async def last_used(self) -> Any:
        """When environments were last used; nothing is known while the store is down."""
        try:
            return await self.counter.last_used()
        except StoreError as error:
            console.log.error("%s", error)
            return {}


class Api(_Shared, console.Api):
    """An answer in JSON."""


class Environments(Api):
    """``GET api/v1/environments``: those one may see."""

    @operation("Environments that one may see", schemas.Environments, query=schemas.Chosen)
    async def get(self, query: schemas.Chosen) -> None:
        """Those that are chosen, and of a long list a part."""
        search, offset, limit = page.Search(query.q[:200]), query.offset, query.limit
        found = [
            entry
            for entry in self.visible()
            if query.source in ("", entry.source)
            and query.state in ("", entry.state.value)
            and search.finds(entry, str(entry.facts.get("title") or ""))
        ]
        last_used = await self.last_used()
        self.reply(
            {
                "total": len(found),
                "offset": offset,
                "limit": limit,
                "environments": [
                    self.told(entry, last_used) for entry in found[offset : offset + limit]
                ],
            }
        )


class OneEnvironment(Api):
    """``GET api/v1/environments/SOURCE/NAME``: its versions."""

    @operation("One environment, each version of it", schemas.Versions)
    async def get(self, source: str, name: str) -> None:
        """404 for what is not there and for what one may not see."""
        found = [e for e in self.visible() if (e.source, e.environment) == (source, name)]
        if not found:
            raise HTTPError(404)
        last_used = await self.last_used()
        self.reply({"versions": [self.told(entry, last_used) for entry in found]})


class Kernels(Api):
    """``GET api/v1/kernels``: kernels one may see."""

    @operation("Kernels that one may see", schemas.Kernels)
    async def get(self) -> None:
        """One for each version that has it."""
        self.reply({"kernels": [k for entry in self.visible() for k in _kernels(entry)]})


class OneKernel(Api):
    """``GET api/v1/kernels/NAME``."""

    @operation("The kernels of a name, one for each version that has it", schemas.Kernels)
    async def get(self, name: str) -> None:
        """A kernel of this name in each version that has it."""
        found = [k for e in self.visible() for k in _kernels(e) if k["name"] == name]
        if not found:
            raise HTTPError(404)
        self.reply({"kernels": found})


def _kernels(entry: RegistryEntry) -> list[dict[str, Any]]:
    return [
        {
            "name": kernel.name,
            "display_name": kernel.display_name,
            "language": kernel.language,
            "source": entry.source,
            "environment": entry.environment,
            "version": entry.version,
            "python": entry.python,
            "prefix": entry.prefix,
            "state": entry.state.value,
        }
        for kernel in entry.kernels
    ]


class Refresh(Api):
    """``POST api/v1/refresh``: look at everything now."""

    @operation("Look at everything now (administrators)", schemas.Refreshed)
    async def post(self) -> None:
        """For administrators of the hub."""
        if not self.everything:
            raise Refused(ADMINS_ONLY.error(), self._)
        changes = await self.registrar.refresh()
        if changes is None:
            error = self.registrar.error
            reason = error.in_words(language_of(self)) if error else ""
            raise Refused(NotAvailable(NOT_REFRESHED(reason=reason)), self._, 503)
        self.reply(
            {
                "written": changes.written,
                "removed": changes.removed,
                "environments": len(self.registrar.entries),
                "failed": sorted(
                    one.in_words(language_of(self)) for one in changes.failed.values()
                ),
                "problems": [one.in_words(language_of(self)) for one in self.registrar.problems],
            }
        )


class Usage(Api):
    """``api/v1/usage``: how often kernels are started."""

    def check_hub_user(self, model: Any) -> Any:
        """A server's own token may do little; to count its owner's starts is all it does here."""
        server = server_of(str(model.get("name")), model.get("scopes") or ())
        if self.request.method == "POST" and model.get("kind") == "user" and server is not None:
            return model
        return super().check_hub_user(model)

    @operation(
        "How often kernels were started: by oneself; by everybody, for administrators",
        schemas.Uses,
        query=schemas.Days,
    )
    async def get(self, query: schemas.Days) -> None:
        """Of the last days."""
        since = (utcnow() - timedelta(days=query.days - 1)).date()
        name = None if self.everything else self.viewer.name
        found = await self.read(lambda session: uses(session, since, name))
        self.reply(
            {
                "since": since.isoformat(),
                "everyone": name is None,
                "uses": [
                    {
                        "kernel": use.kernel,
                        "source": use.source,
                        "environment": use.environment,
                        "version": use.version,
                        "starts": use.starts,
                        "people": use.people,
                        "last_used": f"{use.last_used.isoformat(timespec='seconds')}Z",
                    }
                    for use in found
                ],
            }
        )

    @operation(
        "Report starts of one's own (a server's token is enough)",
        schemas.Counted,
        body=Report,
        reads=False,
        refusals={429: "too many reports; Retry-After says when to try again"},
        servers=True,
        exams=True,
    )
    async def post(self) -> None:
        """A report of a person's own server."""
        # What an owner uses by way of a server is told by that server, and is nothing to be had.
        groups = (self.current_user or {}).get("groups") or ()
        owner = Principal.from_groups(self.viewer.name, False, groups)
        if not self.counter.admit(owner.name):
            raise Refused(NotAvailable(TOO_MANY_REPORTS()), self._, 429, retry_after=10)
        try:
            items = read_report(self.request.body)
        except ReportError as error:
            raise Refused(error, self._) from error
        starts = believed(items, visible(owner, self.registrar.entries.values()))
        try:
            await self.counter.count(owner.name, starts)
        except StoreError as error:
            console.log.error("%s", error)
            raise self.without_store(error) from error
        self.reply({"counted": len(starts), "ignored": len(items) - len(starts)})


class Health(Api):
    """``GET health``: for the container's health check; needs no login and tells no names."""

    @operation(
        "Whether the registry is up to date",
        schemas.Health,
        also={503: "it is not: the last pass failed"},
        public=True,
    )
    async def get(self) -> None:
        """200 where the last pass went well, else 503."""
        health = self.registrar.health()
        self.set_status(200 if health["status"] == "ok" else 503)
        self.reply(health)


class ApiNotFound(Api, console.ApiNotFound):
    """Any other address below ``api/``."""


class Described(Api, console.Described):
    """``GET openapi.json``."""


class _Page(_Shared, console.Page):
    """A page for people."""


class Overview(_Page):
    """The page: what there is, under which names, and how it is."""

    async def used(self) -> page.Used:
        """How everybody, or who is no administrator, uses what there is."""
        name = None if self.everything else self.viewer.name
        starts: dict[Key, int] = {}
        with suppress(StoreError):
            since = (utcnow() - LATELY).date()
            for use in await self.store.read(lambda session: uses(session, since, name)):
                key = (use.source, use.environment, use.version)
                starts[key] = starts.get(key, 0) + use.starts
        return page.Used(await self.last_used(), starts, name is None)

    async def get(self) -> None:
        """``q`` searches, ``problems`` leaves out what is well."""
        viewer, registrar, lang = self.viewer, self.registrar, language_of(self)
        search = page.Search(
            self.get_query_argument("q", "").strip()[:200],
            bool(self.get_query_argument("problems", "")),
        )
        sources = {n: s for n, s in registrar.sources.items() if may_see(viewer, n)}
        # Taken before the list is made: what changes meanwhile is told again.
        last_event = registrar.events.last_id
        contents = page.sections(self.visible(), sources, await self.used(), search, lang, self._)
        self.set_header("Vary", "Accept-Language, Cookie")
        self.render_page(
            "kernels.html",
            here="kernels",
            search=search,
            last_event=last_event,
            xsrf=self.xsrf_token.decode(),
            trouble=registrar.error.in_words(lang) if registrar.error and self.everything else "",
            problems=[one.in_words(lang) for one in registrar.problems if self.everything],
            **contents,
        )


class NotFound(_Shared, console.NotFound):
    """Any other address, for people."""


class Callback(_Shared, console.Callback):
    """The end of a login through the hub."""

    def refusal(self, status: int) -> Message:
        """Whatever went wrong, beginning again is the remedy."""
        return LOGIN_UNFINISHED()


class Static(console.Static, StaticFileHandler):
    """Style sheets and scripts."""
