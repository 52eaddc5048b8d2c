"""What servers use at this moment, from the counters that the Engine reads."""

from __future__ import annotations

import time
from typing import Any

from docker.errors import NotFound

from spawner.runtime.protocol import Usage

_FIRST = 0.5  # seconds between two looks at a server that was not looked at before
_MOST = 10_000  # servers remembered


class Meter:
    """Remembers the last counter of CPU time of each container, to tell the rate since then."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}

    def read(self, api: Any, container: str) -> Usage | None:
        """None where it has ended."""
        found = self._counters(api, container)
        if found is None:
            return None
        last = self._last.get(container)
        if last is None or found[0] <= last[0]:
            last = found[:2]
            time.sleep(_FIRST)
            found = self._counters(api, container)
            if found is None:
                return None
        if len(self._last) > _MOST:
            self._last.clear()
        self._last[container] = found[:2]
        cpu = (found[1] - last[1]) / 1e9 / max(found[0] - last[0], 1e-3)
        return Usage(memory=found[2], cpu=max(0.0, cpu), pids=found[3])

    def _counters(self, api: Any, container: str) -> tuple[float, int, int, int] | None:
        """When, CPU time in ns, memory in bytes, processes."""
        try:
            stats = api.stats(container, stream=False, one_shot=True)
        except NotFound:
            return None
        memory, cpu = stats.get("memory_stats") or {}, stats.get("cpu_stats") or {}
        if not memory.get("usage"):
            return None
        details = memory.get("stats") or {}
        # Without what the kernel can take back at once, as `docker stats` shows it.
        cache = details.get("inactive_file", details.get("total_inactive_file", 0))
        return (
            time.monotonic(),
            int((cpu.get("cpu_usage") or {}).get("total_usage") or 0),
            max(0, int(memory["usage"]) - int(cache)),
            int((stats.get("pids_stats") or {}).get("current") or 0),
        )
