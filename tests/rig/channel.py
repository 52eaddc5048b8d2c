"""Small real conda channels, and web servers that answer as badly as real ones do."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rattler.index import index_fs

from environments.offline.package import Member, Metadata, write_package


class TinyChannel:
    """A channel of hand-made packages; ``index`` makes it usable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "noarch").mkdir(parents=True, exist_ok=True)

    def add(
        self,
        name: str,
        version: str = "1.0",
        depends: tuple[str, ...] = (),
        files: Mapping[str, bytes] | None = None,
    ) -> Path:
        """Add a package; without ``files`` it has one that holds its version.

        What is in ``bin`` is a program.
        """
        files = files if files is not None else {f"share/{name}": version.encode()}
        metadata = Metadata(name, version, "0", depends, noarch="generic")
        return write_package(
            self.folder,
            metadata,
            [
                Member(path, data, 0o755 if path.startswith("bin/") else 0o644)
                for path, data in files.items()
            ],
        )

    def index(self) -> TinyChannel:
        asyncio.run(index_fs(self.folder, write_shards=False))
        return self

    def repodata(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "noarch/repodata.json").read_bytes())
        return document


@contextmanager
def bad_server(how: str) -> Iterator[str]:
    """A web server that answers with ``garbage``, ``error`` (500), or ``hangs``."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if how == "hangs":
                over.wait(60)
                return
            body = b"<html>Please log in to this network</html>"
            self.send_response(500 if how == "error" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/channel"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
