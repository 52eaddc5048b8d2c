"""Bodies of people whom nobody knows yet: what is held of them has an end."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import tornado.httpserver

from commons.web import proxied

MEGABYTE = 2**20
SERVER = """
import asyncio, sys
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler
from commons.web import proxied

class Echo(RequestHandler):
    def post(self):
        self.finish(str(len(self.request.body)))

async def main():
    if sys.argv[1] == "ours":
        HTTPServer.configure(proxied.HTTPServer)  # as hub_ext.app does for JupyterHub
    server = HTTPServer(Application([("/.*", Echo)]), xheaders=True)
    server.listen(0, "127.0.0.1")
    print(next(iter(server._sockets.values())).getsockname()[1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def server(whose: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, whose], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def memory(process: subprocess.Popen[str]) -> int:
    """Bytes of a process's own memory."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096


def begin(port: int, size: int, send: int) -> socket.socket:
    """A request with a body of ``size`` bytes, of which ``send`` are sent."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"POST /hub/login HTTP/1.1\r\nHost: lab\r\nContent-Length: {size}\r\n\r\n"
    with suppress(OSError):  # closed by the server, as it should be
        peer.sendall(head.encode() + bytes(send))
    return peer


def answer(peer: socket.socket) -> bytes:
    with suppress(OSError):
        return peer.recv(4096)
    return b""


@pytest.mark.parametrize(("whose", "held"), [("tornado's", True), ("ours", False)])
def test_sixty_megabytes_without_a_session_are_not_held(whose: str, held: bool) -> None:
    """With tornado's own limits they are, which shows that the test would see it."""
    with server(whose) as (process, port):
        answer(begin(port, 2, 2))
        before = memory(process)
        peers = [begin(port, 60 * MEGABYTE, 20 * MEGABYTE) for _ in range(5)]
        if held:
            deadline = time.monotonic() + 30
            while memory(process) < before + 60 * MEGABYTE:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        else:
            assert all(
                b"413" in found or b"400" in found or not found for found in map(answer, peers)
            )
            assert memory(process) < before + 20 * MEGABYTE
        for peer in peers:
            peer.close()


def test_many_bodies_within_the_limit_are_held_up_to_a_sum_and_logins_always() -> None:
    most = proxied.MAX_BODIES // proxied.MAX_BODY
    with server("ours") as (process, port):
        before = memory(process)
        peers = [begin(port, proxied.MAX_BODY, proxied.MAX_BODY - 1) for _ in range(most + 40)]
        refused = 0
        for peer in peers[most + 10 :]:  # the last ones are over the sum
            refused += b"400" in answer(peer)
        assert refused
        assert memory(process) < before + 2 * proxied.MAX_BODIES
        # A login still comes in, and a large body again when the others have gone.
        assert b"\r\n\r\n1000" in answer(begin(port, 1000, 1000))
        for peer in peers:
            peer.close()
        deadline = time.monotonic() + 20
        while b"262144" not in answer(begin(port, proxied.MAX_BODY, proxied.MAX_BODY)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_jupyterhubs_own_server_has_these_limits() -> None:
    tornado.httpserver.HTTPServer.configure(proxied.HTTPServer)
    try:
        made = tornado.httpserver.HTTPServer(lambda request: None, xheaders=True)
        assert isinstance(made, proxied.HTTPServer)
        assert made.conn_params.max_body_size == proxied.MAX_BODY
        assert made.conn_params.body_timeout == proxied.BODY_TIMEOUT
    finally:
        tornado.httpserver.HTTPServer.configure(None)
