"""The environments of all sources, looked at in a thread, so that no disk stops who asks.

Whoever asks waits for a moment and then gets what is known. A source whose storage hangs
keeps its thread; another thread goes on with the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from kernels import cache
from kernels.discovery import SourceDiscovery, merge
from kernels.messages import say
from kernels.prefix import Environment, State
from kernels.sources import Source, firsts

# Seconds after which a scan counts as hanging, and the others go on without it.
STUCK = 1.0
# Seconds after which what is known of a hanging source is marked unavailable.
UNAVAILABLE = 5.0
# Seconds after which a thread that nobody asks anything of ends.
_IDLE = 30.0
# Seconds between two writings of the cache.
_SAVE_EVERY = 20.0

_log = logging.getLogger(__name__)


@dataclass
class _Part:
    """One source, and where its scan stands; ``wanted`` asks for another after the present."""

    discovery: SourceDiscovery
    wanted: bool = False
    since: float | None = None
    worker: threading.Thread | None = None
    result: list[Environment] = field(default_factory=list)
    seconds: float = 0.0
    busy: float = 0.0

    def is_stuck(self, now: float, limit: float) -> bool:
        return self.since is not None and now - self.since > limit


class Listing:
    """What is known of the environments of some sources.

    ``file`` is where it is kept for the next process; none where it is empty. ``serial``
    grows whenever something has changed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        file: str = "",
        scan: Callable[[SourceDiscovery], list[Environment]] = SourceDiscovery.scan,
    ) -> None:
        first = firsts(sources)
        self._parts = [
            _Part(SourceDiscovery(source, first=source in first))
            for source in dict.fromkeys(sources)
        ]
        self._file, self._scan = file, scan
        self._condition = threading.Condition()
        self._worker: threading.Thread | None = None
        self._saved = -1
        self._save_after = 0.0
        self._loaded = not file
        self._merged: tuple[tuple[int, ...], list[Environment]] = ((), [])
        self.serial = 0

    @property
    def seconds(self) -> float:
        """How long the last pass over all sources took, waiting for the disk included."""
        return sum(part.seconds for part in self._parts)

    @property
    def busy(self) -> float:
        """Seconds of a core that the last pass over all sources took."""
        return sum(part.busy for part in self._parts)

    def environments(self, patience: float) -> list[Environment]:
        """All environments after a new look; after ``patience`` seconds, what is known."""
        deadline = time.monotonic() + patience
        with self._condition:
            for part in self._parts:
                part.wanted = True
            self._need_worker()
            while self._is_waiting():
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._condition.wait(min(left, STUCK / 4))
                self._need_worker()
            return self._result()

    def _is_waiting(self) -> bool:
        now = time.monotonic()
        return any(
            (part.wanted or part.since is not None) and not part.is_stuck(now, STUCK)
            for part in self._parts
        )

    def _result(self) -> list[Environment]:
        now = time.monotonic()
        stuck = tuple(part.is_stuck(now, UNAVAILABLE) for part in self._parts)
        key = (self.serial, *stuck)
        if self._merged[0] != key:
            self._merged = (
                key,
                merge(
                    _marked(part) if hangs else part.result
                    for part, hangs in zip(self._parts, stuck, strict=True)
                ),
            )
        return self._merged[1]

    def _need_worker(self) -> None:
        """See that somebody works: nobody does when the one there is hangs in a scan."""
        now = time.monotonic()
        hangs = any(
            part.worker is self._worker and part.is_stuck(now, STUCK) for part in self._parts
        )
        if self._worker is not None and self._worker.is_alive() and not hangs:
            self._condition.notify_all()
        elif any(part.wanted and part.since is None for part in self._parts):
            # Not a pool's thread: those are waited for at the end of the process.
            self._worker = threading.Thread(target=self._work, name="kernels", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        self._load()
        while (part := self._next()) is not None:
            started, busy = time.monotonic(), time.thread_time()
            try:
                result = self._scan(part.discovery)
            except Exception:
                _log.exception("%s cannot be scanned", part.discovery.source.pattern)
                result = part.result
            with self._condition:
                part.since, part.seconds = None, time.monotonic() - started
                part.busy = time.thread_time() - busy
                if result != part.result:
                    part.result = result
                    self.serial += 1
                self._condition.notify_all()
            self._save()

    def _next(self) -> _Part | None:
        """The next source to scan; waits for one. None when this thread is not needed any more."""
        with self._condition:
            while self._worker is threading.current_thread():
                for part in self._parts:
                    if part.wanted and part.since is None:
                        part.wanted, part.since = False, time.monotonic()
                        part.worker = threading.current_thread()
                        return part
                if not self._condition.wait(_IDLE):
                    self._worker = None
            return None

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        entries = cache.load(self._file)
        with self._condition:
            for part in self._parts:
                if part.since is None and (known := entries.get(part.discovery.source)):
                    part.discovery.known = known
                    # Shown until the first scan has ended; a slow disk need not be waited for.
                    part.result = [each.environment for each in known.values()]
                    self.serial += 1

    def _save(self) -> None:
        with self._condition:
            now = time.monotonic()
            idle = not any(part.wanted or part.since is not None for part in self._parts)
            if not self._file or self._saved == self.serial or now < self._save_after or not idle:
                return
            self._saved, self._save_after = self.serial, now + _SAVE_EVERY
            entries = {part.discovery.source: dict(part.discovery.known) for part in self._parts}
        try:
            cache.save(self._file, entries)
        except OSError as error:
            _log.info("%s cannot be written: %s", self._file, error.strerror)


def _marked(part: _Part) -> list[Environment]:
    reason = say(
        "storage_silent",
        folder=part.discovery.source.pattern,
    )
    return [replace(each, state=State.UNAVAILABLE, reason=reason) for each in part.result]
