"""A server that several people use together: who has left is shut out, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from rig.persons_server import Running, running

SOCKET = "api/events/subscribe"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, LABCOMMONS_TOGETHER="1") as one:
        one.hub.good |= {"its-own", "alices", "bobs"}
        one.hub.names |= {"alices": "alice", "bobs": "bob"}
        yield one


def told(server: Running, *may: str, token: str = "its-own", **headers: str) -> tuple[int, Any]:
    """What the hub says of who may be in, and is told."""
    body = json.dumps({"may": may}).encode()
    status, _, text = server.client.ask("labcommons/together", token, headers, body)
    return status, json.loads(text)


async def opened(server: Running, token: str, **headers: str) -> WebSocketClientConnection:
    base = server.client.base.replace("http", "ws")
    asked = {"Authorization": f"token {token}", **headers}
    return await websocket_connect(HTTPRequest(f"{base}/user/lab/{SOCKET}", headers=asked))


async def test_who_has_left_is_out_and_everybody_else_goes_on(server: Running) -> None:
    alice, bob = await opened(server, "alices"), await opened(server, "bobs")
    own = await opened(server, "its-own")  # a program in it
    _, said = await asyncio.to_thread(told, server, "alice", "bob")
    assert said == {"in": {"alice": 1, "bob": 1, "lab": 1}, "closed": []}

    server.hub.good.discard("bobs")  # the hub knows; the server still believes what it was told
    assert server.client.ask("api/me", "bobs")[0] == 200
    _, said = await asyncio.to_thread(told, server, "alice")
    assert said["closed"] == ["bob"]
    async with asyncio.timeout(10):
        assert await bob.read_message() is None
    assert (bob.close_code, bob.close_reason) == (4403, "no longer in here")
    assert server.client.ask("api/me", "bobs")[0] == 403
    with pytest.raises(HTTPClientError) as refused:
        await opened(server, "bobs")
    assert refused.value.code == 403

    for one in (alice, own):
        assert one.close_code is None
        one.ping()
    _, said = await asyncio.to_thread(told, server, "alice")
    assert said == {"in": {"alice": 1, "lab": 1}, "closed": []}


async def test_a_browser_that_does_not_take_leave_is_out_all_the_same(server: Running) -> None:
    bob = await opened(server, "bobs")
    assert bob.protocol is not None
    bob.protocol._receive_frame = _never  # type: ignore[method-assign, attr-defined]
    await asyncio.to_thread(told, server, "bob")
    await asyncio.to_thread(told, server)
    async with asyncio.timeout(10):
        while (await asyncio.to_thread(told, server))[1]["in"]:
            await asyncio.sleep(0.05)


async def _never() -> None:
    await asyncio.Event().wait()


async def test_only_the_hub_says_who_may_be_in(server: Running) -> None:
    assert (await asyncio.to_thread(told, server, "bob", token="bobs"))[0] == 403
    for body in (b"{}", b'{"may": "all"}', b'{"may": [1]}', b"[]"):
        ask = server.client.ask
        assert (await asyncio.to_thread(ask, "labcommons/together", "its-own", {}, body))[0] == 400


async def test_the_servers_own_token_opens_nothing_from_outside(server: Running) -> None:
    """Whoever was in can have noted it."""
    outside = {"X-Forwarded-For": "192.0.2.1"}
    assert server.client.ask("api/contents", "its-own")[0] == 200
    assert server.client.ask("api/contents", "its-own", outside)[0] == 403
    assert server.client.ask("api/contents", "alices", outside)[0] == 200
    with pytest.raises(HTTPClientError):
        await opened(server, "its-own", **outside)


def test_a_persons_own_server_has_nothing_of_it(tmp_path: Path) -> None:
    with running(tmp_path) as one:
        one.hub.good.add("its-own")
        for path in ("labcommons/together", "api/collaboration/room/x"):
            assert one.client.ask(path, "its-own", {}, b"{}")[0] == 404
