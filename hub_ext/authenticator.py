"""LDAPAuthenticator: log in to JupyterHub with a directory account.

The hub's hooks; the work is done in ``hub_ext.directory``, where the traits are too
(``traits``). It can be used in any JupyterHub 6, without the rest of LabCommons::

    c.JupyterHub.authenticator_class = "labcommons-ldap"
    c.LDAPAuthenticator.servers = ["ldaps://ldap.example.org"]
    c.LDAPAuthenticator.user_base_dn = "ou=people,dc=example,dc=org"
"""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any

from tornado import web

from commons import shared_accounts
from commons.audit import AuditTrail, Chain, Outcome, make_event
from commons.i18n import gettext_for
from commons.messages import Locale
from commons.scopes import Scope
from commons.store import Store, StoreError
from commons.store.blocks import Block
from commons.store.trouble import DatabaseUnavailable
from commons.web.pages import locale_of
from hub_ext.sessions import end_sessions

from .directory.client import Directory, Person
from .directory.errors import (
    AccountGone,
    DirectoryError,
    DirectoryUnavailable,
    NameTaken,
    NotAdmitted,
    ShutOut,
    TooManyAttempts,
    WrongCredentials,
)
from .directory.from_site import configure_from_site
from .directory.memory import Memory, Remembered
from .directory.report import unknown
from .directory.roles import Roles, check_admitted, groups_named, roles_of
from .directory.roster import Asked, Match
from .directory.sweep import Sweep
from .directory.throttle import Attempt, Device, Throttle
from .directory.traits import DirectoryTraits

__all__ = ["LDAPAuthenticator", "configure_from_site"]

_LOGGED_NAME = 64
DEVICE = 180  # days for which a browser is known


