"""The site's own channels: uploaded by REST, read by py-rattler, for their members alone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import rattler
from rattler.networking import Client
from rattler.networking.middleware import AuthenticationMiddleware
from tornado.httpclient import HTTPResponse
from tornado.testing import bind_unused_port

from commons.site import Channels, Site
from commons.web import proxied
from hub_ext.console.app import PREFIX
from rig.packages import conda, here_is_installed, index, member

from .conftest import Console

pytestmark = here_is_installed

Answer = tuple[int, dict[str, Any]]


async def put(
    console: Console, token: str, channel: str, path: Path, name: str = "", query: str = ""
) -> Answer:
    """Upload a package."""
    url = f"{console.origin}{PREFIX}api/v1/channels/{channel}/packages/{name or path.name}{query}"
    headers = {"Authorization": f"token {token}"}
    async with (
        aiohttp.ClientSession() as client,
        client.put(url, data=path.read_bytes(), headers=headers) as answer,
    ):
        return answer.status, await answer.json()


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    members = [member("share/tool.txt", b"hello")]
    return conda(tmp_path / "made" / "tool-1.0-0.conda", members=members)


@pytest.fixture
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the file in which rattler and pixi keep logins."""

    def write(**login: Any) -> Client:
        file = tmp_path / "auth.json"
        file.write_text(json.dumps({"127.0.0.1": login}))
        monkeypatch.setenv("RATTLER_AUTH_FILE", str(file))
        return Client([AuthenticationMiddleware()])

    return write


async def found(console: Console, client: Client | None, at: str, cache: Path) -> list[Any]:
    """What a solver finds of ``tool``."""
    channel = rattler.Channel(f"{console.origin}{PREFIX}channels/{at}")
    gateway = rattler.Gateway(cache_dir=cache, **({"client": client} if client else {}))
    answers = await gateway.query([channel], ["linux-64", "noarch"], ["tool"], recursive=False)
    return [record for one in answers for record in one]


async def test_what_is_uploaded_is_solved_for_and_installed(
    console: Console, tool: Path, tmp_path: Path, logins: Any
) -> None:
    status, said = await put(console, "bob-token", "team-vision", tool)
    assert (status, said["new"]) == (201, True), said
    client = logins(BearerToken="alice-token")
    records = await found(console, client, "team-vision", tmp_path / "repodata")
    assert [record.file_name for record in records] == ["tool-1.0-0.conda"]
    assert records[0].sha256 == hashlib.sha256(tool.read_bytes()).digest()
    target = tmp_path / "prefix"
    await rattler.install(
        records, target, cache_dir=tmp_path / "packages", client=client, show_progress=False
    )
    assert (target / "share/tool.txt").read_bytes() == b"hello"


@pytest.mark.parametrize("way", ["bearer", "basic", "address"])
async def test_a_token_is_taken_in_each_way_of_condas_clients(
    console: Console, tool: Path, tmp_path: Path, logins: Any, way: str
) -> None:
    await put(console, "bob-token", "team-vision", tool)
    login = {"BearerToken": "alice-token"}
    if way == "basic":
        login = {"BasicHTTP": {"username": "alice", "password": "alice-token"}}  # type: ignore[dict-item]
    client = logins(**login) if way != "address" else None
    at = "t/alice-token/team-vision" if way == "address" else "team-vision"
    assert len(await found(console, client, at, tmp_path / "repodata")) == 1


async def test_a_channel_is_its_members_alone(console: Console, tool: Path) -> None:
    await put(console, "bob-token", "team-vision", tool)
    index_, package = "channels/team-vision/noarch/repodata.json", f"noarch/{tool.name}"
    for token, status in {
        None: 401, "made-up": 401, "dan-token": 403, "alice-token": 200, "carol-token": 200,
        "alice-server-token": 403,
    }.items():  # fmt: skip
        for path in (index_, f"channels/team-vision/{package}"):
            answer = await console.get(path, token)
            assert answer.code == status, (token, path)
            assert b"<" not in answer.body[:100] or status == 200
    assert "Basic" in (await console.get(index_)).headers["WWW-Authenticate"]
    mine = await console.json("api/v1/channels", "alice-token")
    assert [one["channel"] for one in mine["channels"]] == ["site", "team-vision"] + [
        "course-ml101"
    ] * 0
    theirs = await console.json("api/v1/channels", "dan-token")
    assert [one["channel"] for one in theirs["channels"]] == ["site", "course-ml101"]


