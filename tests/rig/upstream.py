"""A conda channel and an index of Python packages on this machine, that misbehave on command."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PAGE = b"<html><body>Please log in to this network</body></html>"


@dataclass
class Upstream:
    """Serves ``folder`` at ``url``.

    Attributes:
        how: by the end of a path, what it does instead of answering: ``html``, ``truncate``,
            ``slow``, ``loop``, ``elsewhere`` (a redirect to itself with a signature), ``other``
            (other bytes), ``error``, ``hangs``, ``private`` (a login is asked for).
        asked: how often each path was asked for, with 200 or a mistake.
        headers: of the last request of each path.
    """

    folder: Path
    how: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    pause: float = 0.0  # seconds before each answer
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Answer, at the same port as before."""
        upstream = self

        class Handler(_Handler):
            owner = upstream

        ThreadingHTTPServer.allow_reuse_address = True
        ThreadingHTTPServer.request_queue_size = 256
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def cut(self) -> None:
        """Nobody answers any more."""
        self.released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def add_wheel(self, name: str, wheel: bytes, file: str) -> str:
        """Put a file as PyPI does; its path."""
        digest = hashlib.blake2b(wheel, digest_size=32).hexdigest()
        path = f"packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{file}"
        (self.folder / path).parent.mkdir(parents=True)
        (self.folder / path).write_bytes(wheel)
        page = self.folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        known = page.read_text() if page.exists() else f"<title>Links for {name}</title>\n"
        sha256 = hashlib.sha256(wheel).hexdigest()
        page.write_text(f'{known}<a href="../../{path}#sha256={sha256}">{file}</a><br>\n')
        return f"/{path}"


class _Handler(BaseHTTPRequestHandler):
    owner: Upstream

    def do_GET(self) -> None:
        """As the path's end says."""
        owner, path = self.owner, urlsplit(self.path).path
        owner.asked[path] += 1
        owner.headers[path] = dict(self.headers)
        time.sleep(owner.pause)
        how = next((how for end, how in owner.how.items() if path.endswith(end)), "")
        found = owner.folder / path.lstrip("/")
        found = found / "index.html" if found.is_dir() else found
        if how == "html":
            self._send(PAGE, "text/html")
        elif how == "error":
            self._send(b"out of order", "text/plain", status=500)
        elif how == "hangs":
            owner.released.wait(60)
        elif how == "loop":
            self._lead(self.path)
        elif how == "elsewhere" and "signature" not in self.path:
            self._lead(f"{path}?signature={owner.asked[path]}")
        elif how == "private" and "Authorization" not in self.headers:
            self._send(b"who are you", "text/plain", status=401)
        elif not found.is_file():
            self._send(b"no", "text/plain", status=404)
        else:
            self._file(how, found)

    def _file(self, how: str, found: Path) -> None:
        body, etag = found.read_bytes(), f'"{found.stat().st_mtime_ns}"'
        if self.headers.get("If-None-Match") == etag:
            self.send_response(304)
            self.end_headers()
            return
        media = "text/html" if found.suffix == ".html" else "application/octet-stream"
        if how == "other":
            body = body[:-4] + b"evil"
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", etag)
        self.end_headers()
        if how == "truncate":
            self.wfile.write(body[: len(body) // 2])
        elif how == "slow":
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.owner.released.wait(0.05):
                    return
        else:
            self.wfile.write(body)

    def _lead(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", f"{self.owner.url}{to}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, media: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    """One that answers until the end of the block."""
    one = Upstream(folder)
    one.start()
    try:
        yield one
    finally:
        one.cut()


def as_json(page: dict[str, Any]) -> bytes:
    """A page of PEP 691."""
    return json.dumps({"meta": {"api-version": "1.0"}, **page}).encode()
