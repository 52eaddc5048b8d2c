"""The console, served for real, against a store of its own and a hub that only knows tokens."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.httpclient import JupyterHubHTTPClient
from jupyterhub.services.auth import HubOAuth
from sqlalchemy.orm import Session
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from commons.site import Site
from commons.store import Store
from environments.catalog import CatalogEntry, record
from hub_ext.console.app import PREFIX, make_app
from spawner.gpu.devices.health import sync_inventory
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.batches import run_pass
from spawner.gpu.policy.placement import Device

ACCESS = "access:services!service=labcommons"
HOSTILE = "<script>alert('x')</script>"
# Tokens and whom the hub says they belong to.
PEOPLE: dict[str, dict[str, Any]] = {
    "alice-token": {"name": "alice", "admin": False, "scopes": [ACCESS], "groups": ["team:vision"]},
    "bob-token": {
        "name": "bob",
        "admin": False,
        "scopes": [ACCESS],
        "groups": ["team:vision", "team:vision:leads"],
    },
    "dan-token": {
        "name": "dan",
        "admin": False,
        "scopes": [ACCESS],
        "groups": ["course:ml101:instructors"],
    },
    "carol-token": {"name": "carol", "admin": True, "scopes": [ACCESS, "admin-ui"]},
    # A token that an administrator made for less.
    "carol-narrow-token": {"name": "carol", "admin": True, "scopes": [ACCESS]},
    # What the servers of people have.
    **{
        f"{name}-server-token": {
            "name": name,
            "admin": name == "carol",
            "scopes": [ACCESS, f"access:servers!server={name}/", f"users:activity!user={name}"],
            "groups": ["team:vision", "team:vision:leads"],
        }
        for name in ("alice", "carol")
    },
    "stranger-token": {"name": "stranger", "admin": False, "scopes": []},
}


class _User(RequestHandler):
    """``GET /hub/api/user``, as the hub answers it."""

    def get(self) -> None:
        if self.settings["broken"]["hub"]:
            self.set_status(503)
            return
        token = self.request.headers["Authorization"].removeprefix("token ")
        if token not in PEOPLE:
            self.set_status(403)
            self.finish("{}")
            return
        self.finish({"kind": "user", "groups": []} | PEOPLE[token])


# The hub's groups, as the console itself is told of them.
GROUPS = {
    "team:vision": ["alice", "bob", "erin"],
    "team:vision:leads": ["bob"],
    "course:ml101:instructors": ["dan"],
    "course:ml101:students": ["alice", "s01"],
}


class _Groups(RequestHandler):
    """``GET /hub/api/users/NAME`` and ``groups/NAME``, for the console's own token alone."""

    def get(self, kind: str, name: str) -> None:
        known = {one for users in GROUPS.values() for one in users}
        mine = self.request.headers["Authorization"] == "token the-console's-own"
        if not mine or name not in (known if kind == "users" else GROUPS):
            self.set_status(404 if mine else 403)
            self.finish("{}")
        elif kind == "users":
            self.finish({"groups": [group for group, users in GROUPS.items() if name in users]})
        else:
            self.finish({"name": name, "users": GROUPS[name]})


def runs(user: str, server: str = "", **more: Any) -> dict[str, Any]:
    """A server, as the hub tells of it."""
    return {
        "user": user, "server": server, "state": "running", "environment": "py313-data:1",
        "size": "small", "gpus": 0, "account": "", "started": "2026-11-29T07:00:00Z",
        "active": None, "memory": None, "memory_limit": 10**9, "cpu": None, "cpu_limit": 1.0,
        **more,
    }  # fmt: skip


class _Live(RequestHandler):
    """``GET /hub/api/live``, for the console's own token alone: what a test says that runs."""

    def get(self) -> None:
        if self.settings["broken"]["hub"]:
            self.set_status(503)
        elif self.request.headers["Authorization"] != "token the-console's-own":
            self.set_status(403)
        elif not (name := self.get_query_argument("person", "")):
            self.finish(self.settings["live"])
        elif name not in {one["name"] for one in PEOPLE.values()}:
            self.set_status(404)
        else:
            self.finish(
                {
                    "name": name, "admin": False, "created": "2026-11-01T00:00:00Z",
                    "seen": "2026-11-28T10:00:00Z", "groups": [f"other {HOSTILE}"],
                    "servers": ["", "train"],
                    "tokens": [{"note": HOSTILE, "created": "2026-11-02T00:00:00Z", "used": None,
                                "expires": None}],
                }
            )  # fmt: skip


@pytest.fixture
def lab_site() -> Site:
    return Site.model_validate(
        {
            "version": 1,
            "site": {"name": f"Lab {HOSTILE}"},
            "directory": {
                "servers": ["ldaps://ldap.example.org"],
                "users": {"base_dn": "dc=example,dc=org"},
                "teams": {"vision": {"members": ["vision"]}, "speech": {}},
                "courses": {"ml101": {"students": ["ml101"]}},
            },
            "sizes": {"small": {"cpu": 1, "memory": "1G"}},
            "ssh": {},
        }
    )


