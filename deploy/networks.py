"""The Docker networks of users' servers and of builders, with fixed places for our own services.

Not by docker compose, which never changes a network that is there: one of an earlier version, or of
other addresses, is made anew here, and what runs in it moves over and goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from deploy.engine import Engine
from deploy.settings import ROOT, Settings, parse_env, read
from deploy.shell import CommandFailed, Failure
from deploy.steps import Step

LABEL_SITE = "labcommons.site"
# Counted up when a network has to be made otherwise: `make up` makes it anew then.
LABEL_LAYOUT = "labcommons.layout"
LAYOUT = "1"
# In the order of their addresses; Docker has the network's first for the gateway.
SERVICES = ("gate", "chp", "hub", "mirror")
SMALLEST = 27  # bits: as many services as addresses below those that Docker gives out
TIMEOUT = 120  # seconds
REMEDY = (
    "name free networks in .env: LABCOMMONS_USERS_SUBNET, LABCOMMONS_BUILDERS_SUBNET; what has "
    "addresses already: ip route, docker network ls"
)


@dataclass(frozen=True)
class Network:
    """One network. Servers and builders get their addresses from the upper half of the subnet."""

    name: str
    interface: str
    subnet: IPv4Network

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet[1]

    @property
    def given_out(self) -> IPv4Network:
        return list(self.subnet.subnets(1))[1]

    @property
    def closed(self) -> IPv4Network:
        """Addresses of exams' servers, which the agent gives: neither Docker nor a service has
        them.
        """
        return list(self.subnet.subnets(2))[1]

    @property
    def services(self) -> dict[str, IPv4Address]:
        """The fixed addresses of our own services."""
        return {name: self.subnet[2 + number] for number, name in enumerate(SERVICES)}


def interface_of(project: str, what: str) -> str:
    """The bridge's name on the machine: the same for ever, other than that of another site."""
    return f"lc{hashlib.sha256(project.encode()).hexdigest()[:8]}{what[0]}"


def ensure(docker: Engine, site: Settings, step: Step) -> tuple[Network, Network]:
    """The networks of users' servers and of builders, as they have to be."""
    users, said = _ensure(docker, site, "users", site.users_network, step)
    builders, said_too = _ensure(docker, site, "builders", site.builders_network, step)
    step.result = "; ".join(filter(None, (said, said_too))) or "up to date"
    return users, builders


def remove(docker: Engine, site: Settings) -> None:
    """Take both away; what is not there is fine."""
    for name in (site.users_network, site.builders_network):
        docker.docker("network", "rm", name, timeout=TIMEOUT)


def _ensure(
    docker: Engine, site: Settings, what: str, name: str, step: Step
) -> tuple[Network, str]:
    interface = interface_of(site.project, what)
    wanted = _wanted(what)
    found = _inspect(docker, name)
    if found and _layout(found) == LAYOUT and wanted in (None, _subnet(found)):
        network = Network(name, interface, _subnet(found))
        _move(docker, network, _left_out(docker, site, found) if what == "users" else {}, step)
        return network, ""
    if wanted is None:
        # Before the former one goes: where there is none to be had, all stays as it was.
        wanted = _free_subnet(docker, name, interface, site, step)
    network = Network(name, interface, wanted)
    attached = _take_away(docker, found, step) if found else {}
    step.remedy = REMEDY
    # Docker's own choice of a gateway would be in the part that is given out.
    places = (
        f"--subnet={network.subnet}",
        f"--gateway={network.gateway}",
        f"--ip-range={network.given_out}",
    )
    step.run(_words(name, interface, site, *places), timeout=TIMEOUT, env=docker.env)
    step.remedy = ""
    _move(docker, network, attached, step)
    if found is None:
        return network, f"made {name}, {network.subnet}"
    return network, f"made {name} anew, {network.subnet}; {len(attached)} moved over"


