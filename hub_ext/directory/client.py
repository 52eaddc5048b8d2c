"""The directory as the hub sees it: log somebody in, look somebody up, never block the loop."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ldap3.utils.dn import escape_rdn

from .accounts import Account, clean_login, find_entry, password_bytes, read_account
from .connection import Deadline, Session, make_tls_context
from .errors import DirectoryUnavailable, ServerFailed, WrongCredentials
from .groups import Membership, read_groups
from .servers import Log, Servers
from .settings import DirectorySettings, Server

T = TypeVar("T")


@dataclass(frozen=True)
class Person:
    """An account with its groups."""

    account: Account
    membership: Membership

    @property
    def name(self) -> str:
        return self.account.name

    def auth_state(self) -> dict[str, object]:
        """What the spawner needs to know (the contract in docs/architecture.md)."""
        return {
            "uid": self.account.uid,
            "gid": self.account.gid,
            "gids": list(self.membership.gids),
            "display_name": self.account.display_name,
            "mail": self.account.mail,
            "language": self.account.language,
            "dn": self.account.dn,
            "groups": list(self.membership.names),
        }


class Directory:
    """One directory. Its work is done by at most ``settings.threads`` threads."""

    def __init__(self, settings: DirectorySettings, log: Log) -> None:
        """Raises SettingsError when the CA cannot be read; connects to nothing."""
        self._settings = settings
        self._log = log
        self._tls = make_tls_context(settings.ca_file)
        self._servers = Servers(settings.servers, settings.cool_down, log)
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="directory")

    async def login(self, login: str, password: str) -> Person:
        """The person with this name and password.

        Raises WrongCredentials, AccountUnusable or DirectoryUnavailable, the last one no
        later than ``settings.login_deadline`` seconds from now.
        """
        name, secret = clean_login(login), password_bytes(password)
        if name is None or secret is None:
            raise WrongCredentials("empty, too long or with characters that no account has")
        return await self._within_deadline(
            lambda deadline: self._servers.attempt(
                lambda server: self._login(server, deadline, name, secret)
            )
        )

    async def lookup(self, name: str) -> Person | None:
        """The person with this name as the directory knows them now; None for nobody.

        Raises AccountUnusable or DirectoryUnavailable; the last one at once while all
        servers rest after a failure.
        """
        login = clean_login(name)
        if login is None:
            return None
        return await self._within_deadline(
            lambda deadline: self._servers.attempt(
                lambda server: self._lookup(server, deadline, login), patient=False
            )
        )

    async def _within_deadline(self, work: Callable[[Deadline], T]) -> T:
        """Run ``work`` in the pool; waiting for a free thread counts."""
        deadline = Deadline(self._settings.login_deadline)
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, deadline)
        try:
            async with asyncio.timeout(self._settings.login_deadline):
                return await future
        except TimeoutError:
            raise DirectoryUnavailable(
                [f"no answer within the deadline of {self._settings.login_deadline:g} s"]
            ) from None
        finally:
            # Also when the request was cancelled: the thread must not go on waiting.
            deadline.abort()

    def _login(self, server: Server, deadline: Deadline, login: str, password: bytes) -> Person:
        with self._service_session(server, deadline) as service:
            entry = find_entry(service, self._settings, login, self._log)
            # An unknown name costs a bind too, so that the time does not tell who has an account.
            dn = entry.dn if entry else self._nobody()
            with self._session(server, deadline) as session:
                right = session.bind(dn, password)
            if entry is None or not right:
                raise WrongCredentials("wrong password" if entry else "no such entry")
            return self._person(service, read_account(entry, self._settings))

    def _lookup(self, server: Server, deadline: Deadline, login: str) -> Person | None:
        with self._service_session(server, deadline) as service:
            entry = find_entry(service, self._settings, login, self._log)
            return self._person(service, read_account(entry, self._settings)) if entry else None

    def _person(self, service: Session, account: Account) -> Person:
        return Person(account, read_groups(service, self._settings, account, self._log))

    def _nobody(self) -> str:
        """A DN that does not exist."""
        name = escape_rdn(f"nobody-{secrets.token_hex(8)}")
        return f"{self._settings.name_attribute}={name},{self._settings.user_base_dn}"

    def _session(self, server: Server, deadline: Deadline) -> Session:
        return Session(server, self._tls, self._settings.timeout, deadline)

    def _service_session(self, server: Server, deadline: Deadline) -> Session:
        """A session bound as the service account, or anonymous without one."""
        session = self._session(server, deadline)
        try:
            if self._settings.bind_dn and self._settings.bind_password_file:
                password = _read_secret(server, self._settings.bind_password_file)
                if not session.bind(self._settings.bind_dn, password):
                    raise ServerFailed(
                        str(server),
                        f"refused the service account {self._settings.bind_dn!r}; check bind_dn "
                        f"and the password in {self._settings.bind_password_file}",
                    )
        except BaseException:
            session.close()
            raise
        return session


def _read_secret(server: Server, path: Path) -> bytes:
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