@pytest.fixture
def lab_store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'labcommons.sqlite'}")
    store.migrate()
    yield store
    store.close()


def ask(
    session: Session,
    user: str,
    server: str = "",
    account: str = "",
    gpus: int = 1,
    gpu_type: str = "A100",
    time_limit: float | None = None,
) -> str:
    """Somebody asks for GPUs, and a pass decides; the lease's id."""
    lease = transitions.request(
        session,
        username=user,
        server_name=server,
        account=account or f"user:{user}",
        gpus=gpus,
        gpu_type=gpu_type,
        time_limit=time_limit,
    )
    run_pass(session)
    return lease.id


def fill(session: Session) -> None:
    """Three GPUs, of which alice and bob hold one each, and one environment."""
    sync_inventory(
        session,
        [
            Device("GPU-0", "A100", 80 * 2**30, True),
            Device("GPU-1", "A100", 80 * 2**30, True),
            Device("GPU-2", f"RTX {HOSTILE}", 24 * 2**30, True),
        ],
    )
    transitions.activate(session, ask(session, "alice"), "container-1")
    ask(session, "bob", "train")
    for day in (1, 21):
        record(
            session,
            CatalogEntry(
                name="py313-data",
                version=f"202611{day:02}-ab12cd34",
                image="labcommons/env-py313-data:x",
                image_id="sha256:secret-to-nobody",
                prefix="/opt/conda/envs/py313-data",
                python="3.13.5",
                lock_digest="sha256:0",
                channels=[],
                words={"title": {"en": f"Data {HOSTILE}", "zh_CN": "数据分析"}},
                main_packages=[{"name": "numpy", "version": "2.3.1"}],
                packages=[{"name": "numpy", "version": "2.3.1"}],
                kernelspecs={},
                created_at=datetime(2026, 11, day),
            ),
        )


@dataclass
class Console:
    """A running console; ``broken["hub"] = True`` makes the hub fail."""

    origin: str
    store: Store
    broken: dict[str, bool]
    data: Path
    live: dict[str, Any]
    app: Application

    def tells(self, *servers: dict[str, Any], **seen: str) -> None:
        """What the hub says that runs, to the next who asks."""
        self.live.update(servers=list(servers), seen=seen)

    async def get(self, path: str = "", token: str | None = None, **headers: str) -> HTTPResponse:
        return await self.send("GET", path, token, **headers)

    async def send(
        self,
        method: str,
        path: str,
        token: str | None = None,
        body: object = None,
        **headers: str,
    ) -> HTTPResponse:
        if token:
            headers["Authorization"] = f"token {token}"
        sent = body if isinstance(body, str) else None if body is None else json.dumps(body)
        return await AsyncHTTPClient().fetch(
            f"{self.origin}{PREFIX}{path}",
            method=method,
            headers=headers,
            body=sent,
            allow_nonstandard_methods=True,
            follow_redirects=False,
            raise_error=False,
        )

    async def json(self, path: str, token: str | None = None, **headers: str) -> Any:
        answer = await self.get(path, token, **headers)
        assert answer.headers["Content-Type"].startswith("application/json"), answer.body
        return json.loads(answer.body)


def _listen(app: Application) -> tuple[HTTPServer, str]:
    listener, port = bind_unused_port()
    server = HTTPServer(app)
    server.add_socket(listener)
    return server, f"http://127.0.0.1:{port}"


@pytest.fixture
async def console(lab_site: Site, lab_store: Store, tmp_path: Path) -> AsyncIterator[Console]:
    broken, live = {"hub": False}, {"servers": [], "seen": {}}
    hub, hub_origin = _listen(
        Application(
            [
                ("/hub/api/user", _User),
                ("/hub/api/live", _Live),
                ("/hub/api/(users|groups)/([^/]+)", _Groups),
            ],
            broken=broken,
            live=live,
        )
    )
    auth = HubOAuth(
        api_token="the-console's-own",
        api_url=f"{hub_origin}/hub/api",
        base_url=PREFIX,
        oauth_client_id="service-labcommons",
        access_scopes={ACCESS},
    )
    app = make_app(lab_site, lab_store, auth, tmp_path)
    server, origin = _listen(app)
    yield Console(origin, lab_store, broken, tmp_path, live, app)
    for one in (server, hub):
        one.stop()
        await one.close_all_connections()
    # Its resolver holds one of the machine's few inotify instances.
    await JupyterHubHTTPClient.loop_instance().close()


@pytest.fixture
def filled(console: Console) -> Console:
    console.store.transact(fill)
    return console