async def test_who_looks_after_a_channel_uploads_into_it(console: Console, tool: Path) -> None:
    for token, channel, status in (
        ("alice-token", "team-vision", 403),
        ("carol-token", "team-vision", 403),
        ("bob-token", "site", 403),
        ("bob-token", "team-none", 404),
        ("bob-server-token", "team-vision", 401),
        ("alice-server-token", "team-vision", 403),
        ("carol-token", "site", 201),
        ("dan-token", "course-ml101", 201),
    ):
        assert (await put(console, token, channel, tool))[0] == status, (token, channel)


async def test_a_package_is_written_once(console: Console, tool: Path, tmp_path: Path) -> None:
    assert (await put(console, "bob-token", "team-vision", tool))[0] == 201
    status, said = await put(console, "bob-token", "team-vision", tool)
    assert (status, said["new"]) == (200, False)
    other = conda(tmp_path / "other" / tool.name, members=[member("share/x", b"other")])
    status, said = await put(console, "bob-token", "team-vision", other)
    assert (status, said["error"]["code"]) == (409, "package_other_bytes")
    answer = await console.get(f"channels/team-vision/noarch/{tool.name}", "bob-token")
    assert answer.body == tool.read_bytes()


async def test_what_is_not_as_it_must_be_is_seen_by_nobody(
    console: Console, tool: Path, tmp_path: Path
) -> None:
    evil = conda(tmp_path / "evil-1.0-0.conda", index("evil"), [member("../../x", b"x")])
    wrong = "?sha256=" + "0" * 64
    for path, name, query, code in (
        (evil, "", "", "package_outside"),
        (tool, "tool-2.0-0.conda", "", "package_layout"),
        (tool, "tool.exe", "", "package_file_name"),
        (tool, "", wrong, "package_hash_wrong"),
        (tool, "", "?sha256=x", "package_hash_wrong"),
    ):
        status, said = await put(console, "bob-token", "team-vision", path, name, query)
        assert (status, said["error"]["code"]) == (400, code)
    about = await console.json("api/v1/channels/team-vision", "bob-token")
    assert about["listed"] == []
    assert list((console.data / "channels/team-vision/.incoming").iterdir()) == []


async def test_one_that_is_too_large_is_not_even_read(
    console: Console, lab_site: Site, tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(lab_site.__dict__, "channels", Channels(largest="100"))
    status, said = await put(console, "bob-token", "team-vision", tool)
    assert (status, said["error"]["code"]) == (413, "package_too_large")
    assert not (console.data / "channels").exists()


async def test_a_withdrawn_package_is_for_locks_alone(
    console: Console, tool: Path, tmp_path: Path, logins: Any
) -> None:
    await put(console, "bob-token", "team-vision", tool)
    where, body = "api/v1/channels/team-vision/", {"package": f"noarch/{tool.name}"}
    for token, sent, status in (
        ("alice-token", body | {"reason": "wrong"}, 403),
        ("bob-token", body | {"reason": " "}, 400),
        ("bob-token", body | {"reason": "x" * 501}, 400),
        ("bob-token", {"package": "noarch/none", "reason": "x"}, 404),
        ("bob-token", body | {"reason": "wrong"}, 200),
        ("carol-token", body | {"reason": "wrong"}, 200),
    ):
        assert (await console.send("POST", f"{where}yank", token, sent)).code == status
    client = logins(BearerToken="alice-token")
    assert await found(console, client, "team-vision", tmp_path / "a") == []
    repodata = await console.json("channels/team-vision/noarch/repodata.json", "alice-token")
    assert repodata["removed"] == [tool.name]
    locked = await console.get(f"channels/team-vision/noarch/{tool.name}", "alice-token")
    assert locked.body == tool.read_bytes()
    (kept,) = (await console.json("api/v1/channels/team-vision", "alice-token"))["listed"]
    assert (kept["yanked"], kept["yanked_by"]) == ("wrong", "bob")
    again = await put(console, "bob-token", "team-vision", tool)
    assert (again[0], again[1]["package"]["yanked"]) == (200, "wrong")
    assert (await console.send("POST", f"{where}restore", "bob-token", body)).code == 200
    assert len(await found(console, client, "team-vision", tmp_path / "b")) == 1


async def test_what_does_not_change_is_not_sent_again(console: Console, tool: Path) -> None:
    await put(console, "bob-token", "team-vision", tool)

    async def get(path: str, **headers: str) -> HTTPResponse:
        return await console.get(f"channels/team-vision/noarch/{path}", "alice-token", **headers)

    one, repodata = await get(tool.name), await get("repodata.json")
    assert "immutable" in one.headers["Cache-Control"]
    assert "must-revalidate" in repodata.headers["Cache-Control"]
    for answer, path in ((one, tool.name), (repodata, "repodata.json")):
        assert (await get(path, **{"If-None-Match": answer.headers["ETag"]})).code == 304
    part = await get(tool.name, Range="bytes=4-9")
    assert (part.code, part.body) == (206, one.body[4:10])
    end = await get(tool.name, Range="bytes=-5")
    assert (end.code, end.body) == (206, one.body[-5:])
    assert (await get(tool.name, Range="bytes=99999999-")).code == 416
    head = await console.send("HEAD", f"channels/team-vision/noarch/{tool.name}", "alice-token")
    assert int(head.headers["Content-Length"]) == len(one.body)
    assert (await get("repodata.json.zst")).code == 200
    assert (await get("repodata_shards.msgpack.zst")).code == 200


async def test_a_channel_without_packages_is_one_nevertheless(console: Console) -> None:
    for subdir in ("noarch", "linux-64", "osx-arm64"):
        said = await console.json(f"channels/site/{subdir}/repodata.json", "alice-token")
        assert (said["info"], said["packages.conda"]) == ({"subdir": subdir}, {})


async def test_nothing_else_of_the_folder_is_served(console: Console, tool: Path) -> None:
    await put(console, "bob-token", "team-vision", tool)
    for path in (
        "noarch/packages.json", "noarch/.lock", "noarch/..%2fpackages.json", "%2e%2e/x", "noarch/",
        "noarch/shards/..", "noarch/none-1.0-0.conda", "other/repodata.json",
    ):  # fmt: skip
        assert (await console.get(f"channels/team-vision/{path}", "bob-token")).code == 404, path


@asynccontextmanager
async def uploading(console: Console, name: str) -> AsyncIterator[asyncio.StreamWriter]:
    """An upload that has begun, and sent some."""
    host, port = console.origin.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"PUT {PREFIX}api/v1/channels/team-vision/packages/{name} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: token bob-token\r\nContent-Length: 9000000\r\n\r\n".encode()
    )
    writer.write(bytes(3_000_000))
    await writer.drain()
    try:
        yield writer
    finally:
        writer.close()


