"""The service ``ssh`` as a process of its own, with a stand-in of a hub, and OpenSSH's client."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from commons import ssh_keys

ROOT = Path(__file__).resolve().parents[2]
TRIES = 600
SITE = """
version: 1
site: {{public_url: "https://lab.example.org"}}
directory: {{servers: ["ldaps://l"], users: {{base_dn: "dc=x"}}}}
sizes: {{small: {{cpu: 1, memory: 1G}}}}
ssh: {{host: 127.0.0.1, {more}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def new_key(path: Path, *words: str) -> str:
    """A pair of keys without a password; the public line."""
    subprocess.run(
        ["ssh-keygen", "-q", *(words or ("-t", "ed25519")), "-N", "", "-C", "", "-f", path],
        check=True,
        timeout=120,
    )
    return path.with_suffix(".pub").read_text("ascii").strip()


@dataclass
class StandInHub:
    """What the hub's one address says; ``keys`` by person, ``places`` by person and server."""

    keys: dict[str, list[str]] = field(default_factory=dict)
    places: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    ahead: str = ""
    cut: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    silent: bool = False
    token: str = "the-service's-token"

    async def answer(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"token {self.token}"
        if self.silent:
            return web.json_response({}, status=503)
        body = await request.json()
        self.asked.append(body)
        found: dict[str, Any] = {}
        if body["ask"] == "keys":
            lines = self.keys.get(body["name"], [])
            found = {"keys": {ssh_keys.parse(one).fingerprint: one for one in lines}}
            found["said"] = self.ahead if lines else ""
        elif body["ask"] == "enter":
            found = self.places.get(
                (body["name"], body["server"]), {"state": "refused", "said": "No such server."}
            )
            if callable(later := found.get("later")):
                found = later()
        elif body["ask"] == "look":
            found = {
                "cut": {
                    name: dict.fromkeys(keys, self.cut[name])
                    for name, keys in body["open"].items()
                    if name in self.cut
                }
            }
        return web.json_response(found)

    def told(self, what: str) -> list[dict[str, Any]]:
        """What it was told for the audit trail."""
        return [one for one in self.asked if one.get("what") == what]


@dataclass
class SshSite:
    hub: StandInHub
    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    user: str = "lab"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def configure(self, key: Path) -> None:
        """Write the client's configuration, as the page shows it."""
        authority = (self.folder / "data" / "ssh" / "authority.pub").read_text("ascii").strip()
        known = self.folder / "known_hosts"
        known.write_text(f"@cert-authority [127.0.0.1]:{self.port},{self.user}.* {authority}\n")
        (self.folder / "config").write_text(
            f"""
Host jump
    HostName 127.0.0.1
    Port {self.port}
Host {self.user}.*
    ProxyJump jump
Host *
    User {self.user}
    IdentityFile {key}
    IdentitiesOnly yes
    IdentityAgent none
    BatchMode yes
    StrictHostKeyChecking yes
    UserKnownHostsFile {known}
    GlobalKnownHostsFile /dev/null
"""
        )

    def words(self, *words: str, program: str = "ssh") -> list[str]:
        return [program, "-F", str(self.folder / "config"), *words]

    async def run(
        self, *words: str, program: str = "ssh", given: bytes = b"", limit: float = 60
    ) -> tuple[int, str, str]:
        """Exit status, output and errors of a client."""
        return await ran(self.words(*words, program=program), given, limit)

    async def until(self, condition: Any, what: str = "") -> None:
        for _ in range(TRIES):
            if condition():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{what}\n{self.log}\n{self.hub.asked}")


async def ran(words: list[str], given: bytes = b"", limit: float = 60) -> tuple[int, str, str]:
    client = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(client.communicate(given), limit)
    except TimeoutError:
        client.kill()
        out, err = await client.communicate()
        raise AssertionError(f"{words}: {out!r} {err!r}") from None
    assert client.returncode is not None
    return client.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


@asynccontextmanager
async def running(folder: Path, proxy: str = "", more: str = "") -> AsyncIterator[SshSite]:
    """The service, before a proxy that may be a server itself."""
    hub = StandInHub()
    app = web.Application()
    app.router.add_post("/hub/api/ssh", hub.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    hub_port, port = free_port(), free_port()
    await web.TCPSite(runner, "127.0.0.1", hub_port).start()
    (folder / "secrets").mkdir(parents=True)
    (folder / "data" / "ssh").mkdir(parents=True)
    for name in ("ssh-authority-key", "ssh-host-key"):
        (folder / "secrets" / name).write_text(secrets.token_hex(32))
    (folder / "secrets" / "ssh-token").write_text(hub.token)
    (folder / "site.yaml").write_text(SITE.format(more=more))
    environment = {
        "LABCOMMONS_SITE_FILE": str(folder / "site.yaml"),
        "LABCOMMONS_SECRETS": str(folder / "secrets"),
        "LABCOMMONS_DATA": str(folder / "data"),
        "LABCOMMONS_ALIVE": str(folder / "alive"),
        "LABCOMMONS_HUB_API": f"http://127.0.0.1:{hub_port}/hub/api",
        "LABCOMMONS_PROXY_URL": proxy or "http://127.0.0.1:9",
        "LABCOMMONS_SSH_LOOK": "1",
        "LABCOMMONS_SSH_LISTEN": f"127.0.0.1:{port}",
        "PYTHONPATH": str(ROOT),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jump"], env=os.environ | environment, stdout=log, stderr=log
        )
    one = SshSite(hub, folder, port, process)
    try:
        await one.until(lambda: "listens at" in one.log or process.poll() is not None)
        assert process.poll() is None, one.log
        yield one
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 30)
        await runner.cleanup()
