"""What goes on in a server, asked of the server itself: kernels that work, and when one last did.

An open tab alone is nothing going on: JupyterLab asks its server again and again all night. So
it is kernels and terminals that count. The server is its owner's; what it says is checked, and an
owner who makes it lie keeps an idle GPU no longer than with a cell that never ends.

It is asked with the token that it has already, its own: no credential of the hub ever reaches it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.simple_httpclient import HTTPStreamClosedError

from kernels.hostile import parse_json

CONNECT_TIMEOUT, TIMEOUT = 5, 10  # seconds
MOST = 256 * 1024  # bytes of one answer; a kernel takes some 200


@dataclass(frozen=True)
class Jupyter:
    """What goes on in a server. ``None``: it did not say.

    Attributes:
        busy_kernels: kernels that work.
        last_activity: the last that a kernel or terminal did, seconds since 1970; 0: never.
    """

    busy_kernels: int | None = None
    last_activity: float | None = None


class Asker:
    """Asks servers what goes on in them.

    Args:
        at_once: servers asked at a time.
    """

    def __init__(self, at_once: int = 8) -> None:
        self._client = AsyncHTTPClient(
            force_instance=True, max_clients=2 * at_once, max_body_size=MOST
        )

    async def __call__(self, url: str, token: str) -> Jupyter:
        """Ask the server at ``url`` (its base URL, as the hub reaches it) with its own token."""
        try:
            kernels, terminals = await asyncio.gather(
                self._get(f"{url}api/kernels?no_track_activity=1", token),
                self._get(f"{url}api/terminals?no_track_activity=1", token),
            )
            return read_answers(kernels, terminals)
        except (
            OSError,
            ValueError,
            KeyError,
            OverflowError,
            RecursionError,
            HTTPClientError,
            HTTPStreamClosedError,
        ):
            return Jupyter()

    async def _get(self, url: str, token: str) -> Any:
        answer = await self._client.fetch(
            url,
            headers={"Authorization": f"token {token}"},
            connect_timeout=CONNECT_TIMEOUT,
            request_timeout=TIMEOUT,
            follow_redirects=False,
        )
        return parse_json(answer.body, MOST)


def read_answers(kernels: object, terminals: object) -> Jupyter:
    """From ``/api/kernels`` and ``/api/terminals``; nothing known for what they never say.

    Raises ValueError, KeyError or OverflowError for a time that is none.
    """
    if not isinstance(kernels, list) or not isinstance(terminals, list):
        return Jupyter()
    busy, last = 0, 0.0
    for item in (*kernels, *terminals):
        if not isinstance(item, dict):
            return Jupyter()
        busy += item.get("execution_state") == "busy"
        when = datetime.fromisoformat(str(item["last_activity"]))
        last = max(last, when.timestamp())
    return Jupyter(busy, last)
