"""The agent's door: who comes in, and what becomes of what nobody could mean. Without an Engine."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from commons.errors import RuntimeRefused, RuntimeSilent
from commons.site import Site
from hub_ext import agent_tls
from rig import agent
from spawner.runtime import wire
from spawner.runtime.docker.runtime import DockerRuntime
from spawner.runtime.spec import MakeHome

HEADERS = {wire.VERSION_HEADER: wire.protocol_version()}


class Door:
    """An agent's address, and clients of each kind."""

    def __init__(self, url: str, tls: Path) -> None:
        self.url, self.tls = url, tls

    async def post(
        self, name: str, body: Any, role: str = "hub", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and answer of one request, as it is sent."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        connector = aiohttp.TCPConnector(ssl=agent.client_tls(self.tls, role))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(
                f"{self.url}/v1/{name}", data=raw, headers=HEADERS if headers is None else headers
            ) as answer,
        ):
            text = await answer.read()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text


@pytest.fixture
async def door(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    made = agent.settings(site, tmp_path / "data", "lc-users", "labcommons/server:latest")
    runtime = DockerRuntime(made, timeout=2)
    agent.home(made.data, "alice")
    async with agent.served(runtime, tmp_path / "tls") as url:
        yield Door(url, tmp_path / "tls")
    await runtime.close()


async def test_who_has_no_certificate_of_this_authority_is_not_heard(
    door: Door, tmp_path: Path
) -> None:
    agent_tls.init(tmp_path / "other")
    ours = ssl.create_default_context(cafile=str(door.tls / "ca.crt"))
    others = ssl.create_default_context(cafile=str(door.tls / "ca.crt"))
    others.load_cert_chain(tmp_path / "other" / "hub.crt", tmp_path / "other" / "hub.key")
    # The agent's own is for answering, not for asking.
    agents = agent.client_tls(door.tls, "agent")
    for context in (ours, others, agents):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            with pytest.raises((aiohttp.ClientError, OSError)):
                await session.post(f"{door.url}/v1/nodes", data=b"{}", headers=HEADERS)


async def test_a_clients_certificate_cannot_pose_as_the_agent(door: Door) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(door.tls / "hub.crt", door.tls / "hub.key")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    client = agent.connected(f"https://127.0.0.1:{port}", door.tls)
    with pytest.raises(RuntimeSilent):
        await client.nodes()
    await client.close()
    server.close()


async def test_each_role_asks_for_its_own_calls_alone(door: Door) -> None:
    images = {name for name in wire.CALLS if name.startswith("images/")}
    for name in wire.CALLS:
        status, answer = await door.post(name, {}, role="builder")
        assert (status == 403) is (name not in images), answer
    for name in ("images/publish", "images/check", "images/compile", "images/tag"):
        assert (await door.post(name, {}))[0] == 403
    assert (await door.post("start", {}))[0] == 422


async def test_an_agent_and_a_hub_of_different_versions_say_both(door: Door) -> None:
    status, answer = await door.post("nodes", {}, headers={wire.VERSION_HEADER: "0.0.1+0"})
    assert status == 426
    assert answer["error"]["data"] == {"agent": wire.protocol_version(), "hub": "0.0.1+0"}
    assert (await door.post("nodes", {}, headers={}))[0] == 426


async def test_an_engine_that_is_away_is_silence_and_not_an_end(door: Door) -> None:
    client = agent.connected(door.url, door.tls)
    with pytest.raises(RuntimeSilent, match="does not answer"):
        await client.inspect(["0" * 64])
    with pytest.raises(RuntimeSilent):
        await anext(client.events())
    # What the agent can decide alone, it does.
    with pytest.raises(RuntimeRefused, match="min_uid"):
        await client.run_task(MakeHome(user="alice", uid=990, gid=20000))
    await client.close()


BAD = [
    b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"handle": NaN}', b"[" * 100_000,
    b'{"handle": "a\\u0000b"}', b'{"handle": "\\ud800"}', b"{" + b'"a":1,' * 300_000 + b'"b":1}',
    b'{"handles": ["' + b"x" * 10_000 + b'"]}', b'{"handle": "../../images/json"}', b"1e999",
]  # fmt: skip


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
async def test_what_is_no_message_is_not_understood(door: Door, body: bytes) -> None:
    for name in ("inspect", "start", "run_task", "begin", "follow", "stop", "logs"):
        status, answer = await door.post(name, body)
        assert status == 422, (name, answer)


@pytest.mark.parametrize(
    "path", ["", "x", "../nodes", "close", "__init__", "images/", "images/_base", "nodes/", "%00"]
)
async def test_there_are_no_other_calls(door: Door, path: str) -> None:
    assert (await door.post(path, {}))[0] == 404


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
    | st.sampled_from(["..", "alice", "\0", "x" * 10_000, "sha256:" + "0" * 64, "0" * 64]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=12,
)  # fmt: skip


def arguments(name: str) -> st.SearchStrategy[Any]:
    """What has the right keys, and anything for values."""
    fields = list(wire.CALLS[name].arguments.model_fields)
    return st.fixed_dictionaries({}, optional=dict.fromkeys(fields, JSON)) | JSON


CALL = st.sampled_from([name for name, call in sorted(wire.CALLS.items()) if not call.stream])


async def test_whatever_is_asked_the_agent_never_fails(door: Door) -> None:
    loop = asyncio.get_running_loop()
    seen: dict[int, int] = {}

    @hypothesis_settings(
        max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(data=st.data(), name=CALL)
    def ask(data: st.DataObject, name: str) -> None:
        body = json.dumps(data.draw(arguments(name))).encode()
        role = "builder" if name.startswith("images/") else "hub"
        sent = asyncio.run_coroutine_threadsafe(door.post(name, body, role), loop)
        status, answer = sent.result(60)
        seen[status] = seen.get(status, 0) + 1
        assert status in (200, 403, 409, 422, 503), (name, body[:300], answer)

    await asyncio.to_thread(ask)
    assert seen[422] > 10
    assert seen.get(503, 0) + seen.get(409, 0) > 0, "nothing was understood"


async def test_what_is_published_is_no_folder(door: Door) -> None:
    good = {
        "name": "data", "version": "1", "base": "labcommons/server:latest",
        "prefix": "/opt/conda/envs/data", "labels": {},
    }  # fmt: skip
    line = json.dumps(good).encode() + b"\n"
    for body, wanted in (
        (b"", 422),
        (b"x" * 3_000_000, 422),
        (b"{}\n", 422),
        (json.dumps({**good, "folder": "/etc"}).encode() + b"\n", 422),
        (json.dumps({**good, "prefix": "/"}).encode() + b"\nrest", 409),
        (json.dumps({**good, "name": "../x"}).encode() + b"\nrest", 422),
        (json.dumps({**good, "labels": {"labcommons.user": "x"}}).encode() + b"\nrest", 409),
        (line + b"no tar at all", 503),
    ):
        status, answer = await door.post("images/publish", body, role="builder")
        assert status == wanted, (body[:200], answer)


def test_every_call_belongs_to_a_role() -> None:
    from spawner.runtime.agent.server import ROLES

    assert frozenset().union(*ROLES.values()) == frozenset(wire.CALLS)
    assert set(ROLES) == set(agent_tls.CLIENTS)
