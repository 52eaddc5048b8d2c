"""What CHP's image adds to CHP."""

from __future__ import annotations

import socket
import struct
import subprocess
from pathlib import Path

import pytest

SOCKETS = Path(__file__).resolve().parents[2] / "config" / "images" / "chp" / "sockets.cjs"
# Like CHP for a route that is gone: an answer, and no look at what becomes of the connection.
SERVER = """
const server = require("http").createServer();
server.on("upgrade", (request, socket) => socket.write("HTTP/1.1 404\\r\\n\\r\\n"));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""
ASK = (
    b"GET /user/alice/api HTTP/1.1\r\nHost: lab\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)


@pytest.mark.parametrize("options", [[], [f"--require={SOCKETS}"]], ids=["plain", "ours"])
def test_a_websocket_that_is_reset_after_its_server_has_gone_is_no_exception(
    options: list[str],
) -> None:
    command = ["node", *options, "-e", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for _ in range(2):
            try:
                with socket.create_connection(("127.0.0.1", port), 10) as client:
                    client.sendall(ASK)
                    assert client.recv(100).startswith(b"HTTP/1.1 404")
                    # Closed by a reset.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                break  # it is gone
        lives = True
        try:
            server.wait(1 if options else 10)
            lives = False
        except subprocess.TimeoutExpired:
            server.kill()
        assert lives is bool(options)
