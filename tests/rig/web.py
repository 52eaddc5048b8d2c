"""A web server for folders that wants a login, or goes down in the middle of a package."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar


class _Handler(SimpleHTTPRequestHandler):
    fails_after = -1
    login = ""
    heard: ClassVar[list[str]] = []
    elsewhere = ""

    def do_GET(self) -> None:
        self.heard.append(self.headers.get("Authorization", ""))
        if self.elsewhere and self.path.endswith(".conda"):
            self.send_response(302)
            self.send_header("Location", f"{self.elsewhere}{self.path}")
            self.end_headers()
            return
        if self.login and self.headers.get("Authorization") != self.login:
            self.send_error(401)
            return
        if self.fails_after >= 0 and self.path.endswith(".conda"):
            path = Path(self.directory + self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            self.wfile.write(path.read_bytes()[: self.fails_after])
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def web(folder: Path, **behaviour: Any) -> Iterator[str]:
    """Serve a folder.

    ``fails_after``: bytes of each package; ``login``: what must be sent; ``heard``: a list of the
    logins that were; ``elsewhere``: where it sends who wants a package.
    """
    handler = type("Handler", (_Handler,), behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
