"""What a person asks of their server and is told about it: form, language, refusals, progress."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from datetime import tzinfo
from functools import partial
from typing import Any

from traitlets import default

from commons import shared_accounts
from commons.errors import LabError
from commons.i18n import Gettext, Reader, gettext_for, language_for, timezone_for
from commons.messages import Locale
from commons.principal import Principal
from commons.scopes import Scope
from commons.store import StoreError
from commons.store.trouble import RETRY_AFTER, DatabaseUnavailable
from commons.web.pages import language_of, timezone_of
from commons.web.refused import Refused
from spawner import options
from spawner.folders import folders_of
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.snapshot import read_snapshot
from spawner.gpu.offer import make_offers
from spawner.gpu.policy.forecast import probe
from spawner.gpu.waiting import Said
from spawner.resources import Resources
from spawner.settings import server as server_settings
from spawner.settings.server import ServerSettings
from spawner.settings.traits import DockerSettings
from spawner.starts.line import Place
from spawner.starts.room import Need
from spawner.starts.told import turn_event


class Step(dict[str, Any]):
    """An event of a start's progress, as one reader has it; ``said`` makes it for another."""

    def __init__(self, said: Said, locale: Locale) -> None:
        super().__init__(said(locale))
        self.said = said


# In an address of the spawn page, but no options of a server.
NO_OPTIONS = ("next", "_xsrf", "display_name", "redirects")