async def test_an_upload_that_is_cut_off_leaves_nothing(console: Console, tool: Path) -> None:
    incoming = console.data / "channels/team-vision/.incoming"

    async def until(count: int) -> None:
        while len(list(incoming.glob("*"))) != count:
            await asyncio.sleep(0.01)

    async with asyncio.timeout(30):
        async with uploading(console, tool.name):
            await until(1)
        await until(0)
    assert (await put(console, "bob-token", "team-vision", tool))[0] == 201


async def test_uploads_at_once_are_all_there(console: Console, tmp_path: Path) -> None:
    made = [conda(tmp_path / f"tool-1.{n}-0.conda", index(version=f"1.{n}")) for n in range(3)]
    answers = await asyncio.gather(
        *(put(console, "bob-token", "team-vision", path) for path in made)
    )
    assert [status for status, _ in answers] == [201] * 3
    said = await console.json("channels/team-vision/noarch/repodata.json", "alice-token")
    assert set(said["packages.conda"]) == {path.name for path in made}


async def test_the_pages_say_what_there_is_and_how_to_have_it(console: Console, tool: Path) -> None:
    empty = (await console.get("channels/team-vision", "bob-token")).body.decode()
    assert "No packages yet" in empty
    assert 'type="file"' in empty
    await put(console, "bob-token", "team-vision", tool)
    page = (await console.get("channels", "alice-token")).body.decode()
    assert "team-vision: https://" in page
    assert "course-ml101" not in page
    page = (await console.get("channels/team-vision", "alice-token")).body.decode()
    assert "tool-1.0-0.conda" in page
    assert 'type="file"' not in page
    assert (await console.get("channels/team-vision", "dan-token")).code == 403
    assert (await console.get("channels/team-none", "bob-token")).code == 404


def test_a_token_in_an_address_is_the_same_as_a_password() -> None:
    from hub_ext.console.channel_files import _basic

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert _basic(basic("alice:abc123")) == "abc123"
    assert _basic(basic("abc123:")) == "abc123"
    for header in ("Basic !", "Basic", basic("a:b c"), basic("a:b\n"), "token x", ""):
        assert _basic(header) == ""


async def test_what_is_written_down_as_it_comes_is_not_held(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind: of all bodies together there is a limit, which one large package is beyond."""
    monkeypatch.setattr(proxied, "MAX_BODIES", 2**20)
    listener, port = bind_unused_port()
    server = proxied.HTTPServer(console.app)
    server.add_socket(listener)
    large = member("share/x", random.Random(1).randbytes(3 * 2**20))
    made = conda(tmp_path / "made/tool-1.0-0.conda", members=[large])
    try:
        there = replace(console, origin=f"http://127.0.0.1:{port}")
        assert (await put(there, "bob-token", "team-vision", made))[0] == 201
        assert server.held == 0
    finally:
        server.stop()
        await server.close_all_connections()
