"""The site's services that Docker gave up: where it has no room to start one again, it tries once.

Such a one has an error in its state. What somebody has stopped has none, and stays as it is.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker.errors import APIError, NotFound

from commons import reserve
from commons.errors import LabError
from spawner.runtime.docker.engine import Engine, says_full

log = logging.getLogger(__name__)
EVERY = 10.0  # seconds between two looks
# On the Engine's own disk: it needs some kilobytes to start anything.
FOLDER = Path("/var/lib/labcommons-agent")


class Revival:
    """Starts them, of one site."""

    def __init__(self, engine: Engine, site_id: str, folder: Path = FOLDER) -> None:
        self.engine, self.site_id, self.folder = engine, site_id, folder
        self._said: dict[str, str] = {}  # the last error of each, by name

    async def forever(self) -> None:
        while True:
            try:
                await self.once()
            except LabError as error:
                log.warning("services that Docker gave up are not known: %s", error)
            await asyncio.sleep(EVERY)

    async def once(self) -> None:
        """Start what was given up. Raises RuntimeRefused, RuntimeSilent."""
        await self.engine.call(self._work)

    def _work(self, api: Any) -> None:
        mark = f"com.docker.compose.project={self.site_id}"
        waiting = False
        for item in api.containers(all=True, filters={"label": mark}):
            with suppress(NotFound):
                # A list has the states that could be written down, and on a full disk none can.
                found = api.inspect_container(item["Id"])
                state, policy = found["State"], found["HostConfig"]["RestartPolicy"]["Name"]
                if state["Status"] == "exited" and state["Error"] and policy == "always":
                    waiting |= not self._start(api, found["Name"].lstrip("/"), state["Error"])
        with suppress(OSError):
            if not waiting and self.folder.is_dir():
                reserve.keep(self.folder)

    def _start(self, api: Any, name: str, error: str) -> bool:
        """Whether it runs now."""
        try:
            try:
                api.start(name)
            except APIError as refused:
                if not (says_full(refused.explanation) and reserve.drop(self.folder)):
                    raise
                log.warning("the Engine's disk is full: what was kept on it is given up")
                api.start(name)
        except APIError as refused:
            error = str(refused.explanation)[:500]
            if self._said.get(name) != error:
                log.error("Docker does not start %s: %s", name, error)
            self._said[name] = error
            return False
        log.warning("%s runs again, which Docker had given up: %s", name, error)
        self._said.pop(name, None)
        return True
