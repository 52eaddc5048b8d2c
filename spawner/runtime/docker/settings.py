"""What an agent is told about its machine: the site file, folders, networks and images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from commons.scopes import SERVICE_ID
from commons.site import DEFAULT_SITE_FILE, Site, load_site, site_digest

OWNER = SERVICE_ID


@dataclass(frozen=True)
class AgentSettings:
    """Read by the agent itself, never sent to it.

    Attributes:
        site_id: the value of the label ``labcommons.site``.
        data: the data folder as this process sees it; ``host_data``: as the Engine does.
        network: of people's servers; ``control``: of our services, for builders of images;
            ``builders``: of all other builders.
        server_image: environments are put on top of this one.
        builder_image: what builds environments; ``maker_image``: what makes folders;
            ``agent_image``: what sets limits of folders. Ours, all three.
        machine_gids: numbers that mean something on this machine, as the socket's group.
        image_env: variables of builders of images: where database and agent are.
        site_digest: of the site file that was read.
        closed: addresses in ``network`` whose servers reach the gate alone; "": none do.
    """

    site: Site
    site_id: str
    data: Path
    host_data: Path
    network: str
    control: str = ""
    server_image: str = "labcommons/server:latest"
    builder_image: str = "labcommons/builder:latest"
    maker_image: str = "labcommons/base:latest"
    machine_gids: frozenset[int] = frozenset()
    image_env: Mapping[str, str] = field(default_factory=dict)
    site_digest: str = ""
    node: str = "local"
    builders: str = "bridge"
    agent_image: str = "labcommons/agent:latest"
    closed: str = ""

    @classmethod
    def from_environment(cls) -> AgentSettings:
        """As the variables LABCOMMONS_* say (docs/runtime.md)."""
        env = os.environ
        path = Path(env.get("LABCOMMONS_SITE_FILE", DEFAULT_SITE_FILE))
        site = load_site(path)
        site_id = env.get("LABCOMMONS_SITE_ID", "labcommons")
        data = Path(env.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
        passed = ("LABCOMMONS_DATABASE_URL", "LABCOMMONS_AGENT_URL")
        return cls(
            site,
            site_id,
            data,
            Path(env.get("LABCOMMONS_HOST_DATA", data)),
            env.get("LABCOMMONS_USERS_NETWORK") or site.servers.network,
            env.get("LABCOMMONS_CONTROL_NETWORK") or f"{site_id}_control",
            env.get("LABCOMMONS_SERVER_IMAGE", cls.server_image),
            env.get("LABCOMMONS_BUILDER_IMAGE", cls.builder_image),
            env.get("LABCOMMONS_MAKER_IMAGE", cls.maker_image),
            frozenset(map(int, env.get("LABCOMMONS_DOCKER_GID", "").split())),
            {name: env[name] for name in passed if env.get(name)},
            site_digest(path),
            builders=env.get("LABCOMMONS_BUILDERS_NETWORK") or cls.builders,
            agent_image=env.get("LABCOMMONS_AGENT_IMAGE", cls.agent_image),
            closed=env.get("LABCOMMONS_CLOSED_ADDRESSES", ""),
        )
