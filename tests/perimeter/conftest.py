"""A plan of a site, and the nft of the perimeter's own image."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def document() -> dict[str, Any]:
    """What `make up` writes for a site with a little of everything."""
    return {
        "version": 1,
        "site": "lab",
        "enabled": True,
        "users": {
            "interface": "lc01234567u",
            "subnet": "10.1.0.0/24",
            "gate": "10.1.0.2",
            "clients": ["10.1.0.3", "10.1.0.4"],
            "closed": "10.1.0.64/26",
        },
        "builders": {"interface": "lc01234567b", "subnet": "10.1.1.0/24"},
        "resolvers": ["10.9.9.53"],
        "egress": {"mode": "all"},
        "mirrors": [["mirror.example.org", 443], ["10.2.0.9", 8081]],
        "builder_places": [["proxy.example.org", 3128]],
    }
