"""Reports of started kernels: which are believed, and when each environment was last used."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from hub_ext.store import Store
from hub_ext.store.models import utcnow
from hub_ext.store.usage import Started, add_starts, last_used
from kernels.hostile import parse_json
from kernels.service.entries import Entry, Key
from kernels.service.viewer import Reader

# Of one report: kernels, and starts of each.
MAX_ITEMS, MAX_STARTS = 50, 100
MAX_BYTES = 256 * 1024
# Reports that one person may send in a row, and seconds until there is one more.
BURST, SECONDS_EACH = 30, 2.0
# Seconds for which the times of last use are remembered.
_FRESH = 30.0


class ReportError(ValueError):
    """A report that cannot be read; the message says what is wrong with it."""


def read_report(body: bytes) -> list[dict[str, Any]]:
    """The items of a report: ``{"starts": [{"kernel": …, "source": …, …, "count": 1}]}``.

    Raises ReportError.
    """
    try:
        document = parse_json(body, MAX_BYTES)
    except ValueError as error:
        raise ReportError("the body is not JSON") from error
    items = document.get("starts") if isinstance(document, dict) else None
    if not isinstance(items, list) or len(items) > MAX_ITEMS:
        raise ReportError(f"“starts” is not a list of at most {MAX_ITEMS}")
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("kernel"), str):
            raise ReportError("each of “starts” needs “kernel”, a kernel's name")
        count = item.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_STARTS:
            raise ReportError(f"“count” is not a number from 1 to {MAX_STARTS}")
    return items


def believed(items: Iterable[Mapping[str, Any]], entries: Iterable[Entry]) -> list[Started]:
    """The starts of kernels that are among the entries, which are those a person may see."""
    by_name: dict[tuple[str, Any, Any], list[Entry]] = {}
    for entry in entries:
        for kernel in entry.kernels:
            key = (kernel.name, entry.source, entry.environment)
            by_name.setdefault(key, []).append(entry)
    starts = []
    for item in items:
        place = (item["kernel"], str(item.get("source")), str(item.get("environment")))
        candidates = by_name.get(place, [])
        exact = [entry for entry in candidates if entry.version == item.get("version")]
        # A tier's environment has one version at a time, whatever a server calls it.
        for entry in exact[:1] or candidates[:1]:
            starts.append(Started(item["kernel"], *entry.key, int(item.get("count", 1))))
    return starts


class Counter:
    """Counts starts into the store, and knows when environments were last used."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._allowance: dict[str, tuple[float, float]] = {}
        self._last: dict[Key, datetime] = {}
        self._until = 0.0

    def admit(self, name: str) -> bool:
        """Whether a person may send one more report now (a token bucket for each)."""
        now = time.monotonic()
        left, then = self._allowance.get(name, (float(BURST), now))
        left = min(float(BURST), left + (now - then) / SECONDS_EACH)
        if len(self._allowance) > 10_000:
            self._allowance.clear()
        self._allowance[name] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    async def count(self, reader: Reader, starts: list[Started]) -> None:
        """Write starts of a person. Raises StoreError."""
        if starts:
            now = utcnow()
            await self.store.run(lambda session: add_starts(session, reader.name, starts, now))
            self._until = 0.0

    async def last_used(self) -> Mapping[Key, datetime]:
        """When each environment was last used, as of some seconds ago. Raises StoreError."""
        if time.monotonic() >= self._until:
            self._last = await self.store.read(last_used)
            self._until = time.monotonic() + _FRESH
        return self._last
