"""Folders, and places that want a login, served over HTTP on 127.0.0.1 while they are fetched from.

py-rattler checks the SHA-256 of what it downloads, but not of what it finds below
``file://``: a channel in a folder is therefore fetched like any other. And it sends a login to
every port of a host, encrypted or not: it is therefore given none, but an address here.
"""

from __future__ import annotations

import io
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

_POLL = 0.02  # seconds
_YOUNG = 2.0  # seconds; times in HTTP are whole ones
NO_LOGINS: Mapping[str, Mapping[str, str]] = {}
# Headers that are passed on: what caches need.
_ASKED = ("Accept", "Accept-Encoding", "If-Modified-Since", "If-None-Match", "Range")
_ANSWERED = (
    "Content-Type", "Content-Length", "Content-Encoding", "Content-Range", "ETag",
    "Last-Modified", "Cache-Control",
)  # fmt: skip


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def send_header(self, keyword: str, value: str) -> None:
        """Without the time of a file that can change once more within the second that it tells.

        Who has that time would be told ever after that nothing has changed.
        """
        if keyword == "Last-Modified":
            age = time.time() - parsedate_to_datetime(value).timestamp()
            if age < _YOUNG:
                return
        super().send_header(keyword, value)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def list_directory(self, path: Any) -> io.BytesIO | None:
        self.send_error(404)
        return None

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what fails is said by who fetches."""


class _Relay(BaseHTTPRequestHandler):
    """Fetches from one place with its login, and from no other one."""

    timeout = 60

    def __init__(self, *args: Any, place: str, login: Mapping[str, str]) -> None:
        self.place, self.login = place.rstrip("/"), login
        super().__init__(*args)

    def do_GET(self) -> None:
        """Pass on a request and its answer."""
        if ".." in unquote(self.path).split("/"):
            self.send_error(404)
            return
        request = urllib.request.Request(f"{self.place}{self.path}", method=self.command)  # noqa: S310
        for name in _ASKED:
            if value := self.headers.get(name):
                request.add_header(name, value)
        for name, value in self.login.items():
            request.add_unredirected_header(name, value)  # not for whom the host sends us to
        try:
            answer = urllib.request.urlopen(request, timeout=self.timeout)  # noqa: S310
        except urllib.error.HTTPError as error:
            answer = error
        except (OSError, ValueError):
            self.send_error(502)
            return
        with answer:
            self.send_response(answer.status or 502)
            for name in _ANSWERED:
                if value := answer.headers.get(name):
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                shutil.copyfileobj(answer, self.wfile)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what fails is said by who fetches."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def serve(
    places: Iterable[str], logins: Mapping[str, Mapping[str, str]] = NO_LOGINS
) -> Iterator[list[str]]:
    """Serve folders, and places that want a login, until the end of the block.

    Gives their URLs, ending in "/". ``logins``: the headers that a place wants.
    """
    with ExitStack() as stack:
        urls = []
        for place in places:
            handler: Any = partial(_Handler, directory=place)
            if place in logins:
                handler = partial(_Relay, place=place, login=logins[place])
            server = stack.enter_context(_Server(("127.0.0.1", 0), handler))
            # It looks that often whether it shall end, and who ends it waits for that.
            threading.Thread(target=server.serve_forever, args=(_POLL,), daemon=True).start()
            stack.callback(server.shutdown)
            urls.append(f"http://127.0.0.1:{server.server_port}/")
        yield urls
