"""The words that run a command in the builder's image, or in the running hub."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy import engine, images, settings
from deploy.engine import Engine
from deploy.settings import ROOT, Settings
from deploy.shell import Failure, output

IN_CONTAINER = "/srv/labcommons/data"
SQLITE = f"sqlite:///{IN_CONTAINER}/store/labcommons.sqlite"
# Folders that a builder writes to, and those that it only reads.
_WRITTEN = ("store", "channel", "locks", "cache", "versions", "logs")
_READ = ("advisories",)


def builder(
    docker: Engine, site: Settings, words: Sequence[str], options: Sequence[str] = ()
) -> list[str]:
    """``labcommons WORDS`` where py-rattler, Docker's socket and the site's folders are.

    Nothing of a package runs there (docs/environments.md): it starts containers for that.
    """
    postgres = "postgres" in site.profiles
    recorded = settings.parse_env(settings.read(ROOT / ".env"))
    url = os.environ.get("LABCOMMONS_DATABASE_URL") or recorded.get("LABCOMMONS_DATABASE_URL")
    return [
        *("docker", "run", "--rm", "--init", "--cap-drop=ALL"),
        "--security-opt=no-new-privileges:true",
        f"--network={site.project}_control" if postgres else "--network=bridge",
        f"--group-add={docker.group}",
        f"--volume={docker.socket}:/var/run/docker.sock",
        f"--volume={ROOT / 'config'}:/etc/labcommons:ro",
        *(f"--volume={site.data / name}:{IN_CONTAINER}/{name}" for name in _WRITTEN),
        *(f"--volume={site.data / name}:{IN_CONTAINER}/{name}:ro" for name in _READ),
        f"--volume={site.data / 'secrets' / 'pgpass'}:/run/labcommons/pgpass:ro",
        f"--volume={site.data / 'logins'}:/run/labcommons/logins:ro",
        "--env=PGPASSFILE=/run/labcommons/pgpass",
        f"--env=LABCOMMONS_SITE_FILE=/etc/labcommons/{site.site_file}",
        f"--env=LABCOMMONS_DATA={IN_CONTAINER}",
        f"--env=LABCOMMONS_HOST_DATA={site.data}",
        f"--env=LABCOMMONS_SITE_ID={site.project}",
        f"--env=LABCOMMONS_DATABASE_URL={url or SQLITE}",
        *(f"--env={name}" for name in images.PASSED_ON + images.PROXIES if name in os.environ),
        *options,
        *("labcommons/builder", "labcommons", *words),
    ]


def labcommons(words: Sequence[str]) -> None:
    """Become ``labcommons WORDS``: ``env`` in a builder, everything else in the hub's container.

    The folder that it is called in is there too, to read files from. Raises Failure.
    """
    docker = engine.find()
    site = settings.load()
    if output(["docker", "image", "inspect", "labcommons/builder"], env=docker.env) is None:
        raise Failure("the images of LabCommons are not there yet", "run make up first")
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    if words[:1] == ["env"]:
        options = ["--interactive", *terminal, f"--volume={Path.cwd()}:/work:ro", "--workdir=/work"]
        command = builder(docker, site, words, options)
    else:
        hub = output(
            [
                *("docker", "ps", "--quiet"),
                f"--filter=label=com.docker.compose.project={site.project}",
                "--filter=label=com.docker.compose.service=hub",
            ],
            env=docker.env,
        )
        if not hub:
            raise Failure("the hub does not run", "start it with make up")
        command = ["docker", "exec", "--interactive", *terminal, hub.split()[0]]
        command += ["labcommons", *words]
    os.execvpe(command[0], command, {**os.environ, **docker.env})  # noqa: S606
