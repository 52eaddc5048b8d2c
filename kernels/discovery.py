"""Find conda environments on disk and the kernels in them, without ever calling conda.

An environment is a folder with ``conda-meta/history``, whichever of conda, mamba, micromamba,
pixi or rattler made it. It is looked at with the rights of the process, so permissions
filter by themselves, and nothing of it is run.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from kernels import files
from kernels.kernelspec import Place
from kernels.prefix import (
    Environment,
    FoundKernel,
    Known,
    Stamp,
    State,
    away,
    check_program,
    how_to_install,
    is_young,
    look,
    read_spec,
    stamp_of,
)
from kernels.sources import (
    MAX_ENVIRONMENTS,
    Root,
    Source,
    environment_name,
    fill,
    firsts,
    list_folder,
    listed_prefixes,
    matching,
    roots,
)

__all__ = [
    "MAX_ENVIRONMENTS",
    "Discovery",
    "Environment",
    "FoundKernel",
    "Source",
    "SourceDiscovery",
    "State",
    "check_program",
    "how_to_install",
    "merge",
    "read_spec",
]

# Seconds that what was known is shown, marked, after its storage went away.
KEEP_UNAVAILABLE = 15 * 60.0
# With up to this many environments each pass looks at everything; with more, at the files
# inside folders (which only an edit in place changes without their folder) by turns.
_ALL_AT_ONCE = 64
_TURNS = 8


@dataclass
class _Folder:
    stamp: Stamp
    device: int
    names: list[str]


@dataclass
class _Root:
    """A root that has had environments; ``lost_since`` is when its storage went away."""

    root: Root
    device: int
    lost_since: float | None = None


class SourceDiscovery:
    """Scans one source, and looks again only at what has changed since.

    ``known`` may be filled beforehand with what an earlier process saw; ``first`` is whether no
    source before has the same id. Not thread-safe.
    """

    def __init__(
        self,
        source: Source,
        keep: float = KEEP_UNAVAILABLE,
        clock: Callable[[], float] = time.monotonic,
        first: bool = True,
    ) -> None:
        self.source = source
        self._first = first
        self.known: dict[str, Known] = {}
        self._folders: dict[str, _Folder] = {}
        self._roots: dict[str, _Root] = {}
        self._keep, self._clock, self._turn = keep, clock, 0

    def scan(self) -> list[Environment]:
        """All environments of the source, by path. Never raises for what is on disk."""
        self._turn = (self._turn + 1) % _TURNS
        everything = len(self.known) <= _ALL_AT_ONCE
        known: dict[str, Known] = {}
        for index, (prefix, folder, captures) in enumerate(self._candidates()):
            before = self.known.get(prefix)
            in_turn = everything or index % _TURNS == self._turn
            if before is not None and before.settled and _unchanged(before, in_turn):
                known[prefix] = before
            elif (seen := look(self._place(prefix, captures), folder)) is not None:
                known[prefix] = _survive(before, seen)
        lost = {folder for folder, root in self._roots.items() if root.lost_since is not None}
        for prefix, before in self.known.items():
            if prefix not in known and before.folder in lost:
                known[prefix] = _unavailable(before)
        self.known = known
        return [entry.environment for entry in known.values()]

    def _candidates(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Prefixes, the root of each, and what the pattern's wildcards matched."""
        if self.source.pattern.startswith("@"):
            try:
                yield from ((prefix, "", ()) for prefix in listed_prefixes(self.source))
            except OSError:
                return
            return
        found = roots(self.source, self._names)
        for root in [*found, *self._vanished(found)]:
            for name in self._environments(root):
                yield f"{root.folder.rstrip('/')}/{name}", root.folder, (*root.captures, name)

    def _place(self, prefix: str, captures: tuple[str, ...]) -> Place:
        source, label = (fill(text, captures) for text in (self.source.id, self.source.label))
        name = environment_name(prefix)
        # Each wildcard above the folder itself has to be in the id, or two could be the same.
        told = all(f"{{{n}}}" in self.source.id for n in range(1, len(captures)))
        alone = self._first and told and bool(captures) and name == os.path.basename(prefix)
        return Place(source, label, prefix, name, alone=alone)

    def _names(self, folder: str) -> list[str]:
        """The names in a folder, read again only when it has changed. Raises OSError."""
        seen = files.status(folder)
        stamp = (seen.st_mtime_ns, seen.st_ino, seen.st_dev)
        before = self._folders.get(folder)
        if before is not None and before.stamp == stamp and not is_young(seen.st_mtime):
            return before.names
        names = list_folder(folder)
        self._folders[folder] = _Folder(stamp, seen.st_dev, names)
        return names

    def _environments(self, root: Root) -> list[str]:
        """The names in a root; none, and a note, while its storage is away."""
        before = self._roots.get(root.folder)
        try:
            names = matching(self._names(root.folder), root.leaf)
        except OSError as error:
            self._folders.pop(root.folder, None)
            if before is not None and _is_lost(root.folder, before.device, error):
                self._note_loss(root.folder, before)
            else:
                self._roots.pop(root.folder, None)
            return []
        now = self._folders[root.folder]
        if before is not None and not names and now.device != before.device:
            self._note_loss(root.folder, before)  # the bare mount point
        elif names:
            self._roots[root.folder] = _Root(root, now.device)
        else:
            self._roots.pop(root.folder, None)
        return names

    def _note_loss(self, folder: str, root: _Root) -> None:
        if root.lost_since is None:
            root.lost_since = self._clock()
        elif self._clock() - root.lost_since > self._keep:
            del self._roots[folder]

    def _vanished(self, found: Sequence[Root]) -> list[Root]:
        there = {root.folder for root in found}
        return [known.root for folder, known in self._roots.items() if folder not in there]


