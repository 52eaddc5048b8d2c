"""The health check of services: what it calls well."""

from __future__ import annotations

import socket
import subprocess
import threading

import pytest

from deploy.settings import ROOT


def answered(reply: bytes | None) -> tuple[int, bytes]:
    """The exit code where a service replies so, and what it was asked; None: nobody listens."""
    asked = b""
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]

        def serve() -> None:
            nonlocal asked
            connection, _ = service.accept()
            with connection:
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(4096)
                connection.sendall(reply or b"")

        if reply is None:
            service.close()
        else:
            threading.Thread(target=serve, daemon=True).start()
        done = subprocess.run(
            ["bash", ROOT / "config/answers", "127.0.0.1", str(port), "/hub/health"],
            timeout=30, capture_output=True, check=False,
        )  # fmt: skip
    return done.returncode, asked


@pytest.mark.parametrize(
    ("reply", "well"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nfine", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1 302 Found\r\nLocation: /200\r\n\r\n", False),
        (b"", False),
        (None, False),
    ],
)
def test_a_service_is_well_that_answers_what_it_is_asked(reply: bytes | None, well: bool) -> None:
    code, asked = answered(reply)
    assert (code == 0) is well
    if reply:
        assert asked.startswith(b"GET /hub/health HTTP/1.0\r\nHost: 127.0.0.1:")
