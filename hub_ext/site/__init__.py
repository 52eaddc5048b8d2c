"""The site file: everything an administrator decides, in one checked YAML document.

Hub, services and command line read the same file, named by ``LABCOMMONS_SITE_FILE``
(default ``/etc/labcommons/site.yaml``). Secrets are never in it: they come from files
or variables that it names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

from hub_ext.site.directory import (
    CoursePeople,
    Directory,
    DirectoryGroups,
    DirectoryUsers,
    GroupNumber,
    LoginThrottle,
    Team,
)
from hub_ext.site.environments import (
    Builds,
    Credential,
    EnvironmentPolicy,
    Environments,
    EnvironmentScan,
    Severity,
)
from hub_ext.site.gpus import GpuDeviceSpec, Gpus, GpuSharing, GpuWatching
from hub_ext.site.parts import Memory, Name, Section, Words, parse_bytes, words_in
from hub_ext.site.servers import Kernels, Mail, Servers, Size

__all__ = [
    "DEFAULT_SITE_FILE",
    "Builds",
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
    "Kernels",
    "LoginThrottle",
    "Mail",
    "Memory",
    "Name",
    "Servers",
    "Severity",
    "Site",
    "SiteFileError",
    "SiteInfo",
    "Size",
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
