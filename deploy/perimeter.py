"""What `make up` tells the perimeter, and how the perimeter is started and taken away."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deploy import images
from deploy.engine import Engine
from deploy.files import write_atomically
from deploy.networks import Network
from deploy.settings import ROOT, read
from deploy.shell import CommandFailed
from deploy.steps import Step

if TYPE_CHECKING:
    from deploy.up import Compose

PLAN_FILE = ".perimeter.json"
# A port where none is written.
PORTS = {"http": 80, "https": 443, "": 80}
TIMEOUT = 60  # seconds until it has to be healthy


def plan(
    decided: Mapping[str, Any],
    project: str,
    users: Network,
    builders: Network,
    resolvers: Iterable[str],
    environment: Mapping[str, str],
    mirror: object = None,
) -> dict[str, Any]:
    """The plan as perimeter/plan.py reads it.

    Args:
        decided: what the site file says, from ``labcommons site check``.
        environment: has proxies and package indexes of this machine, which builders need.
        mirror: whether the site has a cache of packages.
    """
    services, here = users.services, bool(mirror)
    return {
        "version": 1,
        "site": project,
        **decided,
        "users": {
            "interface": users.interface,
            "subnet": str(users.subnet),
            "gate": str(services["gate"]),
            "clients": [str(services["chp"]), str(services["hub"])],
            "closed": str(users.closed),
            **({"mirror": str(services["mirror"])} if here else {}),
        },
        "builders": {
            "interface": builders.interface,
            "subnet": str(builders.subnet),
            **({"mirror": str(builders.services["mirror"])} if here else {}),
        },
        "resolvers": sorted(resolvers),
        "builder_places": builder_places(environment),
    }


def builder_places(environment: Mapping[str, str]) -> list[tuple[str, int]]:
    """Hosts and ports in the variables that builders get; never a name or password of them."""
    found = set()
    for name in (*images.PASSED_ON, *images.PROXIES):
        if name.lower() == "no_proxy":
            continue
        for word in environment.get(name, "").split():
            parts = urlsplit(word if "://" in word else f"//{word}")
            try:
                port = parts.port or PORTS.get(parts.scheme, 0)
            except ValueError:
                continue
            if parts.hostname and port and ":" not in parts.hostname:
                found.add((parts.hostname, port))
    return sorted(found)


def resolvers(docker: Engine) -> list[str]:
    """The name servers that Docker passes a container's questions on to, in its network."""
    text = docker.docker("run", "--rm", "--network=bridge", "labcommons/base", "cat",
                         "/etc/resolv.conf", timeout=60) or ""  # fmt: skip
    found = []
    for word in re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE):
        try:
            address = ipaddress.IPv4Address(word)
        except ValueError:  # IPv6, which the networks do not have
            continue
        if not address.is_loopback:
            found.append(str(address))
    return found


def write(found: Mapping[str, Any], root: Path = ROOT) -> None:
    """Lay the plan beside docker-compose.yml, which mounts it."""
    text = json.dumps(found, indent=1) + "\n"
    if read(root / PLAN_FILE) != text:
        write_atomically(root / PLAN_FILE, text, 0o644)


def start(compose: Compose, step: Step) -> None:
    """Have the rules in place before anything of people's starts; else say why they are not."""
    try:
        compose.run(
            step, "up", "--detach", "--wait", "--wait-timeout", str(TIMEOUT), "perimeter",
            timeout=TIMEOUT + 60,
        )  # fmt: skip
    except CommandFailed as error:
        said = compose.output("logs", "--no-color", "--no-log-prefix", "perimeter") or ""
        for line in said.splitlines():
            key, _, text = line.partition(": ")
            if key == "Error":
                error.args, error.cause = (text,), text
            elif key == "Remedy":
                error.remedy = text
        raise


def remove(docker: Engine, compose: Compose, step: Step) -> None:
    """Take the rules away: after the last server, as its own program would put them back."""
    image = docker.docker("image", "inspect", "--format", "{{.Id}}", "labcommons/perimeter")
    if not image or not (ROOT / PLAN_FILE).exists():
        return
    compose.run(step, "stop", "perimeter", timeout=60)
    compose.run(step, "run", "--rm", "--no-deps", "-T", "perimeter", "remove", timeout=60)


def advice(decided: Mapping[str, Any]) -> list[str]:
    """What is said at the end of `make up`."""
    if decided["enabled"]:
        return []
    return [
        "servers.perimeter is off: people's servers reach each other, this machine and cloud\n"
        "  metadata (docs/perimeter.md)"
    ]
