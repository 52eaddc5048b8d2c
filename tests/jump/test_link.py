"""A server is its owner's: whatever it says on the way, nobody gets more than a refusal."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from aiohttp import WSMsgType, web

from commons.errors import BadRequest
from jump.authority import DAY, Authority
from rig.ssh_site import SshSite, free_port, new_key, running

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf92H6zqwdnjLjvozHc9LF69n09jYsQv0WU82phJ/6z"


class LyingServer:
    """Its first message, and what it was sent."""

    def __init__(self) -> None:
        self.first: str | bytes = ""
        self.got: list[Any] = []
        self.headers: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.WebSocketResponse:
        self.headers = dict(request.headers)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if isinstance(self.first, bytes):
            await socket.send_bytes(self.first)
        else:
            await socket.send_str(self.first)
        async for message in socket:
            self.got.append(message.data)
            if message.type is WSMsgType.TEXT:
                await socket.send_bytes(b"SSH-2.0-lying\r\n")
            break
        await socket.close()
        return socket


@pytest.fixture
async def liar() -> AsyncIterator[tuple[LyingServer, str]]:
    server, port = LyingServer(), free_port()
    app = web.Application()
    app.router.add_get("/user/lab/labcommons/ssh", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield server, f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.fixture
async def site(liar: tuple[LyingServer, str], tmp_path: Path) -> AsyncIterator[SshSite]:
    async with running(tmp_path / "site", liar[1]) as one:
        line = new_key(tmp_path / "key")
        one.hub.keys["lab"] = [line]
        one.hub.places["lab", "main"] = {
            "state": "ready",
            "called": "main",
            "path": "/user/lab/labcommons/ssh",
            "host": "lab.lab.example.org",
            "token": "for-a-minute",
            "keys": [line],
            "said": "It is too old for SSH.",
        }
        one.configure(tmp_path / "key")
        yield one


LIES = [
    "",
    "no JSON",
    "[" * 100_000,
    "[]",
    "{}",
    json.dumps({"host_key": None}),
    json.dumps({"host_key": "A" * 100_000}),
    json.dumps({"host_key": f"{KEY}\n{KEY}"}),
    json.dumps({"host_key": f'cert-authority,principals="root" {KEY}'}),
    json.dumps({"host_key": "ssh-ed25519-cert-v01@openssh.com AAAA"}),
    b"\xff\xfe" * 1000,
    "A" * 1_000_000,
]


async def test_a_server_that_lies_about_its_key_gets_no_certificate(
    site: SshSite, liar: tuple[LyingServer, str]
) -> None:
    server = liar[0]
    for lie in LIES:
        server.first = lie
        status, _, said = await site.run("lab.main", "id")
        assert status == 255
        assert "It is too old for SSH." in said, lie
        assert server.got == [], lie
    assert server.headers["Authorization"] == "token for-a-minute"
    assert server.headers["Host"] == "lab.lab.example.org"


async def test_what_it_gets_is_for_its_own_name_and_a_day(
    site: SshSite, liar: tuple[LyingServer, str]
) -> None:
    server = liar[0]
    server.first = json.dumps({"host_key": KEY, "principals": ["*"], "name": "bob.main"})
    status, _, _ = await site.run("lab.main", "id")
    assert status == 255  # it has not the private half
    sent = json.loads(server.got[0])
    assert sent["keys"] == site.hub.keys["lab"]
    certificate = asyncssh.import_certificate(sent["certificate"])
    assert certificate.principals == ["lab.main"]


def test_only_one_kind_of_key_is_signed(tmp_path: Path) -> None:
    authority = Authority(asyncssh.generate_private_key("ssh-ed25519"))
    signed = asyncssh.import_certificate(authority.sign(KEY, "alice.main", now=1_000_000))
    assert signed.principals == ["alice.main"]
    assert signed._valid_before == 1_000_000 + DAY
    for kind in (("-t", "ecdsa"), ("-t", "rsa", "-b", "3072")):
        (tmp_path / "key").unlink(missing_ok=True)
        (tmp_path / "key.pub").unlink(missing_ok=True)
        line = new_key(tmp_path / "key", *kind)
        with pytest.raises(BadRequest):
            authority.sign(line, "alice.main")
