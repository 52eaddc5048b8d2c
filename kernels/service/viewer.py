"""Who looks at the registry, and what of it they may see."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kernels.service.entries import Entry
from kernels.service.registry import IMAGE

# Sources that everybody sees.
_COMMON = (IMAGE, "shared")


@dataclass(frozen=True)
class Reader:
    """One person: administrators see everything, others what their groups give them."""

    name: str
    admin: bool
    groups: frozenset[str] = frozenset()

    def may_see(self, source: str) -> bool:
        """Whether the environments of a source are this person's business."""
        return self.admin or source in _COMMON or source in sources_of(self.groups)

    def visible(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those of some environments that this person may see."""
        sources = {*_COMMON, *sources_of(self.groups)}
        return [entry for entry in entries if self.admin or not sources.isdisjoint(entry.audience)]


def sources_of(groups: Collection[str]) -> set[str]:
    """The sources of the hub's groups.

    ``team:vision``, ``team:vision:leads`` -> ``team-vision``; ``course:ml101:students`` ->
    ``course-ml101``.
    """
    sources = set()
    for group in groups:
        kind, _, rest = group.partition(":")
        name = rest.partition(":")[0]
        if kind in ("team", "course") and name:
            sources.add(f"{kind}-{name}")
    return sources
