"""``/services/labcommons/metrics``: GPUs and the site's health in numbers, for Prometheus."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy.orm import Session

from commons.rights import Action
from commons.store.models import utcnow
from commons.web.operations import Route, operation
from hub_ext.console import mirror_pages
from hub_ext.console.handlers import Api
from hub_ext.doctor import kept
from spawner.gpu.watch import metrics

FRESH = 5.0  # seconds for which an answer is given again, whoever asks


class Metrics(Api):
    """``GET metrics``, for administrators and whoever's token has the scope ``read:metrics``."""

    @operation(
        "GPUs in numbers, for Prometheus (administrators, and tokens with read:metrics)",
        media="text/plain",
    )
    async def get(self) -> None:
        """The numbers, in Prometheus's text format."""
        self.need(Action.READ_METRICS)
        at, text = self.settings.get("labcommons_metrics", (0.0, b""))
        if time.monotonic() - at > FRESH:
            health = self.settings["health"]
            text = await self.read(lambda session: _text(session, health))
            self.settings["labcommons_metrics"] = (time.monotonic(), text)
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(text)


def _text(session: Session, health: Path) -> bytes:
    now = utcnow()
    more = [*kept.metrics(session, now), *mirror_pages.metrics(health)]
    return metrics.text(session, now, more)


ROUTES = (Route("/metrics", Metrics),)
