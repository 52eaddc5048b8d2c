"""Where a request came from: forged headers change nothing, those of our proxies count."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import tornado.httpserver
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from commons.web import proxied

CLAIMS = {
    "X-Real-IP": "203.0.113.77",
    "X-Forwarded-For": "203.0.113.78, 127.0.0.1",
    "Forwarded": "for=203.0.113.79",
    "X-Scheme": "https",
    "X-Forwarded-Proto": "https",
}


class Whence(RequestHandler):
    def get(self) -> None:
        self.finish(json.dumps([self.request.remote_ip, self.request.protocol]))


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server as JupyterHub makes its own: tornado's by name, ours by configuration."""
    before = tornado.httpserver.HTTPServer.configured_class()
    tornado.httpserver.HTTPServer.configure(proxied.HTTPServer)
    socket, port = bind_unused_port(address="0.0.0.0")
    server = tornado.httpserver.HTTPServer(Application([("/", Whence)]), xheaders=True)
    server.add_socket(socket)
    yield port
    server.stop()
    await server.close_all_connections()
    tornado.httpserver.HTTPServer.configure(before)


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.2 is our proxy."""
    known = proxied.Proxies(("127.0.0.2", "no-such-proxy.invalid"))
    await known.look()
    monkeypatch.setattr(proxied, "proxies", known)


async def ask(port: int, source: str, headers: dict[str, str], times: int = 1) -> list[list[str]]:
    """What the server takes requests of one connection from an address for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    seen = []
    for number in range(times):
        lines = [f"{name}: {value}" for name, value in headers.items()] if number == 0 else []
        writer.write("\r\n".join(["GET / HTTP/1.1", "Host: x", *lines, "", ""]).encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length:")[1].split()[0])
        seen.append(json.loads(await reader.readexactly(length)))
    writer.close()
    return seen


async def test_who_is_no_proxy_of_ours_is_not_believed(port: int, proxy: None) -> None:
    assert await ask(port, "127.0.0.3", CLAIMS) == [["127.0.0.3", "http"]]


async def test_a_proxy_of_ours_is_believed_for_the_one_request(port: int, proxy: None) -> None:
    assert await ask(port, "127.0.0.2", CLAIMS, times=2) == [
        ["203.0.113.77", "https"],
        ["127.0.0.2", "http"],
    ]


async def test_two_connections_at_once_are_told_apart(port: int, proxy: None) -> None:
    answers = await asyncio.gather(
        *(ask(port, source, CLAIMS) for source in ("127.0.0.2", "127.0.0.3") * 20)
    )
    assert [answer[0][0] for answer in answers] == ["203.0.113.77", "127.0.0.3"] * 20


async def test_a_proxy_that_is_away_keeps_its_address_and_a_new_one_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"chp": "192.0.2.1"}

    async def resolve(name: str, *_arguments: object, **_named: object) -> list[object]:
        if name not in names:
            raise OSError("no such name")
        return [(None, None, None, "", (names[name], 0))]

    known = proxied.Proxies(("chp",))
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    await known.look()
    del names["chp"]
    await known.look()
    assert "192.0.2.1" in known
    names["chp"] = "192.0.2.2"
    await known.look()
    assert ("192.0.2.1" in known, "192.0.2.2" in known) == (False, True)
