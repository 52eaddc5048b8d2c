"""The settings of one site on one machine: `.env`, and what follows from it.

Variables of the calling shell win over `.env`, as they do for docker compose.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.files import write_atomically
from deploy.shell import Failure, output

ROOT = Path(__file__).resolve().parent.parent

DEFAULTS: dict[str, tuple[str, str]] = {
    "COMPOSE_PROJECT_NAME": ("labcommons", "What this site is called on its machine."),
    "COMPOSE_PROFILES": ("demo", "demo: with made-up people. A real site: empty, or postgres."),
    "LABCOMMONS_SITE_FILE": ("demo/site.yaml", "Under config/. A real site: site.yaml"),
    "LABCOMMONS_DATA": ("./data", "Everything that must outlive a container."),
    "LABCOMMONS_BIND": ("127.0.0.1", "The address to listen on. A real site: 0.0.0.0"),
    "LABCOMMONS_HTTPS_PORT": ("8443", "A real site: 443"),
    "LABCOMMONS_HTTP_PORT": ("8080", "Only redirects to HTTPS. A real site: 80"),
}  # fmt: skip

GROUPS_FILE = ".docker-compose.groups.json"
HEALTH_FILE = ".docker-compose.health.json"
FOUND = "# Found out by `make up`, and written anew each time."
LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)$")


@dataclass(frozen=True)
class Settings:
    """What `make` commands need to know; the rest of `.env` is for docker compose."""

    project: str
    profiles: tuple[str, ...]
    site_file: str
    data: Path
    bind: str
    https_port: int
    http_port: int

    @property
    def users_network(self) -> str:
        """The Docker network of users' servers."""
        return f"{self.project}-users"

    @property
    def builders_network(self) -> str:
        """The Docker network of builders of environments."""
        return f"{self.project}-builders"

    @property
    def connect_to(self) -> str:
        """Where the machine itself reaches the proxy."""
        address = ipaddress.ip_address(self.bind)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
        return self.bind


def parse_env(text: str) -> dict[str, str]:
    """The variables of a `.env` text. Quotes around a value are taken off; nothing is expanded."""
    values = {}
    for line in text.splitlines():
        if match := LINE.match(line):
            value = match[2].strip()
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            values[match[1]] = value
    return values


def with_defaults(text: str) -> str:
    """The text with a line for every setting that it lacks; what is there stays as it is."""
    present = parse_env(text)
    lines = [text.rstrip("\n")] if text.strip() else []
    for name, (value, comment) in DEFAULTS.items():
        if name not in present:
            lines += [f"# {comment}", f"{name}={value}"]
    return "\n".join(lines) + "\n"


def with_found(text: str, values: Mapping[str, str]) -> str:
    """The text with these variables set at its end, under their own heading."""
    kept = [
        line
        for line in text.splitlines()
        if line != FOUND and not ((match := LINE.match(line)) and match[1] in values)
    ]
    while kept and not kept[-1].strip():
        kept.pop()
    found = [f"{name}={value}" for name, value in values.items()]
    return "\n".join([*kept, "", FOUND, *found]) + "\n"


def prepare(root: Path = ROOT) -> Settings:
    """Write `.env` where it is missing or lacks a setting, and read it."""
    path = root / ".env"
    text = read(path)
    wanted = with_defaults(text)
    if wanted != text:
        write_atomically(path, wanted, 0o600)
    return load(root)


def record(values: Mapping[str, str], root: Path = ROOT) -> None:
    """Keep what was found out, so that docker compose works without `make` too."""
    path = root / ".env"
    text = read(path)
    wanted = with_found(text, values)
    if wanted != text:
        write_atomically(path, wanted, 0o600)


