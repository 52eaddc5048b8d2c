"""What the hub is asked, at its one address for this service (``hub_ext.ssh_link``)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

log = logging.getLogger("labcommons.ssh")

CONNECT, LIMIT = 5.0, 20.0  # seconds; a directory may be slow
MOST = 4 * 2**20  # bytes of an answer


class HubSilent(Exception):
    """There is no answer, or none that can be understood."""


class Hub:
    """The hub, by this service's token.

    Args:
        url: such as ``http://hub-control:8081/hub/api``.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = f"{url.rstrip('/')}/ssh", token
        self._client: AsyncHTTPClient = SimpleAsyncHTTPClient(
            force_instance=True, max_clients=100, max_body_size=MOST
        )

    async def ask(self, ask: str, /, **body: Any) -> Mapping[str, Any]:
        """An answer. Raises HubSilent."""
        request = HTTPRequest(
            self._url,
            method="POST",
            headers={
                "Authorization": f"token {self._token}",
                "Content-Type": "application/json",
            },
            body=json.dumps({"ask": ask, **body}),
            connect_timeout=CONNECT,
            request_timeout=LIMIT,
            follow_redirects=False,
        )
        try:
            answer = await self._client.fetch(request)
            found = json.loads(answer.body)
        except (OSError, ValueError, HTTPClientError) as error:
            log.warning("the hub was asked (%s): %s", ask, error)
            raise HubSilent(str(error)) from error
        if not isinstance(found, dict):
            raise HubSilent("no document")
        return found