class Dialogue(DockerSettings):
    """The side of a spawner that people see."""

    shared: Resources | None = None  # of the whole process
    user_options: dict[str, Any]

    @default("apply_user_options")
    def _read_at_the_start(self) -> Any:
        # By ``options.request``; JupyterHub would warn at each start that nobody reads them.
        return lambda _spawner, _options: None

    @default("options_form")
    def _default_options_form(self) -> Any:
        return type(self)._form

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self._from_form

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._auth_state: dict[str, Any] = {}
        self._reader = Reader()
        self._steps: list[Step] = []
        self._step = asyncio.Event()

    @property
    def resources(self) -> Resources:
        """Made once for the process, at its first spawner."""
        shared = self.shared
        if shared is None:
            shared = type(self).shared = Resources.from_environment()
        return shared

    # -- language and errors ------------------------------------------------------------

    @property
    def _asked(self) -> Any:
        """Somebody's request for the server; None for a start by the hub itself."""
        return self.handler if getattr(self.handler, "_jupyterhub_user", None) else None

    @property
    def lang(self) -> str:
        """The language of who asked for the server, by the rule of ``commons.i18n``."""
        return language_of(self._asked) if self._asked is not None else self.owners[0]

    @property
    def _(self) -> Gettext:
        return gettext_for(self.lang)

    @property
    def _timezone(self) -> tzinfo:
        """The person's, as their browser says it; else the site's."""
        return timezone_of(self._asked) if self._asked is not None else self.owners[1]

    @property
    def owners(self) -> tuple[str, tzinfo]:
        """Language and time zone of the server: its owner's, whoever starts it."""
        if self._asked is not None and self._asked.current_user.name == self.user.name:
            return language_of(self._asked), timezone_of(self._asked)
        readers = self.resources.readers
        return (
            language_for(self._reader, site=readers.language),
            timezone_for(self._reader, site=readers.timezone),
        )

    @property
    def _locale(self) -> Locale:
        return Locale(self._, self._timezone)

    # -- what is asked ------------------------------------------------------------------

    async def _form(self) -> str:
        """The spawn page's model as JSON; the template draws it."""
        person = self._person()
        settings, now = await self._read_settings(), time.time()
        whole = settings.site(self.resources.site)
        site = whole.model_copy(update={"sizes": options.sizes_for(person, whole)})
        probes = tuple(probe(person.name, account, now) for account in person.accounts)
        entries, available, snapshot = await self.resources.store.read(
            lambda session: (
                settings.catalog(options.offered(session, person)),
                transitions.availability(session),
                read_snapshot(session, now, probes=probes),
            )
        )
        most = min(site.gpus.max_per_server, available.total)
        last = settings.asked(self.user_options)
        link = self._link()
        wanted, problems = options.linked(link, entries, whole, available, person)
        if wanted.get("environment", last.get("environment")) != last.get("environment"):
            last.pop("size", None)  # another environment may suggest another
        last |= wanted
        # Looking ahead counts with every request that waits: off the event loop.
        models = sorted(kind.model for kind in available.types)
        models.sort(key=lambda model: model != last.get("gpu_type"))  # the likeliest first
        offers = await asyncio.to_thread(
            make_offers,
            snapshot,
            person.name,
            person.accounts,
            most,
            self._,
            self._timezone,
            models if len(models) > 1 else (),
            person.admin,
        )
        model = options.form_model(entries, site, available, last, self.lang, self._, offers)
        problems += options.not_chosen(model, wanted)
        course = Scope("course", (link.get("course") or [""])[-1])
        locale = Locale(self._, self._timezone, now)
        return json.dumps(
            model
            | {
                "folders": folders_of(person, site, settings.mounts, self.lang, self._),
                "linked": bool(link),
                # It is posted with the rest: the course's link leads to a server that is for it.
                "course": course.owner if wanted.get("account") == course.account else "",
                "link_problems": [one.in_words(locale) for one in problems],
            }
        )

    def _link(self) -> dict[str, list[str]]:
        """What the address of the spawn page asks for."""
        request = self.handler and self.handler.request
        if not request or request.method != "GET":
            return {}
        return {
            key: [one.decode("utf-8", "replace") for one in values]
            for key, values in request.query_arguments.items()
            if key not in NO_OPTIONS and not key.startswith("opt-")
        }

    async def _read_settings(self) -> ServerSettings:
        try:
            person = self._person()
            scopes = [scope.source for scope in person.scopes]
            return await server_settings.read(self, self.resources.site, scopes)
        except LabError as error:
            self.log.error("%s: %s", self._log_name, error)
            raise Refused(error, self._) from error

    def _from_form(self, form: dict[str, Any]) -> dict[str, Any]:
        try:
            return options.from_form(form)
        except LabError as error:
            raise Refused(error, self._) from error

    def _person(self) -> Principal:
        """Whose server it is, as the directory says."""
        return Principal.from_auth_state(self.user.name, bool(self.user.admin), self._auth_state)

    async def run_auth_state_hook(self, auth_state: dict[str, Any] | None) -> None:
        """Keep what the directory said about the person, for ``start``."""
        group = shared_accounts.scope_of(self.user.name)
        self._auth_state = auth_state or {} if group is None else shared_accounts.auth_state(group)
        self._reader = await self.resources.readers.meet(
            self.user.name, directory=str(self._auth_state.get("language") or "")
        )
        await super().run_auth_state_hook(auth_state)
        await self.resources.one_by_one(2)

    def _without_store(self, error: StoreError) -> Refused:
        self.log.error("%s", error)
        return Refused(DatabaseUnavailable(error.trouble), self._, retry_after=RETRY_AFTER)

    # -- progress ----------------------------------------------------------------------

    def _say(self, progress: int, message: str, **params: Any) -> None:
        def said(locale: Locale) -> dict[str, Any]:
            shown = {
                name: value(locale) if callable(value) else value for name, value in params.items()
            }
            return {"progress": progress, "message": locale.gettext(message).format_map(shown)}

        self._tell(said)

    def _tell(self, said: Said) -> None:
        event = Step(said, self._locale)
        # Of the news from the queue, the last one is enough for those who come later.
        if "queue" in event and self._steps and "queue" in self._steps[-1]:
            self._steps.pop()
        self._steps.append(event)
        self._step.set()

    def _tell_place(self, sizes: Mapping[str, Need], place: Place) -> None:
        """``sizes``: what each size counts with that the person might have instead."""
        key, turns = (self.user.name, self.name), self.resources.turns
        fitting = place.reason and [n for n, need in sizes.items() if turns.sooner(key, need)]
        self._tell(partial(turn_event, place, fitting or ()))

    @property
    def waits_for(self) -> str:
        """What the start stands in line for, as its last step says: "gpus", "turn"; "" for none."""
        last = self._steps[-1] if self._steps else {}
        return str(last["queue"].get("of", "gpus")) if "queue" in last else ""

    async def progress(self) -> AsyncIterator[Step]:
        """The steps of the start as they happen; the hub ends the iteration."""
        shown: list[Step] = []
        # Somebody waits for it now.
        self.resources.turns.come((self.user.name, self.name))
        while True:
            self._step.clear()
            new = [step for step in self._steps if not any(step is old for old in shown)]
            shown = list(self._steps)
            for step in new:
                yield step
            if not new:
                await self._step.wait()
