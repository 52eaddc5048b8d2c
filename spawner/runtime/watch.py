"""A local copy of what runs, kept by the runtime's events: polls need not ask for each server.

While the stream holds, the copy is what the runtime would say. Where it is broken, or says nothing
of a server yet, the runtime itself is asked; one that is silent then is *unknown*, never gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from commons.errors import RuntimeRefused, RuntimeSilent
from spawner.runtime.protocol import EventKind, Runtime, ServerState

REMEMBERED = 1000  # servers that ended
PAUSE = 1.0  # seconds until a broken stream is asked for again


class Watch:
    """What runs at this moment.

    Args:
        ended: called for each server that is seen to end.

    Attributes:
        changed: called whenever something runs no more.
    """

    def __init__(
        self,
        runtime: Runtime,
        log: logging.Logger,
        ended: Callable[[ServerState], None] = lambda _: None,
    ) -> None:
        self.runtime, self.log, self.ended = runtime, log, ended
        self.changed: Callable[[], None] = lambda: None
        self._running: dict[str, ServerState] = {}
        self._over: dict[str, ServerState] = {}  # how the last ones ended
        self._whole = asyncio.Event()

    async def look(self, handle: str) -> ServerState | None:
        """A server as it is now, or as it ended; None where there is none, or was long ago.

        Raises RuntimeSilent: it is not known.
        """
        if self._whole.is_set() and (known := self._running.get(handle)) is not None:
            return known
        return self._over.get(handle) or (await self.runtime.inspect([handle])).get(handle)

    def running(self) -> Collection[ServerState]:
        """What runs, as far as is known."""
        return self._running.values()

    @property
    def known(self) -> bool:
        """Whether the copy is up to date: the runtime answers, and tells what happens."""
        return self._whole.is_set()

    async def whole(self) -> None:
        """Return when the copy is up to date."""
        await self._whole.wait()

    async def run(self) -> None:
        """Listen for ever."""
        while True:
            try:
                async for event in self.runtime.events():
                    if event.kind is EventKind.RESYNC:
                        self._whole.clear()
                        await self._read_all()
                        self._whole.set()
                    else:
                        await self._read(event.handle, event.exit_code)
            except (RuntimeSilent, RuntimeRefused) as error:
                self.log.warning("what runs is not known until it is looked at again: %s", error)
            finally:
                self._whole.clear()
            await asyncio.sleep(PAUSE)

    async def _read_all(self) -> None:
        handles = [state.handle for state in await self.runtime.list()]
        found = await self.runtime.inspect([*{*handles, *self._running}])
        for handle, state in found.items():
            self._keep(handle, state)

    async def _read(self, handle: str, exit_code: int | None) -> None:
        self._keep(handle, (await self.runtime.inspect([handle])).get(handle), exit_code)

    def _keep(self, handle: str, state: ServerState | None, exit_code: int | None = None) -> None:
        if state is not None and state.runs:
            self._running[handle] = state
            return
        before = self._running.pop(handle, None)
        if state is None and before is not None:
            # Removed by now: what the event said is all that there is to know.
            state = before.model_copy(update={"status": "removed", "exit_code": exit_code or 0})
        if state is not None:
            self._over[handle] = state
            if len(self._over) > REMEMBERED:
                del self._over[next(iter(self._over))]
        if before is not None and state is not None:
            self.ended(state)
        self.changed()
