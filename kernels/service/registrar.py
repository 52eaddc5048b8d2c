"""Passes of the registry: look, write to disk, then to the store, then tell.

In this order, so that whoever is told finds it. A pass that is killed at any point leaves
whole kernelspecs and a store that is behind; the next one, which compares everything,
finishes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from commons.scopes import Scope
from commons.store import Store, StoreError, usage
from commons.store.models import utcnow
from commons.work import Periodic
from kernels.messages import ENGLISH, Message, in_one, say, why
from kernels.service import rows
from kernels.service.entries import (
    Key,
    Look,
    Memory,
    RegistryEntry,
    State,
    from_catalog,
    from_disk,
    is_lost,
    kept,
)
from kernels.service.events import EventLog
from kernels.service.registry import IMAGE, Changes, Shelf, write_registry, write_shelves
from kernels.service.roots import FOLDERS
from kernels.service.source_poller import Lookout
from kernels.service.survey import Survey

# Seconds between passes that read every file of the registry again.
INTERVAL = 2.0  # seconds between two passes, where nothing wakes them
TOGETHER = 0.05  # seconds in which what belongs together happens
FULL = 300.0
# How many changes are told one by one; more are told as one "look again".
TOLD = 50
_SEEN = timedelta(minutes=5)
_DAY = 86400.0

_log = logging.getLogger("labcommons.kernels")


class Registrar:
    """Runs the passes, one at a time, and knows what the last one found."""

    def __init__(
        self,
        store: Store,
        root: Path,
        folders: Path = FOLDERS,
        groups: Collection[Scope] = (),
    ) -> None:
        self.store = store
        self.root = root
        self.events = EventLog()
        self.entries: dict[Key, RegistryEntry] = {}
        self.sources: dict[str, rows.KnownSource] = {}
        self.last_pass: datetime | None = None
        self.error: Message | None = say("no_pass_yet")
        self._problems: dict[str, list[Message]] = {}
        self._written: dict[Shelf, Mapping[str, bytes]] = {}
        self._memory: dict[str, Memory] = {}
        self._seen: dict[str, datetime] = {}
        self._touched: datetime | None = None
        self._catalog: tuple[Any, ...] | None = None
        self._loaded = False
        self._full_due = 0.0
        self._forget_due = 0.0
        self._passes = Periodic("kernel registry", self._round, INTERVAL, _log)
        self._lookout = Lookout(folders, groups, self._passes.wake)
        self._lock = asyncio.Lock()

    @property
    def problems(self) -> list[Message]:
        """What cannot be listed or was left out."""
        return [problem for problems in self._problems.values() for problem in problems]

    async def refresh(self) -> Changes | None:
        """A pass that looks at everything. None if it failed, and ``error`` says why."""
        return await self._run(full=True)

    async def _run(self, full: bool) -> Changes | None:
        async with self._lock:
            try:
                changes = await self._pass(full)
            except (StoreError, OSError) as error:
                # The store is behind by an unknown part: the next pass compares with it.
                self._loaded = False
                self._conclude(why(error))
                return None
            failed = sorted(changes.failed.values(), key=str)
            self._conclude(in_one(failed) if failed else None)
            return changes

    async def _pass(self, full: bool) -> Changes:
        now = utcnow()
        if not self._loaded:
            await self._load()
            full = True
        plan = Survey()
        await self._look_at_catalog(plan, full)
        await self._look_at_folders(plan, full, now)
        changes = await self._to_disk(plan, full)
        self._without_failed(plan, changes)
        changed, removed = self._difference(plan)
        sources = self._sources_of(plan, now)
        await self._to_store(plan, changed, removed, sources, now)
        self._conclude_sources(plan, sources, now)
        self._tell(changed, removed)
        return changes

    async def _load(self) -> None:
        """Take up what an earlier pass, perhaps of an earlier process, has left in the store."""

        def work(session: Session) -> Any:
            return rows.read_entries(session), rows.read_sources(session)

        entries, self.sources = await self.store.read(work)
        self.entries = {entry.key: entry for entry, _ in entries}
        self._seen = {}
        for entry, seen in entries:
            self._seen[entry.source] = max(seen, self._seen.get(entry.source, seen))
        self._loaded = True

    # -- looking ----------------------------------------------------------------------------

    async def _look_at_catalog(self, plan: Survey, full: bool) -> None:
        stamp = await self.store.read(rows.catalog_stamp)
        if stamp == self._catalog and not full:
            return
        entries: list[RegistryEntry] = []
        problems: list[Message] = []
        for row in await self.store.read(rows.read_catalog):
            entry, wrong = from_catalog(row)
            entries += [entry] if entry else []
            problems += wrong
        self._catalog = stamp
        plan.entries[IMAGE] = entries
        plan.problems[IMAGE] = problems

    async def _look_at_folders(self, plan: Survey, full: bool, now: datetime) -> None:
        looks = await self._lookout.looks(full)
        gone = {entry.source: entry.label for entry in self.entries.values()}
        looks += [
            # Neither in the site file nor on disk any more.
            Look(source, label, State.HEALTHY)
            for source, label in gone.items()
            if full and source != IMAGE and source not in self._lookout
        ]
        for look in looks:
            known = [entry for entry in self.entries.values() if entry.source == look.source]
            before = self.sources.get(look.source)
            plan.looks[look.source] = look
            if is_lost(look, known, before.device if before else look.device):
                plan.lost.add(look.source)
                last_seen = self._seen.get(look.source, now)
                plan.entries[look.source] = kept(known, look, last_seen, now)
            else:
                plan.entries[look.source], problems = from_disk(
                    look.found, self._memory.setdefault(look.source, {})
                )
                plan.problems[look.source] = problems

    # -- writing ----------------------------------------------------------------------------

    async def _to_disk(self, plan: Survey, full: bool) -> Changes:
        # What is lost keeps its kernelspecs, until nothing of it is kept.
        untouched = {source for source in plan.lost if plan.entries[source]}
        wanted = plan.shelves(untouched)
        if full:
            changes = await asyncio.to_thread(write_registry, self.root, wanted, untouched)
            self._written = {s: n for s, n in self._written.items() if s[0] in untouched}
        else:
            looked_at = plan.entries.keys() - untouched
            gone = [s for s in self._written if s not in wanted and s[0] in looked_at]
            different = {s: n for s, n in wanted.items() if self._written.get(s) != n}
            changes = Changes()
            if different or gone:
                changes = await asyncio.to_thread(
                    write_shelves,
                    self.root,
                    different | {shelf: {} for shelf in gone},
                    self._written,
                )
            for shelf in gone:
                del self._written[shelf]
        self._written |= wanted
        for shelf, _ in changes.failed:
            self._again(shelf)
        return changes

    def _again(self, shelf: Shelf) -> None:
        """Try a shelf again soon."""
        self._written.pop(shelf, None)
        if shelf[0] == IMAGE:
            self._catalog = None
        else:
            self._lookout.again(shelf[0])

    def _without_failed(self, plan: Survey, changes: Changes) -> None:
        """Lists tell what people's servers find on disk, and nothing else."""
        if not changes.failed:
            return
        for source, entries in plan.entries.items():
            for index, entry in enumerate(entries):
                if source in plan.lost or not entry.kernels:
                    continue
                whole = changes.failed.get((entry.shelf, ""))
                wrong = {
                    kernel.name: whole or changes.failed.get((entry.shelf, kernel.name))
                    for kernel in entry.kernels
                }
                written = tuple(kernel for kernel in entry.kernels if not wrong[kernel.name])
                if len(written) < len(entry.kernels):
                    reasons = {reason for reason in wrong.values() if reason}
                    entries[index] = replace(
                        entry,
                        kernels=written,
                        state=entry.state if written else State.UNWRITTEN,
                        reason=in_one(sorted(reasons, key=str)),
                    )

    def _difference(self, plan: Survey) -> tuple[list[RegistryEntry], list[Key]]:
        wanted = {entry.key: entry for entries in plan.entries.values() for entry in entries}
        changed = [
            entry
            for key, entry in wanted.items()
            if (before := self.entries.get(key)) is not entry and before != entry
        ]
        removed = [key for key in self.entries if key[0] in plan.entries and key not in wanted]
        return changed, removed

    def _sources_of(self, plan: Survey, now: datetime) -> dict[str, rows.KnownSource]:
        """The sources whose state changed with this pass."""
        changed = {}
        for name, look in plan.looks.items():
            before = self.sources.get(name)
            lost = name in plan.lost and bool(plan.entries[name])
            state, reason = look.state, look.reason
            if lost and state is State.HEALTHY:
                state, reason = State.UNAVAILABLE, plan.entries[name][0].reason
            # The device on which it last was, for as long as it is lost.
            device = before.device if before and lost else look.device
            if before is None or (before.device, before.state, before.reason) != (
                device, state, reason
            ):  # fmt: skip
                same = before is not None and before.state is state
                since = before.since if before and same else now
                changed[name] = rows.KnownSource(device, state, reason, since)
        return changed

    async def _to_store(
        self,
        plan: Survey,
        changed: list[RegistryEntry],
        removed: list[Key],
        sources: dict[str, rows.KnownSource],
        now: datetime,
    ) -> None:
        forgetting = time.monotonic() >= self._forget_due
        touching = self._touched is None or abs(now - self._touched) >= _SEEN
        seen = [*self.sources, *sources, IMAGE]

        def work(session: Session) -> None:
            rows.write_entries(session, changed, removed, now)
            rows.write_sources(session, sources)
            if touching:
                rows.touch(session, [name for name in seen if name not in plan.lost], now)
            if forgetting:
                usage.forget(session, now)

        # Most passes change nothing, and then take no write lock.
        if changed or removed or sources or touching or forgetting:
            await self.store.run(work)
        if touching:
            self._touched = now
        if forgetting:
            self._forget_due = time.monotonic() + _DAY

    # -- concluding -------------------------------------------------------------------------

    def _conclude_sources(
        self, plan: Survey, sources: dict[str, rows.KnownSource], now: datetime
    ) -> None:
        for name, source in sources.items():
            known = self.sources.get(name)
            if known and (known.state, known.reason) == (source.state, source.reason):
                continue
            if source.reason:
                _log.warning("%s: %s", name, source.reason)
            self.events.publish(
                "source",
                {"source": name, "state": source.state.value, **reasons(source.reason)},
                name,
            )
        self.sources = self.sources | sources
        for name in plan.looks:
            if name not in plan.lost:
                self._seen[name] = now
        for name, problems in plan.problems.items():
            for problem in problems:
                if problem not in self._problems.get(name, ()):
                    _log.warning("%s", problem)
            self._problems[name] = problems

    def _tell(self, changed: list[RegistryEntry], removed: list[Key]) -> None:
        for key in removed:
            entry = self.entries.pop(key)
            if len(changed) + len(removed) <= TOLD:
                self.events.publish("removed", told(entry), *entry.audience)
        for entry in changed:
            kind = "changed" if entry.key in self.entries else "added"
            if len(changed) + len(removed) <= TOLD:
                self.events.publish(kind, told(entry), *entry.audience)
            self.entries[entry.key] = entry
        if len(changed) + len(removed) > TOLD:
            self.events.reset()

    def _conclude(self, error: Message | None) -> None:
        if error and error != self.error:
            _log.error("the registry is not up to date: %s", error)
        elif self.error and not error:
            _log.info("the registry is up to date: %d environments", len(self.entries))
        self.error = error
        self.last_pass = datetime.now(UTC)

    # -- for ever -----------------------------------------------------------------------------

    async def keep_in_step(self, interval: float = INTERVAL) -> None:
        """Passes for ever: at once where a folder changes, else ``interval`` seconds apart."""
        if trouble := await self._lookout.start():
            _log.warning("%s; what changes there is found a little later", trouble)
        self._passes.every = interval
        try:
            await self._passes.run()
        finally:
            self.close()

    async def keep_alive(self) -> None:
        """Fill the silence of open streams."""
        self.events.keep_alive()

    async def _round(self) -> float:
        # Let what belongs together happen together.
        await asyncio.sleep(TOGETHER)
        await self._step()
        return max(0.0, min(self._passes.every, self._lookout.pause()))

    async def _step(self) -> None:
        full = time.monotonic() >= self._full_due
        try:
            await self._run(full)
        except Exception:
            # A defect must not end the passes silently; health tells of it.
            _log.exception("a pass failed")
            self._conclude(say("pass_failed"))
            self._loaded = False
        if full:
            self._full_due = time.monotonic() + FULL

    def close(self) -> None:
        """End all streams, watches and threads."""
        self._lookout.close()
        self.events.close()

    def health(self) -> dict[str, Any]:
        """What ``health`` answers; no names."""
        states = [source.state for source in self.sources.values()]
        return {
            "status": "error" if self.error else "ok",
            "registered": sum(len(entry.kernels) for entry in self.entries.values()),
            "environments": len(self.entries),
            "sources": len(states),
            "sources_out_of_sight": sum(state is not State.HEALTHY for state in states),
            "problems": len(self.problems),
            "listeners": len(self.events.listeners),
            "last_pass": self.last_pass.isoformat(timespec="seconds") if self.last_pass else None,
            **({"error": str(self.error)} if self.error else {}),
        }


def reasons(reason: Message | None, language: str = ENGLISH) -> dict[str, Any]:
    """Why something is not well: a sentence, and the data of which it is made."""
    if reason is None:
        return {"reason": "", "reasons": []}
    return {"reason": reason.in_words(language), "reasons": [reason.as_json(language)]}


def told(entry: RegistryEntry, language: str = ENGLISH) -> dict[str, Any]:
    """An environment as lists and events show it."""
    return {
        "source": entry.source,
        "environment": entry.environment,
        "version": entry.version,
        "label": entry.label,
        "prefix": entry.prefix,
        "python": entry.python,
        "state": entry.state.value,
        **reasons(entry.reason, language),
        "kernels": [
            {"name": kernel.name, "display_name": kernel.display_name, "language": kernel.language}
            for kernel in entry.kernels
        ],
    }
