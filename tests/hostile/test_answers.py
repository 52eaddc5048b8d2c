"""A server's answers are its owner's: none of them stops the hub's watch or fills its memory."""

from __future__ import annotations

import resource
import zlib
from collections.abc import AsyncIterator

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from spawner.gpu.watch.server_activity import Asker, Jupyter

MEGABYTE = bytes(2**20)


def bomb(megabytes: int) -> bytes:
    """So many in a thousandth of it, made without needing them here."""
    press = zlib.compressobj(9, wbits=31)
    return b"".join([*(press.compress(MEGABYTE) for _ in range(megabytes)), press.flush()])


ANSWERS = {
    "deep": (b"[" * 200_000, {}),
    "long": (b" " * 2_000_000, {}),
    "compressed": (bomb(200), {"Content-Encoding": "gzip"}),
    "digits": (b"[" + b"9" * 100_000 + b"]", {}),
    "no-text": (b"\xff\xfe[]", {}),
    "no-time": (b'[{"last_activity": "99999-01-01"}]', {}),
}


class Lie(RequestHandler):
    def get(self, which: str) -> None:
        body, headers = ANSWERS[which]
        for name, value in headers.items():
            self.set_header(name, value)
        self.finish(body)


@pytest.fixture
async def liar() -> AsyncIterator[str]:
    server = HTTPServer(Application([("/([a-z-]+)/.*", Lie)]))
    socket, port = bind_unused_port()
    server.add_socket(socket)
    yield f"http://127.0.0.1:{port}"
    server.stop()
    await server.close_all_connections()


@pytest.mark.parametrize("which", ANSWERS)
async def test_a_servers_lie_is_nothing_known(liar: str, which: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert await Asker()(f"{liar}/{which}/", "a-token") == Jupyter()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 * 1024, f"{grown} kB more"
