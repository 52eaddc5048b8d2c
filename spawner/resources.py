"""What all spawners of one hub share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hub_ext.site import Site, load_site
from hub_ext.store import Store
from spawner.engine import Engine

BUILDER_IMAGE = "labcommons/builder:latest"


@dataclass
class Resources:
    """Site, store, Engine and places.

    Attributes:
        site_id: the value of the label ``labcommons.site``.
        data: the data folder as this process sees it.
        host_data: the same folder on the Engine's machine.
        builder_image: what builds environments, and makes folders.
    """

    site: Site
    store: Store
    engine: Engine
    site_id: str
    data: Path
    host_data: Path
    builder_image: str = BUILDER_IMAGE

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
            os.environ.get("LABCOMMONS_BUILDER_IMAGE", BUILDER_IMAGE),
        )
