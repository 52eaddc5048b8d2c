"""The page: GPUs, who holds them, who waits and why; below, the environments."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy.orm import Session

from hub_ext.console import gpu_views
from hub_ext.console.handlers import Page


class Overview(Page):
    """``GET``; the page asks for itself again, to stay true."""

    async def get(self) -> None:
        """Render what the viewer may see."""
        viewer, say, now = self.viewer, self.say, time.time()

        def work(session: Session) -> dict[str, Any]:
            return {
                "gpus": gpu_views.gpus(session),
                "devices": gpu_views.devices(session, viewer)["devices"],
                "held": gpu_views.leases(session, viewer, say),
                "queue": gpu_views.queue(session, viewer, say),
                "me": gpu_views.me(session, viewer, say, now),
            }

        self.render_page("console.html", **await self.read(work))