class LDAPAuthenticator(DirectoryTraits):
    """Names, passwords, groups and numeric ids from a directory, always over verified TLS."""

    def __init__(self, **kwargs: Any) -> None:
        """Raises hub_ext.directory.errors.SettingsError when the directory cannot be asked."""
        super().__init__(**kwargs)
        if not self.auth_refresh_age:
            # JupyterHub then ignores refresh_pre_spawn too.
            self.log.error(
                "auth_refresh_age=0: nobody who is disabled or leaves a group loses anything "
                "before the next login; set it to some minutes"
            )
        self._directory = Directory(self.directory_settings(), self.log)
        self._roles = self.role_map()
        self._audit = AuditTrail(
            Chain(Path(self.audit_folder), "hub") if self.audit_folder else None
        )
        store = Store(self.state_database, threads=1) if self.state_database else None
        self._memory = Memory(store, self.log)
        self._throttle = Throttle(self.limits(), self._memory)
        self._loaded = False
        self._sweep: asyncio.Task[None] | None = None
        # What rosters say of somebody, by course; the hub sets it, which has the store of courses.
        self.rosters: Callable[[str], Awaitable[Mapping[str, str]]] | None = None
        # Whom an administrator has shut out here; the hub sets it, too.
        self.blocked: Callable[[str], Awaitable[Block | None]] | None = None

    def get_handlers(self, app: Any) -> list[tuple[str, Any]]:
        """JupyterHub's own; called once, while it starts, which is when this one starts too."""
        self._load()
        # LDAP makes much garbage, and each full collection would look through all that is
        # loaded by now: measured, that stops the loop for 50 ms and more during a crowd's login.
        gc.collect()
        gc.freeze()
        if self.sweep_interval:
            sweep = Sweep(
                app,
                self.refresh_user,
                self._memory,
                self.disabled_grace,
                self._server_stopped,
                self.log,
            )
            self._sweep = asyncio.ensure_future(sweep.forever(self.sweep_interval))
        self._looks = asyncio.ensure_future(self._look_for_groups())
        handlers: list[tuple[str, Any]] = super().get_handlers(app)
        return handlers

    async def _look_for_groups(self) -> None:
        """Say which groups the directory does not have; a hub that is up goes on."""
        named = groups_named(self._roles)
        try:
            findings = unknown(named, await self._directory.unknown_groups(named))
        except DirectoryError as error:
            self.log.warning("directory: the site's groups are not checked: %s", error)
            return
        for finding in findings:
            log = self.log.error if finding.level == "wrong" else self.log.warning
            log("directory: %s", finding.sentence())

    async def authenticate(
        self, handler: web.RequestHandler | None, data: Any
    ) -> dict[str, Any] | None:
        """The auth model of a person.

        A refusal is raised as HTTPError: JupyterHub shows its message on the login page, and
        ``None`` would be its own English sentence.
        """
        started = time.monotonic()
        typed, address = _field(data, "username"), _address(handler)
        try:
            if not self._loaded:
                await asyncio.to_thread(self._load)
            attempt = self._throttle.begin(address or "-", self._device(handler))
            person = await self._try_password(typed, _field(data, "password"), address, attempt)
            name = self._hub_name(person)
            self._check_admitted(person, name)
            await self._check_blocked(name)
            roles = await self._roles_of(person, name)
        except StoreError as error:
            self.log.error("event=login outcome=database: %s", error)
            unavailable = DatabaseUnavailable(error.trouble)
            raise web.HTTPError(503, unavailable.sentence(_locale(handler))) from None
        except DirectoryError as error:
            self._refused(typed, address, error)
            if isinstance(error, WrongCredentials | TooManyAttempts):
                await asyncio.sleep(self.failed_login_seconds - (time.monotonic() - started))
            raise web.HTTPError(error.status, error.sentence(_locale(handler))) from None
        self.log.info("event=login outcome=ok name=%s address=%s", ascii(name), address or "-")
        self._event("login", "success", name, address, user_id=person.account.id)
        await self._end_older_sessions(handler, name, person)
        self._remember_device(handler, attempt)
        return self._accepted(person, name, address, roles)

    async def refresh_user(
        self, user: Any, handler: web.RequestHandler | None = None
    ) -> bool | dict[str, Any]:
        """What the directory says now; False for a person it no longer knows or admits.

        While it is down, True for up to ``outage_grace`` seconds: an outage is not a dismissal.
        """
        if user.name.startswith(shared_accounts.MARK):  # of a team or course, while there is one
            return self._is_group(shared_accounts.scope_of(user.name))
        address = _address(handler)
        if not self._loaded:
            await asyncio.to_thread(self._load)
        known = self._memory.person(user.name)
        try:
            await self._check_blocked(user.name)
            person = await self._directory.lookup(
                self._directory_name(user.name), known.id if known else ""
            )
            if person is None:
                raise AccountGone("no such entry in the directory")
            if not (known and known.id) and self.normalize_username(person.name) != user.name:
                raise AccountGone(f"the entry's name is now {person.name!r}")
            self._check_admitted(person, user.name)
            self._check_holder(user.name, person)
            roles = await self._roles_of(person, user.name)
        except StoreError as error:  # what is not known is not taken from anybody
            self.log.error("event=refresh outcome=database: %s", error)
            return True
        except DirectoryUnavailable as error:
            return self._during_outage(user.name, error)
        except DirectoryError as error:
            if self._barred(user.name, error, address):
                end_sessions(user)
            return False
        if await self._end_sessions_of_old_password(user, person):
            return False
        return self._accepted(person, user.name, address, roles)

    async def find_people(self, asked: Sequence[Asked]) -> list[Match]:
        """Whom the lines of a class's roster mean. Raises DirectoryUnavailable."""
        return await self._directory.find_people(asked)

    def check_allowed(self, username: str, authentication: Any = None) -> bool:
        """``authenticate`` has refused already whom the rules do not allow."""
        return True

    def _check_admitted(self, person: Person, name: str) -> None:
        """JupyterHub's reading: who is named, or is in a group that is, may come in; members of
        ``denied_groups`` may not. Raises Denied or NotAdmitted.
        """
        by_name = self.allow_all or name in self.allowed_users
        check_admitted(person.groups, self._roles, by_name)
        if not (by_name or self._roles.allowed):
            raise NotAdmitted(("allowed_users",))

    async def _check_blocked(self, name: str) -> None:
        """Raises ShutOut, and StoreError where that cannot be known."""
        block = await self.blocked(self.normalize_username(name)) if self.blocked else None
        if block is not None:
            until = block.until.replace(tzinfo=UTC).timestamp() if block.until else None
            raise ShutOut(block.reason, block.by, until)

    # -- logins ---------------------------------------------------------------------------

    async def _try_password(
        self, typed: str, password: str, address: str | None, attempt: Attempt
    ) -> Person:
        try:
            person = await self._directory.login(typed, password, attempt.gate)
        except WrongCredentials:
            self._locked(attempt.wrong(), attempt, typed, address)
            raise
        except DirectoryUnavailable:
            attempt.void()
            raise
        except TooManyAttempts:
            raise
        except DirectoryError:
            attempt.right()  # barred, or not fit for a server: the password was right
            raise
        # Whatever else ends the try, such as a browser that goes away, leaves it counted.
        attempt.right()
        return person

    def _hub_name(self, person: Person) -> str:
        """The name in the hub: the first one that this person had here, if they were renamed."""
        known = self._memory.person_by_id(person.account.id)
        if known:
            return known.name
        name: str = self.normalize_username(person.name)
        if name.startswith(shared_accounts.MARK):  # by a username_map
            raise NameTaken(name, "", person.account.id)
        self._check_holder(name, person)
        return name

    def _is_group(self, scope: Scope | None) -> bool:
        return scope is not None and scope.owner in getattr(self._roles, scope.row.section)

    def _check_holder(self, name: str, person: Person) -> None:
        """Raises NameTaken when the name in the hub is another person's."""
        if not self._is_others(name, person):
            return
        try:
            self._memory.reload(name)
        except StoreError as error:
            self.log.error("directory: %s", error)
        if self._is_others(name, person):
            known = self._memory.person(name)
            raise NameTaken(name, known.id if known else "", person.account.id)

    def _is_others(self, name: str, person: Person) -> bool:
        known = self._memory.person(name)
        return bool(known and known.id and person.account.id and known.id != person.account.id)

    async def _roles_of(self, person: Person, name: str) -> Roles:
        """By the directory's groups and the rosters of courses. Raises StoreError."""
        rosters = await self.rosters(self.normalize_username(name)) if self.rosters else {}
        return roles_of(person.groups, self._roles, rosters)

    def _accepted(
        self, person: Person, name: str, address: str | None, roles: Roles
    ) -> dict[str, Any]:
        """Remember that all is well; the auth model."""
        hub_name = self.normalize_username(name)
        known = self._memory.person(hub_name)
        if known and known.roles and known.roles != roles.as_json():
            self.log.warning("event=role_change name=%s", ascii(hub_name))
            self._event(
                "role-change",
                "success",
                hub_name,
                address,
                user_id=person.account.id,
                details={"before": dict(known.roles), "after": roles.as_json()},
            )
        self._memory.remember(
            Remembered(
                hub_name,
                person.account.id or (known.id if known else ""),
                confirmed=time.time(),
                roles=roles.as_json(),
            )
        )
        admin = None
        if self.admin_groups:
            admin = roles.admin or hub_name in self.admin_users
        return {
            "name": name,
            "admin": admin,
            "groups": list(roles.hub_groups),
            # By it somebody is called where several people work in one notebook.
            "user_info": _user_info(person.account.display_name),
            "auth_state": _auth_state(person, roles),
        }

    def _refused(self, typed: str, address: str | None, error: DirectoryError) -> None:
        """One line and one event for each refusal; never a password."""
        unavailable = isinstance(error, DirectoryUnavailable)
        log = self.log.error if unavailable else self.log.warning
        log(
            "event=login outcome=%s name=%s address=%s: %s",
            error.outcome,
            _loggable(typed),
            address or "-",
            error,
        )
        if isinstance(error, NameTaken):
            self.log.error("event=alert kind=name_taken: %s", error)
        self._event("login", "failure", typed, address, reason=error.outcome)

    def _locked(self, limits: list[str], attempt: Attempt, typed: str, address: str | None) -> None:
        for limit in limits:
            name = attempt.name or typed
            self.log.error(
                "event=alert kind=lockout by=%s name=%s address=%s: too many failed logins; "
                "no more are passed on for up to %g s",
                limit,
                _loggable(name),
                address or "-",
                self.failure_window,
            )
            self._event("lockout", "success", name, address, reason=f"failures_by_{limit}")

    def _device(self, handler: web.RequestHandler | None) -> Device | None:
        """The browser, if somebody has logged in with it before."""
        value = handler and handler.get_signed_cookie(_device_cookie(handler), max_age_days=DEVICE)
        try:
            known = json.loads(value or b"")
            return Device(str(known["name"]), str(known["nonce"])[:64], str(known["password"]))
        except (ValueError, KeyError, TypeError):
            return None

    def _remember_device(self, handler: web.RequestHandler | None, attempt: Attempt) -> None:
        if handler is None or attempt.name is None:
            return
        known = {
            "name": attempt.name,
            "nonce": secrets.token_urlsafe(16),
            "password": attempt.password_time,
        }
        name = _device_cookie(handler)
        handler.set_signed_cookie(
            name,
            json.dumps(known),
            expires_days=DEVICE,
            # Where a server has the same host, it is not sent there.
            path="/" if name.startswith("__Host-") else f"{handler.settings['base_url']}hub/",
            secure=True,
            httponly=True,
            samesite="Lax",
        )

    async def _end_older_sessions(
        self, handler: web.RequestHandler | None, name: str, person: Person
    ) -> None:
        """A login with a new password ends the logins with the old one."""
        find_user = getattr(handler, "find_user", None)
        user = find_user(name) if find_user else None
        if user is not None:
            await self._end_sessions_of_old_password(user, person)

    async def _end_sessions_of_old_password(self, user: Any, person: Person) -> bool:
        """Whether the password was changed since they last were here, which ends all logins.

        False where the directory does not tell.
        """
        state = await user.get_auth_state() or {}
        before = str(state.get("password_time") or "")
        if not (before and person.password_time and before != person.password_time):
            return False
        # In this order: a hub that is killed in between ends them once more.
        end_sessions(user)
        await user.save_auth_state({**state, "password_time": person.password_time})
        self._event("sessions-ended", "success", user.name, None, "password_changed")
        return True

    # -- people who are logged in -----------------------------------------------------------

    def _barred(self, name: str, error: DirectoryError, address: str | None) -> bool:
        """Remember it; True when that is new."""
        self.log.warning(
            "event=refresh outcome=%s name=%s: %s", error.outcome, _loggable(name), error
        )
        known = self._memory.person(name) or Remembered(name)
        new = known.barred is None or known.reason != error.outcome
        if new:
            self._event("access-refused", "success", name, address, reason=error.outcome)
        since = known.barred if known.barred is not None and known.dismissed else time.time()
        self._memory.remember(
            replace(known, barred=since, reason=error.outcome, dismissed=error.dismissal)
        )
        return new

    def _during_outage(self, name: str, error: DirectoryUnavailable) -> bool:
        known = self._memory.person(name)
        if known is None:
            known = Remembered(name, confirmed=time.time())
            self._memory.remember(known)
        age = time.time() - known.confirmed
        keep = age <= self.outage_grace and known.barred is None
        self.log.warning(
            "event=refresh outcome=%s name=%s: last answer %d s ago, %s: %s",
            error.outcome,
            _loggable(name),
            age,
            "kept" if keep else f"over outage_grace={self.outage_grace}, must log in again",
            error,
        )
        return keep

    def _server_stopped(self, name: str, server: str, reason: str) -> None:
        self._event("server-stopped", "success", name, None, reason, details={"server": server})

    # -- odds and ends -----------------------------------------------------------------------

    def _load(self) -> None:
        """Raises StoreError when the database cannot be used."""
        if not self._loaded:
            self._memory.load(oldest_failure=time.time() - self.failure_window)
            self._loaded = True

    def _event(
        self,
        action: str,
        outcome: Outcome,
        name: str,
        address: str | None,
        reason: str = "",
        *,
        user_id: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self._audit.record(
            make_event(
                action,
                outcome,
                user=name,
                user_id=user_id,
                address=address,
                reason=reason,
                details=details,
            )
        )

    def _directory_name(self, hub_name: str) -> str:
        """The name in the directory of a hub user, through ``username_map`` backwards."""
        return next((key for key, name in self.username_map.items() if name == hub_name), hub_name)


def _auth_state(person: Person, roles: Roles) -> dict[str, Any]:
    """What the spawner and our services need to know (the contract in docs/architecture.md)."""
    account = person.account
    return {
        "id": account.id,
        "uid": account.uid,
        "gid": account.gid,
        "gids": list(person.groups.gids),
        "display_name": account.display_name,
        "mail": account.mail,
        "language": account.language,
        "ssh_keys": list(account.ssh_keys),
        "dn": account.dn,
        "password_time": person.password_time,
        "groups": list(roles.hub_groups),
        "teams": dict(roles.teams),
        "courses": dict(roles.courses),
    }


def _user_info(name: str) -> dict[str, str] | None:
    return {"name": name, "display_name": name} if name else None


def _device_cookie(handler: web.RequestHandler) -> str:
    """The name of the cookie that says which browser this is."""
    prefix = "__Host-" if handler.settings.get("cookie_host_prefix_enabled") else ""
    return f"{prefix}labcommons-device"


def _field(data: Any, key: str) -> str:
    """A text from a login form or a REST body, which may be any JSON."""
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, str) else ""


def _address(handler: web.RequestHandler | None) -> str | None:
    return handler.request.remote_ip if handler else None


def _loggable(name: str) -> str:
    """A name from outside as one quoted word: nothing in it can start a line or a field."""
    return ascii(name[:_LOGGED_NAME])


def _locale(handler: web.RequestHandler | None) -> Locale:
    return Locale(gettext_for("en")) if handler is None else locale_of(handler)
