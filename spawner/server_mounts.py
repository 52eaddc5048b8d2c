"""What a server finds in its container: home, folders, kernels, and words about them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from commons.principal import Principal
from commons.scopes import Keeper, owners
from commons.site import Environments, Site
from commons.site.mirror import pip_words
from commons.web import origins
from environments.condarc import condarc
from spawner.resources import Resources, of_this_machine
from spawner.runtime.spec import Account, ExamPlace, MakeExam, MakeFolder, MakeHome

# Where users' servers reach the service of kernels.
KERNELS_URL = f"{origins.GATE}/services/kernels/"
CONSOLE_URL = f"{origins.GATE}/services/labcommons/"

# Seconds between a server's reports to the hub that it is used. Who is idle is asked of the servers
# themselves, and what goes through the proxy is known: with a hundred servers that nobody uses,
# reports every five minutes (JupyterHub's default) are half of the hub's work.
ACTIVITY_INTERVAL = 900


@dataclass(frozen=True)
class Outfit:
    """Ready for the container.

    Attributes:
        who: with the gids of the person's teams and courses.
        scopes: whose folders and kernels it gets.
        env: variables.
    """

    who: Account
    scopes: tuple[str, ...]
    env: dict[str, str]


async def prepare_exam(
    shared: Resources, who: Account, person: Principal, place: ExamPlace
) -> Outfit:
    """Of an exam: its folder and nothing else; nowhere to get packages from. Raises LabError."""
    await shared.runtime.run_task(MakeFolder(scope=place.course))
    await shared.runtime.run_task(MakeExam(place=place, user=person.name, uid=who.uid, gid=who.gid))
    return Outfit(who.model_copy(update={"gids": ()}), (), _words(shared.site))


async def prepare(shared: Resources, who: Account, person: Principal) -> Outfit:
    """Make what is not there yet. Raises LabError where that is refused or fails."""
    known = owners(shared.site)
    groups = [scope for scope in person.scopes if scope in known]
    sites = [s for s in person.scopes if s.has_folder and s.keeper is Keeper.SITE]
    await asyncio.gather(
        shared.runtime.run_task(MakeHome(user=person.name, uid=who.uid, gid=who.gid)),
        *(shared.runtime.run_task(MakeFolder(scope=scope.source)) for scope in groups),
    )
    named = person.group_ids(shared.site)
    gids = {*who.gids, *named} - {who.gid}
    return Outfit(
        who.model_copy(update={"gids": tuple(sorted(gids))}),
        tuple(scope.source for scope in (*sites, *groups)),
        {
            "LABCOMMONS_GROUPS": " ".join(f"{gid}={name}" for gid, name in named.items()),
            "LABCOMMONS_CONDARC": condarc(shared.site.environments, person.scopes),
            **_words(shared.site),
            **indexes(shared.site.environments, of_this_machine()),
        },
    )


def _words(site: Site) -> dict[str, str]:
    """Variables of every server."""
    return {
        "LABCOMMONS_KERNELS_URL": KERNELS_URL,
        "LABCOMMONS_CONSOLE_URL": CONSOLE_URL,
        # Cookies of the path "/" where nobody else's server has the same host.
        "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": str(int(origins.own_hosts(site))),
        "JUPYTERHUB_ACTIVITY_INTERVAL": str(ACTIVITY_INTERVAL),
        "LABCOMMONS_KERNEL_SETTINGS": json.dumps(_kernel_settings(site)),
    }


def indexes(settings: Environments, machine: Mapping[str, str]) -> dict[str, str]:
    """Where pip and uv look in a server, as builds do; not where a login is wanted.

    ``machine`` are the variables of this machine that builds are given.
    """
    logins = {urlsplit(f"//{place}").hostname for place in settings.credentials}

    def is_open(url: str) -> bool:
        return bool(url) and "@" not in url and urlsplit(url).hostname not in logins

    own = settings.pip_index or machine.get("PIP_INDEX_URL", "")
    extra = settings.pip_extra_indexes or machine.get("PIP_EXTRA_INDEX_URL", "").split()
    first, more = own if is_open(own) else "", " ".join(filter(is_open, extra))
    found = {"PIP_INDEX_URL": first, "PIP_EXTRA_INDEX_URL": more}
    found |= {"UV_DEFAULT_INDEX": first, "UV_INDEX": more, **pip_words(first)}
    return {name: value for name, value in found.items() if value}


def _kernel_settings(site: Site) -> dict[str, Any]:
    """By class, for the server's configuration."""
    settings = site.kernels.settings
    if not origins.own_hosts(site):
        # A front end is a program in the page, and a page can do what any of its origin can.
        settings["Shelf"] = {"sources": ["image", "shared"]}
    return settings
