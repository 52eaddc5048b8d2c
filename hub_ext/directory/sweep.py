"""Looks after people whose servers run while they are away.

JupyterHub asks the authenticator only when somebody comes: a disabled person's server would run
on for as long as nobody looks at it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from commons.work import Periodic

from .memory import Memory
from .servers import Log

# How many people are asked about at once: the directory's threads are for logins first.
_AT_ONCE = 2


class Sweep:
    """``once`` refreshes everybody who has a server, and stops those of dismissed people."""

    def __init__(
        self,
        app: Any,
        refresh: Callable[[Any], Awaitable[bool | dict[str, Any]]],
        memory: Memory,
        grace: float | None,
        stopped: Callable[[str, str, str], None],
        log: Log,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``app`` is the hub; ``stopped`` is told name, server and reason.

        ``grace`` in seconds from the first refusal; None stops nothing.
        """
        self._app = app
        self._refresh = refresh
        self._memory = memory
        self._grace = grace
        self._stopped = stopped
        self._log = log
        self._clock = clock

    async def forever(self, interval: float) -> None:
        """``once``, again and again."""
        await Periodic("directory sweep", self.once, interval, self._log, first=interval).run()

    async def once(self) -> None:
        """One look at everybody."""
        users = [
            user
            for user in list(self._app.users.values())
            if any(spawner.active for spawner in user.spawners.values())
        ]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def look_after(user: Any) -> None:
            async with gate:
                if await self._refresh(user) is False:
                    await self._stop_if_due(user)

        for outcome in await asyncio.gather(
            *(look_after(user) for user in users), return_exceptions=True
        ):
            if isinstance(outcome, Exception):
                self._log.error("directory: looking after a running server failed: %r", outcome)

    async def _stop_if_due(self, user: Any) -> None:
        known = self._memory.person(user.name)
        if self._grace is None or known is None or known.barred is None or not known.dismissed:
            return
        if self._clock() - known.barred < self._grace:
            return
        for name, spawner in list(user.spawners.items()):
            if not spawner.active or spawner.pending:
                continue  # on its way up or down: the next look finds it
            self._log.warning(
                "event=server_stopped name=%s server=%s reason=%s", user.name, name, known.reason
            )
            await self._app.proxy.delete_user(user, name)
            await user.stop(name)
            self._stopped(user.name, name, known.reason)
