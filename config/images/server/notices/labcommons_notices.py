"""Server extension: a person's notices and leases, fetched from the console for JupyterLab.

The console is asked with the server's own token, which names the person. It is asked when a tab
asks, never else, at most every few seconds however many tabs there are; where it does not
answer, tabs are told so at once and nothing else is slower or broken. Standard parts of Jupyter
only: this is all that the server image knows of LabCommons besides `kernels`.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import labcommons_away
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.simple_httpclient import HTTPStreamClosedError
from tornado.web import HTTPError, authenticated

from kernels.messages import persons_language, say

TIMEOUT = 5  # seconds
FRESH = 5  # seconds for which an answer is given again
PAUSE = 30  # seconds without a question after one that failed
MOST = 20 * 2**20  # bytes of an answer; the largest is a notebook that was sent


def unavailable() -> str:
    """What is said where the console does not answer."""
    return say("console_silent").in_words(persons_language())


class Console:
    """The console, as this server reaches it."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/") + "/api/v1/"
        self._token = token
        self._client: AsyncHTTPClient | None = None
        self._kept: dict[str, tuple[str, float, Any]] = {}  # path -> cookies, when, answer
        self._pause_until = 0.0

    async def ask(
        self, method: str, path: str, cookies: str, body: object = None
    ) -> tuple[int, Any]:
        """Status and document of an answer. Raises HTTPError 503 where there is none."""
        if time.monotonic() < self._pause_until:
            labcommons_away.in_vain.set(True)
            raise HTTPError(503, unavailable())
        if self._client is None:
            self._client = AsyncHTTPClient(force_instance=True, max_body_size=MOST)
        request = HTTPRequest(
            self._url + path,
            method=method,
            headers={
                "Authorization": f"token {self._token}",
                "Content-Type": "application/json",
                "Cookie": cookies,
            },
            body=json.dumps(body or {}) if method == "POST" else None,
            connect_timeout=TIMEOUT,
            request_timeout=TIMEOUT,
            follow_redirects=False,
        )
        try:
            answer = await self._client.fetch(request, raise_error=False)
            if answer.code in (502, 503, 504, 599):
                raise OSError(answer.reason)
            found = answer.code, json.loads(answer.body)
        except (OSError, ValueError, HTTPClientError, HTTPStreamClosedError) as error:
            labcommons_away.console.asked(str(error) or type(error).__name__)
            self._pause_until = time.monotonic() + PAUSE
            raise HTTPError(503, unavailable()) from error
        labcommons_away.console.asked()
        return found

    async def notices(self, cookies: str) -> tuple[int, Any]:
        """The person's notices; one answer serves all tabs of a few seconds."""
        return await self._shared("notices", cookies)

    async def broadcasts(self, cookies: str) -> tuple[int, Any]:
        """Messages to everybody, as ``notices``."""
        return await self._shared("broadcasts", cookies)

    async def _shared(self, path: str, cookies: str) -> tuple[int, Any]:
        known, at, kept = self._kept.get(path, ("", 0.0, None))
        if kept is None or known != cookies or time.monotonic() - at > FRESH:
            kept = await self.ask("GET", path, cookies)
            self._kept[path] = (cookies, time.monotonic(), kept)
        return kept

    def forget(self) -> None:
        """Something has changed: ask anew."""
        self._kept.clear()


class Base(APIHandler):
    """What all of them need. Polling is no activity: it must not keep an idle server alive."""

    _track_activity = False

    def initialize(self, console: Console) -> None:
        self.console = console

    def cookies(self) -> str:
        """Language and time zone of the browser, as the console reads them."""
        zone = self.get_query_argument("zone", "")
        lang = self.get_query_argument("lang", "")
        pairs = {
            "labcommons-tz": zone if re.fullmatch(r"[A-Za-z0-9_+/-]{1,64}", zone) else "UTC",
            "labcommons-lang": "zh_CN" if lang.lower().startswith("zh") else "en",
        }
        return "; ".join(f"{name}={value}" for name, value in pairs.items())

    def give(self, answer: tuple[int, Any]) -> None:
        """The console's answer, as it is."""
        status, document = answer
        self.set_status(status if 200 <= status < 600 else 502)
        self.finish(json.dumps(document))


class Notices(Base):
    """``GET labcommons/notices``."""

    @authenticated
    async def get(self) -> None:
        """What the person has to be told, and what they hold."""
        status, document = await self.console.notices(self.cookies())
        if isinstance(document, dict):
            document = document | {"server": os.environ.get("JUPYTERHUB_SERVER_NAME", "")}
        self.give((status, document))


class Broadcasts(Base):
    """``GET labcommons/broadcasts``: messages to everybody."""

    @authenticated
    async def get(self) -> None:
        """Those that last now."""
        self.give(await self.console.broadcasts(self.cookies()))


class Actions(Base):
    """``POST labcommons/notices/seen``, ``servers/keep``, ``leases/ID/extend`` and ``keep``."""

    @authenticated
    async def post(self, path: str) -> None:
        """Hand it on."""
        self.console.forget()
        body = self.get_json_body() or {}
        self.give(await self.console.ask("POST", path, self.cookies(), body))


def shared_console(app: Any, url: str, token: str) -> Console:
    """The one of this server: what one part tells is not hidden by what another has kept."""
    console: Console = app.web_app.settings.setdefault("labcommons_console", Console(url, token))
    return console


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "labcommons_notices"}]


def _load_jupyter_server_extension(app: Any) -> None:
    url, token = os.environ.get("LABCOMMONS_CONSOLE_URL"), os.environ.get("JUPYTERHUB_API_TOKEN")
    if not url or not token:
        return
    import labcommons_sending

    arguments = {"console": shared_console(app, url, token)}
    here = url_path_join(app.web_app.settings["base_url"], "labcommons/")
    app.web_app.add_handlers(
        ".*$",
        [
            (here + "notices", Notices, arguments),
            (here + "broadcasts", Broadcasts, arguments),
            *labcommons_sending.handlers(here, arguments),
            (
                here + r"(notices/seen|servers/keep|leases/[0-9a-f]{32}/(?:extend|keep))",
                Actions,
                arguments,
            ),
        ],
    )
