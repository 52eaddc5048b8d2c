"""The hub's process: JupyterHub, and what must be true before, beside and after it."""

from __future__ import annotations

import asyncio
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import tornado.httpserver

from hub_ext import proxied
from hub_ext.audit import AuditTrail
from hub_ext.guarded_hub import GuardedHub
from hub_ext.mail import Addressee, Postman
from hub_ext.servers import HubServers
from hub_ext.store import StoreError
from spawner.errors import SpawnerError
from spawner.gpu import monitor
from spawner.gpu.inventory import InventoryError
from spawner.gpu.jupyter import Asker, Jupyter, Server
from spawner.gpu.keeper import Keeper
from spawner.reconcile import Reconciler
from spawner.resources import Resources
from spawner.spawner import LabSpawner
from spawner.tiers.people import Requester, identity_of, person_in
from spawner.tiers.runner import Runner

CONFIG_FILE = "/etc/labcommons/jupyterhub_config.py"
RECONCILE_INTERVAL = 30  # seconds
PROXY_INTERVAL = 5  # seconds
PATIENCE = 2  # seconds between two tries for Docker


class LabCommonsHub(GuardedHub):
    """JupyterHub that waits for Docker, keeps the GPU ledger true and its proxy routed."""

    async def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Docker and database first: JupyterHub takes a server it cannot poll for stopped."""
        self._background: set[asyncio.Task[None]] = set()
        LabSpawner.shared = self.resources = Resources.from_environment()
        await asyncio.to_thread(self.resources.store.migrate)
        await self._wait_for_docker()
        await self._read_gpus()
        await super().initialize(*args, **kwargs)
        self._servers = HubServers(self)
        if gone := self._servers.take_tokens_back():
            self.log.info("took back the tokens of %s servers that are gone", gone)
        self._stops: set[asyncio.Task[None]] = set()
        shared = self.resources
        self._reconciler = Reconciler(
            shared.engine,
            shared.store,
            shared.site_id,
            self._servers.known,
            self.log,
            self._stop_server,
        )
        # Before the first request: a ledger that lost leases gives their GPUs to nobody else.
        await self._reconcile()

    async def _reconcile(self) -> None:
        try:
            await self._reconciler.once()
        except (SpawnerError, StoreError) as error:
            self.log.error("reconcile: %s", error)

    def _stop_server(self, server: Server) -> None:
        task = asyncio.create_task(self._servers.stop(*server))
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    async def _wait_for_docker(self) -> None:
        while True:
            try:
                return await self.resources.engine.ping()
            except SpawnerError as error:
                click.echo(f"waiting for Docker: {error}", err=True)
                await asyncio.sleep(PATIENCE)

    async def _read_gpus(self) -> None:
        """Bring the inventory up to date; where it cannot be read, keep what was known."""
        try:
            await monitor.refresh(self.resources.store, self.resources.site.gpus)
        except InventoryError as error:
            click.echo(f"GPUs: {error}", err=True)

    async def start(self) -> None:
        """Start JupyterHub, then reconcile, and go on doing so."""
        # Of this class is the server that JupyterHub makes.
        tornado.httpserver.HTTPServer.configure(proxied.HTTPServer)
        await proxied.proxies.begin()
        await super().start()
        shared = self.resources
        await self._reconcile()
        self._keeper = Keeper(shared.admission, self._servers, self.log)
        watch = monitor.Monitor(
            shared.store, shared.engine, shared.site.gpus, self._goes_on, self.log
        )
        postman = Postman(shared.store, shared.site, self._addressee, self.log)
        builds = Runner(
            shared,
            self._requester,
            AuditTrail(shared.data / "hub" / "audit.jsonl"),
            self.log,
            _build_settings(),
        )
        for work in (
            self._reconciler.forever(RECONCILE_INTERVAL),
            shared.admission.run(),
            self._keeper.run(),
            self._keep_routes(),
            watch.run(),
            postman.run(),
            builds.forever(),
            proxied.proxies.keep(),
        ):
            task = asyncio.create_task(work)
            self._background.add(task)
            task.add_done_callback(self._background_ended)

    _asker = cached_property(lambda _self: Asker())

    async def _goes_on(self, server: Server) -> Jupyter:
        """What goes on in a person's server; unknown where it is not up."""
        user = self.users.get(server[0])
        spawner = user.spawners.get(server[1]) if user else None
        if spawner is None or not spawner.ready:
            return Jupyter()
        # From the same look: an address that is another's by now would get this one's token.
        there = await spawner.whereabouts()
        return await self._asker(*there) if there else Jupyter()

    async def _addressee(self, username: str) -> Addressee | None:
        """Where a person's mail goes, as the directory said at their last login."""
        user = self.users.get(username)
        known = await user.get_auth_state() if user else None
        if not known or not known.get("mail"):
            return None
        return Addressee(str(known["mail"]), str(known.get("language") or ""))

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        """A defect in a guard must be seen: without it the hub would go on unguarded."""
        self._background.discard(task)
        if not task.cancelled() and task.exception():
            self.log.critical("background task ended", exc_info=task.exception())
            self.exit(1)

    async def shutdown_cancel_tasks(self, sig: Any = None) -> None:
        """The hub goes down: who waits for GPUs keeps the place for the next one."""
        self.resources.admission.stopping = True
        await super().shutdown_cancel_tasks(sig)

    async def _requester(self, name: str) -> Requester | None:
        """Somebody who asked for a build, as the directory says now; None for nobody."""
        if name not in self.users:
            return None
        user = self.users[name]
        fresh = await self.authenticator.refresh_user(user)
        if not fresh:
            return None
        model = fresh if isinstance(fresh, dict) else {}
        state = model.get("auth_state") or await user.get_auth_state() or {}
        admin = user.admin if model.get("admin") is None else model["admin"]
        return Requester(person_in(name, bool(admin), state), identity_of(name, state))

    async def _keep_routes(self) -> None:
        """A proxy that was restarted has no routes: give them back within seconds.

        JupyterHub itself looks every five minutes (``last_activity_interval``).
        """
        while True:
            await asyncio.sleep(PROXY_INTERVAL)
            try:
                routes = await self.proxy.get_all_routes()
                if self.hub.routespec not in routes:
                    self.log.warning("the proxy has lost its routes: restoring them")
                    await self.proxy.check_routes(self.users, self._service_map, routes)
                await self._keeper.note_activity(_last_use(routes))
            except Exception as error:
                self.log.warning("proxy not checked: %s", error)


def _last_use(routes: dict[str, Any]) -> dict[Server, str]:
    """When the proxy last passed something to each person's server."""
    return {
        (data["user"], data.get("server_name", "")): str(data.get("last_activity"))
        for data in (route["data"] for route in routes.values())
        if "user" in data
    }


def _build_settings() -> dict[str, str]:
    """Variables of this machine that builders need: proxies and package indexes.

    From a file, which `make up` writes: an address may have a password in it.
    """
    path = Path(os.environ.get("LABCOMMONS_SECRETS", "/run/labcommons")) / "build-environment"
    try:
        found = json.loads(path.read_text("utf-8") or "{}")
    except FileNotFoundError:
        return {}
    return {str(key): str(value) for key, value in found.items()}


@click.command()
def hub() -> None:
    """Run the hub (settings: jupyterhub_config.py beside the site file)."""
    config = os.environ.get("LABCOMMONS_HUB_CONFIG", CONFIG_FILE)
    if not Path(config).is_file():
        raise click.ClickException(f"{config} is missing; set LABCOMMONS_HUB_CONFIG to its place")
    LabCommonsHub.launch_instance(["--config", config])
