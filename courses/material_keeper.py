"""Fetches materials of courses in the hub's process: when somebody asks, and now and then.

What is due stands in the store, so that a hub that was away goes on from there. The runtime does
the work, whole or not at all; two who are at it get the same end.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from commons.errors import LabError
from commons.scopes import groups_of_site
from commons.site import Site
from commons.store import Store, StoreError
from commons.store.models import utcnow
from commons.work import Keyed, Log, Periodic
from courses import materials
from courses.document import Materials
from spawner.runtime.protocol import Runtime
from spawner.runtime.spec import FetchMaterials, MakeFolder

INTERVAL = 3.0  # seconds between two looks at what is due
AT_ONCE = 2


class MaterialKeeper:
    """Of one site.

    Args:
        env: proxies of this machine, for what is fetched.
    """

    def __init__(
        self, runtime: Runtime, store: Store, site: Site, env: Mapping[str, str], log: Log
    ) -> None:
        self.runtime, self.store, self.env, self.log = runtime, store, dict(env), log
        self._courses = {one.owner for one in groups_of_site(site) if one.kind == "course"}
        self._works = Keyed("materials", log, at_once=AT_ONCE, expected=(LabError, StoreError))

    async def run(self) -> None:
        """For ever."""
        expected = (LabError, StoreError)
        await Periodic(
            "materials of courses", self.look, INTERVAL, self.log, expected=expected
        ).run()

    async def look(self) -> None:
        """Begin what is due."""
        for name, wanted in await self.store.read(lambda s: materials.due(s, utcnow())):
            if name in self._courses:
                self._works.start(name, partial(self.fetch, name, wanted))

    async def fetch(self, name: str, wanted: Materials) -> None:
        """Fetch one course's, and write down what came of it. Raises StoreError."""
        began, scope = utcnow(), f"course-{name}"
        try:
            await self.runtime.run_task(MakeFolder(scope=scope))
            fetched = await self.runtime.fetch_materials(
                FetchMaterials(scope=scope, git=wanted.git, branch=wanted.branch, env=self.env)
            )
        except LabError as error:
            why = error.message
            await self.store.run(lambda s: materials.held_up(s, name, wanted, began, why))
            raise
        await self.store.run(lambda s: materials.ended(s, name, wanted, began, fetched))
