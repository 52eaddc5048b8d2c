"""The site file: everything an administrator decides, in one checked YAML document.

Hub, services and command line read the same file, named by ``LABCOMMONS_SITE_FILE``
(default ``/etc/labcommons/site.yaml``). Secrets are never in it: they come from files
or variables that it names.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

DEFAULT_SITE_FILE = Path("/etc/labcommons/site.yaml")

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class SiteFileError(Exception):
    """The site file cannot be used; the message names file, key and remedy."""


def parse_bytes(text: str) -> int:
    """``"2G"`` -> 2147483648. Units are powers of 1024, as in JupyterHub's ``mem_limit``.

    Raises ValueError for anything else than a positive number and one of K, M, G, T.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)\s*", text)
    if not match or float(match[1]) <= 0:
        raise ValueError(f"{text!r} is not an amount of memory; write for example 512M or 2G")
    return int(float(match[1]) * _UNITS[match[2]])


def _check_bytes(text: str) -> str:
    parse_bytes(text)
    return text


Memory = Annotated[str, AfterValidator(_check_bytes)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
# One text, or one for each language of the interface.
Words = str | dict[Literal["en", "zh_CN"], str]


def words_in(words: Words, lang: str) -> str:
    """The text for a language; English, then any, where it is missing."""
    if isinstance(words, str):
        return words
    table: dict[str, str] = {str(key): value for key, value in words.items()}
    return table.get(lang) or table.get("en") or next(iter(table.values()), "")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteInfo(_Section):
    """How the site presents itself."""

    name: str = Field("LabCommons", min_length=1, max_length=80)
    public_url: str = "https://localhost:8443"
    demo: bool = False

    @model_validator(mode="after")
    def _https(self) -> SiteInfo:
        url = urlsplit(self.public_url)
        if url.scheme != "https" or not url.hostname or url.path not in ("", "/"):
            raise ValueError(
                f"public_url: {self.public_url!r} must be https://HOST[:PORT] without a path"
            )
        return self


class DirectoryUsers(_Section):
    """Where people are, and which attributes say what."""

    base_dn: str
    dn_templates: list[str] = []
    filter: str = ""
    netbios_domain: str = ""
    name_attribute: str = ""
    id_attribute: str = ""
    uid_attribute: str = "uidNumber"
    gid_attribute: str = "gidNumber"
    display_name_attribute: str = ""
    mail_attribute: str = "mail"
    language_attribute: str = "preferredLanguage"

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


class DirectoryGroups(_Section):
    """Where groups are, and how membership is found; empty: as usual for ``server_type``."""

    base_dn: str
    filter: str = ""
    name_attribute: str = "cn"
    membership: Literal["", "member", "memberof", "in-chain"] = ""
    depth: int = Field(8, ge=1, le=64)


# Not a system's number, and one that Docker and every kernel take.
GroupNumber = Annotated[int, Field(ge=1000, le=2**31 - 1)]


class Team(_Section):
    """The directory's groups of a team: its leads (who are members too) and members.

    ``gid`` and ``leads_gid`` own the team's folder of environments; without them two numbers
    are derived from the team's name, see ``spawner.tiers.groups``.
    """

    leads: list[str] = []
    members: list[str] = []
    gid: GroupNumber | None = None
    leads_gid: GroupNumber | None = None


class CoursePeople(_Section):
    """The directory's groups of a course; ``gid`` and ``leads_gid`` as for a team."""

    instructors: list[str] = []
    students: list[str] = []
    gid: GroupNumber | None = None
    leads_gid: GroupNumber | None = None


class LoginThrottle(_Section):
    """Failed logins that are passed on, in ``window`` seconds; 0: any number.

    ``directory_lockout``: seconds of the directory's own lock, 0 until somebody lifts it.
    """

    per_name: int = Field(4, ge=0, le=1000)
    per_address: int = Field(100, ge=0, le=1000)
    window: int = Field(900, ge=1, le=86400, description="seconds")
    directory_lockout: int = Field(0, ge=0, le=604800, description="seconds")


class Directory(_Section):
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
    platform_admins: list[str] = []
    allowed_groups: list[str] = []
    denied_groups: list[str] = []
    teams: dict[Name, Team] = {}
    courses: dict[Name, CoursePeople] = {}
    hub_groups: dict[str, list[str]] = {}
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
        if bool(self.bind_dn) != bool(self.bind_password_file):
            raise ValueError("bind_dn and bind_password_file go together: set both or neither")
        return self


class Size(_Section):
    """What one server may use: CPU cores (may be a fraction) and memory."""

    title: Words | None = None
    cpu: float = Field(gt=0, le=1024)
    memory: Memory
    default: bool = False

    @cached_property
    def memory_bytes(self) -> int:
        return parse_bytes(self.memory)


class GpuDeviceSpec(_Section):
    """One GPU named by the site file (source ``site`` or ``simulated``)."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,95}$")
    model: str = Field(min_length=1, max_length=80)
    memory: Memory
    node: Name = "local"


class GpuSharing(_Section):
    """GPUs of a model, or certain ones, that several servers use at once, without isolation.

    The first rule that fits a GPU counts; MIG devices, which are parts already, are shared only
    by their id.
    """

    model: str = Field("", max_length=80, description="as the driver or the list below names it")
    devices: list[str] = []
    method: Literal["time-slicing", "mps"]
    slots: int = Field(ge=2, le=48)

    @model_validator(mode="after")
    def _of_something(self) -> GpuSharing:
        if bool(self.model) == bool(self.devices):
            raise ValueError("model, devices: name a model or list devices, one of the two")
        return self


class GpuWatching(_Section):
    """How often GPUs are looked at, and what happens to servers whose GPU is lost."""

    interval: int = Field(30, ge=5, le=600, description="seconds between two looks at the GPUs")
    probe_interval: int = Field(
        600, ge=30, le=86400, description="seconds between two checks of a server's own access"
    )
    stop_lost: bool = False


class Gpus(_Section):
    """Where the list of GPUs comes from, and how many one server may ask for."""

    source: Literal["none", "nvml", "site", "simulated"] = "none"
    devices: list[GpuDeviceSpec] = []
    sharing: list[GpuSharing] = []
    watch: GpuWatching = GpuWatching()
    max_per_server: int = Field(1, ge=0, le=64)

    @model_validator(mode="after")
    def _devices(self) -> Gpus:
        listed = self.source in ("site", "simulated")
        if listed != bool(self.devices):
            raise ValueError(
                f"devices: source {self.source!r} "
                + ("needs at least one device" if listed else "takes none; remove them")
            )
        ids = [device.id for device in self.devices]
        if len(set(ids)) != len(ids):
            raise ValueError("devices: each id may be listed once")
        nodes = sorted({device.node for device in self.devices})
        if self.source == "site" and len(nodes) > 1:
            raise ValueError(
                f"devices: they are of {len(nodes)} nodes ({', '.join(nodes)}), but servers start "
                "on one machine's Docker Engine: list the GPUs of that machine (source simulated "
                "may have several nodes)"
            )
        if listed:
            self._sharing_fits(ids, {device.model for device in self.devices})
        return self

    def _sharing_fits(self, ids: list[str], models: set[str]) -> None:
        """A rule for what is not there is a mistake, where the site file lists what is there."""
        for rule in self.sharing:
            for wanted, known in (
                (rule.devices, set(ids)),
                ([rule.model] * bool(rule.model), models),
            ):
                if missing := [name for name in wanted if name not in known]:
                    raise ValueError(
                        f"sharing: {', '.join(missing)} is not listed under devices; "
                        f"listed: {', '.join(sorted(known))}"
                    )


class Mail(_Section):
    """Mail to people about their GPUs; off without a host.

    The password, where the server asks for one, is in a file of its own.
    """

    host: str = ""
    port: int = Field(0, ge=0, le=65535, description="0: 465 with tls, else 587, or 25 without")
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: Path | None = None
    sender: str = ""
    user: str = ""
    password_file: Path | None = None
    timeout: int = Field(20, ge=1, le=120, description="seconds for one step of a delivery")

    @model_validator(mode="after")
    def _complete(self) -> Mail:
        if self.host and not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", self.sender):
            raise ValueError("sender: the address mails come from, for example lab@example.org")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together: set both or neither")
        if self.user and self.security == "none":
            raise ValueError("security: a password is only sent over starttls or tls")
        return self


class Credential(_Section):
    """A login to a host with packages: a token, or a name and a password, never written here."""

    username: str = ""
    password_file: Path | None = None
    password_variable: str = ""
    token_file: Path | None = None
    token_variable: str = ""

    @model_validator(mode="after")
    def _one_secret(self) -> Credential:
        secrets = (
            self.password_file,
            self.password_variable,
            self.token_file,
            self.token_variable,
        )
        if sum(map(bool, secrets)) != 1:
            raise ValueError(
                "name one of password_file, password_variable, token_file, token_variable"
            )
        if bool(self.username) != bool(self.password_file or self.password_variable):
            raise ValueError("username and a password go together")
        return self


class EnvironmentPolicy(_Section):
    """What environments may be made of. Empty lists allow everything.

    ``unlocked``: what no committed lock answers for; ``pip``: packages from PyPI beside
    conda's; ``ended_python``: a Python that gets no security fixes any more.
    """

    channels: list[str] = []
    allowed_packages: list[str] = []
    denied_packages: dict[str, str] = {}
    unlocked: Literal["allow", "warn", "refuse"] = "warn"
    pip: Literal["allow", "warn", "refuse"] = "warn"
    ended_python: Literal["allow", "warn", "refuse"] = "refuse"


Severity = Literal["low", "medium", "high", "critical"]


class EnvironmentScan(_Section):
    """A command that looks for known holes, and what it may find.

    ``{sbom}`` in the command is the version's CycloneDX file, ``{prefix}`` its folder. The
    command prints Trivy's JSON. Findings from ``threshold`` on keep a version from being
    offered. ``advisories``: a folder or file of OSV documents, matched without any network.
    """

    command: list[str] = []
    timeout: int = Field(300, ge=1, le=3600, description="seconds")
    threshold: Severity | Literal["never"] = "high"
    advisories: Path | None = None
    ignore: dict[str, str] = {}


class Environments(_Section):
    """Where packages come from, what they may be, and how long versions are kept.

    ``mirrors`` maps a channel name or URL, as environment.yml writes it, to the places
    tried for it, nearest first. ``offline_channel``: ``auto`` builds a small channel from
    PyPI wheels and Debian's Pythons when no place answers; ``always``, ``never``.
    ``credentials`` are by host name. ``pip_files``: where the index that ``pip_index``
    mirrors has its files itself, as locks shall keep it. ``cuda``: the version that the
    servers' driver has, for environments that do not say it themselves. ``keep``: how many
    versions of an environment ``labcommons env prune`` leaves; besides, those that somebody
    started a kernel in within ``keep_used`` days (usage is kept for 396).
    """

    mirrors: dict[str, list[str]] = {}
    offline_channel: Literal["auto", "always", "never"] = "never"
    timeout: int = Field(10, ge=1, le=600, description="seconds until a channel counts as down")
    credentials: dict[str, Credential] = {}
    pip_index: str = ""
    pip_extra_indexes: list[str] = []
    pip_files: str = ""
    cuda: str = Field("", pattern=r"^(\d{1,3}(\.\d{1,3}){1,2})?$")
    policy: EnvironmentPolicy = EnvironmentPolicy()
    scan: EnvironmentScan = EnvironmentScan()
    keep: int = Field(3, ge=1, le=1000)
    keep_used: int = Field(30, ge=0, le=396, description="days")

    @model_validator(mode="after")
    def _no_secrets(self) -> Environments:
        places = [*self.pip_extra_indexes, self.pip_index, self.pip_files]
        places += [place for places in self.mirrors.values() for place in places]
        for place in filter(None, places):
            if urlsplit(place).username or urlsplit(place).password:
                raise ValueError(
                    "a URL must not contain a name or password; put them under credentials"
                )
        return self


class Builds(_Section):
    """What builds of personal, team, course and shared environments may use.

    ``at_once`` and ``per_person`` run side by side, ``waiting`` of one person's may wait.
    """

    at_once: int = Field(2, ge=1, le=64)
    per_person: int = Field(1, ge=1, le=16)
    waiting: int = Field(5, ge=1, le=100)
    timeout: int = Field(3600, ge=60, le=86400, description="seconds")
    cpu: float = Field(2, gt=0, le=1024)
    memory: Memory = "4G"

    @cached_property
    def memory_bytes(self) -> int:
        return parse_bytes(self.memory)


class Servers(_Section):
    """Limits and places that every user's server gets."""

    network: str = "labcommons-users"
    pids: int = Field(1024, ge=64, le=65536)
    shared_memory: Memory = "256M"
    tmp: Memory = "1G"
    start_timeout: int = Field(120, ge=10, le=3600, description="seconds")
    concurrent_starts: int = Field(20, ge=1, le=1000, description="the others wait their turn")
    stop_timeout: int = Field(10, ge=1, le=300, description="seconds between SIGTERM and SIGKILL")
    engine_timeout: int = Field(30, ge=1, le=600, description="seconds for one Docker call")
    engine_threads: int = Field(8, ge=1, le=64)


_NAME_FIELDS = ("environment", "source", "label", "python", "version", "kernel")
_SIZES = ("as", "data", "fsize", "memlock", "stack")
# What a kernel needs to start at all; less is a mistake.
_LEAST = {
    "as": 2**28, "cpu": 60, "data": 2**28, "fsize": 2**20,
    "memlock": 2**16, "nofile": 256, "nproc": 64, "stack": 2**20,
}  # fmt: skip


class Kernels(_Section):
    """How kernels are shown and run in people's servers, within what the server itself may use.

    ``hidden`` are globs of kernel names; ``renamed`` maps such globs to display names, in which
    ``{environment}``, ``{source}``, ``{label}``, ``{python}``, ``{version}`` and ``{kernel}`` are
    filled in; ``grouped`` begins display names with the source.

    ``limits`` are those of each kernel's process, by the names of prlimit(1): amounts of memory
    (``as``, ``data``, ``fsize``, ``memlock``, ``stack``), seconds of the CPU (``cpu``), numbers
    (``nofile``; ``nproc``, of all processes that the person has on the machine).
    """

    hidden: list[str] = []
    renamed: dict[str, str] = {}
    grouped: bool = False
    nice: int = Field(0, ge=0, le=19, description="how much they give way to the server")
    limits: dict[
        Literal["as", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "stack"], int | str
    ] = {}
    activation_timeout: int = Field(15, ge=1, le=600, description="seconds")

    @model_validator(mode="after")
    def _names_can_be_filled_in(self) -> Kernels:
        for glob, template in self.renamed.items():
            try:
                template.format_map(dict.fromkeys(_NAME_FIELDS, ""))
            except (LookupError, AttributeError, ValueError) as error:
                fields = ", ".join(f"{{{name}}}" for name in _NAME_FIELDS)
                raise ValueError(
                    f"renamed.{glob}: {template!r} cannot be used ({error}); fields are {fields}"
                ) from error
        return self

    @model_validator(mode="after")
    def _limits_leave_room(self) -> Kernels:
        for name, wanted in self.limits.items():
            if isinstance(wanted, str) != (name in _SIZES):
                right = "an amount such as 8G" if name in _SIZES else "a number"
                raise ValueError(f"limits.{name}: {wanted!r} must be {right}")
            if self._number(wanted) < _LEAST[name]:
                least = f"{_LEAST[name] >> 10}K" if name in _SIZES else _LEAST[name]
                raise ValueError(f"limits.{name}: no kernel starts with less than {least}")
        return self

    @staticmethod
    def _number(wanted: int | str) -> int:
        return parse_bytes(wanted) if isinstance(wanted, str) else wanted

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the classes of ``kernels`` in people's servers, by class."""
        limits = {f"RLIMIT_{name.upper()}": self._number(of) for name, of in self.limits.items()}
        return {
            "CondaKernelSpecManager": {
                "hidden": self.hidden,
                "renamed": self.renamed,
                "grouped": self.grouped,
            },
            "CondaProvisioner": {
                "nice": self.nice,
                "limits": limits,
                "activation_timeout": float(self.activation_timeout),
            },
        }


class Site(_Section):
    """The whole site file."""

    version: Literal[1]
    site: SiteInfo = SiteInfo()
    directory: Directory
    sizes: dict[Name, Size] = Field(min_length=1)
    gpus: Gpus = Gpus()
    environments: Environments = Environments()
    builds: Builds = Builds()
    servers: Servers = Servers()
    kernels: Kernels = Kernels()
    mail: Mail = Mail()

    @model_validator(mode="after")
    def _one_default_size(self) -> Site:
        defaults = [name for name, size in self.sizes.items() if size.default]
        if len(defaults) > 1:
            raise ValueError(f"sizes: only one may be the default, not {', '.join(defaults)}")
        return self

    @property
    def default_size(self) -> str:
        """The size marked as default, else the first."""
        return next((n for n, s in self.sizes.items() if s.default), next(iter(self.sizes)))


def load_site(path: Path | None = None) -> Site:
    """Read and check the site file.

    Raises SiteFileError with one line for each wrong key: where it is, what is wrong
    with it, and what would be right.
    """
    path = path or Path(os.environ.get("LABCOMMONS_SITE_FILE", DEFAULT_SITE_FILE))
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise SiteFileError(
            f"site file {path}: {error.strerror}; set LABCOMMONS_SITE_FILE to its place"
        ) from error
    except UnicodeDecodeError as error:
        raise SiteFileError(f"site file {path}: not UTF-8 text; save it as UTF-8") from error
    try:
        document = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, RecursionError) as error:
        raise SiteFileError(f"site file {path}: not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise SiteFileError(f"site file {path}: must be a mapping that begins with 'version: 1'")
    try:
        return Site.model_validate(document)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in item['loc']) or 'site file'}: {item['msg']}"
            for item in error.errors()
        ]
        raise SiteFileError(f"site file {path}:\n" + "\n".join(lines)) from error
