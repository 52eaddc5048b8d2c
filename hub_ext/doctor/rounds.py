"""The hub has the site looked at every ten minutes, and at once when an administrator asks.

In a process of its own: a check that hangs ends with it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress

from commons.store import Store
from hub_ext.doctor import kept

EVERY = 600.0  # seconds between two looks
LOOK = 5.0  # seconds between two looks whether somebody has asked
FIRST = 20.0  # seconds for the site to come up
LIMIT = 60.0  # seconds for one
COMMAND = (sys.executable, "-m", "hub_ext.cli", "doctor", "--keep", "--json")


class Rounds:
    """One look after the other."""

    def __init__(self, store: Store, command: tuple[str, ...] = COMMAND) -> None:
        self.store, self.command = store, command
        self._due = 0.0

    async def once(self) -> None:
        """Look, if it is time or somebody has asked. Raises StoreError."""
        if time.monotonic() >= self._due or await self.store.run(kept.asked):
            self._due = time.monotonic() + EVERY
            await self._look()

    async def _look(self) -> None:
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *self.command, stdin=quiet, stdout=quiet, stderr=quiet
        )
        try:
            async with asyncio.timeout(LIMIT):
                await process.wait()
        except TimeoutError:
            pass  # the ages on the page say it
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
