"""Tells an open JupyterLab that the list of kernels has changed: an extension of its server.

JupyterLab itself asks once a minute. Environments are looked at here twice a second, as long as
somebody asks for the list at all, and each change is an event on the server's own stream of
events. Enabled by ``ServerApp.jpserver_extensions = {"kernels.list_watcher": True}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from kernels import mirror, starting
from kernels.elsewhere import language_of
from kernels.kernelspec import short_version
from kernels.manager import CondaKernelSpecManager
from kernels.nearest import Wanted

SCHEMA_ID = "https://schema.labcommons.invalid/kernels/v1"
# Seconds between two looks; more where a look takes long, so that it never costs above 2 %.
_EVERY = 0.5
_LONGEST = 10.0
_SHARE = 0.02
# Seconds after the last listing during which a page is taken to be open: it asks once a minute.
_OPEN = 150.0

_SCHEMA = {
    "$id": SCHEMA_ID,
    "version": "1",
    "title": "The list of kernels has changed",
    "personal-data": False,
    "type": "object",
    "required": ["added", "removed"],
    "properties": {
        "added": {"type": "array", "items": {"type": "string"}, "title": "Names of new kernels"},
        "removed": {"type": "array", "items": {"type": "string"}, "title": "Names that are gone"},
    },
}


class NearestHandler(APIHandler):
    """Which kernel is nearest to one that a notebook names."""

    auth_resource = "kernelspecs"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """``?name=&language=&python=&packages=a,b`` -> ``{"missing", "taken", "nearest"}``.

        ``taken`` is the kernel that the name means here, ``nearest`` one to ask about.
        """
        manager: Any = self.kernel_spec_manager
        name = self.get_query_argument("name", "")[:200]
        language = self.get_query_argument("language", "")[:50]
        packages = self.get_query_argument("packages", "")[:4000].split(",")
        wanted = Wanted(
            name,
            language or language_of(name) or "python",
            short_version(self.get_query_argument("python", "")[:50]) or "",
            frozenset(packages) - sys.stdlib_module_names - {""},
        )
        missing = name not in manager.get_all_specs()
        taken = manager.resolve(name, language) if missing else None
        ask = missing and taken is None
        found = await asyncio.to_thread(manager.nearest, wanted) if ask else None
        answer: dict[str, Any] = {"missing": missing, "taken": None, "nearest": None}
        if taken is not None:
            answer["taken"] = {
                "name": taken.kernel.name,
                "display_name": taken.kernel.document["display_name"],
                "exactly": taken.exactly,
            }
        if found is not None:
            answer["nearest"] = {
                "name": found.candidate.name,
                "display_name": found.candidate.shown,
                "has": found.has,
                "lacks": found.lacks,
            }
        await self.finish(json.dumps(answer))


async def watch(
    manager: CondaKernelSpecManager, changed: Callable[[list[str], list[str]], Awaitable[None]]
) -> None:
    """Look again and again while somebody asks; ``changed`` gets names added and removed.

    A kernel whose display name has changed (it was repaired, say) is both.
    """
    shown = _shown(manager)
    while True:
        listing = manager.listing
        await asyncio.sleep(min(max(_EVERY, listing.busy / _SHARE, listing.seconds), _LONGEST))
        if time.monotonic() - manager.last_asked > _OPEN:
            continue
        # In a thread, as a disk may take its time; the list itself belongs to the loop.
        manager.take(await asyncio.to_thread(listing.environments, _LONGEST))
        before, shown = shown, _shown(manager)
        if shown != before:
            new, gone = shown - before, before - shown
            await changed(sorted({name for name, _ in new}), sorted({name for name, _ in gone}))


def _shown(manager: CondaKernelSpecManager) -> set[tuple[str, str]]:
    mine = manager.registered_kernels()
    return {
        (name, each.document["display_name"])
        for kernels in (mine, manager.entries)
        for name, each in kernels.items()
    }


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "kernels.list_watcher"}]


def _load_jupyter_server_extension(app: Any) -> None:
    manager = app.kernel_spec_manager
    if not isinstance(manager, CondaKernelSpecManager):
        app.log.info("kernels.list_watcher has nothing to watch: another kernel list is configured")
        return
    app.event_logger.register_event_schema(_SCHEMA)
    path = url_path_join(app.base_url, "labcommons", "kernels", "nearest")
    app.web_app.add_handlers(".*$", [(path, NearestHandler)])
    app.web_app.add_handlers(".*$", starting.handlers(app.base_url))

    def choose_default() -> None:
        """New notebooks get the kernel of the environment that the person chose."""
        kernels = app.kernel_manager
        if manager.chosen and kernels.default_kernel_name not in manager.entries:
            name = manager.default_name(manager.chosen)
            kernels.default_kernel_name = name or kernels.default_kernel_name

    async def mirrored() -> None:
        if manager.mirror:
            listed = manager.listed
            try:
                mine = await asyncio.to_thread(manager.registered_kernels)
                await asyncio.to_thread(mirror.write, manager.mirror, listed, manager.chosen, mine)
            except OSError as error:
                app.log.warning("Kernelspecs for other programs cannot be written: %s", error)

    async def changed(added: list[str], removed: list[str]) -> None:
        choose_default()
        await mirrored()
        app.event_logger.emit(schema_id=SCHEMA_ID, data={"added": added, "removed": removed})

    async def run() -> None:
        manager.take(await asyncio.to_thread(manager.listing.environments, _LONGEST))
        choose_default()
        await mirrored()
        while True:
            try:
                await watch(manager, changed)
            except Exception:
                app.log.exception("Looking at environments failed; it is tried again")
                await asyncio.sleep(_LONGEST)

    app.io_loop.add_callback(run)
