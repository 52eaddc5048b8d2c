"""Requests to the service: REST and the page; events are in ``stream``.

Who asks, languages, headers and refusals are the console's (``hub_ext.console.handlers``).
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

from tornado.web import HTTPError, StaticFileHandler

from hub_ext.console import handlers as console
from hub_ext.console.viewer import ADMIN_SCOPE
from hub_ext.credentials import server_of
from hub_ext.i18n import N_
from hub_ext.pages import language_of
from hub_ext.store import StoreError
from hub_ext.store.models import utcnow
from hub_ext.store.usage import LATELY, uses
from kernels.service import openapi, page
from kernels.service.counting import Counter, ReportError, believed, read_report
from kernels.service.entries import Entry, Key, State
from kernels.service.registrar import Registrar, told
from kernels.service.viewer import Reader
from kernels.words import Translate, in_language

# Environments in one answer.
MOST = 5000

_SENTENCES = {
    403: ("not_allowed", N_("This account may not do this. Ask an administrator.")),
    405: ("method_not_allowed", N_("This address takes other methods; openapi.json lists them.")),
}


class Refused(HTTPError):
    """A refusal with its own code and sentence (marked with ``N_``; ``detail`` follows it).

    ``retry_after`` are seconds until it is worth another try.
    """

    def __init__(
        self, status: int, code: str, sentence: str, detail: str = "", retry_after: int = 0
    ) -> None:
        super().__init__(status)
        self.code, self.sentence, self.detail = code, sentence, detail
        self.retry_after = retry_after


class _Shared(console.Base):
    """What page and API have in common."""

    registrar: Registrar
    counter: Counter
    _refused: Refused | None = None

    def initialize(  # type: ignore[override]
        self, registrar: Registrar, counter: Counter, **shared: Any
    ) -> None:
        """Called by tornado with what ``make_app`` gives."""
        super().initialize(store=registrar.store, **shared)
        self.registrar, self.counter = registrar, counter

    @property
    def reader(self) -> Reader:
        """The person who asks; for handlers whose ``prepare`` has found out."""
        model = self.current_user
        groups = model.get("groups") or ()
        return Reader(
            str(model["name"]),
            bool(model.get("admin")) and ADMIN_SCOPE in (model.get("scopes") or ()),
            frozenset(group for group in groups if isinstance(group, str)),
        )

    @property
    def say_it(self) -> Translate:
        """What puts reasons into the language of the request."""
        return in_language(language_of(self))

    def told(self, entry: Entry, last_used: Any) -> dict[str, Any]:
        """An environment as answers show it."""
        when = last_used.get(entry.key)
        used = f"{when.isoformat(timespec='seconds')}Z" if when else None
        return told(entry) | {"reason": self.say_it(entry.reason), "last_used": used}

    def visible(self) -> list[Entry]:
        """The environments this person may see, in the order of their keys."""
        entries = self.reader.visible(self.registrar.entries.values())
        return sorted(entries, key=lambda entry: entry.key)

    async def last_used(self) -> Any:
        """When environments were last used; nothing is known while the store is down."""
        try:
            return await self.counter.last_used()
        except StoreError as error:
            console.log.error("%s", error)
            return {}

    def refusal(self, status: int) -> tuple[str, str]:
        """Code and sentence of a status, in the language of the request."""
        if self._refused:
            if self._refused.retry_after:
                self.set_header("Retry-After", str(self._refused.retry_after))
            sentence = self._(self._refused.sentence)
            return self._refused.code, f"{sentence} {self._refused.detail}".strip()
        if status in _SENTENCES:
            code, sentence = _SENTENCES[status]
            return code, self._(sentence)
        return super().refusal(status)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Remember a refusal of ours for ``write_error``, which comes next."""
        if isinstance(value, Refused):
            self._refused = value
        super().log_exception(typ, value, tb)


