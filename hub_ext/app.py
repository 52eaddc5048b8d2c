"""The hub's process: JupyterHub, and what must be true before, beside and after it."""

from __future__ import annotations

import asyncio
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from jupyterhub.app import JupyterHub

from hub_ext.mail import Addressee, Postman
from hub_ext.store import StoreError
from spawner.errors import SpawnerError
from spawner.gpu import monitor
from spawner.gpu.inventory import InventoryError
from spawner.gpu.jupyter import Asker, Jupyter, Server
from spawner.reconcile import Reconciler
from spawner.resources import Resources
from spawner.spawner import LabSpawner

CONFIG_FILE = "/etc/labcommons/jupyterhub_config.py"
RECONCILE_INTERVAL = 30  # seconds
PROXY_INTERVAL = 5  # seconds
PATIENCE = 2  # seconds between two tries for Docker
# Whose token the hub asks users' servers with (jupyterhub_config.py).
HUB_SERVICE = "labcommons-hub"


class LabCommonsHub(JupyterHub):  # type: ignore[misc]
    """JupyterHub that waits for Docker, keeps the GPU ledger true and its proxy routed."""

    name = "jupyterhub"

    async def initialize(self, *args: Any, **kwargs: Any) -> None:
        """Docker and database first: JupyterHub takes a server it cannot poll for stopped."""
        self._background: set[asyncio.Task[None]] = set()
        LabSpawner.shared = self.resources = Resources.from_environment()
        await asyncio.to_thread(self.resources.store.migrate)
        await self._wait_for_docker()
        await self._read_gpus()
        await super().initialize(*args, **kwargs)

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
        await super().start()
        shared = self.resources
        reconciler = Reconciler(shared.engine, shared.store, shared.site_id, self._known, self.log)
        try:
            await reconciler.once()
        except (SpawnerError, StoreError) as error:
            self.log.error("reconcile: %s", error)
        watch = monitor.Monitor(
            shared.store, shared.engine, shared.site.gpus, self._goes_on, self.log
        )
        postman = Postman(shared.store, shared.site, self._addressee, self.log)
        for work in (
            reconciler.forever(RECONCILE_INTERVAL),
            self._keep_routes(),
            watch.run(),
            postman.run(),
        ):
            task = asyncio.create_task(work)
            self._background.add(task)
            task.add_done_callback(self._background_ended)

    @cached_property
    def _asker(self) -> Asker:
        token = self._service_map[HUB_SERVICE].api_token if HUB_SERVICE in self._service_map else ""
        return Asker(token)

    async def _goes_on(self, server: Server) -> Jupyter:
        """What goes on in a person's server; unknown where it is not up."""
        user = next((user for user in self.users.values() if user.name == server[0]), None)
        spawner = user.spawners.get(server[1]) if user else None
        if spawner is None or not spawner.ready or not spawner.server:
            return Jupyter()
        return await self._asker(spawner.server.url)

    async def _addressee(self, username: str) -> Addressee | None:
        """Where a person's mail goes, as the directory said at their last login."""
        user = next((user for user in self.users.values() if user.name == username), None)
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

    def _known(self) -> set[Server]:
        """Servers that run or are on their way up or down, as the hub sees it now."""
        return {
            (user.name, name)
            for user in self.users.values()
            for name, spawner in user.spawners.items()
            if spawner.active or spawner.pending or spawner._start_pending
        }

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
            except Exception as error:
                self.log.warning("proxy not checked: %s", error)


@click.command()
def hub() -> None:
    """Run the hub (settings: jupyterhub_config.py beside the site file)."""
    config = os.environ.get("LABCOMMONS_HUB_CONFIG", CONFIG_FILE)
    if not Path(config).is_file():
        raise click.ClickException(f"{config} is missing; set LABCOMMONS_HUB_CONFIG to its place")
    LabCommonsHub.launch_instance(["--config", config])
