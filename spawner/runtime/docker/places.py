"""What a spec's names mean on this machine: homes, folders of scopes, shelves, packages, mounts.

Nothing is mounted that is not below the data folder or named by the site file, and nothing through
a link: the folders on the way are looked at, as this process sees them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path

from commons.errors import BadRequest, NotAllowed
from commons.scopes import Keeper, Owners, Scope, owners, parse_source, personal
from spawner.runtime.docker.body import REGISTRY, Bind
from spawner.runtime.docker.rules import against_rules
from spawner.runtime.docker.settings import OWNER, AgentSettings
from spawner.runtime.messages import HOME_NOT_A_FOLDER, HOME_OF_ANOTHER
from spawner.runtime.spec import ServerSpec

PACKAGES = "/opt/labcommons/pkgs"
# The end of what the Engine says, before the folder's path.
_ABSENT = "bind source path does not exist: "
_MOST = 100_000
_NAME = re.compile(r"[^.\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,254}")
UPPER_MODE, ENVS_MODE = 0o2750, 0o2775


class Places:
    """The folders of one machine."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.data, self.host = settings.data, settings.host_data
        # Of folders that have other owners than our services.
        self.owners: Mapping[Scope, Owners] = owners(settings.site)

    # -- looking ---------------------------------------------------------------------------------

    def folder(self, *parts: str) -> Path | None:
        """A folder below the data folder on the Engine's machine; None where there is none.

        Raises RuntimeRefused where a link is on the way.
        """
        here = self.data
        for part in parts:
            if part in ("", ".", "..") or "/" in part or "\0" in part:
                raise against_rules(f"{part[:40]!r} is no folder's name")
            here = here / part
            try:
                mode = os.lstat(here).st_mode
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise against_rules(f"a folder cannot be looked at ({error.strerror})") from error
            if stat.S_ISLNK(mode):
                raise against_rules(f"{'/'.join(parts)} leads through a link")
            if not stat.S_ISDIR(mode):
                return None
        return self.host.joinpath(*parts)

    def folders(self, area: str) -> list[str]:
        """The names of the folders in one of the data folder's. Raises RuntimeRefused."""
        if self.folder(area) is None:
            return []
        try:
            with os.scandir(self.data / area) as found:
                names = (one.name for one in found if one.is_dir(follow_symlinks=False))
                return sorted(islice((n for n in names if _NAME.fullmatch(n)), _MOST))
        except OSError as error:
            raise against_rules(f"{area} cannot be listed ({error.strerror})") from error

    def is_file(self, *parts: str) -> bool:
        """Whether there is a plain file below the data folder. Raises RuntimeRefused."""
        if self.folder(*parts[:-1]) is None:
            return False
        try:
            return stat.S_ISREG(os.lstat(self.data.joinpath(*parts)).st_mode)
        except OSError:
            return False

    def scope(self, name: str) -> Scope | None:
        """A scope with a folder that the site file has; None for another, and for a person's."""
        try:
            scope = parse_source(name, "")
        except BadRequest:
            return None
        kept = scope in self.owners or scope.keeper is Keeper.SITE
        return scope if scope.has_folder and kept else None

    def home_owner(self, user: str) -> int | None:
        """The uid that a person's home belongs to; None where there is none.

        Raises NotAllowed where something else is in its place.
        """
        try:
            found = os.lstat(self.data / personal(user).folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise against_rules(f"a home cannot be looked at ({error.strerror})") from error
        if not stat.S_ISDIR(found.st_mode):
            raise NotAllowed(HOME_NOT_A_FOLDER(user=user))
        return found.st_uid

    def home(self, user: str, uid: int) -> str:
        """A person's home on the Engine's machine. Raises NotAllowed where it is another's."""
        owner = self.home_owner(user)
        if owner is None:
            raise against_rules("there is no such home")
        if owner != uid:
            raise home_of_another(user, owner, uid)
        return str(self.host / personal(user).folder)

    def folder_made(self, scope: Scope) -> bool:
        """Whether a scope's folder is as it should be.

        ``envs`` in it cannot be looked at from here; it is made with the folder.
        """
        pair = self.owners.get(scope)
        members = pair.members if pair else OWNER
        try:
            found = os.lstat(self.data / scope.folder)
            areas = [os.lstat(self.data / scope.folder / area) for area in scope.row.areas]
        except OSError:
            return False
        return (
            stat.S_ISDIR(found.st_mode)
            and all(stat.S_ISDIR(area.st_mode) for area in areas)
            and stat.S_IMODE(found.st_mode) == UPPER_MODE
            and (found.st_uid, found.st_gid) == (OWNER, members)
        )

    # -- mounts ----------------------------------------------------------------------------------

    def registry(self, spec: ServerSpec) -> dict[str, str]:
        """The shelves of the kernel registry that a server has: of the images, only its own."""
        shelves: dict[str, tuple[str, ...]] = {
            "image": ("kernels", "image", spec.environment, spec.version)
        }
        for name in spec.scopes:
            if self.scope(name):
                shelves[name] = ("kernels", name)
        found = {source: self.folder(*parts) for source, parts in shelves.items()}
        return {source: str(path) for source, path in found.items() if path}

    def missing(self, spec: ServerSpec, words: str) -> set[str]:
        """Names of the mounts whose folder is not there, as the Engine says when it refuses."""
        mounts = self.settings.site.servers.mounts
        return {
            name
            for name in spec.mounts
            if name in mounts and words.endswith(f"{_ABSENT}{mounts[name].places(spec.user)[0]}")
        }

    def server_folders(self, spec: ServerSpec, missing: Collection[str] = ()) -> list[Bind]:
        """The folders of a server's scopes, the packages, and the site's own mounts."""
        binds = []
        for name in spec.scopes:
            scope = self.scope(name)
            if scope and (path := self.folder(*scope.folder.parts)):
                shut = not scope.row.writable or name in spec.read_only
                binds.append(Bind(str(path), str(scope.mount), read_only=shut))
        if packages := self.folder("cache", "packages"):
            binds.append(Bind(str(packages), PACKAGES))
        for name in (one for one in spec.mounts if one not in missing):
            mount = self.settings.site.servers.mounts.get(name)
            if mount is None:
                raise against_rules(f"servers.mounts has no {name[:40]!r}")
            if not mount.is_for(spec.scopes):
                raise against_rules(f"servers.mounts.{name} is for others")
            source, target = mount.places(spec.user)
            binds.append(Bind(source, target, not mount.is_writable(spec.scopes)))
        targets = [one.target for one in binds]
        if len(set(targets)) != len(targets) or any(t.startswith(REGISTRY) for t in targets):
            raise against_rules("two mounts at one place")
        return binds


def home_of_another(user: str, owner: int, uid: int) -> NotAllowed:
    """An account of that name was removed, and another made: its data must not change hands."""
    return NotAllowed(HOME_OF_ANOTHER(user=user, owner=owner, uid=uid))
