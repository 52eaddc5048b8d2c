"""The environments of the scopes on disk: shared, teams, courses. Blocking; for threads."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commons.scopes import NAME, SCOPES, SERVER_ROOT, Keeper, Scope
from kernels import files
from kernels.activation import environment_variables
from kernels.discovery import Discovery, Environment, Source
from kernels.messages import Message, in_one, say, why
from kernels.service.entries import LIVE, Found, Look, State

# Where the scopes are, here as in users' servers: the paths in kernelspecs must fit both.
FOLDERS = Path(SERVER_ROOT)
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


def find_roots(folders: Path, groups: Collection[Scope]) -> list[Root]:
    """All sources on disk but people's own: of the site file, and those that have a folder."""
    roots = []
    for row in SCOPES.values():
        if row.keeper is Keeper.GROUP:
            names = {scope.owner for scope in groups if scope.kind == row.name}
            names |= set(_folders(folders / row.folder.partition("/")[0]))
            scopes = [Scope(row.name, name) for name in sorted(names) if NAME.fullmatch(name)]
        else:
            scopes = [Scope(row.name)] if row.keeper is Keeper.SITE and row.folder else []
        roots += [Root(one.source, one.kernel_label, folders / one.folder) for one in scopes]
    return roots


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


_Stamps = tuple[tuple[int, int, int] | None, ...]


class RootScanner:
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
            return Look(root.source, root.label, State.HEALTHY, None, device)
        except PermissionError:
            return Look(root.source, root.label, State.UNREADABLE, self._who_may(), device)
        except OSError as error:
            reason = say(
                "folder_not_read",
                folder=root.folder,
                error=why(error),
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
        return Look(root.source, root.label, State.HEALTHY, None, device, found)

    def _who_may(self) -> Message:
        """Why this root cannot be read, and the group that would help."""
        words = say("registry_may_not_read")
        for folder in (self.root.base, self.root.folder):
            try:
                gid = os.stat(folder).st_gid
            except OSError:
                break
            if not os.access(folder, os.R_OK | os.X_OK, effective_ids=True):
                remedy = say("remedy_group", gid=gid)
                return in_one((words, remedy))
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
