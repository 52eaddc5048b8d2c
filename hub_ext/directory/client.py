"""The directory as the hub sees it: log somebody in, look somebody up, never block the loop."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from ldap3.utils.dn import escape_rdn

from .accounts import (
    Account,
    check_standing,
    clean_login,
    find_by_id,
    find_entry,
    login_dns,
    password_forms,
    password_time,
    read_account,
    read_entry,
    split_domain,
    throttle_key,
)
from .answers import BindAnswer
from .connection import Deadline, Session, make_tls_context
from .discovery import Discovery
from .entry import Entry, Searcher
from .errors import AccountBarred, DirectoryUnavailable, ServerFailed, WrongCredentials
from .groups import Groups, read_groups, unknown_groups
from .pool import Service, ServicePool
from .roster import Asked, Match, Roster
from .servers import Log, Servers
from .settings import DirectoryServer, DirectorySettings

T = TypeVar("T")
# Called before a password is tried, with the name that a login means and the time of its password's
# last change; may raise.
Gate = Callable[[str, str], None]


@dataclass(frozen=True)
class Person:
    """An account with its groups.

    ``password_time``: when the password was changed last, in the server's own form; "" where
    it does not tell.
    """

    account: Account
    groups: Groups
    password_time: str = ""

    @property
    def name(self) -> str:
        return self.account.name


class Directory:
    """One directory. Its work is done by at most ``settings.threads`` threads."""

    def __init__(self, settings: DirectorySettings, log: Log) -> None:
        """Raises SettingsError when the CA cannot be read; connects to nothing."""
        self._settings = settings
        self._log = log
        self._tls = make_tls_context(settings.ca_file)
        self.servers = Servers(settings.servers, settings.cool_down, log)
        self._discovery = (
            Discovery(settings.dns_domain, self.servers, settings.timeout, log)
            if settings.dns_domain
            else None
        )
        self.pool = ServicePool(self.open_service_session)
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="directory")
        # A crowd waits here and not in the executor: handing it over at once holds up the loop.
        self._slots = asyncio.Semaphore(settings.threads)

    async def login(
        self, login: str, password: str, gate: Gate = lambda name, password_time: None
    ) -> Person:
        """The person with this name and password.

        ``gate`` is called, in another thread, with the canonical name before each bind, also
        for a name that the directory does not know. Raises what it raises, WrongCredentials,
        AccountBarred, AccountUnusable or DirectoryUnavailable, the last one no later than
        ``settings.login_deadline`` seconds from now.
        """
        name, secrets = clean_login(login), password_forms(password)
        if name is None or not secrets:
            raise WrongCredentials("empty, too long or with characters that no account has")
        work = self._login_as_self if self._without_service else self._login

        def attempt(deadline: Deadline, secret: bytes) -> Person:
            return self.servers.attempt(lambda server: work(server, deadline, name, secret, gate))

        def every_form(deadline: Deadline) -> Person:
            for secret in secrets[:-1]:
                with suppress(WrongCredentials):
                    return attempt(deadline, secret)
            return attempt(deadline, secrets[-1])

        return await self._within_deadline(every_form)

    async def lookup(self, name: str, id: str = "") -> Person | None:
        """The person with this stable id, else with this name, as the directory knows them now.

        None for nobody. Raises AccountBarred, AccountUnusable or DirectoryUnavailable; the last
        one at once while all servers rest after a failure.
        """
        login = clean_login(name)
        if login is None:
            return None
        if self._without_service:
            raise DirectoryUnavailable(
                ["nobody can be looked up without a password; set bind_dn for refreshes"]
            )
        return await self._within_deadline(
            lambda deadline: self.servers.attempt(
                lambda server: self._lookup(server, deadline, login, id), patient=False
            )
        )

    async def unknown_groups(self, wanted: Collection[str]) -> list[str]:
        """Those of the groups that the directory does not have. Raises DirectoryUnavailable."""
        if self._without_service:
            raise DirectoryUnavailable(["groups cannot be looked up without bind_dn"])
        if not wanted:
            return []
        return await self._ask(lambda service: unknown_groups(service, self._settings, wanted))

    async def find_people(self, asked: Sequence[Asked], seconds: float = 60.0) -> list[Match]:
        """Whom each line of a roster means, in the order of the lines.

        Raises DirectoryUnavailable, also after ``seconds`` for all of them. Logins go between its
        searches, and a server that refuses one is well for others.
        """
        if self._without_service:
            raise DirectoryUnavailable(["nobody can be looked up without bind_dn"])
        entries: list[Entry] = []
        try:
            async with asyncio.timeout(seconds):
                roster = await asyncio.to_thread(Roster, asked, self._settings)
                for terms in roster.batches:
                    entries += await self._ask(partial(_search_roster, roster, terms))
                return await asyncio.to_thread(roster.matches, entries)
        except TimeoutError:
            raise DirectoryUnavailable([f"a roster took longer than {seconds:g} s"]) from None

    async def discover(self) -> None:
        """Bring the list of servers up to date, where DNS has it."""
        if self._discovery:
            await self._discovery.refresh()

    @property
    def _without_service(self) -> bool:
        return bool(self._settings.user_dn_templates) and not self._settings.bind_dn

    async def _ask(self, question: Callable[[Service], T]) -> T:
        """The answer of the first server that has one, asked as the service account."""

        def ask(deadline: Deadline, server: DirectoryServer) -> T:
            with self.pool.service(server, deadline) as service:
                return question(service)

        return await self._within_deadline(
            lambda deadline: self.servers.attempt(partial(ask, deadline))
        )

    async def _within_deadline(self, work: Callable[[Deadline], T]) -> T:
        """Run ``work`` in a thread; waiting for a free one counts."""
        deadline = Deadline(self._settings.login_deadline)
        try:
            async with asyncio.timeout(self._settings.login_deadline):
                await self.discover()
                async with self._slots:
                    loop = asyncio.get_running_loop()
                    return await loop.run_in_executor(self._threads, work, deadline)
        except TimeoutError:
            raise DirectoryUnavailable(
                [f"no answer within the deadline of {self._settings.login_deadline:g} s"]
            ) from None
        finally:
            # Also when the request was cancelled: the thread must not go on waiting.
            deadline.abort()

    def _login(
        self, server: DirectoryServer, deadline: Deadline, login: str, password: bytes, gate: Gate
    ) -> Person:
        with self.pool.service(server, deadline) as service:
            entry = find_entry(service, self._settings, login, self._log)
            gate(throttle_key(entry, login, self._settings), password_time(entry, self._settings))
            # An unknown name costs a bind too, so that the time does not tell who has an account.
            answer = self._bind(server, deadline, entry.dn if entry else self._nobody(), password)
            if entry is None:
                raise WrongCredentials("no such entry")
            _check(answer, entry.dn)
            return self._person(service, entry)

    def _login_as_self(
        self, server: DirectoryServer, deadline: Deadline, login: str, password: bytes, gate: Gate
    ) -> Person:
        """Without a service account: whoever binds reads their own entry and groups."""
        gate(throttle_key(None, login, self._settings), "")
        name = split_domain(login, self._settings.netbios_domain)
        for dn in login_dns(self._settings, name or ""):
            with self._session(server, deadline) as session:
                answer = session.bind(dn, password)
                if answer.password_right:
                    _check(answer, dn)
                    entry = read_entry(session, self._settings, dn)
                    if entry is None:
                        raise ServerFailed(
                            str(server),
                            f"lets {dn} not read its own entry; allow it, or set bind_dn",
                        )
                    return self._person(session, entry)
        raise WrongCredentials("no such entry, or wrong password")

    def _lookup(
        self, server: DirectoryServer, deadline: Deadline, login: str, id: str
    ) -> Person | None:
        with self.pool.service(server, deadline) as service:
            entry = (
                find_by_id(service, self._settings, id, self._log)
                if id
                else find_entry(service, self._settings, login, self._log)
            )
            return self._person(service, entry) if entry else None

    def _person(self, searcher: Searcher, entry: Entry) -> Person:
        check_standing(entry, self._settings)
        account = read_account(entry, self._settings)
        groups = read_groups(searcher, self._settings, account, entry, self._log)
        return Person(account, groups, password_time(entry, self._settings))

    def _bind(
        self, server: DirectoryServer, deadline: Deadline, dn: str, password: bytes
    ) -> BindAnswer:
        """On a connection of its own: a failed bind leaves one anonymous (RFC 4513, 4)."""
        with self._session(server, deadline) as session:
            return session.bind(dn, password)

    def _nobody(self) -> str:
        """A DN that does not exist."""
        name = escape_rdn(f"nobody-{secrets.token_hex(8)}")
        return f"{self._settings.name_attribute}={name},{self._settings.user_base_dn}"

    def _session(self, server: DirectoryServer, deadline: Deadline) -> Session:
        return Session(server, self._tls, self._settings.timeout, deadline)

    def open_service_session(self, server: DirectoryServer, deadline: Deadline) -> Session:
        """A session bound as the service account, or anonymous without one."""
        session = self._session(server, deadline)
        try:
            if self._settings.bind_dn and self._settings.bind_password_file:
                password = _read_secret(server, self._settings.bind_password_file)
                if not session.bind(self._settings.bind_dn, password).password_right:
                    raise ServerFailed(
                        str(server),
                        f"refused the service account {self._settings.bind_dn!r}; check bind_dn "
                        f"and the password in {self._settings.bind_password_file}",
                    )
        except BaseException:
            session.close()
            raise
        return session


def _check(answer: BindAnswer, dn: str) -> None:
    if not answer.password_right:
        raise WrongCredentials("wrong password", answer.standing)
    if answer.standing:
        raise AccountBarred(answer.standing, dn)


def _search_roster(roster: Roster, terms: Sequence[str], service: Service) -> list[Entry]:
    try:
        return roster.search(service, terms)
    except ServerFailed as failure:
        if service.session.broken:
            raise
        # It answers, and would to a login: it must not rest for this.
        raise DirectoryUnavailable(
            [f"{failure}; where that is a limit, index the attributes that rosters ask for"]
        ) from failure


def _read_secret(server: DirectoryServer, path: Path) -> bytes:
    """A password from a file, without the line's end; read each time, so that it can be changed."""
    try:
        secret = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ServerFailed(
            str(server),
            f"bind_password_file {path}: {error.strerror}; make it readable for the hub",
        ) from error
    if not secret:
        raise ServerFailed(str(server), f"bind_password_file {path} is empty; put the password in")
    return secret
