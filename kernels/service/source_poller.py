"""Looks at the sources on disk: at each when it is due, in threads, and never for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from commons.scopes import SCOPES, Scope
from kernels.messages import say
from kernels.service.entries import UNSETTLED, Look, State
from kernels.service.roots import Root, RootScanner, find_roots
from kernels.service.watch import Watcher

# Seconds that one look at a source may take; a file server that hangs must not stop the rest.
LOOK_TIMEOUT = 20.0
# Seconds between looks: at all sources; at one that changed just now or is not settled.
SLOW, FAST = 30.0, 1.0
# Looking takes at most this part of the time, however large a source is.
SHARE = 0.04
# For how many seconds a source that changed is looked at often.
EAGER = 60.0
# For how many seconds an unfinished environment is.
PATIENCE = 1800.0
# Sources that are looked at side by side.
_THREADS = 8


@dataclass
class _Source:
    """What is remembered of one source between its looks. Times are monotonic seconds."""

    scanner: RootScanner
    due: float = 0.0
    eager_until: float = 0.0
    hanging: asyncio.Future[Look] | None = None
    # Since when an environment is not finished, by its prefix.
    _unsettled: dict[str, float] | None = None

    def is_unsettled(self, now: float, look: Look) -> bool:
        """Whether an environment is being made, as far as one can tell.

        What was unfinished at the first look may be so for ever.
        """
        first, before = self._unsettled is None, self._unsettled or {}
        self._unsettled = {
            found.environment.place.prefix: before.get(
                found.environment.place.prefix, now - PATIENCE if first else now
            )
            for found in look.found
            if str(found.environment.state) in UNSETTLED
        }
        return any(now - since < PATIENCE for since in self._unsettled.values())


class Lookout:
    """Knows the sources on disk and when to look at each; ``woken`` is called when one changes."""

    def __init__(
        self,
        folders: Path,
        groups: Collection[Scope],
        woken: Callable[[], None],
    ) -> None:
        self._place = (folders, groups)
        self._woken = woken
        self._sources: dict[str, _Source] = {}
        self._watcher = Watcher(self._changed)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="scopes")

    def __contains__(self, source: str) -> bool:
        return source in self._sources

    async def start(self) -> str:
        """Begin to watch folders. Returns why that is not possible, if it is not."""
        self._watcher.start()
        for folder in (
            "",
            *(one.folder.partition("/")[0] for one in SCOPES.values() if one.section),
        ):
            await asyncio.to_thread(self._watcher.add, self._place[0] / folder, "")
        return self._watcher.trouble

    def close(self) -> None:
        """End watches and threads; one that hangs is left alone."""
        self._watcher.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def pause(self) -> float:
        """Seconds until a source is due."""
        now = time.monotonic()
        return min((source.due - now for source in self._sources.values()), default=SLOW)

    def again(self, source: str) -> None:
        """Look at a source again soon."""
        if known := self._sources.get(source):
            known.due = min(known.due, time.monotonic() + 5 * FAST)

    async def looks(self, everywhere: bool) -> list[Look]:
        """The sources that are due, or all of them, as they are now."""
        begin = time.monotonic()
        due = self._due(begin, everywhere)
        if everywhere or due:
            await self._find()
            due = self._due(begin, everywhere)
        return list(await asyncio.gather(*(self._look(source) for source in due)))

    def _due(self, now: float, everywhere: bool) -> list[_Source]:
        return [source for source in self._sources.values() if everywhere or source.due <= now]

    async def _find(self) -> None:
        loop = asyncio.get_running_loop()
        finding = loop.run_in_executor(self._pool, find_roots, *self._place)
        try:
            roots = await asyncio.wait_for(finding, LOOK_TIMEOUT)
        except TimeoutError:
            return  # those that are known are asked all the same, and say why
        self._sources = {
            root.source: self._sources.get(root.source) or _Source(RootScanner(root))
            for root in roots
        }

    async def _look(self, source: _Source) -> Look:
        root = source.scanner.root
        begin = time.monotonic()
        try:
            # One that still hangs is not asked a second time.
            if source.hanging is None:
                source.hanging = asyncio.get_running_loop().run_in_executor(
                    self._pool, self._watch_and_look, source.scanner
                )
            look = await asyncio.wait_for(asyncio.shield(source.hanging), LOOK_TIMEOUT)
        except TimeoutError:
            look = _no_answer(root)
        finally:
            if source.hanging is not None and source.hanging.done():
                source.hanging = None
        end = time.monotonic()
        fast = source.is_unsettled(end, look) or end < source.eager_until
        source.due = end + (max(FAST, (end - begin) / SHARE) if fast else SLOW)
        return look

    def _watch_and_look(self, scanner: RootScanner) -> Look:
        # Watched first, so that what happens after the look is told.
        for folder in (scanner.root.base, scanner.root.folder):
            self._watcher.add(folder, scanner.root.source)
        return scanner.look()

    def _changed(self, source: str | None) -> None:
        """A folder changed: look at its source soon, and often for a while."""
        now = time.monotonic()
        named = [self._sources[source]] if source in self._sources else self._sources.values()
        for item in named:
            item.eager_until = now + EAGER
            item.due = min(item.due, now + 0.05)
        self._woken()


def _no_answer(root: Root) -> Look:
    reason = say(
        "folder_silent",
        folder=root.folder,
        seconds=f"{LOOK_TIMEOUT:g}",
    )
    return Look(root.source, root.label, State.UNAVAILABLE, reason)
