"""What the directory's code must know, as plain checked values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .errors import SettingsError
from .presets import PRESETS, Membership

# Where LDAP servers listen: RFC 4516 for ldap, IANA for ldaps.
_PORTS = {"ldap": 389, "ldaps": 636}


@dataclass(frozen=True)
class DirectoryServer:
    """One server. ``ldaps``: TLS from the start; otherwise StartTLS. There is no clear text."""

    host: str
    port: int
    ldaps: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ldaps' if self.ldaps else 'ldap'}://{host}:{self.port}"


def parse_server(text: str) -> DirectoryServer:
    """``"ldap://[::1]:1389"`` -> its server. Raises SettingsError for anything else."""
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if (
        not host
        or url.scheme not in _PORTS
        or url.path not in ("", "/")
        or url.query
        or "@" in text
    ):
        raise SettingsError(f"servers: {text!r} must be ldaps://HOST[:PORT] or ldap://HOST[:PORT]")
    return DirectoryServer(host, port or _PORTS[url.scheme], url.scheme == "ldaps")


@dataclass(frozen=True)
class DirectorySettings:
    """Everything about one directory. Times are seconds.

    ``user_filter`` finds a person by what was typed at login: ``{login}`` in it is replaced
    by the escaped text, as in ``user_dn_templates``, which are tried instead when given.
    ``timeout`` bounds one network operation, ``login_deadline`` a whole login with every
    server tried. ``min_uid`` and ``min_gid`` keep root's and the system's numbers from people
    (UID_MIN of login.defs). ``lockout_seconds`` is how long the directory's own lock lasts,
    0: until an administrator lifts it. The defaults are those of the preset ``openldap``.
    """

    user_base_dn: str
    server_type: str = "openldap"
    servers: tuple[DirectoryServer, ...] = ()
    dns_domain: str = ""
    ca_file: Path | None = None
    bind_dn: str | None = None
    bind_password_file: Path | None = None
    timeout: int = 5
    login_deadline: float = 12.0
    cool_down: float = 30.0
    threads: int = 8
    user_dn_templates: tuple[str, ...] = ()
    user_filter: str = PRESETS["openldap"].user_filter
    netbios_domain: str = ""
    name_domain: str = ""
    name_attribute: str = PRESETS["openldap"].name_attribute
    id_attribute: str = PRESETS["openldap"].id_attribute
    uid_attribute: str = "uidNumber"
    gid_attribute: str = "gidNumber"
    display_name_attribute: str = PRESETS["openldap"].display_name_attribute
    mail_attribute: str = "mail"
    number_attribute: str = "employeeNumber"
    language_attribute: str = "preferredLanguage"
    ssh_key_attributes: tuple[str, ...] = ()
    group_base_dn: str | None = None
    group_filter: str = PRESETS["openldap"].group_filter
    group_name_attribute: str = "cn"
    group_membership: Membership = PRESETS["openldap"].group_membership
    group_depth: int = 8
    min_uid: int = 1000
    min_gid: int = 1000
    lockout_seconds: int = 0

    def __post_init__(self) -> None:
        if not self.servers and not self.dns_domain:
            raise SettingsError(
                "servers: name at least one, for example ldaps://ldap.example.org, "
                "or the dns_domain whose SRV records name them"
            )
        if self.server_type not in PRESETS:
            raise SettingsError(f"server_type: one of {', '.join(sorted(PRESETS))}")
        if not self.user_base_dn:
            raise SettingsError(
                "user_base_dn: say where people are, for example ou=people,dc=example,dc=org"
            )
        if "{login}" not in self.user_filter:
            raise SettingsError("user_filter: must contain {login}, for example (uid={login})")
        if not all("{login}" in template for template in self.user_dn_templates):
            raise SettingsError(
                "user_dn_templates: each must contain {login}, for example "
                "uid={login},ou=people,dc=example,dc=org"
            )
        if bool(self.bind_dn) != bool(self.bind_password_file):
            raise SettingsError(
                "bind_dn and bind_password_file go together: set both, or neither for anonymous"
            )
        if self.min_uid < 1 or self.min_gid < 1:
            raise SettingsError("min_uid and min_gid: at least 1, so that nobody becomes root")
