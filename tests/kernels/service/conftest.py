"""The service over real HTTP, with a real database, and a hub that knows a few tokens."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.httpclient import JupyterHubHTTPClient
from jupyterhub.services.auth import HubOAuth
from sqlalchemy import select
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from commons.scopes import Scope
from commons.site import Site
from commons.store import EnvironmentVersion, RegisteredEnvironment, Store
from kernels.service.app import make_app
from kernels.service.registrar import Registrar
from tests.kernels.conftest import IPYKERNEL, MakePrefix

SCOPES = ["access:services!service=kernels"]
PREFIX = "/services/kernels/"


def person(name: str, *groups: str, admin: bool = False, scopes: Any = None) -> dict[str, Any]:
    return {
        "kind": "user",
        "name": name,
        "admin": admin,
        "groups": list(groups),
        "scopes": SCOPES if scopes is None else scopes,
    }


PEOPLE: dict[str, dict[str, Any]] = {
    "alice-token": person("alice", "team:vision", "lab-users"),
    "bob-token": person("bob", "team:vision", "team:vision:leads"),
    "s01-token": person("s01", "course:ml101:students"),
    "carol-token": person("carol", admin=True, scopes=[*SCOPES, "admin-ui"]),
    "stranger-token": person("eve", admin=True, scopes=[]),
    # What a user's server has: it may report what it does, and little else.
    "alice-server-token": person("alice", "team:vision", scopes=["users:activity!user=alice"]),
}


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
async def registrar(store: Store, tmp_path: Path, roots: Path) -> AsyncIterator[Registrar]:
    """A registrar of a site with team vision and course ml101, whose folders are ``roots``."""
    registrar = Registrar(
        store, tmp_path / "kernels", roots, [Scope("team", "vision"), Scope("course", "ml101")]
    )
    yield registrar
    registrar.close()  # what is left open counts for all processes of root


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    hub = Hub()
    yield hub
    hub.server.stop()


Ask = Any


@pytest.fixture
async def origin(hub: Hub, registrar: Registrar, site: Site) -> AsyncIterator[str]:
    """Where the service is."""
    auth = HubOAuth(
        api_token="service-token",
        api_url=hub.api_url,
        base_url=PREFIX,
        oauth_client_id="service-kernels",
        access_scopes=set(SCOPES),
        cookie_options={"secure": True, "samesite": "Lax"},
    )
    server = HTTPServer(make_app(site, registrar, auth, "a secret"))
    socket, port = bind_unused_port()
    server.add_socket(socket)
    yield f"http://127.0.0.1:{port}"
    server.stop()
    registrar.close()
    await server.close_all_connections()
    # Its resolver holds one of the machine's few inotify instances.
    await JupyterHubHTTPClient.loop_instance().close()


@pytest.fixture
async def ask(origin: str) -> AsyncIterator[Ask]:
    """Ask the service: ``await ask(path, token, method, body=…, **headers)``."""
    client = AsyncHTTPClient(force_instance=True)

    async def send(
        path: str, token: str = "", method: str = "GET", body: Any = None, **headers: str
    ) -> HTTPResponse:
        if token:
            headers["Authorization"] = f"token {token}"
        return await client.fetch(
            f"{origin}{path}",
            method=method,
            body=body if body is None or isinstance(body, bytes) else json.dumps(body),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            allow_nonstandard_methods=True,
            follow_redirects=False,
            raise_error=False,
        )

    yield send
    client.close()


def add(store: Store, name: str = "data", version: str = "1", **changes: Any) -> None:
    """Put a built version into the catalog."""
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
    """Take an environment out of the catalog."""

    def work(session: Any) -> None:
        for row in session.scalars(select(EnvironmentVersion).filter_by(name=name)):
            session.delete(row)

    store.transact(work)


def listed(store: Store) -> list[tuple[str, str, str, str]]:
    """Source, environment, version and state of all rows."""
    return store.transact(
        lambda session: sorted(
            (row.source, row.environment, row.version, row.state)
            for row in session.scalars(select(RegisteredEnvironment))
        ),
        read=True,
    )


def on_disk(registrar: Registrar) -> list[str]:
    """All kernels of the registry's folder, by path."""
    root = registrar.root
    return sorted(str(path.parent.relative_to(root)) for path in root.rglob("kernel.json"))


def body(response: HTTPResponse) -> Any:
    return json.loads(response.body)


MakeVersion = Callable[..., Path]


@pytest.fixture
def make_version(roots: Path, make_prefix: MakePrefix) -> MakeVersion:
    """Publish a version as a build does: into a folder of its own, then swap the link."""

    def make(name: str, version: str, base: str = "shared", stamp: Any = None, **more: Any) -> Path:
        made = make_prefix(version, root=f"{base}/envs/.versions/{name}", **more)
        if stamp is not None:
            (made / "conda-meta/labcommons").mkdir()
            (made / "conda-meta/labcommons/version.json").write_text(json.dumps(stamp))
        link = roots / base / "envs" / name
        fresh = link.with_name(f".new-{name}")
        fresh.symlink_to(f".versions/{name}/{version}")
        fresh.rename(link)
        return made

    return make


@pytest.fixture
def unmount(roots: Path, tmp_path: Path) -> Callable[[str], Callable[[], None]]:
    """Take a folder out of sight, as if its file system were gone; call the result to mount it."""

    def take(base: str) -> Callable[[], None]:
        aside = tmp_path / f"unmounted-{base.replace('/', '-')}"
        shutil.move(roots / base, aside)
        return lambda: shutil.move(aside, roots / base)

    return take
