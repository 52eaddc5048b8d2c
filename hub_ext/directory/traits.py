"""The settings of LDAPAuthenticator as traits, and what they make.

Whatever is left empty is as usual for ``server_type`` (``presets``).
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from jupyterhub.auth import Authenticator
from traitlets import Bool, CaselessStrEnum, Dict, Float, Int, List, Unicode, default

from .errors import SettingsError
from .presets import PRESETS
from .roles import RoleMap, read_groups_of, read_positions
from .settings import DirectorySettings, parse_server
from .throttle import Limits


class DirectoryTraits(Authenticator):
    """Settings of LDAPAuthenticator."""

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
        help="""Let in everybody whom the directory accepts, except members of `denied_groups`.

        By default True where neither `allowed_users` nor `allowed_groups` nor
        `allow_existing_users` is set; otherwise those decide, and a name or a group is enough.
        """,
    ).tag(config=True)

    @default("allow_all")
    def _default_allow_all(self) -> bool:
        return not (self.allowed_users or self.allowed_groups or self.allow_existing_users)

    server_type = CaselessStrEnum(
        sorted(PRESETS),
        "openldap",
        help="""What kind of directory it is: the default of every setting left empty below.

        Example: `"active-directory"`
        """,
    ).tag(config=True)

    servers = List(
        Unicode(),
        help="""Servers of the directory, asked in this order; one that failed rests a while.

        `ldaps://` is TLS from the start, `ldap://` is StartTLS. There is no clear text.
        Example: `["ldaps://ldap1.example.org", "ldap://ldap2.example.org:1389"]`
        """,
    ).tag(config=True)

    dns_domain = Unicode(
        help="""Domain whose DNS SRV records (`_ldaps._tcp`, `_ldap._tcp`) name the servers.

        Used when `servers` is empty. Only hosts within the domain are taken, as DNS itself
        proves nothing. Example: `"example.org"`
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

    user_dn_templates = List(
        Unicode(),
        help="""Where people are, when the name alone tells the DN; tried in this order.

        Instead of `user_filter`. Without `bind_dn`, people then read their own entry, and nothing
        can be refreshed: after `outage_grace` they log in again.
        Example: `["uid={login},ou=people,dc=example,dc=org"]`
        """,
    ).tag(config=True)

    user_filter = Unicode(
        help="""Finds a person by what was typed; `{login}` is replaced by the escaped text.

        It must find exactly one entry. Empty: as usual for `server_type`.
        Example, for name or e-mail address:
        `"(&(objectClass=posixAccount)(|(uid={login})(mail={login})))"`
        """,
    ).tag(config=True)

    netbios_domain = Unicode(
        help=r"""The domain that people may type before their name, as in `LAB\alice`.

        Empty: no name with a backslash is known. Example: `"LAB"`
        """,
    ).tag(config=True)

    name_domain = Unicode(
        help="""Where names are addresses: the domain that they lose, as alice@lab.example is alice.

        People may type either. A name in another domain is refused. Example: `"lab.example"`
        """,
    ).tag(config=True)

    name_attribute = Unicode(
        help="""Holds the name in the hub, whatever was typed; must have exactly one value.

        Empty: `uid`, or `sAMAccountName` in Active Directory. Example: `"uid"`
        """,
    ).tag(config=True)

    id_attribute = Unicode(
        help="""Holds what stays when a person's name changes, and is never given twice.

        Empty: `entryUUID`, `objectGUID`, `ipaUniqueID` or `nsUniqueId`, by `server_type`.
        Example: `"entryUUID"`
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
        help="""Holds the name to show. Empty: `cn`, or `displayName` in Active Directory.

        Example: `"displayName"`
        """,
    ).tag(config=True)

    mail_attribute = Unicode("mail", help="""Holds the e-mail address. Example: `"mail"`""").tag(
        config=True
    )

    number_attribute = Unicode(
        "employeeNumber",
        help="""Holds the number by which a class roster may name a person. Empty: none does.

        Example: `"studentID"`
        """,
    ).tag(config=True)

    language_attribute = Unicode(
        "preferredLanguage",
        help="""Holds the language of choice, such as zh-CN. Example: `"preferredLanguage"`""",
    ).tag(config=True)

    ssh_key_attributes = List(
        Unicode(),
        help="""Hold public keys of SSH. Empty: none are read. They are in `auth_state`, `ssh_keys`.

        Example: `["sshPublicKey", "ipaSshPubKey"]`
        """,
    ).tag(config=True)

    group_base_dn = Unicode(
        None,
        allow_none=True,
        help="""Where groups are; without it, nobody has any.

        Example: `"ou=groups,dc=example,dc=org"`
        """,
    ).tag(config=True)

    group_filter = Unicode(
        help="""Which entries below `group_base_dn` are groups. Empty: by `server_type`.

        Example: `"(objectClass=groupOfNames)"`
        """,
    ).tag(config=True)

    group_name_attribute = Unicode(
        "cn", help="""Holds a group's name in the hub. Example: `"cn"`"""
    ).tag(config=True)

    group_membership = CaselessStrEnum(
        ["", "member", "memberof", "in-chain"],
        "",
        help="""How groups in groups are found.

        `member`: by the groups' `member`, `uniqueMember` and `memberUid`, level by level;
        `memberof`: by the `memberOf` that the server keeps at people and groups; `in-chain`:
        by Active Directory's own rule. Empty: by `server_type`. Example: `"memberof"`
        """,
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
        help="""Only members of at least one of these may log in, administrators included, and
        who is named in `allowed_users`.

        Example: `["lab-users"]`
        """,
    ).tag(config=True)

    denied_groups = List(
        Unicode(),
        help="""Members of any of these may not log in, whatever else they are in.

        Example: `["suspended"]`
        """,
    ).tag(config=True)

    teams = Dict(
        help="""Teams, with the directory's groups of their leads and members.

        The hub gets the groups `team:NAME` and `team:NAME:leads`, auth_state has `teams`.
        Example: `{"vision": {"leads": ["vision-leads"], "members": ["vision"]}}`
        """,
    ).tag(config=True)

    courses = Dict(
        help="""Courses, with the directory's groups of their instructors, assistants and students.

        The hub gets `course:NAME:instructors`, `course:NAME:assistants` and
        `course:NAME:students`, auth_state `courses`.
        Example: `{"ml101": {"instructors": ["ml101-staff"], "students": ["ml101"]}}`
        """,
    ).tag(config=True)

    hub_groups = Dict(
        help="""The hub's groups, with the directory's groups whose members are in each.

        Empty: every group of the directory is one of the hub, by its name; only names
        that begin with `team:` or `course:` are not. Example: `{"gpu": ["gpu-users", "staff"]}`
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
        directory is down. Counted from the last answer about the person, also across restarts
        of the hub. Example: `86400`
        """,
    ).tag(config=True)

    disabled_grace = Int(
        3600,
        min=0,
        allow_none=True,
        help="""Seconds after which running servers are stopped of people who are disabled, expired,
        gone, or no longer admitted. None: never. Example: `0`
        """,
    ).tag(config=True)

    sweep_interval = Int(
        300,
        min=0,
        help="""Seconds between two looks at everybody who has a server running. 0: none.

        Example: `60`
        """,
    ).tag(config=True)

    lockout_seconds = Int(
        0,
        min=0,
        help="""How long the directory's own lock after wrong passwords lasts.

        It is the `pwdLockoutDuration` of its password policy. 0: until an administrator lifts it.
        Example: `900`
        """,
    ).tag(config=True)

    failures_per_name = Int(
        4,
        min=0,
        help="""Wrong passwords for one name in `failure_window` that are passed on.

        Keep it below the directory's own limit, so that nobody can lock others out from here.
        0: any number. Example: `8`
        """,
    ).tag(config=True)

    failures_per_address = Int(
        100,
        min=0,
        max=1000,
        help="""Failed logins from one address in `failure_window`; a class may share one.

        0: any number. Example: `300`
        """,
    ).tag(config=True)

    failure_window = Float(
        900.0,
        min=1,
        help="""Seconds for which a failed login counts. Example: `1800`""",
    ).tag(config=True)

    state_database = Unicode(
        "sqlite:///labcommons-ldap.sqlite",
        help="""SQLAlchemy URL of the database that remembers, across restarts, when the directory
        last answered about people, whose name is whose, and failed logins. Empty: nothing is.

        Example: `"sqlite:////srv/jupyterhub/ldap.sqlite"`
        """,
    ).tag(config=True)

    audit_folder = Unicode(
        None,
        allow_none=True,
        help="""Folder of a chain of events (ECS, docs/audit.md): each login, refusal, lockout and
        change of roles.

        Without it they go to the logger `labcommons.audit`.
        Example: `"/var/log/jupyterhub/audit"`
        """,
    ).tag(config=True)

    def directory_settings(self) -> DirectorySettings:
        """Raises SettingsError, which names the trait and the remedy."""
        # Each field of the settings has a trait of its name.
        values = {field.name: getattr(self, field.name) for field in fields(DirectorySettings)}
        for name, usual in asdict(PRESETS[self.server_type]).items():
            values[name] = values[name] or usual
        values["servers"] = tuple(parse_server(server) for server in self.servers)
        values["user_dn_templates"] = tuple(self.user_dn_templates)
        for name in ("ca_file", "bind_password_file"):
            values[name] = Path(values[name]) if values[name] else None
        if values["servers"]:
            values["dns_domain"] = ""
        return DirectorySettings(**values)

    def role_map(self) -> RoleMap:
        """Raises SettingsError, which names the trait and the remedy."""
        if self.denied_groups and self.group_base_dn is None:
            raise SettingsError(
                "denied_groups: without group_base_dn nobody is in any group; say where groups are"
            )
        if self.allowed_groups and self.allow_all:
            raise SettingsError(
                "allow_all=True lets everybody in, allowed_groups its members alone; take one away"
            )
        if self.request_otp:
            raise SettingsError(
                "request_otp: no second factor is checked here; set it to False, and ask for one "
                "at the directory"
            )
        return RoleMap(
            admins=read_groups_of(self.admin_groups, "admin_groups"),
            allowed=read_groups_of(self.allowed_groups, "allowed_groups"),
            denied=read_groups_of(self.denied_groups, "denied_groups"),
            teams=read_positions(self.teams, "teams", "leads", "members"),
            courses=read_positions(
                self.courses, "courses", "instructors", "assistants", "students"
            ),
            hub_groups={
                name: read_groups_of(groups, "hub_groups")
                for name, groups in self.hub_groups.items()
            },
        )

    def limits(self) -> Limits:
        """Of failed logins."""
        return Limits(self.failures_per_name, self.failures_per_address, self.failure_window)
