"""Reports of started kernels: which are believed, and when each environment was last used."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.store import Store
from commons.store.models import utcnow
from commons.store.usage import Started, add_starts, last_used
from commons.web.operations import AnyText
from kernels.hostile import parse_json
from kernels.service.entries import Key, RegistryEntry

# Of one report: kernels, and starts of each.
MAX_ITEMS, MAX_STARTS = 50, 100
MAX_BYTES = 256 * 1024
# Reports that one person may send in a row, and seconds until there is one more.
BURST, SECONDS_EACH = 30, 2.0
# Seconds for which the times of last use are remembered.
_FRESH = 30.0


REPORT_NOT_JSON = Text("report_not_json", N_("The report cannot be read: it is not JSON."))
REPORT_WRONG = Text(
    "report_wrong", N_("The report cannot be read: {where} is missing, unknown or wrong.")
)


class ReportError(BadRequest):
    """A report that cannot be read."""


class Start(BaseModel):
    """Starts of a kernel; what is no environment that one may see is not counted."""

    model_config = ConfigDict(strict=True)

    kernel: str
    source: AnyText = None
    environment: AnyText = None
    version: AnyText = None
    count: int = Field(1, ge=1, le=MAX_STARTS)


class Report(BaseModel):
    """What a person's server says that it started."""

    model_config = ConfigDict(strict=True)

    starts: list[Start] = Field(max_length=MAX_ITEMS)


def read_report(body: bytes) -> list[Start]:
    """The starts of a report. Raises ReportError."""
    try:
        return Report.model_validate(parse_json(body, MAX_BYTES)).starts
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReportError(REPORT_WRONG(where=where)) from error
    except ValueError as error:
        raise ReportError(REPORT_NOT_JSON()) from error


def believed(items: Iterable[Start], entries: Iterable[RegistryEntry]) -> list[Started]:
    """The starts of kernels that are among the entries, which are those a person may see."""
    by_name: dict[tuple[str, str, str], list[RegistryEntry]] = {}
    for entry in entries:
        for kernel in entry.kernels:
            key = (kernel.name, entry.source, entry.environment)
            by_name.setdefault(key, []).append(entry)
    starts = []
    for item in items:
        candidates = by_name.get((item.kernel, str(item.source), str(item.environment)), [])
        exact = [entry for entry in candidates if entry.version == item.version]
        # A scope's environment has one version at a time, whatever a server calls it.
        for entry in exact[:1] or candidates[:1]:
            starts.append(Started(item.kernel, *entry.key, item.count))
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

    async def count(self, name: str, starts: list[Started]) -> None:
        """Write starts of a person. Raises StoreError."""
        if starts:
            now = utcnow()
            await self.store.run(lambda session: add_starts(session, name, starts, now))
            self._until = 0.0

    async def last_used(self) -> Mapping[Key, datetime]:
        """When each environment was last used, as of some seconds ago. Raises StoreError."""
        if time.monotonic() >= self._until:
            self._last = await self.store.read(last_used)
            self._until = time.monotonic() + _FRESH
        return self._last