class Api(_Shared, console.Api):
    """An answer in JSON."""

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A number of the query. Raises Refused."""
        text = self.get_query_argument(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise Refused(400, "bad_request", N_("A parameter is not a number:"), name)
        return max(least, min(most, int(text)))


class Environments(Api):
    """``GET api/v1/environments``: those one may see."""

    async def get(self) -> None:
        """``q``, ``source`` and ``state`` choose; ``offset`` and ``limit`` are for long lists."""
        source = self.get_query_argument("source", "")
        state = self.get_query_argument("state", "")
        if state and state not in list(State):
            raise Refused(400, "bad_request", N_("There is no such state; there are:"),
                          ", ".join(State))  # fmt: skip
        offset = self.number("offset", 0, 0, 10**9)
        limit = self.number("limit", 1000, 1, MOST)
        search = page.Search(self.get_query_argument("q", "")[:200])
        found = [
            entry
            for entry in self.visible()
            if source in ("", entry.source)
            and state in ("", entry.state.value)
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

    async def get(self, source: str, name: str) -> None:
        """404 for what is not there and for what one may not see."""
        found = [e for e in self.visible() if (e.source, e.environment) == (source, name)]
        if not found:
            raise HTTPError(404)
        last_used = await self.last_used()
        self.reply({"versions": [self.told(entry, last_used) for entry in found]})


class Kernels(Api):
    """``GET api/v1/kernels``: kernels one may see."""

    async def get(self) -> None:
        """One for each version that has it."""
        self.reply({"kernels": [k for entry in self.visible() for k in _kernels(entry)]})


class OneKernel(Api):
    """``GET api/v1/kernels/NAME``."""

    async def get(self, name: str) -> None:
        """A kernel of this name in each version that has it."""
        found = [k for e in self.visible() for k in _kernels(e) if k["name"] == name]
        if not found:
            raise HTTPError(404)
        self.reply({"kernels": found})


def _kernels(entry: Entry) -> list[dict[str, Any]]:
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

    async def post(self) -> None:
        """For administrators of the hub."""
        if not self.reader.admin:
            raise Refused(403, "not_allowed", N_("Only an administrator may ask for a refresh."))
        changes = await self.registrar.refresh()
        if changes is None:
            raise Refused(
                503,
                "not_refreshed",
                N_("The registry could not be brought up to date:"),
                str(self.registrar.error),
            )
        self.reply(
            {
                "written": changes.written,
                "removed": changes.removed,
                "environments": len(self.registrar.entries),
                "failed": sorted(changes.failed.values()),
                "problems": self.registrar.problems,
            }
        )


class Usage(Api):
    """``api/v1/usage``: how often kernels are started."""

    for_servers = ("POST",)

    def check_hub_user(self, model: Any) -> Any:
        """A server's own token may do little; to count its owner's starts is all it does here."""
        server = server_of(str(model.get("name")), model.get("scopes") or ())
        if self.request.method == "POST" and model.get("kind") == "user" and server is not None:
            return model
        return super().check_hub_user(model)

    async def get(self) -> None:
        """Of the last ``days``: one's own starts; everybody's, for administrators."""
        days = self.number("days", 30, 1, 396)
        reader = self.reader
        since = (utcnow() - timedelta(days=days - 1)).date()
        name = None if reader.admin else reader.name
        found = await self.read(lambda session: uses(session, since, name))
        self.reply(
            {
                "since": since.isoformat(),
                "everyone": reader.admin,
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

    async def post(self) -> None:
        """A report of a person's own server."""
        reader = self.reader
        if not self.counter.admit(reader.name):
            raise Refused(
                429, "too_many", N_("Too many reports; try again in ten seconds."), retry_after=10
            )
        try:
            items = read_report(self.request.body)
        except ReportError as error:
            raise Refused(
                400, "bad_request", N_("The report cannot be read:"), str(error)
            ) from error
        starts = believed(items, self.visible())
        try:
            await self.counter.count(reader, starts)
        except StoreError as error:
            console.log.error("%s", error)
            raise HTTPError(503) from error
        self.reply({"counted": len(starts), "ignored": len(items) - len(starts)})


class OpenApi(Api):
    """``GET openapi.json``."""

    public = True

    async def get(self) -> None:
        """The description of this API."""
        self.reply(openapi.document(self.hub_auth.base_url))


class Health(Api):
    """``GET health``: for the container's health check; needs no login and tells no names."""

    public = True

    async def get(self) -> None:
        """200 where the last pass went well, else 503."""
        health = self.registrar.health()
        self.set_status(200 if health["status"] == "ok" else 503)
        self.reply(health)


class ApiNotFound(Api):
    """Any other address below ``api/``."""

    public = True

    async def prepare(self) -> None:
        """There is nothing."""
        raise HTTPError(404)


class _Page(_Shared, console.Page):
    """A page for people."""


class Overview(_Page):
    """The page: what there is, under which names, and how it is."""

    async def used(self) -> page.Used:
        """How everybody, or who is no administrator, uses what there is."""
        name = None if self.reader.admin else self.reader.name
        starts: dict[Key, int] = {}
        with suppress(StoreError):
            since = (utcnow() - LATELY).date()
            for use in await self.store.read(lambda session: uses(session, since, name)):
                key = (use.source, use.environment, use.version)
                starts[key] = starts.get(key, 0) + use.starts
        return page.Used(await self.last_used(), starts, name is None)

    async def get(self) -> None:
        """``q`` searches, ``problems`` leaves out what is well."""
        reader, registrar, lang = self.reader, self.registrar, language_of(self)
        search = page.Search(
            self.get_query_argument("q", "").strip()[:200],
            bool(self.get_query_argument("problems", "")),
        )
        sources = {n: s for n, s in registrar.sources.items() if reader.may_see(n)}
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
            trouble=self.say_it(registrar.error or "") if reader.admin else "",
            problems=[self.say_it(one) for one in registrar.problems if reader.admin],
            **contents,
        )


class NotFound(_Page):
    """Any other address, for people."""

    async def prepare(self) -> None:
        """Nobody is asked who they are for nothing."""
        raise HTTPError(404)


class Callback(_Shared, console.Callback):
    """The end of a login through the hub."""

    def refusal(self, status: int) -> tuple[str, str]:
        """Whatever went wrong, beginning again is the remedy."""
        return "login_unfinished", self._(N_("The login did not finish. Open “Kernels” again."))


class Static(console.Static, StaticFileHandler):
    """Style sheets and scripts."""
