"""`make down` stops a site and keeps its data; `make clean` removes both."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deploy import command, engine, images, networks, perimeter, release, service, settings
from deploy.datadir import FOLDERS
from deploy.engine import Engine
from deploy.settings import ROOT, Settings
from deploy.shell import Failure
from deploy.steps import Progress, Step
from deploy.up import Compose, alone, of_this_folder

# docker compose down only takes what is in a profile when the profile is named.
ALL_PROFILES = "demo,postgres"


def down() -> None:
    """Stop and remove the site's containers: services and users' servers. Data stays.

    Nothing starts it again but `make up`: neither Docker nor the machine.
    """
    with alone():
        site = settings.load()
        docker = engine.find()
        of_this_folder(docker, site)
        progress = Progress(2, site.data / "log")
        _containers(docker, site, progress)
    print("Stopped; the data is kept. `make up` starts again.")


def clean() -> None:
    """Remove containers, data, .env and images, after the person typed the site's name."""
    with alone():
        site = settings.load()
        docker = engine.find()
        of_this_folder(docker, site)
        _ask(site)
        progress = Progress(4, ROOT / ".cache" / "log")
        _containers(docker, site, progress, "--volumes")
        with progress.step("removing data") as step:
            _remove_data(docker, site, step)
        with progress.step("removing images") as step:
            _remove_images(docker, step)
        command.take_back()
        for name in (".env", perimeter.PLAN_FILE):
            (ROOT / name).unlink(missing_ok=True)


def _containers(docker: Engine, site: Settings, progress: Progress, *options: str) -> None:
    compose = Compose(docker, site)
    # First: a machine that ends meanwhile must not start the site again.
    service.remove(site)
    with progress.step("stopping users' servers") as step:
        label = f"label=labcommons.site={site.project}"
        # The hub first: it would take its stopped servers for crashed ones.
        compose.output("stop", "hub", timeout=60)
        servers = (docker.docker("ps", "--all", "--quiet", "--filter", label) or "").split()
        if servers:
            step.run(["docker", "stop", "--time=10", *servers], timeout=300, env=docker.env)
            step.run(["docker", "rm", "--force", *servers], timeout=300, env=docker.env)
        step.result = f"{len(servers)} stopped"
    with progress.step("stopping the services") as step:
        # docker-compose.yml insists on these for a start; for an end any value does.
        known = settings.parse_env(settings.read(ROOT / ".env"))
        for name in (
            "LABCOMMONS_PUBLIC_URL",
            "LABCOMMONS_SERVER_NAMES",
            "LABCOMMONS_DOCKER_GID",
            "LABCOMMONS_HOST_DATA",
            *(f"LABCOMMONS_{name.upper()}_ADDRESS" for name in networks.SERVICES),
        ):
            if name not in known:
                os.environ.setdefault(name, "/unknown")
        os.environ["COMPOSE_PROFILES"] = ALL_PROFILES
        # The last server has ended: nothing is left to keep apart.
        perimeter.remove(docker, compose, step)
        compose.run(step, "down", "--remove-orphans", *options, timeout=300)
        networks.remove(docker, site)


def _ask(site: Settings) -> None:
    if os.environ.get("FORCE") == "yes":
        return
    print(f"This removes the site {site.project}: containers, images, .env, and in {site.data}")
    print("databases, homes with everything in them, certificates and secrets.")
    if not sys.stdin.isatty():
        raise Failure("nobody there to ask", "for scripts: make clean FORCE=yes")
    if input(f"Type {site.project} to go on: ").strip() != site.project:
        raise Failure("nothing was removed")


def _remove_data(docker: Engine, site: Settings, step: Step) -> None:
    """Only the folders that are ours: LABCOMMONS_DATA may name a folder with more in it."""
    names = [name for name in (*FOLDERS, "log", "release") if (site.data / name).exists()]
    if names:
        step.run(
            [
                *("docker", "run", "--rm", "--network=none", "--user=0:0"),
                f"--volume={site.data}:/data",
                *("labcommons/base", "rm", "-rf", "--", *(f"/data/{name}" for name in names)),
            ],
            timeout=600,
            env=docker.env,
        )
    if site.data.is_dir() and not any(site.data.iterdir()):
        Path(site.data).rmdir()


def _remove_images(docker: Engine, step: Step) -> None:
    listing = docker.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "labcommons/*") or ""
    every = (images.BASE, *images.IMAGES)
    ours = {f"{image.tag}:{tag}" for image in every for tag in ("latest", release.PREVIOUS)}
    tags = [
        tag
        for tag in listing.split()
        if tag in ours or tag.startswith(("labcommons/env-", "labcommons/debian:"))
    ]
    for tag in tags:
        # One that another site's container uses stays.
        docker.docker("rmi", tag, timeout=120)
    docker.docker("image", "prune", "--force", "--filter", f"label={images.LABEL}", timeout=300)
    step.result = f"{len(tags)} removed"
