"""The folders of teams, courses and the shared environments: made, mended, and mounted.

Made as homes are: by a container of a moment that has nothing but the folder above and the
right to give folders away. A member may enter a team's folder and read; ``envs`` in it is
open to the leads, whose group it hands down. Nobody but our services may replace ``envs``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from hub_ext.i18n import N_
from hub_ext.site import Site
from spawner.container import LABEL_SITE
from spawner.engine import Engine, EngineRefused
from spawner.tiers.groups import SHARED_OWNER, owners
from spawner.tiers.rights import Person
from spawner.tiers.tier import Kind, Tier

UPPER_MODE, ENVS_MODE = 0o2750, 0o2775
PACKAGES = "/opt/labcommons/pkgs"

# Nothing below the upper folder is given away through a link: `envs` is made once, and its
# parent is nobody's to write.
_MAKE = (
    'set -e; install -d -m "$1" -o "$2" -g "$3" "$5"; '
    '[ -L "$5/envs" ] && exit 9; install -d -m "$6" -o "$2" -g "$4" "$5/envs"'
)


class Folders:
    """The tiers' folders, as the hub and as the Engine's machine see them.

    Args:
        seen, host: the data folder as this process, and as the Engine's machine sees it.
        image: any of our images; it needs ``install`` and ``sh``.
    """

    def __init__(
        self, engine: Engine, site: Site, site_id: str, seen: Path, host: Path, image: str
    ) -> None:
        self.engine, self.site, self.site_id = engine, site, site_id
        self.seen, self.host, self.image = seen, host, image

    async def mounts_of(self, person: Person) -> list[tuple[str, str, bool]]:
        """What a person's server gets, by membership: (host, target, read-only).

        The folders are made or mended first. Raises SpawnerError when that fails.
        """
        tiers = [t for t in person.tiers if t.kind in (Kind.SHARED, Kind.TEAM, Kind.COURSE)]
        await self.ensure(tiers)
        mounts = [
            (str(self.host / tier.folder), str(tier.mount), tier.kind is Kind.SHARED)
            for tier in tiers
            if self._there(tier)
        ]
        if (self.seen / "cache" / "packages").is_dir():
            mounts.append((str(self.host / "cache" / "packages"), PACKAGES, True))
        return mounts

    async def ensure(self, tiers: Iterable[Tier]) -> None:
        """Make what is not there as it should be."""
        known = owners(self.site)
        for tier in tiers:
            if tier in known and not self._as_it_should_be(tier):
                await self._make(tier)

    def _there(self, tier: Tier) -> bool:
        return (self.seen / tier.folder).is_dir()

    def _as_it_should_be(self, tier: Tier) -> bool:
        pair = owners(self.site)[tier]
        try:
            found = os.lstat(self.seen / tier.folder)
        except FileNotFoundError:
            return False
        # `envs` cannot be looked at from here; it is made with the folder, and mended with it.
        return (
            stat.S_ISDIR(found.st_mode)
            and stat.S_IMODE(found.st_mode) == UPPER_MODE
            and (found.st_uid, found.st_gid) == (SHARED_OWNER, pair.members)
        )

    async def _make(self, tier: Tier) -> None:
        pair = owners(self.site)[tier]
        above, name = tier.folder.parts
        body = {
            "Image": self.image,
            "Entrypoint": [],
            "Cmd": [
                "sh", "-c", _MAKE, "make", f"{UPPER_MODE:o}", str(SHARED_OWNER),
                str(pair.members), str(pair.leads), f"/tiers/{name}", f"{ENVS_MODE:o}",
            ],
            "User": "0:0",
            "Labels": {LABEL_SITE: self.site_id, "labcommons.purpose": "folder"},
            "NetworkDisabled": True,
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": [
                    {"Type": "bind", "Source": str(self.host / above), "Target": "/tiers"}
                ],
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                # FSETID, or the setgid bit would be lost with a group that is not ours.
                "CapAdd": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"],
                "SecurityOpt": ["no-new-privileges:true"],
                "Memory": 64 * 2**20,
                "PidsLimit": 16,
            },
        }  # fmt: skip
        container = await self.engine.create(f"{self.site_id}-folder-{tier.source}", body)
        try:
            await self.engine.start(container)
            code = await self.engine.wait(container)
            output = await self.engine.logs(container) if code else ""
        finally:
            await self.engine.remove(container)
        if code:
            raise EngineRefused(
                "folder_not_made",
                N_("The folder of “{tier}” could not be made: {reason}. Tell an administrator."),
                {"tier": tier.source, "reason": output.strip()[-200:] or f"exit code {code}"},
            )
