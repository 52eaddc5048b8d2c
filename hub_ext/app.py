"""The hub's process: JupyterHub, and what must be true before, beside and after it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import click
from jupyterhub.app import JupyterHub
from sqlalchemy.orm import Session

from hub_ext.audit import AuditTrail
from hub_ext.store import StoreError
from spawner.errors import SpawnerError
from spawner.gpu import ledger
from spawner.gpu.inventory import InventoryError, read_inventory
from spawner.reconcile import Reconciler, Server
from spawner.resources import Resources
from spawner.spawner import LabSpawner
from spawner.tiers.people import Requester, identity_of, person_in
from spawner.tiers.runner import Runner

CONFIG_FILE = "/etc/labcommons/jupyterhub_config.py"
RECONCILE_INTERVAL = 30  # seconds
PROXY_INTERVAL = 5  # seconds
PATIENCE = 2  # seconds between two tries for Docker


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
            devices = await asyncio.to_thread(read_inventory, self.resources.site.gpus)
        except InventoryError as error:
            click.echo(f"GPUs: {error}", err=True)
            return

        def work(session: Session) -> None:
            ledger.sync_inventory(session, devices)

        await self.resources.store.run(work)

    async def start(self) -> None:
        """Start JupyterHub, then reconcile, and go on doing so."""
        await super().start()
        shared = self.resources
        reconciler = Reconciler(shared.engine, shared.store, shared.site_id, self._known, self.log)
        try:
            await reconciler.once()
        except (SpawnerError, StoreError) as error:
            self.log.error("reconcile: %s", error)
        builds = Runner(
            shared,
            self._requester,
            AuditTrail(shared.data / "hub" / "audit.jsonl"),
            self.log,
            _build_settings(),
        )
        for work in (
            reconciler.forever(RECONCILE_INTERVAL),
            self._keep_routes(),
            builds.forever(),
        ):
            task = asyncio.create_task(work)
            self._background.add(task)
            task.add_done_callback(self._background_ended)

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
            except Exception as error:
                self.log.warning("proxy not checked: %s", error)


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
