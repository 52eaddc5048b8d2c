"""The machine's part in backups: where they go, and what a restore has left for PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path

from deploy import images, settings
from deploy.builder import IN_CONTAINER, SQLITE, databases
from deploy.engine import Engine
from deploy.settings import Settings
from deploy.shell import Failure
from deploy.steps import Step

LIMIT = 24 * 3600.0  # seconds
DUMPS = "backup/restored"  # of PostgreSQL, for the next `make up`
_URLS = ("LABCOMMONS_DATABASE_URL", "LABCOMMONS_HUB_DATABASE_URL")


def record(target: str) -> None:
    """For docker-compose.yml: whether backups are made, and the folder they go to."""
    found = {
        "LABCOMMONS_BACKUPS": "1" if target else "0",
        "LABCOMMONS_BACKUP_TARGET": target if target.startswith("/") else "",
    }
    if target.startswith("/") and not Path(target).is_dir():
        raise Failure(
            f"backup.target: the folder {target} is not there",
            "mount the disk, or make the folder; a backup on the site's own disk is lost with it",
        )
    settings.record(found)
    os.environ.update(found)


def waits(site: Settings) -> bool:
    """Whether a restore has left databases for PostgreSQL."""
    folder = site.data / DUMPS
    try:
        return any(name.endswith(".dump") for name in os.listdir(folder))
    except FileNotFoundError:
        return False
    except PermissionError:
        return "postgres" in site.profiles  # of the service's own: the step sees for itself


def load(docker: Engine, site: Settings, step: Step) -> None:
    """Put them into their empty databases. Raises Failure where the site has none on a server."""
    if set(databases(*_URLS).values()) == {SQLITE}:
        raise Failure(
            "the backup has databases of PostgreSQL, and .env names no server for them",
            "take COMPOSE_PROFILES=postgres, or LABCOMMONS_DATABASE_URL and "
            "LABCOMMONS_HUB_DATABASE_URL, from .env.restored into .env, then make up",
        )
    # Where the site's own server is; another is reached from anywhere.
    network = f"{site.project}_control" if "postgres" in site.profiles else "bridge"
    step.run(
        [
            *container(site, f"--network={network}"),
            f"--volume={site.data / 'secrets' / 'pgpass'}:/run/labcommons/pgpass:ro",
            "--env=PGPASSFILE=/run/labcommons/pgpass",
            *(f"--env={name}" for name in _URLS),
            *("labcommons/backup", "labcommons", "backup", "load"),
        ],
        timeout=LIMIT,
        env={**docker.env, **databases(*_URLS)},
    )


def container(site: Settings, network: str) -> list[str]:
    """A container of a moment, as root there: files get their owners back."""
    return [
        *("docker", "run", "--rm", "--init", "--user=0:0", "--cap-drop=ALL"),
        *(f"--cap-add={one}" for one in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")),
        *("--security-opt=no-new-privileges:true", network),
        f"--volume={site.data}:{IN_CONTAINER}",
        f"--env=LABCOMMONS_DATA={IN_CONTAINER}",
        f"--env=LABCOMMONS_SITE_ID={site.project}",
        *(f"--env={name}" for name in images.PROXIES if name in os.environ),
    ]