def _unchanged(known: Known, files: bool) -> bool:
    for path, before in known.folders:
        if stamp_of(path) != before:
            return False
    return not files or all(stamp_of(path) == before for path, before in known.files)


def _survive(before: Known | None, seen: Known) -> Known:
    """Keep an environment's kernels on show while the storage behind its link is away."""
    if before is None or seen.environment.state is not State.UNAVAILABLE:
        return seen
    kept = replace(before.environment, state=State.UNAVAILABLE, reason=seen.environment.reason)
    return replace(seen, environment=kept)


def _unavailable(known: Known) -> Known:
    if known.environment.state is State.UNAVAILABLE:
        return known
    reason = away(known.folder)
    environment = replace(known.environment, state=State.UNAVAILABLE, reason=reason)
    return replace(known, environment=environment, settled=False)


def _is_lost(folder: str, device: int, error: OSError) -> bool:
    """Whether a folder's storage went away, rather than somebody having removed it."""
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return True
    while folder not in ("", "/"):
        folder = os.path.dirname(folder)
        try:
            return os.stat(folder).st_dev != device
        except OSError:
            continue
    return False


class Discovery:
    """Scans sources in order, and looks again only at what has changed since."""

    def __init__(self) -> None:
        self._sources: dict[Source, SourceDiscovery] = {}

    def scan(self, sources: Sequence[Source]) -> list[Environment]:
        """All environments of the sources, in their order, each source's by path.

        A source that is not there has none. Never raises for what is on disk.
        """
        first = firsts(sources)
        self._sources = {
            source: self._sources.get(source) or SourceDiscovery(source, first=source in first)
            for source in sources
        }
        return merge(each.scan() for each in self._sources.values())


def merge(lists: Iterable[Sequence[Environment]]) -> list[Environment]:
    """The environments of several sources as one list; of two with one folder, the first has it.

    It keeps the place of the other, whose names mean it as long as they are nobody else's. Within a
    source each has its own: somebody made a link to give an environment a second name.
    """
    merged: dict[str, Environment] = {}
    prefixes: dict[tuple[int, int], str] = {}
    for environments in lists:
        new: list[Environment] = []
        for each in environments:
            if each.place.prefix in merged:
                continue
            if each.identity is not None and (first := prefixes.get(each.identity)):
                kept = merged[first]
                merged[first] = replace(kept, also=(*kept.also, each.place))
            else:
                new.append(each)
        for each in new:
            merged[each.place.prefix] = each
            if each.identity is not None:
                prefixes.setdefault(each.identity, each.place.prefix)
    return list(merged.values())
