"""The section ``directory``: who may come in, and what they are here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from commons.directory_names import check_group
from commons.site.parts import Name, Section

# A group of the directory: its name, or its whole DN.
Group = Annotated[str, AfterValidator(check_group)]


class DirectoryUsers(Section):
    """Where people are, and which attributes say what."""

    base_dn: str
    dn_templates: list[str] = []
    filter: str = ""
    netbios_domain: str = ""
    name_domain: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]*$")] = ""
    name_attribute: str = ""
    id_attribute: str = ""
    uid_attribute: str = "uidNumber"
    gid_attribute: str = "gidNumber"
    display_name_attribute: str = ""
    mail_attribute: str = "mail"
    number_attribute: str = "employeeNumber"
    language_attribute: str = "preferredLanguage"
    # openssh-lpk and FreeIPA; read where the site has SSH.
    ssh_key_attributes: list[str] = Field(["sshPublicKey", "ipaSshPubKey"], max_length=8)

    @model_validator(mode="after")
    def _has_login(self) -> DirectoryUsers:
        if self.filter and "{login}" not in self.filter:
            raise ValueError("filter: must contain {login}, for example (uid={login})")
        if not all("{login}" in template for template in self.dn_templates):
            raise ValueError(
                "dn_templates: each must contain {login}, for example "
                "uid={login},ou=people,dc=example,dc=org"
            )
        return self


class DirectoryGroups(Section):
    """Where groups are, and how membership is found; empty: as usual for ``server_type``."""

    base_dn: str
    filter: str = ""
    name_attribute: str = "cn"
    membership: Literal["", "member", "memberof", "in-chain"] = ""
    depth: int = Field(8, ge=1, le=64)


# Not a system's number, and one that Docker and every kernel take.
GroupNumber = Annotated[int, Field(ge=1000, le=2**31 - 1)]


class Team(Section):
    """The directory's groups of a team: its leads (who are members too) and members.

    ``gid`` and ``leads_gid`` own the team's folder of environments; without them two numbers
    are derived from the team's name, see ``commons.scopes``.
    """

    leads: list[Group] = []
    members: list[Group] = []
    gid: GroupNumber | None = None
    leads_gid: GroupNumber | None = None


class CoursePeople(Section):
    """The directory's groups of a course; ``gid`` and ``leads_gid`` as for a team."""

    instructors: list[Group] = []
    assistants: list[Group] = []
    students: list[Group] = []
    gid: GroupNumber | None = None
    leads_gid: GroupNumber | None = None


class LoginThrottle(Section):
    """Failed logins that are passed on, in ``window`` seconds; 0: any number.

    ``directory_lockout``: seconds of the directory's own lock, 0 until somebody lifts it.
    """

    per_name: int = Field(4, ge=0, le=1000)
    per_address: int = Field(100, ge=0, le=1000)
    window: int = Field(900, ge=1, le=86400, description="seconds")
    directory_lockout: int = Field(0, ge=0, le=604800, description="seconds")


class Directory(Section):
    """The directory (LDAP) that knows the people, and what its groups mean here.

    ``servers`` are tried in order. ``ldaps://`` is TLS from the start, ``ldap://`` is
    StartTLS; there is no clear text. Without them, the SRV records of ``dns_domain`` count.
    What is left empty in ``users`` and ``groups`` is as usual for ``server_type``.
    """

    server_type: Literal["openldap", "active-directory", "freeipa", "389-ds"] = "openldap"
    servers: list[str] = []
    dns_domain: str = ""
    ca_file: Path | None = None
    bind_dn: str | None = None
    bind_password_file: Path | None = None
    timeout: int = Field(5, ge=1, le=60, description="seconds for one operation")
    users: DirectoryUsers
    groups: DirectoryGroups | None = None
    platform_admins: list[Group] = []
    allowed_groups: list[Group] = []
    denied_groups: list[Group] = []
    teams: dict[Name, Team] = {}
    courses: dict[Name, CoursePeople] = {}
    hub_groups: dict[str, list[Group]] = {}
    min_uid: int = Field(1000, ge=1, le=2**31 - 2, description="smaller ones are the system's")
    max_uid: int = Field(2**31 - 2, ge=1, le=2**31 - 2)
    min_gid: int = Field(1000, ge=1, le=2**31 - 2, description="smaller ones are the system's")
    outage_grace: int = Field(14400, ge=0, description="seconds")
    disabled_grace: int | None = Field(3600, ge=0, description="seconds; null: never")
    throttle: LoginThrottle = LoginThrottle()

    @model_validator(mode="after")
    def _servers(self) -> Directory:
        if not self.servers and not self.dns_domain:
            raise ValueError(
                "servers: name at least one, or the dns_domain whose SRV records name them"
            )
        for server in self.servers:
            url = urlsplit(server)
            if url.scheme not in ("ldap", "ldaps") or not url.hostname:
                raise ValueError(f"servers: {server!r} must be ldaps://HOST[:PORT] or ldap://HOST")
        if self.denied_groups and not self.groups:
            raise ValueError(
                "denied_groups: say where groups are (groups.base_dn), or nobody is in any"
            )
        if bool(self.bind_dn) != bool(self.bind_password_file):
            raise ValueError("bind_dn and bind_password_file go together: set both or neither")
        return self
