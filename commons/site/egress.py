"""Where people's servers and builders may go outside the machine, as the site file says it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator

from commons.site.mirror import PYPI_INDEX, URL

if TYPE_CHECKING:
    from commons.site.environments import Environments

_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_PORTS = {"http": 80, "https": 443}


def _check_place(text: str) -> str:
    try:
        return str(IPv4Network(text))
    except ValueError as error:
        wrong_bits = "has host bits set" in str(error)
    if _is_ipv6(text):
        raise ValueError(f"{text}: servers have no IPv6; write an IPv4 network, or a host name")
    # Four numbers are a mistaken address, and not a name.
    if wrong_bits or re.fullmatch(r"[0-9./]+", text) or not _HOST.fullmatch(text.lower()):
        right = "a network such as 10.2.0.0/16, an address, or a host name without port and path"
        raise ValueError(f"{text!r} must be {right}")
    return text.lower()


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Network(text, strict=False)
    except ValueError:
        return False
    return True


EgressPlace = Annotated[str, AfterValidator(_check_place)]
# Of the site; a course or a team would have one of this type, too (perimeter/plan.py, Audience).
Egress = Literal["all", "mirrors", "none"] | list[EgressPlace]


def places_of(urls: Iterable[str]) -> list[tuple[str, int]]:
    """Host and TCP port of each URL over HTTP; what is none (a folder) is left out."""
    found = set()
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme in _PORTS and parts.hostname and ":" not in parts.hostname:
            found.add((parts.hostname, parts.port or _PORTS[parts.scheme]))
    return sorted(found)


def mirror_places(environments: Environments) -> list[tuple[str, int]]:
    """Where the site's packages come from: channels' mirrors, and indexes of Python packages.

    The site's own mirror is a service with a place in the rules (perimeter/rules.py), and what it
    stands for is open to nobody else.
    """
    channels, index = environments.mirrors, environments.pip_index
    found = [
        *(place for places in channels.values() for place in places),
        # A channel that is named by its own address, which is tried last.
        *channels,
        index,
        *environments.pip_extra_indexes,
        environments.pip_files if index != PYPI_INDEX else "",
    ]
    return places_of(place for place in found if not place.startswith(URL))
