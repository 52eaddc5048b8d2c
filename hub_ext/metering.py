"""What running servers use now, asked for behind a look at them: nobody waits for the answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from commons.errors import LabError
from commons.work import Keyed
from spawner.runtime.protocol import Usage
from spawner.spawner import LabSpawner

METERED = 8.0  # seconds for which it is not asked for again
PATIENCE = 10.0  # seconds for the agent


class Meter:
    """``used`` by container, as it was last said; of those that ended it forgets."""

    def __init__(self, name: str, log: logging.Logger) -> None:
        self.used: Mapping[str, Usage] = {}
        self.asking = Keyed(name, log, expected=(LabError, TimeoutError))
        self._asked = -METERED

    def ask(self, handles: Sequence[str]) -> None:
        """Have it asked for, for the next look."""
        if not handles or time.monotonic() - self._asked < METERED:
            return
        self._asked = time.monotonic()

        async def work() -> None:
            shared = LabSpawner.shared
            if shared is not None:
                async with asyncio.timeout(PATIENCE):
                    found = await shared.runtime.usage(handles)
                kept = {key: self.used[key] for key in handles if key in self.used}
                self.used = {**kept, **found}

        self.asking.start("all", work)
