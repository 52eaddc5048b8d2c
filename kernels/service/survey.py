"""What one pass of the registry found, and what its folder should have: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from kernels.messages import Message
from kernels.service.entries import Look, RegistryEntry
from kernels.service.registry import IMAGE, Shelf


@dataclass
class Survey:
    """The entries of each source that a pass looked at; ``lost`` are out of sight."""

    entries: dict[str, list[RegistryEntry]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    looks: dict[str, Look] = field(default_factory=dict)
    problems: dict[str, list[Message]] = field(default_factory=dict)

    def shelves(self, untouched: set[str]) -> dict[Shelf, dict[str, bytes]]:
        """What each shelf should have, but for those of sources that stay as they are.

        Those of the scopes are there even when empty, as servers mount them when they start.
        """
        wanted: dict[Shelf, dict[str, bytes]] = {
            (source,): {} for source in self.entries if source not in {IMAGE, *untouched}
        }
        for source, entries in self.entries.items():
            for entry in entries:
                if entry.kernels and source not in untouched:
                    wanted.setdefault(entry.shelf, {}).update(
                        {kernel.name: kernel.content for kernel in entry.kernels}
                    )
        return wanted
