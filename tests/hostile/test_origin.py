"""A page of somebody's server has nothing of ours, even where both have one origin.

s10's page is opened by s12, who is logged in, in Chromium and in Firefox.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from commons.site import Site
from commons.store import Store
from commons.web.guard import RequestKind, Verdict, verdict
from hub_ext.console.app import make_app as make_console
from kernels.service.app import make_app as make_kernels
from kernels.service.registrar import Registrar
from tests.hub_ext.pages.conftest import Hub

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VICTIM = ROOT / "tests" / "rig" / "firefox" / "victim.mjs"
MODULES = ROOT / ".cache" / "firefox" / "node_modules"
SERVICES = {"labcommons": "console-token-of-the-test", "kernels": "kernels-token-of-the-test"}


class Front(RequestHandler):
    """What nginx and CHP do: one origin for hub, services and s10's server."""

    async def _pass(self) -> None:
        places = self.settings["places"]
        place = next(url for path, url in places.items() if self.request.path.startswith(path))
        answer = await AsyncHTTPClient().fetch(
            place + self.request.uri,
            method=self.request.method,
            headers=self.request.headers,
            body=self.request.body or None,
            allow_nonstandard_methods=True,
            follow_redirects=False,
            decompress_response=False,
            raise_error=False,
            request_timeout=60,
        )
        self.set_status(answer.code, answer.reason)
        self.clear_header("Content-Type")
        for name, value in answer.headers.get_all():
            if name not in ("Transfer-Encoding", "Content-Length", "Connection"):
                self.add_header(name, value)
        if answer.body:
            self.write(answer.body)

    get = post = put = delete = head = patch = _pass

    def check_xsrf_cookie(self) -> None:
        """Not ours to check."""


class Evil(RequestHandler):
    """s10's server, with the headers that nginx leaves it (tests/deploy/test_nginx.py)."""

    def get(self, path: str) -> None:
        self.set_header("Cross-Origin-Opener-Policy", "unsafe-none")
        if path == "go":
            self.redirect(self.get_query_argument("to"))
        elif path == "worker.js":
            self.set_header("Content-Type", "text/javascript")
            self.finish("self.onfetch = (event) => event.respondWith(new Response('mine'))")
        else:
            self.finish(f"<!doctype html><body><script>{(HERE / 'evil.js').read_text()}</script>")


@pytest.fixture
async def origin(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, Hub]]:
    """Hub, console, kernels service and s10's server under one address."""
    services = [
        {
            "name": name,
            "api_token": token,
            "oauth_redirect_uri": f"/services/{name}/oauth_callback",
            "oauth_no_confirm": True,
        }
        for name, token in SERVICES.items()
    ]
    monkeypatch.setenv("PAGES_SERVICES", json.dumps(services))
    hub = Hub(tmp_path)
    process = hub.start()
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    servers = []

    def serve(app: Application, listener: Any = None) -> str:
        listener, port = listener or bind_unused_port()
        servers.append(HTTPServer(app))
        servers[-1].add_socket(listener)
        return f"http://127.0.0.1:{port}"

    try:
        store.migrate()
        hub.wait(process)
        auths = {
            name: HubOAuth(
                api_token=token,
                api_url=f"{hub.url}api",
                base_url=f"/services/{name}/",
                oauth_client_id=f"service-{name}",
                access_scopes={f"access:services!service={name}"},
                cookie_options={"samesite": "Lax"},
            )
            for name, token in SERVICES.items()
        }
        registrar = Registrar(store, tmp_path / "kernels", tmp_path / "scopes", [])
        console = make_console(site, store, auths["labcommons"], tmp_path)
        kernels = make_kernels(site, registrar, auths["kernels"], "a secret")
        places = {
            "/services/labcommons/": serve(console),
            "/services/kernels/": serve(kernels),
            "/": hub.url.removesuffix("/hub/"),
        }
        yield serve(Application([("/user/s10/(.*)", Evil), (".*", Front)], places=places)), hub
        registrar.close()
    finally:
        for server in servers:
            server.stop()
            await server.close_all_connections()
        process.terminate()
        process.wait(30)
        store.close()


def _rows(hub: Hub, query: str) -> list[Any]:
    with sqlite3.connect(hub.home / "hub.sqlite") as database:
        return database.execute(query).fetchall()


@pytest.mark.parametrize("browser", ["chrome", "firefox"])
async def test_a_page_of_the_same_origin_gets_nothing(
    origin: tuple[str, Hub], browser: str
) -> None:
    url, hub = origin
    program = shutil.which({"chrome": "chromium", "firefox": "firefox-esr"}[browser])
    node = await asyncio.create_subprocess_exec(
        *("node", str(VICTIM), str(MODULES), browser, str(program), url),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(node.communicate(), 150)
    assert node.returncode == 0
    found = json.loads(said)
    print(json.dumps(found, indent=1), file=sys.stderr)
    assert found["loot"] == []
    assert found["made"] == []
    assert found["done"]
    assert found["tried"] > 100  # it was not stopped by a mistake of its own
    assert found["opened"] > 10
    # Still logged in, and no server was started or made.
    assert found["home"] == "/hub/home"
    assert set(found["asked"].values()) == {True}
    made = "SELECT note FROM api_tokens WHERE user_id IS NOT NULL AND client_id = 'jupyterhub'"
    assert _rows(hub, made) == []
    assert {name for (name,) in _rows(hub, "SELECT name FROM spawners")} <= {""}
    assert not (hub.home / "form.json").exists()


def test_what_is_asked_for_is_judged() -> None:
    framed = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    opened = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    asked = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
    passes, refuses, confirms = Verdict.PASS, Verdict.REFUSE, Verdict.CONFIRM
    table = [
        (RequestKind.OPEN, "GET", asked, False, passes),
        (RequestKind.OPEN, "GET", framed, False, refuses),
        (RequestKind.PAGE, "GET", framed, True, refuses),
        (RequestKind.PAGE, "GET", opened, False, passes),
        (RequestKind.PAGE, "GET", asked, False, refuses),
        (RequestKind.PAGE, "HEAD", asked, False, refuses),
        (RequestKind.PAGE, "GET", asked, True, passes),
        (RequestKind.PAGE, "POST", opened, False, refuses),
        (RequestKind.PAGE, "GET", {}, False, passes),
        (RequestKind.PAGE, "POST", {}, False, refuses),
        (RequestKind.API, "GET", asked, False, refuses),
        (RequestKind.API, "GET", asked | {"Sec-Fetch-Mode": "no-cors"}, False, refuses),
        (RequestKind.API, "GET", {}, False, refuses),
        (RequestKind.API, "GET", opened, False, passes),
        (RequestKind.API, "DELETE", asked, True, passes),
        (RequestKind.CHANGE, "GET", opened | {"Sec-Fetch-Site": "none"}, False, confirms),
        (RequestKind.CHANGE, "GET", {}, False, confirms),
        (RequestKind.CHANGE, "GET", asked, False, refuses),
        (RequestKind.CHANGE, "POST", opened, True, passes),
        (RequestKind.CHANGE, "POST", opened, False, refuses),
    ]
    for kind, method, headers, valid, expected in table:
        assert verdict(kind, method, headers, valid) is expected, (kind, method, headers, valid)
