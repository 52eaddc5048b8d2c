"""The service over real HTTP, with a real database, and a hub that knows three tokens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from jupyterhub.services.auth import HubOAuth
from sqlalchemy import select
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from hub_ext.store import EnvironmentVersion, Kernel, Store
from kernels import service
from kernels.service import Registrar, Settings, make_app
from tests.kernels.conftest import IPYKERNEL

SCOPES = ["access:services!service=kernels"]
PEOPLE: dict[str, dict[str, Any]] = {
    "alice-token": {"kind": "user", "name": "alice", "admin": False, "scopes": SCOPES},
    "carol-token": {"kind": "user", "name": "carol", "admin": True, "scopes": SCOPES},
    "stranger-token": {"kind": "user", "name": "eve", "admin": True, "scopes": []},
}
PREFIX = "/services/kernels/"


class Hub:
    """The part of a hub that a service talks to."""

    def __init__(self) -> None:
        self.silent = False
        hub = self

        class User(RequestHandler):
            async def get(self) -> None:
                if hub.silent:
                    await asyncio.Event().wait()
                token = self.request.headers.get("Authorization", "").partition(" ")[2]
                if token not in PEOPLE:
                    self.set_status(403)
                self.write(PEOPLE.get(token, {}))

        class Token(RequestHandler):
            def post(self) -> None:
                assert self.get_body_argument("code") == "a-code"
                self.write({"access_token": "alice-token"})

        self.server = HTTPServer(
            Application([("/hub/api/user", User), ("/hub/api/oauth2/token", Token)])
        )
        socket, self.port = bind_unused_port()
        self.server.add_socket(socket)
        self.api_url = f"http://127.0.0.1:{self.port}/hub/api"


@pytest.fixture
def registrar(store: Store, tmp_path: Path) -> Registrar:
    return Registrar(store, tmp_path / "kernels")


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub()
    yield hub
    hub.server.stop()


Ask = Any


@pytest.fixture
async def ask(hub: Hub, registrar: Registrar) -> AsyncIterator[Ask]:
    """Ask the service: ``await ask(path, token=…, method=…, **headers)``."""
    auth = HubOAuth(
        api_token="service-token",
        api_url=hub.api_url,
        base_url=PREFIX,
        oauth_client_id="service-kernels",
        access_scopes=set(SCOPES),
        cookie_options={"secure": True, "samesite": "Lax"},
    )
    server = HTTPServer(make_app(Settings(registrar, auth), "a secret"))
    socket, port = bind_unused_port()
    server.add_socket(socket)
    client = AsyncHTTPClient(force_instance=True)

    async def send(path: str, token: str = "", method: str = "GET", **headers: str) -> HTTPResponse:
        if token:
            headers["Authorization"] = f"token {token}"
        return await client.fetch(
            f"http://127.0.0.1:{port}{path}",
            method=method,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            allow_nonstandard_methods=True,
            follow_redirects=False,
            raise_error=False,
        )

    yield send
    client.close()
    server.stop()


def add(store: Store, name: str = "data", version: str = "1", **changes: Any) -> None:
    row = {
        "name": name,
        "version": version,
        "image": f"labcommons/env-{name}:{version}",
        "image_id": "sha256:0",
        "prefix": f"/opt/conda/envs/{name}",
        "python": "3.13.5",
        "lock_digest": "sha256:0",
        "channels": [],
        "words": {},
        "main_packages": [],
        "packages": [],
        "kernelspecs": {"python3": IPYKERNEL},
    } | changes
    store.transact(lambda session: session.add(EnvironmentVersion(**row)))


def remove(store: Store, name: str) -> None:
    def work(session: Any) -> None:
        for row in session.scalars(select(EnvironmentVersion).filter_by(name=name)):
            session.delete(row)

    store.transact(work)


def rows(store: Store) -> list[tuple[str, str, str]]:
    return store.transact(
        lambda session: [
            (row.name, row.version, row.display_name)
            for row in session.scalars(select(Kernel).order_by(Kernel.name, Kernel.version))
        ],
        read=True,
    )


def body(response: HTTPResponse) -> Any:
    return json.loads(response.body)


# Passes ----------------------------------------------------------------------------------------


async def test_what_is_built_is_registered_on_disk_and_in_the_table(registrar, store) -> None:
    add(store)
    add(store, "old", "2", python="3.11.9")
    await registrar.refresh()
    assert rows(store) == [
        ("conda-image-data-python3", "1", "data - Python 3.13"),
        ("conda-image-old-python3", "2", "old - Python 3.11"),
    ]
    assert len(list(registrar.root.rglob("kernel.json"))) == 2
    remove(store, "data")
    await registrar.refresh()
    assert [name for name, _, _ in rows(store)] == ["conda-image-old-python3"]
    assert len(list(registrar.root.rglob("kernel.json"))) == 1


async def test_a_row_that_did_not_change_keeps_its_identity(registrar, store) -> None:
    add(store)

    def identities() -> list[Any]:
        return store.transact(
            lambda s: [(k.id, k.registered_at) for k in s.scalars(select(Kernel))], read=True
        )

    await registrar.refresh()
    before = identities()
    add(store, "another")
    await registrar.refresh()
    assert before[0] in identities()


async def test_a_table_that_somebody_emptied_is_filled_again(registrar, store) -> None:
    add(store)
    await registrar.refresh()
    store.transact(lambda s: [s.delete(k) for k in s.scalars(select(Kernel))] and None)
    await registrar.refresh()
    assert len(rows(store)) == 1


async def test_a_hostile_row_of_the_catalog_is_told_and_stops_no_other(registrar, store) -> None:
    add(store, "evil", prefix="/opt/../etc/evil")
    add(store, "../..")
    add(store, "sh", kernelspecs={"x": {"argv": ["/bin/sh"]}})
    add(store)
    await registrar.refresh()
    assert [kernel.name for kernel in registrar.kernels] == ["conda-image-data-python3"]
    assert len(registrar.problems) == 3
    assert registrar.health()["status"] == "ok"


async def test_two_environments_whose_kernels_share_a_name_break_nothing(registrar, store):
    add(store, "a", kernelspecs={"b-c": IPYKERNEL})
    add(store, "a-b", kernelspecs={"c": IPYKERNEL})
    await registrar.refresh()
    assert len(rows(store)) == 1
    assert "rename one environment" in registrar.problems[0]


async def test_a_kernel_that_cannot_be_written_is_not_in_the_table(registrar, store) -> None:
    add(store)
    add(store, "fine")
    (registrar.root / "image").mkdir(parents=True)
    (registrar.root / "image/data").symlink_to("/")
    await registrar.refresh()
    assert [name for name, _, _ in rows(store)] == ["conda-image-fine-python3"]
    assert registrar.health()["status"] == "error"
    (registrar.root / "image/data").unlink()
    await registrar.refresh()
    assert len(rows(store)) == 2
    assert registrar.health()["status"] == "ok"


# HTTP ------------------------------------------------------------------------------------------


async def test_anybody_the_hub_lets_in_may_list_the_kernels(ask, registrar, store) -> None:
    add(store)
    await registrar.refresh()
    response = await ask(PREFIX + "api/v1/kernels", "alice-token")
    assert body(response) == {
        "kernels": [
            {
                "name": "conda-image-data-python3",
                "display_name": "data - Python 3.13",
                "language": "python",
                "source": "image",
                "environment": "data",
                "version": "1",
                "python": "3.13.5",
                "prefix": "/opt/conda/envs/data",
            }
        ]
    }


@pytest.mark.parametrize("token", ["", "wrong", "stranger-token"])
@pytest.mark.parametrize(("path", "method"), [("kernels", "GET"), ("refresh", "POST")])
async def test_nobody_else_gets_anything_from_the_api(ask, token, path, method) -> None:
    response = await ask(f"{PREFIX}api/v1/{path}", token, method)
    assert response.code == 403
    assert "message" in body(response)
    assert response.headers["Content-Type"].startswith("application/json")


async def test_only_an_administrator_may_refresh(ask, store) -> None:
    add(store)
    refused = await ask(PREFIX + "api/v1/refresh", "alice-token", "POST")
    assert refused.code == 403
    assert rows(store) == []
    done = await ask(PREFIX + "api/v1/refresh", "carol-token", "POST")
    assert body(done) == {
        "written": 1, "removed": 0, "registered": 1, "failed": [], "problems": []
    }  # fmt: skip
    assert len(rows(store)) == 1


async def test_a_refresh_that_fails_says_why(ask, registrar) -> None:
    registrar.root.touch()
    response = await ask(PREFIX + "api/v1/refresh", "carol-token", "POST")
    assert response.code == 503
    assert "File exists" in body(response)["message"]


async def test_health_tells_before_during_and_after_a_fault(
    ask, registrar, store, tmp_path
) -> None:
    async def health() -> tuple[int, dict[str, Any]]:
        response = await ask(PREFIX + "health")
        return response.code, body(response)

    assert (await health())[0] == 503
    add(store)
    await registrar.refresh()
    code, told = await health()
    assert code == 200
    assert (told["status"], told["registered"]) == ("ok", 1)
    assert told["last_pass"]
    registrar.store = Store(f"sqlite:///{tmp_path}/nowhere/labcommons.sqlite")
    await registrar.refresh()
    code, told = await health()
    assert (code, told["status"]) == (503, "error")
    assert "unable to open database" in told["error"]
    registrar.store = store
    await registrar.refresh()
    assert (await health())[0] == 200


async def test_the_page_shows_environments_in_the_persons_language(ask, registrar, store):
    add(store, "py313-data")
    add(store, "xss", kernelspecs={"k": {**IPYKERNEL, "display_name": "<script>alert(1)</script>"}})
    await registrar.refresh()
    page = await ask(PREFIX, "alice-token", Accept_Language="zh-CN,zh;q=0.9")
    text = page.body.decode()
    assert '<html lang="zh-CN">' in text
    assert "py313-data - Python 3.13" in text
    assert "<script>" not in text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff"


async def test_only_administrators_see_what_is_wrong_with_the_catalog(ask, registrar, store):
    add(store, "evil", prefix="/opt/../etc/evil")
    await registrar.refresh()
    assert b"etc/evil" not in (await ask(PREFIX, "alice-token")).body
    assert b"etc/evil" in (await ask(PREFIX, "carol-token")).body


async def test_a_browser_is_sent_to_log_in_and_comes_back_with_a_cookie(ask, registrar) -> None:
    first = await ask(PREFIX)
    assert first.code == 302
    login = urlsplit(first.headers["Location"])
    asked = parse_qs(login.query)
    assert login.path == "/hub/api/oauth2/authorize"
    assert asked["client_id"] == ["service-kernels"]
    assert asked["redirect_uri"] == [PREFIX + "oauth_callback"]
    back = await ask(
        f"{PREFIX}oauth_callback?code=a-code&state={asked['state'][0]}", Cookie=cookies(first)
    )
    assert (back.code, back.headers["Location"]) == (302, PREFIX)
    login_cookie = next(c for c in back.headers.get_list("Set-Cookie") if "service-kernels=" in c)
    assert "secure" in login_cookie.lower()
    assert "httponly" in login_cookie.lower()
    assert (await ask(PREFIX, Cookie=cookies(back))).code == 200


def cookies(response: HTTPResponse) -> str:
    jar = SimpleCookie()
    for header in response.headers.get_list("Set-Cookie"):
        jar.load(header)
    return "; ".join(f"{name}={morsel.value}" for name, morsel in jar.items() if morsel.value)


async def test_a_login_that_nobody_began_is_refused(ask) -> None:
    response = await ask(f"{PREFIX}oauth_callback?code=a-code&state=invented")
    assert response.code == 403


async def test_a_person_whom_the_hub_does_not_let_in_sees_that(ask) -> None:
    assert (await ask(PREFIX, "stranger-token")).code == 403


async def test_a_hub_that_does_not_answer_is_told_and_health_goes_on(ask, hub, monkeypatch):
    hub.silent = True
    monkeypatch.setattr(service, "HUB_TIMEOUT", 0.2)
    response = await ask(PREFIX + "api/v1/kernels", "alice-token")
    assert response.code == 503
    assert "did not answer" in body(response)["message"]
    assert (await ask(PREFIX + "health")).code == 503  # no pass has run


@pytest.mark.parametrize("path", ["/", PREFIX + "nothing", "/services/kernels/api/v1/kernels/x"])
async def test_what_is_not_there_is_not_there(ask, path) -> None:
    response = await ask(path, "carol-token")
    assert response.code == 404


# The command -----------------------------------------------------------------------------------


async def test_the_command_serves_registers_and_survives_being_killed(store, tmp_path, hub):
    add(store)
    _, port = unused = bind_unused_port()
    unused[0].close()
    environment = {
        **os.environ,
        "LABCOMMONS_DATABASE_URL": store.url,
        "LABCOMMONS_DATA": str(tmp_path),
        "JUPYTERHUB_API_TOKEN_FILE": f"{tmp_path}/kernels-token",
        "JUPYTERHUB_API_URL": hub.api_url,
    }
    environment.pop("JUPYTERHUB_API_TOKEN", None)
    (tmp_path / "kernels-token").write_text("service-token\n")

    async def healthy() -> dict[str, Any]:
        client = AsyncHTTPClient(force_instance=True)
        while True:
            try:
                response = await client.fetch(f"http://127.0.0.1:{port}{PREFIX}health")
                return dict(body(response))
            except Exception:  # not listening yet, or no pass yet
                assert process.poll() is None, process.communicate()
                await asyncio.sleep(0.05)

    command = [sys.executable, "-c", "from kernels.service import kernels; kernels()"]
    for ending in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--interval", "0.1"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert (await healthy())["registered"] == 1
        process.send_signal(ending)
        _, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == (0 if ending is signal.SIGTERM else -ending), errors
    assert len(list((tmp_path / "kernels").rglob("kernel.json"))) == 1


def test_the_command_without_a_token_says_what_to_do(tmp_path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from kernels.service import kernels; kernels()"],
        env={
            **os.environ,
            "JUPYTERHUB_API_TOKEN": "",
            "JUPYTERHUB_API_TOKEN_FILE": f"{tmp_path}/none",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"{tmp_path}/none" in run.stderr
    assert "write the file or set JUPYTERHUB_API_TOKEN" in run.stderr
