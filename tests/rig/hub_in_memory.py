"""A real hub with its database in this process, and LabSpawner on servers in memory that answer."""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from jupyterhub import orm
from jupyterhub.proxy import Proxy
from sqlalchemy import event
from sqlalchemy.orm.attributes import InstrumentedAttribute
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from traitlets.config import Config
from yarl import URL

from commons.site import Site
from commons.store import EnvironmentVersion, Store
from hub_ext.guarded_hub import GuardedHub
from hub_ext.servers import HubServers
from rig.answering import AnsweringRuntime
from spawner.gpu.watch.monitor import refresh
from spawner.reconcile import Reconciler
from spawner.resources import Resources
from spawner.runtime.spec import Account
from spawner.spawner import LabSpawner

TOKEN = "of-the-test"
PEOPLE = ("alice", "bob", "carol", "dan")


class Routes(Proxy):  # type: ignore[misc]
    """Routes are only remembered."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table: dict[str, Any] = {}

    async def add_route(self, routespec: str, target: str, data: Any) -> None:
        self.table[routespec] = {"routespec": routespec, "target": target, "data": data}

    async def delete_route(self, routespec: str) -> None:
        self.table.pop(routespec, None)

    async def get_all_routes(self) -> dict[str, Any]:
        return self.table


class Browser:
    """A session with the hub's cookies, which follows no redirection."""

    def __init__(self, session: aiohttp.ClientSession, hub: str) -> None:
        self._session, self._hub = session, hub

    async def get(self, path: str) -> aiohttp.ClientResponse:
        """``path`` is below the hub's, as it goes over the wire."""
        return await self._session.get(URL(self._hub + path, encoded=True), allow_redirects=False)

    async def send(self, path: str, fields: Mapping[str, str | bytes]) -> aiohttp.ClientResponse:
        """A page's form, with the token of that page."""
        await self.get(path)
        jar = self._session.cookie_jar
        token = jar.filter_cookies(URL(self._hub))["_xsrf"].value
        return await self._session.post(
            URL(self._hub + path, encoded=True),
            data=urlencode({**fields, "_xsrf": token}),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            allow_redirects=False,
        )


class OneThread:
    """Nothing of JupyterHub's database is read or written by another thread than the loop's.

    Its objects load what they lack at the moment in which it is read, by a session that the loop
    uses meanwhile: that fails only now and then. So each attribute of theirs is watched, whether it
    is loaded or not. ``seen``: where it was done; raises there, too, and at the end.
    """

    def __init__(self, app: GuardedHub) -> None:
        self._thread, self.seen = threading.get_ident(), list[str]()
        self._kept = [(name, getattr(InstrumentedAttribute, name)) for name in self.WATCHED]
        for name, method in self._kept:
            setattr(InstrumentedAttribute, name, self._watched(method))
        event.listen(app.db.get_bind(), "before_cursor_execute", self._look)

    WATCHED = ("__get__", "__set__", "__delete__")

    def _watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(attribute: Any, instance: object, *more: Any) -> Any:
            if isinstance(instance, orm.Base):
                self._look()
            return method(attribute, instance, *more)

        return watched

    def _look(self, *_: object) -> None:
        if threading.get_ident() != self._thread:
            self.seen.append("".join(traceback.format_stack(limit=8)))
            raise AssertionError(f"in {threading.current_thread().name}: {self.seen[-1]}")

    def end(self) -> None:
        """Watch no more. Raises AssertionError for what was seen."""
        for name, method in self._kept:
            setattr(InstrumentedAttribute, name, method)
        assert not self.seen, self.seen[0]


