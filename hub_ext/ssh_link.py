"""``POST /hub/api/ssh``: what the service ``ssh`` asks, and nobody else may.

It asks for somebody's keys, whether and how a connection may go on to a server of theirs, who of
those that are connected may not be any more, and says what began and ended. What it gets besides
words is a token for that one server, which lasts for a minute.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from sqlalchemy.orm import Session
from tornado.web import HTTPError

from commons import ssh_keys
from commons.audit import make_event
from commons.errors import BadRequest
from commons.i18n import N_, gettext_for, language_for, timezone_for
from commons.messages import Locale, Message, Text
from commons.site.ssh import Ssh
from commons.store import ssh_keys as kept
from commons.store.models import SshKey
from hub_ext.failures import failure
from hub_ext.servers import OneByOneHandler
from spawner import exams
from spawner.spawner import LabSpawner

SERVICE = "ssh"
MAIN = "main"  # what the server without a name is called here
EXAM = exams.server_of("")
LASTS = 60  # seconds, of a token
AT_ONCE = 10  # people who are looked up in the directory
MOST = 5000  # sessions in one question
ADDRESS = "labcommons/ssh"  # of the server's extension, below its own
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,254}")

NOT_ADMITTED = Text(
    "ssh_not_admitted", N_("Your account may not log in any more, so this connection has ended.")
)
KEY_GONE = Text("ssh_key_gone", N_("The key of this connection is not on your list any more."))
IN_EXAM = Text("ssh_exam", N_("There is no SSH while you are in an exam."))
NO_SERVER = Text("ssh_no_server", N_("You have no server “{server}”. You have: {known}."))
NOT_RUNNING = Text(
    "ssh_not_running", N_("The server “{server}” does not run. Start it in the browser: {url}")
)
NEVER_STARTED = Text(
    "ssh_never_started",
    N_("The server “{server}” was never started. Choose in the browser what it has: {url}"),
)
NOT_FIT = Text(
    "ssh_server_old",
    N_("The server “{server}” cannot be reached by SSH. Stop it, and start it anew: {url}"),
)

WAIT = Text(
    "ssh_will_start",
    N_(
        "Your server “{server}” does not run. A connection to it starts it with what you chose "
        "last, which may take a few minutes: wait here."
    ),
)
ASLEEP = Text("ssh_asleep", N_("Your server does not run. Start it in the browser first."))


class SshApi(OneByOneHandler, APIHandler):  # type: ignore[misc]
    """One address: ``ask`` in the body says what is meant."""

    slow_spawn_timeout = 0  # it asks again

    async def post(self) -> None:
        """An answer in JSON."""
        asks = self.current_user
        if not isinstance(asks, orm.Service) or asks.name != SERVICE or self._settings is None:
            raise HTTPError(403)
        body = self.get_json_body()
        answers = {
            "keys": self._keys,
            "enter": self._enter,
            "look": self._look,
            "tell": self._tell,
        }
        answer = answers.get(str(body.get("ask"))) if isinstance(body, dict) else None
        if answer is None:
            raise HTTPError(400)
        self.finish(await answer(body))

    @property
    def _shared(self) -> Any:
        assert LabSpawner.shared is not None
        return LabSpawner.shared

    @property
    def _settings(self) -> Ssh | None:
        found: Ssh | None = self._shared.site.ssh
        return found

    # -- people -----------------------------------------------------------------------------

    async def _person(self, name: str) -> tuple[Any, Mapping[str, Any]] | None:
        """Somebody whom the directory admits now, with what it says; None for nobody.

        Who was never here has no server either.
        """
        user = self.find_user(name) if _NAME.fullmatch(name) else None
        if user is None:
            return None
        fresh = await self.authenticator.refresh_user(user)
        if not fresh:
            return None
        model = fresh if isinstance(fresh, dict) else {}
        return user, model.get("auth_state") or await user.get_auth_state() or {}

    async def _accepted(self, name: str, state: Mapping[str, Any]) -> dict[str, str]:
        """The keys that somebody may come with, in one line each, by fingerprint."""
        settings = self._settings
        assert settings is not None
        found: dict[str, str] = {}
        if settings.directory_keys:
            for line in state.get("ssh_keys") or ():
                try:
                    key = ssh_keys.parse(str(line))
                except BadRequest as error:
                    self.log.info("ssh: a key of %s in the directory is not taken: %s", name, error)
                else:
                    found[key.fingerprint] = key.line
        if settings.own_keys:
            rows = await self._shared.store.read(lambda session: kept.of(session, name))
            found |= {row.fingerprint: row.line for row in rows}
        return found

    async def _exam(self, name: str) -> bool:
        def work(session: Session) -> bool:
            return exams.begun(session, name) is not None

        found: bool = await self._shared.store.read(work)
        return found

    async def _keys(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Empty for nobody, as for somebody who has none."""
        name = str(body.get("name"))
        person = await self._person(name)
        if person is None:
            return {"keys": {}, "said": ""}
        user, state = person
        keys = await self._accepted(name, state)
        return {"keys": keys, "said": await self._ahead(user) if keys else ""}

    async def _ahead(self, user: Any) -> str:
        """What somebody is told while they log in: which of their servers does not run."""
        main = user.spawners.get("")
        if main is not None and main.ready:
            return ""
        return await self._said(user.name, WAIT(server=MAIN) if self._starts else ASLEEP())

    @property
    def _starts(self) -> bool:
        return self._settings is not None and self._settings.start_servers

    # -- servers ----------------------------------------------------------------------------

    async def _enter(  # noqa: PLR0911 - each is an answer
        self, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        """``state``: ready (with url, host, token), starting, or refused; ``said`` says why."""
        name, asked = str(body.get("name")), str(body.get("server"))[:255]
        person = await self._person(name)
        if person is None:
            return await self._refused(name, NOT_ADMITTED())
        user, state = person
        keys = await self._accepted(name, state)
        if body.get("key") not in keys:
            return await self._refused(name, KEY_GONE())
        server = _server_of(user, asked)
        if (server or "").startswith(EXAM) or await self._exam(name):
            return await self._refused(name, IN_EXAM())
        if server is None:
            known = ", ".join([MAIN, *(one for one in user.orm_spawners if one)])
            return await self._refused(name, NO_SERVER(server=asked[:80], known=known[:500]))
        spawner = user.spawners.get(server)
        called = server or MAIN
        if spawner is not None and spawner.ready:
            await self._note_use(name, str(body["key"]))
            scopes = [f"access:servers!server={name}/{server}"]
            return {
                "state": "ready",
                "server": server,
                "called": called,
                "path": spawner.server.base_url + ADDRESS,
                "host": user.domain if self.settings.get("subdomain_host") else "",
                "token": user.new_api_token(note="SSH", expires_in=LASTS, scopes=scopes),
                "keys": list(keys.values()),
                "said": await self._said(name, NOT_FIT(server=called, url=self._url())),
            }
        if spawner is not None and (spawner.active or spawner.pending):
            return {"state": "starting", "said": ""}
        if not body.get("start"):
            return {"state": "refused", "said": failure(self, name, server)}
        return await self._start(user, server)

    async def _start(self, user: Any, server: str) -> dict[str, Any]:
        """With the options that were chosen last."""
        called, url = server or MAIN, self._url()
        row = user.orm_spawners.get(server)
        if not self._starts:
            return await self._refused(user.name, NOT_RUNNING(server=called, url=url))
        if row is None or not row.user_options:
            return await self._refused(user.name, NEVER_STARTED(server=called, url=url))
        try:
            await self.spawn_single_user(user, server, options=dict(row.user_options))
        except HTTPError as error:
            said = getattr(error, "jupyterhub_message", "") or error.log_message or error.reason
            return {"state": "refused", "said": str(said or failure(self, user.name, server))}
        return {"state": "starting", "said": ""}

    def _url(self) -> str:
        return f"{os.environ.get('LABCOMMONS_PUBLIC_URL', '')}{self.hub.base_url}home"

    async def _note_use(self, name: str, key: str) -> None:
        def known(session: Session) -> bool:
            return session.get(SshKey, (name, key)) is not None

        if await self._shared.store.read(known):
            await self._shared.store.run(lambda session: kept.used(session, name, key))

    # -- sessions ---------------------------------------------------------------------------

    async def _look(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Whose connections end now, and what they are told: ``{"cut": {NAME: {KEY: SAID}}}``."""
        asked = body.get("open")
        if not isinstance(asked, dict) or len(asked) > MOST:
            raise HTTPError(400)
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(name: str, keys: list[str]) -> dict[str, str]:
            async with turns:
                person = await self._person(name)
                if person is None:
                    said = await self._said(name, NOT_ADMITTED())
                    return dict.fromkeys(keys, said)
                if await self._exam(name):
                    return dict.fromkeys(keys, await self._said(name, IN_EXAM()))
                may = await self._accepted(name, person[1])
                said = await self._said(name, KEY_GONE())
                return {key: said for key in keys if key not in may}

        found = await asyncio.gather(*(one(str(n), list(map(str, k))) for n, k in asked.items()))
        return {"cut": {name: cut for name, cut in zip(asked, found, strict=True) if cut}}

    async def _tell(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """For the audit trail: what began, ended or was refused."""
        action = str(body.get("what"))
        if action not in ("ssh-open", "ssh-close", "ssh-refused"):
            raise HTTPError(400)
        details = body.get("details")
        self._shared.audit.record(
            make_event(
                action,
                "failure" if action == "ssh-refused" else "success",
                user=str(body.get("name"))[:255],
                address=str(body.get("address"))[:64],
                reason=str(body.get("reason") or "")[:200],
                details=details if isinstance(details, dict) else None,
                service=SERVICE,
            )
        )
        return {}

    # -- words ------------------------------------------------------------------------------

    async def _refused(self, name: str, message: Message) -> dict[str, Any]:
        return {"state": "refused", "said": await self._said(name, message)}

    async def _said(self, name: str, message: Message) -> str:
        """In the person's own language."""
        readers = self._shared.readers
        reader = await readers.meet(name)
        language = language_for(reader, site=readers.language)
        zone = timezone_for(reader, site=readers.timezone)
        return message.in_words(Locale(gettext_for(language), zone))


def _server_of(user: Any, asked: str) -> str | None:
    """The hub's name of a server; JupyterHub's names, as names of hosts, have no capitals."""
    if asked == MAIN:
        return ""
    return asked if asked and asked in user.orm_spawners else None


HANDLERS = [(r"/api/ssh", SshApi)]
