"""The page of what fills the disk: everybody sees their own home, administrators all."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from commons.i18n import choose_timezone
from commons.rights import Action, can
from commons.scopes import SITE
from commons.site.storage import AREAS
from commons.store import DiskUse, prunes
from commons.store.models import utcnow
from hub_ext.console.handlers import Page
from hub_ext.disk_prune import moment
from spawner.options import show_bytes
from spawner.storage import Limits, share

SHOWN = 200  # folders


class Disk(Page):
    """``GET disk``."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """Called by tornado with what ``make_app`` gives."""
        super().initialize(**shared)
        self.data = data

    async def get(self) -> None:
        """The figures of the last look, the largest first."""
        everything = bool(can(self.viewer, Action.ADMINISTER, SITE))
        mine = self.viewer.name

        limits = self.site.storage

        def work(session: Session) -> dict[str, Any]:
            query = select(DiskUse).order_by(DiskUse.bytes.desc())
            sums = select(DiskUse.area, func.sum(DiskUse.bytes), func.count()).group_by(
                DiskUse.area
            )
            if not everything:
                mine_alone = (DiskUse.area == "homes", DiskUse.name == mine)
                query, sums = query.where(*mine_alone), sums.where(*mine_alone)
            rows, each = session.scalars(query.limit(SHOWN)), Limits(session, limits)
            return {
                "shown": [
                    {
                        "row": row,
                        "at": f"{row.at.isoformat()}+00:00",
                        "limit": each.of(row.area, row.name),
                        "share": share(row.bytes, each.of(row.area, row.name)),
                    }
                    for row in rows
                ],
                "areas": dict.fromkeys(AREAS, (0, 0))
                | {area: (int(size), count) for area, size, count in session.execute(sums)},
                "pruned": prunes.last(session),
            }

        found = await self.read(work)
        shown, areas, pruned = found["shown"], found["areas"], found["pruned"]
        self.render_page(
            "disk.html",
            earlier=bool(self.site.backup.target),
            shown=shown,
            left_out=sum(count for _, count in areas.values()) - len(shown),
            areas=areas,
            everything=everything,
            disk=self._disk() if everything else None,
            bytes_words=show_bytes,
            warn=limits.warn,
            measured=limits.measure,
            prune_at=self._next_prune(),
            pruned=pruned
            and {
                "at": f"{pruned.at.isoformat()}+00:00",
                "problem": pruned.problem,
                "freed": prunes.freed(pruned),
                "removed": [one for one in pruned.removed if one["count"]],
            },
        )

    def _next_prune(self) -> str | None:
        at, zone = self.site.storage.prune_time(), choose_timezone(self.site.servers.timezone)
        return f"{moment(at, zone, utcnow() + timedelta(days=1)).isoformat()}+00:00" if at else None

    def _disk(self) -> Any:
        with suppress(OSError):  # its folder is not there
            return shutil.disk_usage(self.data / "store")
        return None