def _wanted(what: str) -> IPv4Network | None:
    """What LABCOMMONS_USERS_SUBNET or LABCOMMONS_BUILDERS_SUBNET asks for, here or in .env."""
    variable = f"LABCOMMONS_{what.upper()}_SUBNET"
    text = os.environ.get(variable) or parse_env(read(ROOT / ".env")).get(variable)
    if not text:
        return None
    right = f"set it in .env to a free private network of at least 32 addresses (/{SMALLEST})"
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise Failure(f"{variable}: {error}", right) from error
    if network.prefixlen > SMALLEST:
        raise Failure(f"{variable}={text} is too small", right)
    return network


def _inspect(docker: Engine, name: str) -> dict[str, Any] | None:
    found = docker.docker("network", "inspect", name)
    return json.loads(found)[0] if found else None


def _layout(found: dict[str, Any]) -> str:
    return str((found.get("Labels") or {}).get(LABEL_LAYOUT, ""))


def _subnet(found: dict[str, Any]) -> IPv4Network:
    """The network's IPv4 subnet; raises Failure where it has none."""
    for config in found["IPAM"]["Config"] or ():
        if ":" not in config["Subnet"]:
            return IPv4Network(config["Subnet"])
    raise Failure(f"the Docker network {found['Name']} has no IPv4 addresses", "remove it")


def _left_out(docker: Engine, site: Settings, found: dict[str, Any]) -> dict[str, str]:
    """Running servers that are not in the network, as a `make up` that was killed leaves them."""
    listing = docker.docker(
        "ps", "--no-trunc", "--quiet", f"--filter=label={LABEL_SITE}={site.project}",
        "--filter=label=labcommons.user",
    )  # fmt: skip
    return dict.fromkeys(set((listing or "").split()) - set(found.get("Containers") or ()), "")


def _take_away(docker: Engine, found: dict[str, Any], step: Step) -> dict[str, str]:
    """Remove a former network; the containers that were in it, each with its service."""
    attached = {}
    for container in found.get("Containers") or {}:
        attached[container] = docker.docker(
            "inspect", "--format", '{{index .Config.Labels "com.docker.compose.service"}}',
            container,
        ) or ""  # fmt: skip
        step.run(
            ["docker", "network", "disconnect", "--force", found["Name"], container],
            timeout=TIMEOUT, env=docker.env,
        )  # fmt: skip
    step.run(["docker", "network", "rm", found["Name"]], timeout=TIMEOUT, env=docker.env)
    return attached


def _move(docker: Engine, network: Network, containers: dict[str, str], step: Step) -> None:
    for container, service in containers.items():
        place = network.services.get(service)
        options = [f"--alias={service}"] if service else []
        options += [f"--ip={place}"] if place else []
        try:
            step.run(
                ["docker", "network", "connect", *options, network.name, container],
                timeout=TIMEOUT, env=docker.env,
            )  # fmt: skip
        except CommandFailed as error:
            # It has ended meanwhile; a service is made anew by docker compose soon.
            step.note(f"{container} was not moved over: {error.cause}")


def _free_subnet(
    docker: Engine, name: str, interface: str, site: Settings, step: Step
) -> IPv4Network:
    """One that Docker chooses: it knows the machine's routes, and the pools of daemon.json."""
    step.remedy, probe = REMEDY, f"{name}-probe"
    docker.docker("network", "rm", probe)
    step.run(_words(probe, f"{interface}p", site), timeout=TIMEOUT, env=docker.env)
    try:
        found = _inspect(docker, probe)
        if found is None:
            raise Failure(f"the Docker network {probe} went away", "run make up again")
        subnet = _subnet(found)
    finally:
        docker.docker("network", "rm", probe)
    if subnet.prefixlen > SMALLEST:
        raise Failure(f"Docker gives networks as small as {subnet}")
    return subnet


def _words(name: str, interface: str, site: Settings, *options: str) -> list[str]:
    return [
        *("docker", "network", "create", "--driver=bridge", "--ipv6=false", *options),
        f"--opt=com.docker.network.bridge.name={interface}",
        f"--label={LABEL_SITE}={site.project}",
        f"--label={LABEL_LAYOUT}={LAYOUT}",
        name,
    ]
