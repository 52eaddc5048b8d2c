"""The proxy's routes to people's servers: when each was made, and when it was last used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jupyterhub.proxy import ConfigurableHTTPProxy

from commons.leases import ServerKey


class TimedProxy(ConfigurableHTTPProxy):  # type: ignore[misc]
    """CHP that keeps with each route when it was made.

    For CHP the making of a route is its first use: without this, one look could not tell a server
    that somebody opened at once from one that nobody has opened.
    """

    async def add_route(self, routespec: str, target: str, data: dict[str, Any] | None) -> None:
        """As JupyterHub's."""
        made = {"made": datetime.now(UTC).isoformat()}
        await super().add_route(routespec, target, made | (data or {}))


def use_of(routes: Mapping[str, Any]) -> dict[ServerKey, tuple[float | None, float]]:
    """When the route to each person's server was made, if that is known, and when it was last
    used, in seconds since 1970; nothing of a route whose times cannot be read."""
    found = {}
    for data in (route["data"] for route in routes.values()):
        last = _seconds(data.get("last_activity"))
        if "user" in data and last is not None:
            server = (data["user"], data.get("server_name", ""))
            found[server] = (_seconds(data.get("made")), last)
    return found


def _seconds(at: object) -> float | None:
    try:
        return datetime.fromisoformat(str(at).replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None
