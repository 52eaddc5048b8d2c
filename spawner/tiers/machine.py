"""What a builder of images needs to know of this machine: Docker's socket, and our database."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Docker's socket, its group, and the way to the database.

    Attributes:
        socket: on the Engine's machine.
        network: where the database server is; the default one for SQLite.
    """

    socket: str
    group: int
    network: str
    variables: Mapping[str, str]

    @classmethod
    def from_environment(cls, site_id: str) -> Machine:
        """As docker-compose.yml gives it to the hub."""
        url = os.environ.get("LABCOMMONS_DATABASE_URL", "")
        return cls(
            os.environ.get("LABCOMMONS_HOST_SOCKET", "/var/run/docker.sock"),
            int(os.environ.get("LABCOMMONS_DOCKER_GID") or 0),
            f"{site_id}_control" if url.startswith("postgresql") else "bridge",
            {
                "LABCOMMONS_SITE_ID": site_id,
                "LABCOMMONS_HOST_DATA": os.environ.get("LABCOMMONS_HOST_DATA", ""),
                "PGPASSFILE": "/run/labcommons/pgpass",
                **({"LABCOMMONS_DATABASE_URL": url} if url else {}),
            },
        )
