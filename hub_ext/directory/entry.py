"""One entry of the directory, and who can be asked for entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """One entry as the server sent it; attribute names are in lower case, values are bytes."""

    dn: str
    attributes: dict[str, list[bytes]]

    def values(self, attribute: str) -> list[bytes]:
        return self.attributes.get(attribute.lower(), [])


class Searcher(Protocol):
    """What the reading of accounts and groups needs of a connection."""

    def search(
        self,
        base_dn: str,
        search_filter: str,
        attributes: Sequence[str],
        *,
        limit: int,
        base_only: bool = False,
    ) -> list[Entry]: ...
