"""How much of the disk homes, teams and courses may fill."""

from __future__ import annotations

from datetime import time
from typing import Literal, get_args

from pydantic import Field

from commons.site.parts import Memory, Section, parse_bytes

Area = Literal["homes", "teams", "courses"]
AREAS: tuple[Area, ...] = get_args(Area)


class Storage(Section):
    """Limits of each folder, as ``20G``; nothing: no limit. ``warn``: the share that is told.

    ``prune``: when what nobody needs is removed each day, by the clock of ``servers.timezone``.
    """

    homes: Memory | None = None
    teams: Memory | None = None
    courses: Memory | None = None
    warn: float = Field(0.8, gt=0, lt=1, description="share of a limit from which it is told")
    prune: str = Field("03:30", pattern=r"^(([01]\d|2[0-3]):[0-5]\d|never)$")
    measure: bool = Field(True, description="look, in the background, what fills the disk")

    def limit(self, area: str) -> int | None:
        """Bytes that one folder of an area may have; None: any number."""
        text = getattr(self, area)
        return None if text is None else parse_bytes(text)

    def prune_time(self) -> time | None:
        """When it is pruned each day; None: never."""
        return None if self.prune == "never" else time.fromisoformat(self.prune)
