"""``/services/labcommons/metrics``: GPUs and the site's health in numbers, for Prometheus."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from commons.rights import Action
from commons.store.models import utcnow
from commons.web.operations import Route, operation
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
            text = await self.read(_text)
            self.settings["labcommons_metrics"] = (time.monotonic(), text)
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(text)


def _text(session: Session) -> bytes:
    now = utcnow()
    return metrics.text(session, now, kept.metrics(session, now))


ROUTES = (Route("/metrics", Metrics),)
