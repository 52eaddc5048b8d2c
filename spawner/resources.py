"""What all spawners of one hub share."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

from hub_ext.site import Site, load_site
from hub_ext.store import Store
from spawner.engine import Engine
from spawner.gpu.admission import Admission


@dataclass
class Resources:
    """Site, store, Engine and places.

    Attributes:
        site_id: the value of the label ``labcommons.site``.
        data: the data folder as this process sees it.
        host_data: the same folder on the Engine's machine.
        admission: requests for GPUs, and all moves of leases.
        turns: taken by a server from before its container is made until it answers, so that a
            class that starts at once does not run into the start time-out.
    """

    site: Site
    store: Store
    engine: Engine
    site_id: str
    data: Path
    host_data: Path
    admission: Admission = field(init=False)
    turns: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(self.store)
        self.turns = asyncio.Semaphore(self.site.servers.concurrent_starts)

    @classmethod
    def from_environment(cls) -> Resources:
        """As the variables LABCOMMONS_* say (docs/architecture.md, Places)."""
        site = load_site()
        data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
        return cls(
            site,
            Store(),
            Engine(site.servers.engine_timeout, site.servers.engine_threads),
            os.environ.get("LABCOMMONS_SITE_ID", "labcommons"),
            data,
            Path(os.environ.get("LABCOMMONS_HOST_DATA", data)),
        )