def load(root: Path = ROOT) -> Settings:
    """Read and check the settings. Raises Failure naming the variable and what fits."""
    values = {name: default for name, (default, _) in DEFAULTS.items()}
    values |= parse_env(read(root / ".env"))
    values |= {name: os.environ[name] for name in DEFAULTS if name in os.environ}
    project = values["COMPOSE_PROJECT_NAME"]
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", project):
        raise _wrong("COMPOSE_PROJECT_NAME", project, "small letters, digits, - and _")
    site_file = values["LABCOMMONS_SITE_FILE"]
    inside = (root / "config" / site_file).resolve()
    if not inside.is_relative_to(root / "config") or not inside.is_file():
        raise _wrong("LABCOMMONS_SITE_FILE", site_file, "a file under config/, such as site.yaml")
    data = (root / values["LABCOMMONS_DATA"]).resolve()
    if data in (Path("/"), Path.home(), root) or not re.fullmatch(r"[\w./+@-]+", str(data)):
        raise _wrong("LABCOMMONS_DATA", str(data), "a folder of its own, without blanks or colons")
    try:
        ipaddress.ip_address(values["LABCOMMONS_BIND"])
    except ValueError:
        raise _wrong(
            "LABCOMMONS_BIND", values["LABCOMMONS_BIND"], "an address, such as 0.0.0.0"
        ) from None
    return Settings(
        project=project,
        profiles=tuple(filter(None, re.split(r"[,\s]+", values["COMPOSE_PROFILES"]))),
        site_file=site_file,
        data=data,
        bind=values["LABCOMMONS_BIND"],
        https_port=_port("LABCOMMONS_HTTPS_PORT", values["LABCOMMONS_HTTPS_PORT"]),
        http_port=_port("LABCOMMONS_HTTP_PORT", values["LABCOMMONS_HTTP_PORT"]),
    )


def write_groups(numbers: Iterable[int], root: Path = ROOT) -> None:
    """Give the service of kernels the groups that may read teams' and courses' environments.

    docker compose has no way to make a list of a variable: it reads these from a file (JSON is
    YAML) beside docker-compose.yml.
    """
    groups = [str(number) for number in sorted(set(numbers))]
    text = json.dumps({"services": {"kernels": {"group_add": groups}}}, indent=1) + "\n"
    if read(root / GROUPS_FILE) != text:
        write_atomically(root / GROUPS_FILE, text, 0o644)


def revision() -> str:
    """The commit of this checkout, with a plus where it was changed; "" where it is none."""
    commit = output(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], timeout=10) or ""
    changed = output(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"], timeout=30)
    return commit.strip() + ("+" if commit and changed else "")


def write_revision() -> None:
    """For `labcommons --version`."""
    with suppress(OSError):  # it is said without, then
        (ROOT / "config" / "revision").write_text(revision() + "\n", "ascii")


def brought_up() -> str | None:
    """The commit that ``write_revision`` wrote at the last `make up`."""
    return (read(ROOT / "config" / "revision") or "").strip() or None


def write_health(services: Iterable[str], engine: tuple[int, ...], root: Path = ROOT) -> None:
    """Have services that are well looked at seldom, and often while they start.

    Each look starts a process in the container. Engine 25 and newer tell the two apart; docker
    compose refuses to ask it of an older one.
    """
    if engine < (25,):
        (root / HEALTH_FILE).unlink(missing_ok=True)
        return
    seldom = {"healthcheck": {"interval": "20s", "start_interval": "1s"}}
    text = json.dumps({"services": dict.fromkeys(services, seldom)}, indent=1) + "\n"
    if read(root / HEALTH_FILE) != text:
        write_atomically(root / HEALTH_FILE, text, 0o644)


def compose_files(root: Path = ROOT) -> list[str]:
    """What docker compose reads of this site, by name: ours, and a site's own additions."""
    names = ("docker-compose.yml", GROUPS_FILE, HEALTH_FILE, "docker-compose.override.yml")
    return [name for name in names if name == names[0] or (root / name).exists()]


def read(path: Path) -> str:
    """The text of a file, "" where there is none."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}", "make it a readable UTF-8 file") from error


def _port(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise _wrong(name, text, "a port number from 1 to 65535")


def _wrong(name: str, value: str, right: str) -> Failure:
    return Failure(f"{name}={value!r} cannot be used", f"set it in .env to {right}")
