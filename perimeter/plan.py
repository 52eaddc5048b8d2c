"""What `make up` tells the perimeter: networks, addresses and egress of one site, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Literal

VERSION = 1
SITE = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")  # COMPOSE_PROJECT_NAME
INTERFACE = re.compile(r"[a-z][a-z0-9-]{0,14}")  # 15 characters at most, as the kernel has them
HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*\.?")

Mode = Literal["all", "mirrors", "none", "list"]
Place = tuple[str, int]  # a host or an address, and its TCP port


class PlanError(ValueError):
    """The plan cannot be used; says which key, and what would be right."""


@dataclass(frozen=True)
class Egress:
    """Where servers may go outside the machine.

    Attributes:
        mode: everywhere, to the site's mirrors, nowhere, or to ``places`` (networks, hosts).
    """

    mode: Mode
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audience:
    """Servers with an egress of their own, by their addresses; the first that has one counts.

    The seam for courses and teams: today a site has no audience but all of its servers.
    """

    sources: tuple[IPv4Network, ...]
    egress: Egress


@dataclass(frozen=True)
class Users:
    """The network of users' servers.

    Attributes:
        gate: address of the service that servers may ask, at port 8000.
        clients: addresses of CHP and hub, which may ask servers.
        closed: addresses of servers that reach the gate and nothing else, whatever the site's
            egress is: those of exams.
        mirror: address of the site's cache of packages, at port 8000, where it has one.
    """

    interface: str
    subnet: IPv4Network
    gate: IPv4Address
    clients: tuple[IPv4Address, ...]
    closed: IPv4Network | None = None
    mirror: IPv4Address | None = None

    @property
    def ours(self) -> tuple[IPv4Address, ...]:
        """Addresses of the site's own services, the gate's first."""
        return (self.gate, *self.clients, *([self.mirror] if self.mirror else []))


@dataclass(frozen=True)
class Builders:
    """The network of builders of environments; ``mirror`` as in that of servers."""

    interface: str
    subnet: IPv4Network
    mirror: IPv4Address | None = None


@dataclass(frozen=True)
class Plan:
    """All that decides about the rules of one site.

    Attributes:
        enabled: False where the site file says ``servers.perimeter: off``.
        resolvers: name servers that Docker passes questions on to.
        mirrors: the site file's package channels and indexes.
        builder_places: what builders need besides, such as an HTTP proxy of this machine.
    """

    site: str
    enabled: bool
    users: Users
    builders: Builders
    resolvers: tuple[IPv4Address, ...]
    egress: Egress
    mirrors: tuple[Place, ...] = ()
    builder_places: tuple[Place, ...] = ()
    audiences: tuple[Audience, ...] = ()

    @property
    def table(self) -> str:
        """The name of the site's tables in the families bridge and inet."""
        return f"labcommons-{self.site}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The host names whose addresses the rules need."""
        places = [host for host, _port in (*self.mirrors, *self.builder_places)]
        for egress in (self.egress, *(one.egress for one in self.audiences)):
            places += egress.places
        return tuple(sorted({place for place in places if network_of(place) is None}))


def network_of(place: str) -> IPv4Network | None:
    """The network that a place is; None where it is a host name."""
    try:
        return IPv4Network(place)
    except ValueError:
        return None


def read(path: Path) -> Plan:
    """The plan in a file. Raises PlanError."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{path}: {error}; run make up, which writes it") from error
    return parse(found)


def parse(found: object) -> Plan:
    """The plan in a JSON document. Raises PlanError for whatever is not as it should be."""
    try:
        return _parse(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"the plan of the perimeter is wrong: {error!r}; run make up") from error


def _parse(found: Any) -> Plan:
    if found["version"] != VERSION:
        raise ValueError(f"version {found['version']!r} instead of {VERSION}")
    if not isinstance(found["enabled"], bool):
        raise TypeError("enabled")
    users, builders = found["users"], found["builders"]
    plan = Plan(
        _matching(SITE, found["site"]),
        found["enabled"],
        Users(
            _matching(INTERFACE, users["interface"]),
            _network(users["subnet"]),
            _address(users["gate"]),
            tuple(_address(one) for one in users["clients"]),
            _network(users["closed"]) if "closed" in users else None,
            _address(users["mirror"]) if "mirror" in users else None,
        ),
        Builders(
            _matching(INTERFACE, builders["interface"]),
            _network(builders["subnet"]),
            _address(builders["mirror"]) if "mirror" in builders else None,
        ),
        tuple(_address(one) for one in found["resolvers"]),
        _egress(found["egress"]),
        _places(found["mirrors"]),
        _places(found["builder_places"]),
        tuple(
            Audience(tuple(_network(net) for net in one["sources"]), _egress(one["egress"]))
            for one in found.get("audiences", ())
        ),
    )
    if not plan.users.clients:
        raise ValueError("no clients: nobody would reach a server")
    for address in (plan.users.gate, *plan.users.clients):
        if address not in plan.users.subnet:
            raise ValueError(f"{address} is not in {plan.users.subnet}")
    for network in (plan.users, plan.builders):
        if network.mirror is not None and network.mirror not in network.subnet:
            raise ValueError(f"{network.mirror} is not in {network.subnet}")
    if (closed := plan.users.closed) is not None:
        if not closed.subnet_of(plan.users.subnet):
            raise ValueError(f"{closed} is not in {plan.users.subnet}")
        if any(one in closed for one in plan.users.ours):
            raise ValueError(f"{closed} has addresses of the site's own services")
    if plan.users.subnet.overlaps(plan.builders.subnet):
        raise ValueError("the networks of users and builders overlap")
    return plan


def _matching(pattern: re.Pattern[str], text: object) -> str:
    if isinstance(text, str) and pattern.fullmatch(text):
        return text
    raise ValueError(f"{text!r} is no name")


def _network(text: object) -> IPv4Network:
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no network")
    return IPv4Network(text)


def _address(text: object) -> IPv4Address:
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no address")
    return IPv4Address(text)


def _host(text: object) -> str:
    if isinstance(text, str) and (network_of(text) is not None or HOST.fullmatch(text)):
        return text
    raise ValueError(f"{text!r} is no host name, address or network")


def _places(found: list[Any]) -> tuple[Place, ...]:
    places = []
    for host, port in found:
        if type(port) is not int or not 0 < port < 65536:
            raise ValueError(f"{port!r} is no port")
        places.append((_host(host), port))
    return tuple(places)


def _egress(found: Mapping[str, Any]) -> Egress:
    mode = found["mode"]
    if mode not in ("all", "mirrors", "none", "list"):
        raise ValueError(f"egress {mode!r}")
    return Egress(mode, tuple(_host(place) for place in found.get("places", ())))
