"""What a server finds in its container: home, folders, kernels, and words about them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from hub_ext.origins import GATE
from spawner.container import Identity
from spawner.environments.catalog import CatalogEntry
from spawner.homes import Homes
from spawner.resources import Resources
from spawner.tiers.condarc import condarc
from spawner.tiers.folders import Folders
from spawner.tiers.groups import group_ids
from spawner.tiers.rights import Person
from spawner.tiers.tier import Kind

# Where users' servers reach the service of kernels.
KERNELS_URL = f"{GATE}/services/kernels/"


@dataclass(frozen=True)
class Outfit:
    """Ready for the container. Paths are those of the Engine's machine.

    Attributes:
        who: with the gids of the person's teams and courses.
        folders: of the tiers: source, target, read-only.
        registry: shelves of the kernel registry, by source.
        env: variables.
    """

    who: Identity
    home: str
    folders: list[tuple[str, str, bool]]
    registry: dict[str, str]
    env: dict[str, str]


async def prepare(shared: Resources, entry: CatalogEntry, who: Identity, person: Person) -> Outfit:
    """Make what is not there yet. Raises SpawnerError where that is refused or fails."""
    homes = Homes(
        shared.engine,
        shared.site_id,
        shared.data / "homes",
        shared.host_data / "homes",
        entry.image_id,
    )
    home = await homes.ensure(who)
    folders = Folders(
        shared.engine,
        shared.site,
        shared.site_id,
        shared.data,
        shared.host_data,
        entry.image_id,
    )
    gids = {*who.gids, *group_ids(shared.site, person)} - {who.gid}
    return Outfit(
        replace(who, gids=tuple(sorted(gids))),
        home,
        await folders.mounts_of(person),
        _registry(shared, entry, person),
        {
            "LABCOMMONS_KERNELS_URL": KERNELS_URL,
            "LABCOMMONS_CONDARC": condarc(shared.site.environments, person.tiers),
            "LABCOMMONS_KERNEL_SETTINGS": json.dumps(shared.site.kernels.settings),
        },
    )


def _registry(shared: Resources, entry: CatalogEntry, person: Person) -> dict[str, str]:
    """The shelves of the kernel registry that are this person's."""
    shelves = {
        tier.source: Path("kernels", tier.source)
        for tier in person.tiers
        if tier.kind is not Kind.PERSONAL
    }
    # Of the images, only the one that the server has.
    shelves["image"] /= f"{entry.name}/{entry.version}"
    return {
        source: str(shared.host_data / shelf)
        for source, shelf in shelves.items()
        if (shared.data / shelf).is_dir()
    }
