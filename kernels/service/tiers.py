"""The environments of the tiers on disk: shared, teams, courses. Blocking; for threads."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import files
from kernels.activation import environment_variables
from kernels.discovery import Discovery, Environment, Source
from kernels.service.entries import LIVE, Found, Look, State
from kernels.words import say

# Where the tiers are, here as in users' servers: the paths in kernelspecs must fit both.
TIERS = Path("/opt/labcommons")
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")  # of teams and courses (site file)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_MAX_STAMP = 64 * 1024
# Made by `labcommons env build`: facts about a version, in a folder that conda does not read.
_STAMP = "conda-meta/labcommons/version.json"
_VARIABLES = ("conda-meta/state", "etc/conda/env_vars.d", _STAMP)


@dataclass(frozen=True)
class Root:
    """One source on disk: ``folder`` has its environments, ``base`` is the folder above."""

    source: str
    label: str
    base: Path

    @property
    def folder(self) -> Path:
        """The folder of environments."""
        return self.base / "envs"


def find_roots(tiers: Path, teams: Collection[str], courses: Collection[str]) -> list[Root]:
    """All sources on disk: those of the site file, and those that have a folder."""
    roots = [Root("shared", "shared", tiers / "shared")]
    for kind, folder, named in (("team", "teams", teams), ("course", "courses", courses)):
        names = {name for name in (*named, *_folders(tiers / folder)) if _NAME.fullmatch(name)}
        roots += [
            Root(f"{kind}-{name}", f"{kind}: {name}", tiers / folder / name)
            for name in sorted(names)
        ]
    return roots


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


_Stamps = tuple[tuple[int, int, int] | None, ...]


class Tier:
    """Looks at one root, again and again, and reads only what has changed since."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self._discovery = Discovery()
        self._extras: dict[str, tuple[_Stamps, Found]] = {}

    def look(self) -> Look:
        """The root as it is now. Never raises for what is on disk.

        This process may read more than whoever writes there: no link leads out of it.
        """
        with files.beneath(self.root.base):
            return self._look()

    def _look(self) -> Look:
        root = self.root
        device = ""
        try:
            device = str(os.stat(root.base).st_dev)
            device = str(files.status(root.folder).st_dev)
            files.names(root.folder)
        except FileNotFoundError:
            return Look(root.source, root.label, State.HEALTHY, "", device)
        except PermissionError:
            return Look(root.source, root.label, State.UNREADABLE, self._who_may(), device)
        except OSError as error:
            reason = say(
                "{folder} cannot be read: {error}; ask an administrator",
                folder=root.folder,
                error=error.strerror,
            )
            return Look(root.source, root.label, State.UNAVAILABLE, reason, device)
        pattern = f"{glob.escape(str(root.folder))}/*"
        environments = self._discovery.scan([Source(root.source, pattern, root.label)])
        extras = {}
        for environment in environments:
            prefix = environment.place.prefix
            stamps = _stamps(prefix)
            before = self._extras.get(prefix)
            if before and before[0] == stamps and before[1].environment == environment:
                extras[prefix] = before
            else:
                extras[prefix] = (stamps, _with_extras(environment))
        self._extras = extras
        found = tuple(found for _, found in extras.values())
        return Look(root.source, root.label, State.HEALTHY, "", device, found)

    def _who_may(self) -> str:
        """Why this root cannot be read, and the group that would help."""
        words = say(
            "the registry may not read it; people's own servers list its kernels all the same"
        )
        for folder in (self.root.base, self.root.folder):
            try:
                gid = os.stat(folder).st_gid
            except OSError:
                break
            if not os.access(folder, os.R_OK | os.X_OK, effective_ids=True):
                remedy = say("to show it here, give the service “kernels” the group {gid}", gid=gid)
                return f"{words}; {remedy}"
        return words


def _stamps(prefix: str) -> _Stamps:
    stamps: list[tuple[int, int, int] | None] = []
    for path in ("", *_VARIABLES):
        try:
            found = files.status(f"{prefix}/{path}")
        except OSError:
            stamps.append(None)
        else:
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
    return tuple(stamps)


def _with_extras(environment: Environment) -> Found:
    prefix = environment.place.prefix
    stamp = _read_stamp(prefix)
    facts = {
        name: stamp[name] for name in ("title", "deprecated") if isinstance(stamp.get(name), str)
    }
    if isinstance(title := stamp.get("title"), Mapping):
        facts["title"] = {str(lang): text for lang, text in title.items() if isinstance(text, str)}
    return Found(
        environment,
        _version(prefix, stamp),
        facts,
        environment_variables(prefix) if environment.kernels else {},
    )


def _version(prefix: str, stamp: Mapping[str, Any]) -> str:
    """The version by the folder that ``envs/<env>`` leads to, else by the stamp."""
    try:
        target = files.link(prefix)
    except OSError:
        target = ""
    above, leaf = os.path.split(target.rstrip("/"))
    if os.path.basename(os.path.dirname(above)) == ".versions" and _VERSION.fullmatch(leaf):
        return leaf
    version = stamp.get("version")
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else LIVE


def _read_stamp(prefix: str) -> Mapping[str, Any]:
    try:
        raw, _ = files.read(f"{prefix}/{_STAMP}", _MAX_STAMP)
        document = json.loads(raw)
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
