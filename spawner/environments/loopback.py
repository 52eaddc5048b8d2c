"""Folders served over HTTP on 127.0.0.1 while they are fetched from.

py-rattler checks the SHA-256 of what it downloads, but not of what it finds below
``file://``: a channel in a folder is therefore fetched like any other.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_POLL = 0.02  # seconds


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def end_headers(self) -> None:
        # A channel can be made anew within the second that Last-Modified can tell apart.
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def list_directory(self, path: Any) -> io.BytesIO | None:
        self.send_error(404)
        return None

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: what fails is said by who fetches."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def serve(folders: Iterable[Path]) -> Iterator[list[str]]:
    """Serve folders until the end of the block; gives their URLs, ending in "/"."""
    with ExitStack() as stack:
        urls = []
        for folder in folders:
            server = stack.enter_context(
                _Server(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
            )
            # It looks that often whether it shall end, and who ends it waits for that.
            threading.Thread(target=server.serve_forever, args=(_POLL,), daemon=True).start()
            stack.callback(server.shutdown)
            urls.append(f"http://127.0.0.1:{server.server_port}/")
        yield urls
