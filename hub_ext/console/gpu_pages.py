"""The page: GPUs, who holds them, who waits and why; below, the environments."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy.orm import Session

from hub_ext.console import gpu_views
from hub_ext.console.handlers import Page
from spawner.gpu import views

SHOWN = 50  # leases and requests; how many more there are is said


class Overview(Page):
    """``GET``; the page asks for itself again, to stay true."""

    async def get(self) -> None:
        """Render what the viewer may see."""
        viewer, say, now = self.viewer, self.say, time.time()

        def work(session: Session) -> dict[str, Any]:
            known = views.known(session)
            page = gpu_views.Part(SHOWN, known)
            return {
                "gpus": gpu_views.gpus(session),
                "devices": gpu_views.devices(session, viewer)["devices"],
                "holders": gpu_views.holders(session) if gpu_views.sees_everyone(viewer) else {},
                "held": gpu_views.leases(session, viewer, say, page),
                "queue": gpu_views.queue(session, viewer, say, page),
                "me": gpu_views.me(session, viewer, say, now, known),
            }

        self.render_page("console.html", **await self.read(work))
