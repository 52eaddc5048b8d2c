"""Once a day, at the site's hour, all versions are compared with the advisories there are then."""

from __future__ import annotations

import logging

from commons import holes
from commons.i18n import choose_timezone
from commons.site import Site
from commons.store import Store
from commons.store.models import utcnow
from hub_ext.disk_prune import moment
from hub_ext.in_builder import NoEnd, in_builder
from spawner.runtime.protocol import Runtime


class NightlyScan:
    """Of one site."""

    def __init__(self, store: Store, runtime: Runtime, site: Site, log: logging.Logger) -> None:
        self.store, self.runtime, self.site, self.log = store, runtime, site, log
        self._began = utcnow()

    async def once(self) -> None:
        """Look, where the hour has come since the last time. Raises LabError, StoreError."""
        at = self.site.environments.scan.rescan_time()
        if at is None:
            return
        due = moment(at, choose_timezone(self.site.servers.timezone), utcnow())
        last = await self.store.read(holes.last)
        if (last.at if last else self._began) >= due:
            return
        job = {
            "work": "rescan",
            "umask": "022",
            "settings": self.site.environments.model_dump(mode="json", exclude={"credentials"}),
            "cache": "/srv/labcommons/data/cache",
        }
        try:
            found = await in_builder(self.runtime, f"rescan-{due:%Y%m%dT%H%M}", job)
        except NoEnd as error:
            problem = str(error)
            self.log.error("known holes: %s", problem)
            await self.store.run(lambda session: holes.note(session, problem=problem))
            return
        self.log.info("known holes: %s", found)
