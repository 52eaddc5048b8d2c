"""LDAPAuthenticator: log in to JupyterHub with a directory account.

Traits and the hub's hooks; the work is done in ``hub_ext.directory``. It needs nothing else
of LabCommons::

    c.JupyterHub.authenticator_class = "labcommons-ldap"
    c.LDAPAuthenticator.servers = ["ldaps://ldap.example.org"]
    c.LDAPAuthenticator.user_base_dn = "ou=people,dc=example,dc=org"
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterhub.auth import Authenticator
from tornado import web
from traitlets import Bool, Float, Int, List, Unicode
from traitlets.config import Config

from .directory.client import Directory, Person
from .directory.errors import (
    AccountGone,
    DirectoryError,
    DirectoryUnavailable,
    NotAllowed,
    WrongCredentials,
)
from .directory.settings import DirectorySettings, parse_server
from .i18n import LANGUAGE_COOKIE, Gettext, choose_language, gettext_for

if TYPE_CHECKING:
    from .site import Site

_LOGGED_NAME = 64


class LDAPAuthenticator(Authenticator):
    """Names, passwords, groups and numeric ids from a directory, always over verified TLS."""

    enable_auth_state = Bool(
        True,
        help="""Keep uid, gid, groups and display name, encrypted, for the spawner.

        Needs `JUPYTERHUB_CRYPT_KEY`, for example from `openssl rand -hex 32`.
        """,
    ).tag(config=True)

    manage_groups = Bool(
        True, help="Replace a person's hub groups by those of the directory at every login."
    ).tag(config=True)

    allow_all = Bool(
        True,
        help="""Let in everybody whom the directory accepts and `allowed_groups` admits.

        Set it to False to require a name in `allowed_users` too.
        """,
    ).tag(config=True)

    servers = List(
        Unicode(),
        help="""Servers of the directory, asked in this order; one that failed rests a while.

        `ldaps://` is TLS from the start, `ldap://` is StartTLS. There is no clear text.
        Example: `["ldaps://ldap1.example.org", "ldap://ldap2.example.org:1389"]`
        """,
    ).tag(config=True)

    ca_file = Unicode(
        None,
        allow_none=True,
        help="""PEM file with the CA of the servers' certificates; then no other is trusted.

        Without it, the machine's trust store. Read once, at start.
        Example: `"/etc/labcommons/tls/directory-ca.crt"`
        """,
    ).tag(config=True)

    bind_dn = Unicode(
        None,
        allow_none=True,
        help="""The service account that searches people and groups; without it, anonymous.

        Example: `"uid=jupyterhub,ou=services,dc=example,dc=org"`
        """,
    ).tag(config=True)

    bind_password_file = Unicode(
        None,
        allow_none=True,
        help="""File with the service account's password, read at each use.

        Example: `"/run/secrets/ldap-password"`
        """,
    ).tag(config=True)

    user_base_dn = Unicode(
        help="""Where people are. Example: `"ou=people,dc=example,dc=org"`"""
    ).tag(config=True)

    user_filter = Unicode(
        "(uid={login})",
        help="""Finds a person by what was typed; `{login}` is replaced by the escaped text.

        It must find exactly one entry. Example, for name or e-mail address:
        `"(&(objectClass=posixAccount)(|(uid={login})(mail={login})))"`
        """,
    ).tag(config=True)

    name_attribute = Unicode(
        "uid",
        help="""Holds the name in the hub, whatever was typed; must have exactly one value.

        Example: `"sAMAccountName"`
        """,
    ).tag(config=True)

    uid_attribute = Unicode(
        "uidNumber", help="""Holds the numeric user id. Example: `"uidNumber"`"""
    ).tag(config=True)

    gid_attribute = Unicode(
        "gidNumber",
        help="""Holds the numeric id of a person's primary group, and of a group.

        Example: `"gidNumber"`
        """,
    ).tag(config=True)

    display_name_attribute = Unicode(
        "cn", help="""Holds the name to show. Example: `"displayName"`"""
    ).tag(config=True)

    mail_attribute = Unicode("mail", help="""Holds the e-mail address. Example: `"mail"`""").tag(
        config=True
    )

    language_attribute = Unicode(
        "preferredLanguage",
        help="""Holds the language of choice, such as zh-CN. Example: `"preferredLanguage"`""",
    ).tag(config=True)

    group_base_dn = Unicode(
        None,
        allow_none=True,
        help="""Where groups are; without it, nobody has any.

        Example: `"ou=groups,dc=example,dc=org"`
        """,
    ).tag(config=True)

    group_filter = Unicode(
        "(|(objectClass=groupOfNames)(objectClass=posixGroup))",
        help="""Which entries below `group_base_dn` are groups.

        Example: `"(objectClass=groupOfNames)"`
        """,
    ).tag(config=True)

    group_name_attribute = Unicode(
        "cn", help="""Holds a group's name in the hub. Example: `"cn"`"""
    ).tag(config=True)

    group_depth = Int(
        8,
        min=1,
        max=64,
        help="How many levels of groups in groups are followed. Example: `1` for direct ones only",
    ).tag(config=True)

    admin_groups = List(
        Unicode(),
        help="""Members of any of these are hub administrators, others are not.

        Names in `admin_users` are administrators besides. Empty: groups make nobody one.
        Example: `["lab-admins"]`
        """,
    ).tag(config=True)

    allowed_groups = List(
        Unicode(),
        help="""Only members of at least one of these may log in, administrators included.

        Empty: everybody in the directory. Example: `["lab-users"]`
        """,
    ).tag(config=True)

    min_uid = Int(
        1000,
        min=1,
        help="The smallest uid of a person; smaller ones are the system's. Example: `500`",
    ).tag(config=True)

    min_gid = Int(
        1000,
        min=1,
        help="The smallest gid of a person or group; smaller ones are the system's. Example: `100`",
    ).tag(config=True)

    timeout = Int(
        5, min=1, help="Seconds for one network operation with one server. Example: `3`"
    ).tag(config=True)

    login_deadline = Float(
        12.0, min=1, help="Seconds for a whole login, all servers together. Example: `20`"
    ).tag(config=True)

    cool_down = Float(
        30.0, min=0, help="Seconds a server that failed is asked last. Example: `60`"
    ).tag(config=True)

    threads = Int(8, min=1, max=64, help="How many operations run at once. Example: `16`").tag(
        config=True
    )

    failed_login_seconds = Float(
        0.4,
        min=0,
        help="""A refused name or password is answered no sooner than after this many seconds.

        It hides how long the directory took, which differs for known and unknown names.
        Set it above the time of one bind. Example: `1.0`
        """,
    ).tag(config=True)

    outage_grace = Int(
        4 * 3600,
        min=0,
        help="""Seconds for which people who were logged in keep what was known of them while the
        directory is down. Counted from the last answer about the person. Example: `86400`
        """,
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        """Raises hub_ext.directory.errors.SettingsError when the directory cannot be asked."""
        super().__init__(**kwargs)
        self._directory = Directory(self._settings(), self.log)
        # When the directory last answered about a person (time.monotonic).
        self._confirmed: dict[str, float] = {}

    async def authenticate(
        self, handler: web.RequestHandler | None, data: Any
    ) -> dict[str, Any] | None:
        """The auth model of a person.

        A refusal is raised as HTTPError: JupyterHub shows its message on the login page, and
        ``None`` would be its own English sentence.
        """
        started = time.monotonic()
        typed = _field(data, "username")
        try:
            person = await self._directory.login(typed, _field(data, "password"))
            self._admit(person)
        except DirectoryError as error:
            self._log_login(typed, handler, error.outcome, error)
            if isinstance(error, WrongCredentials):
                await asyncio.sleep(self.failed_login_seconds - (time.monotonic() - started))
            raise web.HTTPError(error.status, error.sentence(_gettext(handler))) from None
        self._log_login(person.name, handler, "ok")
        model = self._auth_model(person, person.name)
        self._confirmed[self.normalize_username(person.name)] = time.monotonic()
        return model

    async def refresh_user(
        self, user: Any, handler: web.RequestHandler | None = None
    ) -> bool | dict[str, Any]:
        """What the directory says now; False for a person it no longer knows or admits.

        While it is down, True for up to ``outage_grace`` seconds: an outage is not a dismissal.
        """
        try:
            person = await self._directory.lookup(self._directory_name(user.name))
            if person is None:
                raise AccountGone("no such entry in the directory")
            if self.normalize_username(person.name) != user.name:
                raise AccountGone(f"the entry's name is now {person.name!r}")
            self._admit(person)
        except DirectoryUnavailable as error:
            return self._during_outage(user.name, error)
        except DirectoryError as error:
            self._confirmed.pop(user.name, None)
            self.log.warning(
                "event=refresh outcome=%s name=%s: %s", error.outcome, _loggable(user.name), error
            )
            return False
        self._confirmed[user.name] = time.monotonic()
        return self._auth_model(person, user.name)

    def _during_outage(self, name: str, error: DirectoryUnavailable) -> bool:
        now = time.monotonic()
        age = now - self._confirmed.setdefault(name, now)
        keep = age <= self.outage_grace
        self.log.warning(
            "event=refresh outcome=%s name=%s: last answer %d s ago, %s: %s",
            error.outcome,
            _loggable(name),
            age,
            "kept" if keep else f"over outage_grace={self.outage_grace}, must log in again",
            error,
        )
        return keep

    def _admit(self, person: Person) -> None:
        # Here and not in check_allowed, which allow_all skips and a refresh never asks.
        if self.allowed_groups and not _in_any(person, self.allowed_groups):
            raise NotAllowed(self.allowed_groups)

    def _auth_model(self, person: Person, name: str) -> dict[str, Any]:
        admin = None
        if self.admin_groups:
            hub_name = self.normalize_username(name)
            admin = hub_name in self.admin_users or _in_any(person, self.admin_groups)
        return {
            "name": name,
            "admin": admin,
            "groups": list(person.membership.names),
            "auth_state": person.auth_state(),
        }

    def _directory_name(self, hub_name: str) -> str:
        """The name in the directory of a hub user, through ``username_map`` backwards."""
        return next((key for key, name in self.username_map.items() if name == hub_name), hub_name)

    def _settings(self) -> DirectorySettings:
        # Each field of the settings has a trait of its name.
        values = {field.name: getattr(self, field.name) for field in fields(DirectorySettings)}
        values["servers"] = tuple(parse_server(server) for server in self.servers)
        for name in ("ca_file", "bind_password_file"):
            values[name] = Path(values[name]) if values[name] else None
        return DirectorySettings(**values)

    def _log_login(
        self,
        name: str,
        handler: web.RequestHandler | None,
        outcome: str,
        error: DirectoryError | None = None,
    ) -> None:
        """One line for each login, for people and for log shippers; never a password."""
        level = {"ok": self.log.info, "directory_unavailable": self.log.error}
        level.get(outcome, self.log.warning)(
            "event=login outcome=%s name=%s address=%s%s",
            outcome,
            _loggable(name),
            handler.request.remote_ip if handler else "-",
            f": {error}" if error else "",
        )


def configure_from_site(c: Config, site: Site) -> None:
    """Set up this authenticator in a jupyterhub_config.py from the site file's ``directory``."""
    directory = site.directory
    c.JupyterHub.authenticator_class = "labcommons-ldap"
    traits = c.LDAPAuthenticator
    traits.servers = list(directory.servers)
    traits.ca_file = str(directory.ca_file) if directory.ca_file else None
    traits.bind_dn = directory.bind_dn
    traits.bind_password_file = (
        str(directory.bind_password_file) if directory.bind_password_file else None
    )
    traits.timeout = directory.timeout
    # Room for a second server after one that is silent, and for the answer.
    traits.login_deadline = 2.0 * directory.timeout + 2.0
    users, groups = directory.users, directory.groups
    traits.user_base_dn = users.base_dn
    traits.user_filter = users.filter
    for kind in ("name", "uid", "gid", "display_name", "mail", "language"):
        traits[f"{kind}_attribute"] = getattr(users, f"{kind}_attribute")
    if groups:
        traits.group_base_dn = groups.base_dn
        traits.group_filter = groups.filter
        traits.group_name_attribute = groups.name_attribute
    traits.admin_groups = list(directory.platform_admins)
    traits.allowed_groups = list(directory.allowed_groups)
    # A right that was taken away must end for tokens too, and before a server starts.
    traits.auth_refresh_strict = True
    traits.refresh_pre_spawn = True


def _field(data: Any, key: str) -> str:
    """A text from a login form or a REST body, which may be any JSON."""
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, str) else ""


def _in_any(person: Person, groups: Iterable[str]) -> bool:
    # Directories compare group names without case.
    return not {name.casefold() for name in groups}.isdisjoint(
        name.casefold() for name in person.membership.names
    )


def _loggable(name: str) -> str:
    """A name from outside as one quoted word: nothing in it can start a line or a field."""
    return ascii(name[:_LOGGED_NAME])


def _gettext(handler: web.RequestHandler | None) -> Gettext:
    if handler is None:
        return gettext_for("en")
    return gettext_for(
        choose_language(
            handler.get_cookie(LANGUAGE_COOKIE), handler.request.headers.get("Accept-Language")
        )
    )
