"""A real slapd with people and groups, right and wrong ones, for tests.

    with Slapd(tmp_path) as slapd:
        slapd.ldap_url      # StartTLS
        slapd.ldaps_url     # TLS from the start

It refuses clear-text binds and anonymous searches, and hands out no more than 500 entries
without paging, as real sites do.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rig.certificates import Authority

SUFFIX = "dc=lab,dc=test"
PEOPLE = f"ou=people,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
SERVICE_DN = f"cn=labcommons,ou=services,{SUFFIX}"
SERVICE_PASSWORD = "service-secret"
# Passwords that libraries between a person and slapd like to change or refuse.
ODD_PASSWORDS = {
    "ligature": "\N{LATIN SMALL LIGATURE FI}x\N{VULGAR FRACTION ONE HALF}",
    "chinese": "正确的密码 🔑",
    "spaces": "  both ends  ",
    "long": "x" * 1000,
    "umlaut": "P\N{LATIN SMALL LETTER A WITH DIAERESIS}sswort12",
}
# Names that directories have, and that no home, container or address can have.
ODD_NAMES = (
    "_svc",
    ".dot",
    "o'brien",
    "m\N{LATIN SMALL LETTER U WITH DIAERESIS}ller",
    "张伟",
    "user$",
    "n" * 65,
)
MANY_GROUPS = 700
# What an overlay adds to the database's configuration.
OVERLAYS = {
    "ppolicy": f'overlay ppolicy\nppolicy_default "cn=policy,ou=services,{SUFFIX}"\n'
    "ppolicy_use_lockout",
    "memberof": "overlay memberof\nmemberof-group-oc groupOfNames",
    # Dynamic groups, and memberOf of groups in groups.
    "dynlist": "overlay dynlist\n"
    "dynlist-attrset groupOfURLs memberURL member+memberOf@groupOfNames*",
}
LOCKOUT = 5  # wrong passwords after which the ppolicy overlay locks an account
_SLAPD, _SLAPADD = "/usr/sbin/slapd", "/usr/sbin/slapadd"
_PATIENCE = 60.0  # seconds for slapd to answer


class Slapd:
    """One slapd process in a folder of its own, which must be empty at first."""

    def __init__(
        self,
        folder: Path,
        *,
        hosts: Sequence[str] = ("localhost", "127.0.0.1"),
        expired: bool = False,
        referral: str = "ldap://127.0.0.1:1/",
        overlays: Sequence[str] = (),
        more: Sequence[str] = (),
    ) -> None:
        """``hosts`` are the names in its certificate; ``referral`` is where two entries point.

        ``overlays``: any of OVERLAYS. ``more``: records besides its own, made by ``record``,
        ``person`` and ``group``.
        """
        if not Path(_SLAPD).exists() or not Path(_SLAPADD).exists():
            raise RuntimeError(f"{_SLAPD} is missing: apt-get install slapd ldap-utils")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        authority = Authority(folder)
        self.ca_file = authority.ca_file
        self._certificate, self._key = authority.issue(*hosts, expired=expired)
        self.password_file = folder / "service-password"
        self.password_file.write_text(SERVICE_PASSWORD + "\n")
        self._overlays = overlays
        self._configuration = folder / "slapd.conf"
        self._configuration.write_text(self._render_configuration())
        (folder / "db").mkdir()
        seed = folder / "seed.ldif"
        seed.write_text(_seed(referral, [*(_policy() if "ppolicy" in overlays else ()), *more]))
        subprocess.run(
            [_SLAPADD, "-q", "-f", str(self._configuration), "-l", str(seed)],
            check=True,
            capture_output=True,
            timeout=60,
        )
        self._ports = _free_ports(2)

    @property
    def ldap_url(self) -> str:
        return f"ldap://127.0.0.1:{self._ports[0]}"

    @property
    def ldaps_url(self) -> str:
        return f"ldaps://127.0.0.1:{self._ports[1]}"

    def traits(self, *urls: str) -> dict[str, Any]:
        """What an LDAPAuthenticator must be told about it, or about other servers like it."""
        return {
            "servers": list(urls or [self.ldap_url]),
            "ca_file": str(self.ca_file),
            "bind_dn": SERVICE_DN,
            "bind_password_file": str(self.password_file),
            "user_base_dn": PEOPLE,
            "group_base_dn": GROUPS,
            "timeout": 2,
        }

    def start(self) -> None:
        """Start it and wait until it takes connections; on the same ports again after a stop."""
        with (self._folder / "slapd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _SLAPD,
                    *("-f", str(self._configuration)),
                    *("-h", f"{self.ldap_url}/ {self.ldaps_url}/"),
                    *("-d", "0"),
                ],
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                for port in self._ports:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    log_text = (self._folder / "slapd.log").read_text("utf-8", "replace")
                    raise RuntimeError(f"slapd does not answer: {log_text[-2000:]}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order."""
        self._end(kill=False)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(kill=True)

    def _end(self, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def modify(self, ldif: str) -> None:
        """Change the running directory as its administrator, by LDIF change records."""
        ldapmodify = shutil.which("ldapmodify")
        if ldapmodify is None:
            raise RuntimeError("ldapmodify is missing: apt-get install slapd ldap-utils")
        subprocess.run(
            [ldapmodify, "-x", "-H", self.ldaps_url, "-D", f"cn=root,{SUFFIX}", "-w", "root"],
            input=ldif.encode(),
            env={"LDAPTLS_CACERT": str(self.ca_file)},
            check=True,
            capture_output=True,
            timeout=30,
        )

    def __enter__(self) -> Slapd:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _render_configuration(self) -> str:
        schemas = "\n".join(
            f"include /etc/ldap/schema/{name}.schema"
            for name in ("core", "cosine", "inetorgperson", "nis", "dyngroup")
        )
        modules = "\n".join(f"moduleload {name}" for name in ("back_mdb", *self._overlays))
        overlays = "\n".join(OVERLAYS[name] for name in self._overlays)
        return f"""\
{schemas}
modulepath /usr/lib/ldap
{modules}
pidfile {self._folder}/slapd.pid
TLSCACertificateFile {self.ca_file}
TLSCertificateFile {self._certificate}
TLSCertificateKeyFile {self._key}
security simple_bind=128
sizelimit size.soft=500 size.hard=500 size.pr=500 size.prtotal=unlimited
database mdb
suffix "{SUFFIX}"
rootdn "cn=root,{SUFFIX}"
rootpw root
directory {self._folder}/db
maxsize 134217728
index objectClass,uid,entryUUID,member,uniqueMember,memberUid,gidNumber eq
access to attrs=userPassword by anonymous auth by * none
access to * by users read by anonymous auth
{overlays}
"""


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def record(dn: str, classes: str, *lines: tuple[str, str]) -> str:
    """One LDIF record; every value in base64, so that none needs care."""
    # slapadd joins the values of an attribute only where they stand together.
    values = [("objectClass", name) for name in classes.split()]
    values += sorted(lines, key=lambda line: line[0])
    return "\n".join(
        f"{key}:: {b64encode(value.encode()).decode()}" for key, value in [("dn", dn), *values]
    )


def person(
    name: str, number: int, *more: tuple[str, str], password: str = "", display_name: str = ""
) -> str:
    return record(
        f"uid={name},{PEOPLE}",
        "inetOrgPerson posixAccount",
        ("uid", name),
        ("cn", display_name or f"{name.title()} Example"),
        ("sn", "Example"),
        ("mail", f"{name}@lab.test"),
        ("uidNumber", str(number)),
        ("gidNumber", "20000"),
        ("homeDirectory", f"/home/{name}"),
        ("userPassword", password or f"{name}-secret"),
        *more,
    )


def group(name: str, *members: str) -> str:
    return record(
        f"cn={name},{GROUPS}",
        "groupOfNames",
        ("cn", name),
        *(("member", f"{member},{SUFFIX}") for member in members),
    )


def posix_group(name: str, gid: int, *names: str) -> str:
    return record(
        f"cn={name},{GROUPS}",
        "posixGroup",
        ("cn", name),
        ("gidNumber", str(gid)),
        *(("memberUid", member) for member in names),
    )


def _policy() -> list[str]:
    return [
        record(
            f"cn=policy,ou=services,{SUFFIX}",
            "device pwdPolicy",
            ("cn", "policy"),
            ("pwdAttribute", "userPassword"),
            ("pwdLockout", "TRUE"),
            ("pwdMaxFailure", str(LOCKOUT)),
            ("pwdMustChange", "TRUE"),
        )
    ]


def _seed(referral: str, more: Sequence[str]) -> str:
    units = [
        record(f"ou={name},{SUFFIX}", "organizationalUnit", ("ou", name))
        for name in ("people", "groups", "services")
    ]
    people = [
        person("alice", 20003, ("preferredLanguage", "en")),
        person("bob", 20002, ("preferredLanguage", "zh-CN")),
        person("carol", 20001),
        person("dan", 20004),
        *(person(f"s{number:02}", 20100 + number) for number in range(1, 6)),
        *(
            person(name, 20200 + number, password=password)
            for number, (name, password) in enumerate(ODD_PASSWORDS.items())
        ),
        *(person(name, 20400 + number) for number, name in enumerate(ODD_NAMES)),
        person("anna@lab.test", 20420),
        person("MixedCase", 20300),
        person("many", 20301),
        person("huge", 20302, display_name="A" * 1_000_000),
        # A DN that needs escaping in DNs and in filters, and breaks str.format.
        record(
            f"cn=Li\\, {{Wei}} (lab)*,{PEOPLE}",
            "inetOrgPerson posixAccount",
            ("cn", "Li, {Wei} (lab)*"),
            ("sn", "Li"),
            ("uid", "liwei"),
            ("uidNumber", "20303"),
            ("gidNumber", "20000"),
            ("homeDirectory", "/home/liwei"),
            ("userPassword", "liwei-secret"),
        ),
        # Accounts that no server must be started for.
        record(
            f"uid=nonumber,{PEOPLE}",
            "inetOrgPerson",
            ("uid", "nonumber"),
            ("cn", "No Number"),
            ("sn", "Number"),
            ("userPassword", "nonumber-secret"),
        ),
        person("twonames", 20304, ("uid", "othername")),
        person("rootlike", 0),
        person("system", 33),
        person("bad name", 20305),
        person("..", 20306),
        # Two entries that answer to one name.
        person("double", 20307),
        record(
            f"cn=double,{PEOPLE}",
            "inetOrgPerson",
            ("cn", "double"),
            ("sn", "Double"),
            ("uid", "double"),
            ("userPassword", "double-secret"),
        ),
    ]
    groups = [
        group("platform-admins", "uid=carol,ou=people"),
        group("team-vision", "uid=bob,ou=people", "uid=alice,ou=people"),
        # staff contains team-vision; staff and everyone contain each other.
        group("staff", "cn=team-vision,ou=groups", "cn=everyone,ou=groups"),
        group("everyone", "cn=staff,ou=groups"),
        group("odd", "cn=Li\\, {Wei} (lab)*,ou=people"),
        # Somebody who may edit this group gave it a second name.
        record(
            f"cn=hobby,{GROUPS}",
            "groupOfNames",
            ("cn", "hobby"),
            ("cn", "platform-admins"),
            ("member", f"uid=alice,{PEOPLE}"),
        ),
        record(
            f"cn=unique,{GROUPS}",
            "groupOfUniqueNames",
            ("cn", "unique"),
            ("uniqueMember", f"uid=dan,{PEOPLE}"),
        ),
        posix_group("lab-users", 20000),
        posix_group("team-vision-posix", 21001, "bob", "alice"),
        posix_group("wheel", 0, "alice"),
        *(group(f"many-{number:03}", "uid=many,ou=people") for number in range(MANY_GROUPS)),
    ]
    referrals = [
        record(
            f"cn=elsewhere,{base}",
            "referral extensibleObject",
            ("cn", "elsewhere"),
            ("ref", f"{referral}{base}"),
        )
        for base in (PEOPLE, GROUPS)
    ]
    root = record(SUFFIX, "dcObject organization", ("dc", "lab"), ("o", "Lab"))
    service = record(
        SERVICE_DN,
        "organizationalRole simpleSecurityObject",
        ("cn", "labcommons"),
        ("userPassword", SERVICE_PASSWORD),
    )
    return "\n\n".join([root, *units, service, *people, *groups, *referrals, *more]) + "\n"
