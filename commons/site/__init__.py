"""The site file: everything an administrator decides, in one checked YAML document.

Hub, services and command line read the same file, named by ``LABCOMMONS_SITE_FILE``
(default ``/etc/labcommons/site.yaml``). Secrets are never in it: they come from files
or variables that it names.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

from commons.site.audit import Audit, AuditTarget
from commons.site.backup import Backup
from commons.site.channels import Channels
from commons.site.directory import (
    CoursePeople,
    Directory,
    DirectoryGroups,
    DirectoryUsers,
    GroupNumber,
    LoginThrottle,
    Team,
)
from commons.site.egress import mirror_places
from commons.site.environments import (
    DEFAULT_CHANNELS,
    Builds,
    Credential,
    EnvironmentPolicy,
    Environments,
    EnvironmentScan,
    Severity,
)
from commons.site.gpus import GpuDeviceSpec, Gpus, GpuSharing, GpuWatching
from commons.site.https import Acme, Https
from commons.site.mirror import Mirror, behind
from commons.site.mounts import Mount
from commons.site.parts import Memory, Name, Section, Words, parse_bytes, words_in
from commons.site.servers import Kernels, Mail, Servers, Size, Sums
from commons.site.signatures import Signatures, SigningKey
from commons.site.ssh import Ssh
from commons.site.storage import Storage

__all__ = [
    "DEFAULT_CHANNELS",
    "DEFAULT_SITE_FILE",
    "Acme",
    "Audit",
    "AuditTarget",
    "Builds",
    "Channels",
    "CoursePeople",
    "Credential",
    "Directory",
    "DirectoryGroups",
    "DirectoryUsers",
    "EnvironmentPolicy",
    "EnvironmentScan",
    "Environments",
    "GpuDeviceSpec",
    "GpuSharing",
    "GpuWatching",
    "Gpus",
    "GroupNumber",
    "Https",
    "Kernels",
    "LoginThrottle",
    "Mail",
    "Memory",
    "Mount",
    "Name",
    "Servers",
    "Severity",
    "Signatures",
    "SigningKey",
    "Site",
    "SiteFileError",
    "SiteInfo",
    "Size",
    "Ssh",
    "Sums",
    "Team",
    "Words",
    "load_site",
    "parse_bytes",
    "words_in",
]

# A host name with a dot in it that is no address.
_HOST = re.compile(
    r"(?=.{1,189}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
)

DEFAULT_SITE_FILE = Path("/etc/labcommons/site.yaml")


class SiteFileError(Exception):
    """The site file cannot be used; the message names file, key and remedy."""


class SiteInfo(Section):
    """How the site presents itself."""

    name: str = Field("LabCommons", min_length=1, max_length=80)
    public_url: str = "https://lab.localhost:8443"
    # Servers at hosts below that of public_url, one for each person; or all at one host.
    subdomains: bool = True
    servers_host: str = ""
    demo: bool = False
    # Of whom neither a choice, nor the directory, nor a browser says another.
    language: Literal["en", "zh_CN"] = "en"

    @model_validator(mode="after")
    def _https(self) -> SiteInfo:
        url = urlsplit(self.public_url)
        if url.scheme != "https" or not url.hostname or url.path not in ("", "/"):
            raise ValueError(
                f"public_url: {self.public_url!r} must be https://HOST[:PORT] without a path"
            )
        return self

    @model_validator(mode="after")
    def _hosts(self) -> SiteInfo:
        host = urlsplit(self.public_url).hostname or ""
        if self.servers_host:
            if not _HOST.fullmatch(self.servers_host):
                raise ValueError(
                    f"servers_host: {self.servers_host!r} must be a host name in small letters, "
                    "without https:// and port, such as servers.example.org"
                )
            if self.servers_host == host:
                raise ValueError(
                    f"servers_host: must be another host than that of public_url, {host}"
                )
        elif self.subdomains and not _HOST.fullmatch(host):
            raise ValueError(
                f"public_url: people's servers get names below {host!r}, which must be a name with "
                "a dot in it, in ASCII, such as lab.example.org; where there is none, set "
                "subdomains: false (docs/site.md says what that means)"
            )
        return self


class Site(Section):
    """The whole site file."""

    version: Literal[1]
    site: SiteInfo = SiteInfo()
    directory: Directory
    sizes: dict[Name, Size] = Field(min_length=1)
    gpus: Gpus = Gpus()
    environments: Environments = Environments()
    builds: Builds = Builds()
    channels: Channels = Channels()
    servers: Servers = Servers()
    kernels: Kernels = Kernels()
    mail: Mail = Mail()
    storage: Storage = Storage()
    audit: Audit = Audit()
    https: Https = Https()
    backup: Backup = Backup()
    ssh: Ssh | None = None
    signatures: Signatures = Signatures()
    mirror: Mirror | None = None
    _written: Environments = PrivateAttr()

    @property
    def written(self) -> Environments:
        """``environments`` as the file has it; the field itself has the site's mirror in it."""
        return self._written

    @model_validator(mode="after")
    def _behind_the_mirror(self) -> Site:
        self._written = self.environments
        if self.mirror is not None:
            # Whoever reads the site file goes by it: builds, servers, the perimeter.
            object.__setattr__(self, "environments", behind(self.mirror, self.environments))
        return self

    @model_validator(mode="after")
    def _one_default_size(self) -> Site:
        defaults = [name for name, size in self.sizes.items() if size.default]
        if len(defaults) > 1:
            raise ValueError(f"sizes: only one may be the default, not {', '.join(defaults)}")
        if all(size.only_for for size in self.sizes.values()):
            raise ValueError("sizes: one at least must be everybody's, without only_for")
        return self

    @model_validator(mode="after")
    def _mirrors_are_named(self) -> Site:
        if self.mirror is not None:
            return self
        if self.servers.egress == "mirrors" and not mirror_places(self.environments):
            raise ValueError(
                "servers.egress: mirrors: environments names none: set environments.mirrors or "
                "pip_index, or egress: none"
            )
        return self

    @property
    def default_size(self) -> str:
        """The size marked as default, else the first of those that are everybody's."""
        for_all = [name for name, size in self.sizes.items() if not size.only_for]
        return next((n for n, s in self.sizes.items() if s.default), next(iter(for_all)))


def site_digest(path: Path | None = None) -> str:
    """What tells one site file from another: equal for who has read the same. Raises OSError."""
    path = path or Path(os.environ.get("LABCOMMONS_SITE_FILE", DEFAULT_SITE_FILE))
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


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
            f"  {'.'.join(str(part) for part in item['loc']) or 'site file'}"
            f": {item['msg']} (line {_line(text, item['loc'])})"
            for item in error.errors()
        ]
        raise SiteFileError(f"site file {path}:\n" + "\n".join(lines)) from error


def _line(text: str, keys: tuple[int | str, ...]) -> int:
    """The line that a key is in, or the nearest one above it that is there."""
    node = YAML(typ="safe", pure=True).compose(text)
    for key in keys:
        if isinstance(node, MappingNode):
            found = [value for name, value in node.value if name.value == str(key)]
            if not found:
                break
            node = found[0]
        elif isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
        else:
            break
    return int(node.start_mark.line) + 1
