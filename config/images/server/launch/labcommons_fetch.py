"""``jupyterhub.httpclient.fetch`` over Tornado's client, for what the single-user server asks.

All its questions go to the hub, by HTTP. What is not known here goes to the real one.
"""

from __future__ import annotations

import importlib
import json as json_module
from typing import Any

import labcommons_away
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

# As long as aiohttp, and as many at once, by default.
CONNECT, REQUEST, AT_ONCE = 30, 300, 100
KNOWN = {"headers", "data", "ssl"}
SILENT = (502, 503, 504)  # what the gate says of a hub that is away


class Response:
    """As much of ``aiohttp.ClientResponse`` as is used."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status, self.reason = response.code, response.reason
        self.ok = response.code < 400
        self.headers, self._body = response.headers, response.body

    async def text(self) -> str:
        return self._body.decode("utf-8")

    async def json(self) -> Any:
        return json_module.loads(self._body)

    async def read(self) -> bytes:
        return self._body


async def fetch(
    url: str, *, method: str = "GET", raise_for_status: bool = True, **options: Any
) -> Any:
    """Ask the hub. Raises OSError or Tornado's HTTPError where there is no answer, or a bad one."""
    data = options.get("data")
    if (
        not url.startswith(("http://", "https://"))
        or not options.keys() <= KNOWN
        or not isinstance(data, str | bytes | None)
    ):
        from labcommons_launch import real_ones

        real_ones()
        real = importlib.import_module("jupyterhub.httpclient")
        return await real.fetch(url, method=method, raise_for_status=raise_for_status, **options)
    request = HTTPRequest(
        url,
        method=method,
        headers=options.get("headers"),
        body=data,
        ssl_options=options.get("ssl"),
        connect_timeout=CONNECT,
        request_timeout=REQUEST,
        allow_nonstandard_methods=True,
    )
    try:
        response = await AsyncHTTPClient(max_clients=AT_ONCE).fetch(request, raise_error=False)
    except Exception as error:  # there was no answer
        labcommons_away.hub.asked(str(error) or type(error).__name__)
        raise
    labcommons_away.hub.asked(str(response.error) if response.code in SILENT else "")
    if response.error and raise_for_status:
        raise response.error
    return Response(response)
