"""What CHP's image adds to CHP."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = ROOT / "config" / "images" / "chp" / "requests.cjs"
# An answer, and no look at what becomes of the connection.
SERVER = """
const server = require("http").createServer();
server.on("upgrade", (request, socket) => socket.write("HTTP/1.1 404\\r\\n\\r\\n"));
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""
ASK = (
    b"GET /user/alice/api HTTP/1.1\r\nHost: lab\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)


@pytest.mark.parametrize("options", [[], [f"--require={REQUESTS}"]], ids=["plain", "ours"])
def test_a_connection_that_is_reset_while_nobody_looks_at_it_is_no_exception(
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


# Like CHP where there is no route for who asks for a websocket.
REFUSES = """
const server = require("http").createServer();
server.on("upgrade", (request, socket) => {
  if (request.url === "/gone") {
    return socket.write("HTTP/1.1 404\\r\\nContent-Length: 0\\r\\n\\r\\n");
  }
  socket.write("HTTP/1.1 101 Here\\r\\n\\r\\n");
  socket.pipe(socket);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""


def test_who_is_refused_a_websocket_keeps_no_connection() -> None:
    """Kind: connections that stay for ever of pages that ask on for a server that is gone."""
    command = ["node", f"--require={REQUESTS}", "-e", REFUSES]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with (
            socket.create_connection(("127.0.0.1", port), 10) as client,
            client.makefile("rb") as answer,
        ):
            client.sendall(ASK.replace(b"/user/alice/api", b"/gone"))
            assert answer.read() == b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n"  # to its end
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(ASK)
            assert client.recv(100) == b"HTTP/1.1 101 Here\r\n\r\n"
            client.sendall(b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n")  # a server's words
            assert client.recv(100) == b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n"
            client.sendall(b"and on")
            assert client.recv(100) == b"and on"
        server.kill()


# Like CHP, which looks for a route by the decoded address.
ROUTER = """
const server = require("http").createServer((request, answer) => {
  try {
    const path = new URL(request.url, "http://lab").pathname;
    answer.end(decodeURIComponent(path) + " " + request.url);
  } catch (error) {
    answer.writeHead(500).end(String(error));
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
"""


def test_an_address_that_is_no_utf8_is_no_fault_of_the_proxys() -> None:
    command = ["node", f"--require={REQUESTS}", "-e", ROUTER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())

        def asked(path: str) -> str:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path)
            return connection.getresponse().read().decode()

        for whole in ("/user/al%40x/a%20b%2Fc?x=%ff", "/hub/%E4%BD%A0", "/?%", "/hub/%f0%9f%91%8d"):
            assert asked(whole).endswith(" " + whole)
        for broken in (
            "/hub/%ff%fe",
            "/hub/%",
            "/hub/%zz",
            "/hub/%2",
            "/hub/%e4%bd",
            "/hub/%ed%a0%80",
        ):
            assert asked(broken).startswith("/hub/\N{REPLACEMENT CHARACTER}")
        # Nobody else's address comes of it.
        assert asked("/user/alice%2F%ff").startswith("/user/alice\N{REPLACEMENT CHARACTER} ")
        assert asked("/user/%ff/../bob?%ff") == "/user/bob /user/%EF%BF%BD/../bob?%ff"
        server.kill()


def test_nginx_ends_a_connection_that_nobody_uses_before_chp_does() -> None:
    """Kind: a login, or another POST, that is lost because its connection is closed just then."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    (kept,) = re.findall(r"--keep-alive-timeout=(\d+)", " ".join(services["chp"]["command"]))
    nginx = (ROOT / "config" / "nginx" / "nginx.conf").read_text("utf-8")
    (reused,) = re.findall(r"upstream chp \{.*?keepalive_timeout (\d+)s;.*?\}", nginx, re.DOTALL)
    assert int(kept) >= (int(reused) + 10) * 1000
