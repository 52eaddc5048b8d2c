"""Homes that persist: made once, owned by the person, mode 0700, never handed to another."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hub_ext.i18n import N_
from spawner.container import LABEL_SITE, Identity, container_name
from spawner.engine import Engine, EngineRefused
from spawner.errors import NotAllowed


class Homes:
    """The folder of homes, as the hub and as the Engine's machine see it.

    The hub runs without root and sees the folder read-only. A home is made by a
    container of a moment that has nothing but that folder and the right to give a
    folder away.

    Args:
        seen: the folder as this process sees it.
        host: the same folder on the Engine's machine.
        image: any of our images; it needs ``install``.
    """

    def __init__(self, engine: Engine, site_id: str, seen: Path, host: Path, image: str) -> None:
        self.engine, self.site_id, self.seen, self.host, self.image = (
            engine,
            site_id,
            seen,
            host,
            image,
        )

    async def ensure(self, who: Identity) -> str:
        """The person's home on the Engine's machine, made if it is not there.

        Raises NotAllowed when it is there and somebody else's: an account of that name
        was removed, and another made. Its data must not change hands.
        """
        home = self.seen / who.name
        if home.parent != self.seen or who.name in ("", ".", ".."):
            raise ValueError(f"not a folder name: {who.name!r}")
        owner = self._owner(home)
        # Root's is what a maker leaves that was killed half-way; it is made again.
        if owner in (None, 0):
            await self._make(who)
        elif owner != who.uid:
            raise NotAllowed(
                "home_of_another",
                N_(
                    "The home of “{user}” belongs to the account number {owner}, not to yours "
                    "({uid}). Ask an administrator to hand it over or to move it away."
                ),
                {"user": who.name, "owner": owner, "uid": who.uid},
            )
        return str(self.host / who.name)

    @staticmethod
    def _owner(home: Path) -> int | None:
        try:
            found = os.lstat(home)
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(found.st_mode):
            raise NotAllowed(
                "home_not_a_folder",
                N_("The home of “{user}” is not a folder. Ask an administrator."),
                {"user": home.name},
            )
        return found.st_uid

    async def _make(self, who: Identity) -> None:
        name = container_name(self.site_id, who.name, "home").replace("-user-", "-home-", 1)
        body = {
            "Image": self.image,
            "Entrypoint": [],
            "Cmd": [
                "install", "-d", "-m", "0700", "-o", str(who.uid), "-g", str(who.gid),
                f"/homes/{who.name}",
            ],
            "User": "0:0",
            "Labels": {LABEL_SITE: self.site_id, "labcommons.purpose": "home"},
            "NetworkDisabled": True,
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": [{"Type": "bind", "Source": str(self.host), "Target": "/homes"}],
                "ReadonlyRootfs": True,
                "CapDrop": ["ALL"],
                # The folder of homes is not root's; a new one is given away (CHOWN), and its
                # mode set after that (FOWNER).
                "CapAdd": ["CHOWN", "DAC_OVERRIDE", "FOWNER"],
                "SecurityOpt": ["no-new-privileges:true"],
                "Memory": 64 * 2**20,
                "PidsLimit": 16,
            },
        }  # fmt: skip
        container = await self.engine.create(name, body)
        try:
            await self.engine.start(container)
            code = await self.engine.wait(container)
            output = await self.engine.logs(container) if code else ""
        finally:
            await self.engine.remove(container)
        if code:
            raise EngineRefused(
                "home_not_made",
                N_("The home of “{user}” could not be made: {reason}. Tell an administrator."),
                {"user": who.name, "reason": output.strip()[-200:]},
            )