class Lab:
    """One hub, and what it may be asked."""

    def __init__(self, app: GuardedHub, resources: Resources, port: int) -> None:
        self.app, self.resources = app, resources
        assert isinstance(resources.runtime, AnsweringRuntime)
        self.memory = resources.runtime
        self.servers = HubServers(app)
        self._hub = f"http://127.0.0.1:{port}{app.hub.base_url}"
        self.one_thread = OneThread(app)

    def spawner(self, user: str = "alice", server: str = "") -> LabSpawner:
        found = self.app.users[user].spawners[server]
        assert isinstance(found, LabSpawner)
        return found

    def reconciler(self, look: Callable[[tuple[str, str]], None]) -> Reconciler:
        shared = self.resources
        return Reconciler(
            shared.runtime,
            shared.store,
            self.servers.known,
            self.app.log,
            running=self.servers.running,
            look=look,
        )

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def started(self, **options: Any) -> LabSpawner:
        await self.servers.start("alice", "", options)
        await self.until(lambda: self.spawner().ready)
        return self.spawner()

    async def looked(self) -> None:
        """The hub has looked until it saw that no server runs."""
        async with asyncio.timeout(20):
            while self.servers.known():  # what the runtime says may be on its way
                await self.servers.look_again("alice", "")
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def browser(self, user: str) -> AsyncIterator[Browser]:
        """Somebody who has logged in."""
        jar = aiohttp.CookieJar(unsafe=True, treat_as_secure_origin=URL(self._hub).origin())
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            browser = Browser(session, self._hub)
            await browser.send("login", {"username": user, "password": "any"})
            yield browser

    async def page(self, user: str, **form: str) -> tuple[int, str]:
        """Somebody logs in and sends the spawn form; the status, and where that leads."""
        async with self.browser(user) as browser:
            answer = await browser.send(f"spawn/{user}", form)
            return answer.status, answer.headers.get("Location") or await answer.text()

    async def rest(
        self, method: str, path: str, body: object = None, token: str = TOKEN
    ) -> tuple[int, Any]:
        """What the hub's REST API answers, to a service that may do everything with servers."""
        answer = await AsyncHTTPClient().fetch(
            f"{self._hub}api/{path}",
            method=method,
            body=json.dumps(body) if body is not None or method in ("POST", "PUT") else None,
            headers={"Authorization": f"token {token}"},
            allow_nonstandard_methods=True,
            request_timeout=30,
            raise_error=False,
        )
        text = answer.body.decode()
        try:
            return answer.code, json.loads(text) if text else None
        except ValueError:
            return answer.code, text


def add_environment(store: Store) -> None:
    """The environment *data*."""
    row = EnvironmentVersion(
        name="data",
        version="1",
        image="lctest/data:1",
        image_id=f"sha256:{'0' * 64}",
        prefix="/opt/conda/envs/data",
        python="3.13.5",
        lock_digest="sha256:0",
        channels=[],
        words={"title": "Data"},
        main_packages=[],
        packages=[],
        kernelspecs={},
    )
    store.transact(lambda s: s.add(row))


def configured(folder: Path, more: Config | None = None) -> Config:
    """A hub's configuration; ``more`` comes last."""
    config = Config()
    config.JupyterHub.db_url = f"sqlite:///{folder}/hub.sqlite"
    config.JupyterHub.cookie_secret_file = f"{folder}/cookie"
    config.JupyterHub.proxy_class = Routes
    config.JupyterHub.spawner_class = LabSpawner
    config.JupyterHub.authenticator_class = "dummy"
    config.JupyterHub.bind_url = config.JupyterHub.hub_bind_url = "http://127.0.0.1:1"
    config.JupyterHub.cleanup_servers = False
    config.JupyterHub.allow_named_servers = True
    config.JupyterHub.services = [{"name": "test", "api_token": TOKEN}]
    config.JupyterHub.load_roles = [
        {
            "name": "test",
            "scopes": ["admin:users", "admin:servers", "read:tokens"],
            "services": ["test"],
        }
    ]
    config.Authenticator.allow_all = True
    config.Authenticator.allowed_users = set(PEOPLE)
    config.LabSpawner.identity_hook = lambda spawner, _state: Account(
        uid=20001 + PEOPLE.index(spawner.user.name), gid=20000
    )
    config.merge(more or Config())
    return config


@asynccontextmanager
async def hub_lab(
    store: Store,
    site: Site,
    folder: Path,
    config: Config | None = None,
    runtime: AnsweringRuntime | None = None,
) -> AsyncIterator[Lab]:
    """A hub; with the ``runtime`` and the folder of an earlier one, the next after a restart."""
    memory = runtime or AnsweringRuntime()
    if runtime is None:
        await refresh(store, site.gpus, memory)
        add_environment(store)
    LabSpawner.shared = resources = Resources(site, store, memory, folder)
    watching = asyncio.create_task(resources.watch.run())
    await resources.watch.whole()
    GuardedHub.clear_instance()
    app = GuardedHub.instance(config=configured(folder, config))
    (folder / "config.py").touch()
    await app.initialize(["--config", str(folder / "config.py")])
    server = HTTPServer(app.tornado_application)
    socket, port = bind_unused_port()
    server.add_socket(socket)
    lab = Lab(app, resources, port)
    yield lab
    server.stop()
    await server.close_all_connections()
    watching.cancel()
    for user in app.users.values():
        for spawner in user.spawners.values():
            spawner.stop_polling()
    app.db.close()
    GuardedHub.clear_instance()
    await resources.admission.close()
    if runtime is None:
        await memory.close()
    LabSpawner.shared = None
    lab.one_thread.end()
