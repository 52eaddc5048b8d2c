"""The fetcher: what nginx asks for what it does not have. It alone of the mirror reaches outside.

``python3 -m environments.mirror.service``: answers at ``run/fetch.sock``, counts nginx's lines at
``run/log.sock``, and writes what is known to ``data/health/mirror.json``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from commons.site import Site, load_site
from environments.mirror.counts import Cache, Counts, size_of
from environments.mirror.fetch import Answer, Cut, Fetcher, Limits, said
from environments.mirror.routes import NOT_KEPT, Routes
from environments.mirror.simple import JSON, to_html

ALIVE = Path("/tmp/labcommons-mirror.alive")  # noqa: S108 - of its own container
AT_ONCE = 96  # requests outside
WRITE = 5.0  # seconds between two states
MEASURE = 300.0  # seconds between two looks at the disk
_CONDITIONS = ("If-None-Match", "If-Modified-Since")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 512


class Service:
    """One site's fetcher, below ``folder`` (``data/mirror``)."""

    def __init__(
        self, site: Site, folder: Path, health: Path, limits: Limits | None = None
    ) -> None:
        assert site.mirror is not None
        self.mirror, self.folder = site.mirror, folder
        self.routes = Routes(site.mirror, site.written)
        self.fetcher = Fetcher(limits, self.routes.indexes)
        self.counts = Counts(health)
        self.room = threading.BoundedSemaphore(AT_ONCE)
        self.over = threading.Event()
        self._cache = Cache(limit=site.mirror.size_bytes)
        self._images = 0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Listen, and go on in threads until ``stop``. Raises OSError."""
        run = self.folder / "run"
        run.mkdir(parents=True, exist_ok=True)
        for name in ("fetch.sock", "log.sock"):
            (run / name).unlink(missing_ok=True)
        service = self

        class Handler(_Handler):
            owner = service

        self._server = _Server(str(run / "fetch.sock"), Handler)
        self._log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        self._log.bind(str(run / "log.sock"))
        for name in ("fetch.sock", "log.sock"):
            (run / name).chmod(0o660)
        for work in (self._server.serve_forever, self._count, self._measure, self._write):
            thread = threading.Thread(target=work, daemon=True, name=work.__name__)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End; what was counted is written."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        with suppress(OSError):
            self._log.shutdown(socket.SHUT_RDWR)
        self._log.close()
        self.write()

    def answer(self, path: str, headers: Mapping[str, str]) -> Answer:
        """What a request of nginx's gets."""
        wanted = self.routes.wanted(unquote(urlsplit(path).path))
        if wanted is None:
            return said(404, NOT_KEPT, "not offered by the mirror")
        asked = {name: value for name in _CONDITIONS if (value := headers.get(name))}
        if wanted.page and headers.get("Accept") != "json":
            return self._as_html(self.fetcher.fetch(wanted, asked))
        return self.fetcher.fetch(wanted, asked, headers.get("X-LabCommons-Sha256") or "")

    def _as_html(self, answer: Answer) -> Answer:
        """For clients that read nothing else."""
        if answer.headers.get("Content-Type") != JSON:
            return answer
        body = to_html(json.loads(b"".join(answer.chunks)))
        answer.headers["Content-Type"] = "text/html; charset=utf-8"
        answer.chunks, answer.length = iter([body]), len(body)
        return answer

    def write(self) -> None:
        """Say what is known now. Never raises: without it only the figures are old."""
        free = 0
        with suppress(OSError):
            free = shutil.disk_usage(self.folder).free
        cache = Cache(self._cache.bytes, self._cache.files, self._cache.limit, free)
        places = {host: asdict(place) for host, place in list(self.fetcher.places.items())}
        try:
            self.counts.write(cache, places, self._images)
        except OSError as error:
            print(f"what the mirror knows cannot be written: {error}", file=sys.stderr, flush=True)

    def _count(self) -> None:
        while not self.over.is_set():
            try:
                self.counts.line(self._log.recv(65536).decode("utf-8", "replace"))
            except OSError:
                return

    def _measure(self) -> None:
        while True:
            self._cache.bytes, self._cache.files = size_of(self.folder / "cache")
            self._images, _ = size_of(self.folder / "images")
            if self.over.wait(MEASURE):
                return

    def _write(self) -> None:
        while not self.over.wait(WRITE):
            self.write()
            with suppress(OSError):
                ALIVE.touch()


class _Handler(BaseHTTPRequestHandler):
    owner: Service
    protocol_version = "HTTP/1.1"
    timeout = 600

    def address_string(self) -> str:
        return "nginx"

    def do_GET(self) -> None:
        """One answer, and the end of the connection."""
        self.close_connection = True
        with self.owner.room:
            answer = self.owner.answer(self.path, dict(self.headers))
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("X-Accel-Expires", str(answer.keep))
            self.send_header("Connection", "close")
            chunked = answer.length is None
            if answer.status != 304:
                self.send_header(
                    *(("Transfer-Encoding", "chunked") if chunked
                      else ("Content-Length", str(answer.length)))
                )  # fmt: skip
            self.end_headers()
            if answer.status != 304:
                self._body(answer, chunked)

    def _body(self, answer: Answer, chunked: bool) -> None:
        try:
            for piece in answer.chunks:
                if chunked and piece:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                elif piece:
                    self.wfile.write(piece)
            if chunked:
                self.wfile.write(b"0\r\n\r\n")
        except Cut as cut:
            # The end is missing, and nginx sees it.
            print(f"{self.path[:300]}: {cut}", file=sys.stderr, flush=True)
        finally:
            close = getattr(answer.chunks, "close", None)
            if close is not None:
                close()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: nginx counts."""


def _machine() -> None:
    """The machine's proxies, which `make up` writes down, for what goes outside."""
    path = Path(os.environ.get("LABCOMMONS_SECRETS", "/run/labcommons")) / "build-environment"
    with suppress(OSError, ValueError):
        for name, value in json.loads(path.read_text("utf-8") or "{}").items():
            if name.lower().endswith("_proxy"):
                os.environ.setdefault(name, str(value))


def main() -> None:
    """Serve until SIGTERM."""
    site = load_site()
    if site.mirror is None:
        sys.exit("the site file has no section mirror")
    _machine()
    os.umask(0o007)
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    service = Service(site, data / "mirror", data / "health")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    service.start()
    ALIVE.touch()
    while not stopped.wait(1):
        pass
    service.stop()


if __name__ == "__main__":
    main()
