"""``jupyterhub.httpclient.fetch`` over Tornado's client, for what the single-user server asks.

All its questions go to the hub, by HTTP. What is not known here goes to the real one.

Who somebody is and what they may is asked every 30 seconds. While the hub does not answer, as when
it is started anew, the last answer goes on for a while: who is at work neither loses a file that is
saved meanwhile nor sees an error. People whom the hub has not named before are not let in.
"""

from __future__ import annotations

import importlib
import json as json_module
import time
from typing import Any

import labcommons_away
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse

# As long as aiohttp, and as many at once, by default.
CONNECT, REQUEST, AT_ONCE = 30, 300, 100
KNOWN = {"headers", "data", "ssl"}
SILENT = (502, 503, 504)  # what the gate says of a hub that is away
# Seconds for which an answer goes on without a hub, and for which it is waited for where there is
# one; how many are known.
GOES_ON, PATIENCE, MOST = 900, 10, 1000


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


class Known:
    """The hub's last answers to ``GET user``, by the token that asked."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, ...], tuple[float, Response]] = {}

    def find(self, request: HTTPRequest) -> Response | None:
        """The answer to such a question, while it goes on."""
        at, answer = self._answers.get(_question(request), (-GOES_ON, None))
        return answer if time.monotonic() - at < GOES_ON else None

    def keep(self, request: HTTPRequest, answer: Response) -> None:
        """The hub's word is the last: a refusal ends what was known."""
        self._answers.pop(_question(request), None)
        if answer.ok and request.method == "GET" and request.url.endswith("/user"):
            self._answers[_question(request)] = time.monotonic(), answer
            while len(self._answers) > MOST:
                del self._answers[next(iter(self._answers))]

    def forget(self) -> None:
        """The hub has said that somebody has left."""
        self._answers.clear()


def _question(request: HTTPRequest) -> tuple[str, ...]:
    return request.method, request.url, request.headers.get("Authorization", "")


known = Known()


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
    if before := known.find(request):
        request.connect_timeout = request.request_timeout = PATIENCE
    try:
        response = await AsyncHTTPClient(max_clients=AT_ONCE).fetch(request, raise_error=False)
    except Exception as error:  # there was no answer
        labcommons_away.hub.asked(str(error) or type(error).__name__)
        if before:
            return before
        raise
    silent = response.code in SILENT
    labcommons_away.hub.asked(str(response.error) if silent else "")
    if silent and before:
        return before
    answer = Response(response)
    if not silent:
        known.keep(request, answer)
    if response.error and raise_for_status:
        raise response.error
    return answer
