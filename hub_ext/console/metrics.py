"""``/services/labcommons/metrics``: GPUs in numbers, for Prometheus."""

from __future__ import annotations

import time

from hub_ext.console.handlers import Api, Refused
from hub_ext.i18n import N_
from hub_ext.store.models import utcnow
from spawner.gpu import metrics

SCOPE = "read:metrics"
FRESH = 5.0  # seconds for which an answer is given again, whoever asks


class Metrics(Api):
    """``GET metrics``, for administrators and whoever's token has the scope ``read:metrics``."""

    async def get(self) -> None:
        """The numbers, in Prometheus's text format."""
        if not self.viewer.admin and SCOPE not in (self._hub_auth_user_cache or {})["scopes"]:
            sentence = self._(N_("This needs a token with the scope “{scope}”."))
            raise Refused(403, "scope_missing", sentence.format(scope=SCOPE))
        at, text = self.settings.get("labcommons_metrics", (0.0, b""))
        if time.monotonic() - at > FRESH:
            text = await self.read(lambda session: metrics.text(session, utcnow()))
            self.settings["labcommons_metrics"] = (time.monotonic(), text)
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(text)
