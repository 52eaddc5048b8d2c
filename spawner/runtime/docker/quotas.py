"""Limits of homes, teams and courses, kept by file systems that have project quotas.

Each folder is a project with a number of its own, written down in ``data/agent/projects.json``
before it is given: the number on the folder is its owner's to change, so it is never asked. What
is done is done by ``projects`` in a container of a moment, one folder at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from commons.errors import LabError, RuntimeRefused, RuntimeSilent
from commons.site.storage import AREAS, Area
from spawner.runtime import labels
from spawner.runtime.docker import projects
from spawner.runtime.docker.body import PURPOSE, Bind, Use, container
from spawner.runtime.docker.places import Places
from spawner.runtime.docker.settings import AgentSettings
from spawner.runtime.messages import LIMIT_NOT_SET
from spawner.runtime.protocol import AreaLimits
from spawner.runtime.spec import Said

log = logging.getLogger(__name__)

EVERY = 6 * 3600  # seconds between two looks at all folders
AGAIN = 7 * 86400.0  # from a look through a folder to the next: its owner can take files out of it
SOON = 86400.0  # the same where it was not done to the end
PYTHON = "/opt/labcommons/agent/bin/python"
_TRIES = 100  # numbers that others have

# Runs a container to its end: name, body, seconds; what it said and its exit code.
Run = Callable[[str, dict[str, Any], float], Awaitable[tuple[bytes, int]]]


class Project(Said):
    """What is known of one folder.

    Attributes:
        id: its project; never changed, and never given to another folder.
        own: bytes that this folder may have; None: as the site file says.
        limit: bytes that the file system was told; 0: any number; None: nothing yet.
        due: when it is to be looked through again, in seconds since 1970.
    """

    id: int
    own: int | None = None
    limit: int | None = None
    due: float = 0.0


_PROJECTS = TypeAdapter(dict[str, Project])


def body(
    settings: AgentSettings, folder: str, words: list[str], read_only: bool = False
) -> dict[str, Any]:
    """A container of our own code, root with one folder: it may look through it, give it to a
    project (FOWNER), and set that project's limit (SYS_ADMIN). It has no network."""
    found = container(
        settings.agent_image,
        [PYTHON, "-I", "-m", "spawner.runtime.docker.projects", *words],
        None,
        Use(2**27, 1, 16),
        labelled={labels.SITE: settings.site_id, PURPOSE: "quota"},
        env={},
        binds=[Bind(folder, projects.FOLDER, read_only)],
        folder="/",
        maker=True,
    )
    found["HostConfig"]["CapAdd"] = ["DAC_READ_SEARCH", "FOWNER", "SYS_ADMIN"]
    found["HostConfig"]["CpuShares"] = 2
    return found


class Quotas:
    """Of one machine. One container at a time."""

    def __init__(self, settings: AgentSettings, places: Places, run: Run) -> None:
        self.settings, self.places, self._run = settings, places, run
        self._file = settings.data / "agent" / "projects.json"
        self._refusals: dict[Area, str] = {}  # "": kept
        self._lock = asyncio.Lock()
        self._known: dict[str, Project] | None = None

    def limits(self) -> list[AreaLimits]:
        """For each area with a limit that was looked at: whether it is kept, and of how many."""
        return [
            AreaLimits(
                area=area,
                refusal=refusal,
                folders=sum(
                    key.startswith(f"{area}/") and one.limit == (one.own or self._limit(area))
                    for key, one in self._projects().items()
                ),
            )
            for area, refusal in self._refusals.items()
            if self._limit(area) or self._has_own(area)
        ]

    async def round(self) -> None:
        """Look at all folders; set what is not as the site file says. Raises LabError."""
        for area in AREAS:
            had = any(k.startswith(f"{area}/") and p.limit for k, p in self._projects().items())
            if not (self._limit(area) or self._has_own(area) or had):
                continue
            refusal = await self._look(area)
            for name in await asyncio.to_thread(self.places.folders, area) if not refusal else ():
                try:
                    await self.keep(area, name)
                except RuntimeSilent:
                    raise
                except LabError as error:  # of this one folder: the others are looked at
                    log.warning("%s/%s: %s", area, name, error)

    async def _look(self, area: Area) -> str:
        """Why the file system of an area keeps no limits; empty where it does. Raises LabError."""
        folder = await asyncio.to_thread(self.places.folder, area)
        if folder is None:
            return "?"
        async with self._lock:
            said = await self._ask(str(folder), ["state"], read_only=True)
        refusal = str(said.get("refusal", "?"))[:100]
        if refusal and self._refusals.get(area) != refusal:
            log.info("data/%s: no project quotas (%s); limits are watched", area, refusal)
        self._refusals[area] = refusal
        return refusal

    async def limit_folder(self, area: Area, name: str, limit: int) -> None:
        """Remember one folder's own limit; 0: it has the site file's. Raises LabError."""
        async with self._lock:
            one = self._projects().get(f"{area}/{name}")
            if ((one.own if one else None) or 0) == limit:
                return
            one = one or Project(id=self._next())
            self._note(area, name, one.model_copy(update={"own": limit or None}))
        if area not in self._refusals:  # nobody had asked: no folder of this kind had a limit
            await self._look(area)
        await self.keep(area, name)

    def _has_own(self, area: Area) -> bool:
        return any(key.startswith(f"{area}/") and one.own for key, one in self._projects().items())

    async def forever(self) -> None:
        """Round after round."""
        while True:
            try:
                await self.round()
            except LabError as error:
                log.warning("limits of folders: %s", error)
            except Exception:
                log.exception("limits of folders")
            await asyncio.sleep(EVERY)

    async def keep(self, area: Area, name: str) -> None:
        """See that a folder's limit is kept, where the file system can. Raises LabError."""
        async with self._lock:
            one = self._projects().get(f"{area}/{name}")
            limit, now = (one and one.own) or self._limit(area), time.time()
            done = one is not None and one.limit == limit and one.due > now
            if self._refusals.get(area) != "" or done or (one is None and not limit):
                return
            folder = await asyncio.to_thread(self.places.folder, area, name)
            if folder is None:
                return
            one = one or Project(id=self._next())
            for _ in range(_TRIES):
                self._note(area, name, one)
                words = ["limit", str(one.id), str(limit), *(["new"] if one.limit is None else [])]
                said = await self._ask(str(folder), words)
                if not said.get("taken"):
                    break
                one = Project(id=one.id + 1, own=one.own)
            else:
                raise RuntimeRefused(LIMIT_NOT_SET(folder=f"{area}/{name}", reason="no number"))
            due = now + (AGAIN if said.get("whole") else SOON)
            self._note(area, name, one.model_copy(update={"limit": limit, "due": due}))

    def _limit(self, area: Area) -> int:
        return self.settings.site.storage.limit(area) or 0

    async def _ask(self, folder: str, words: list[str], read_only: bool = False) -> dict[str, Any]:
        asked = body(self.settings, folder, words, read_only)
        said, code = await self._run(f"{self.settings.site_id}-quota", asked, projects.SECONDS + 60)
        try:
            found = json.loads(said)
        except ValueError:
            found = None
        if code or not isinstance(found, dict):
            reason = said.decode("utf-8", "replace").strip()[-200:] or f"exit code {code}"
            raise RuntimeRefused(LIMIT_NOT_SET(folder=folder, reason=reason))
        return found

    # -- the numbers -----------------------------------------------------------------------------

    def _projects(self) -> dict[str, Project]:
        if self._known is None:
            try:
                self._known = _PROJECTS.validate_json(self._file.read_bytes())
            except FileNotFoundError:
                self._known = {}
            except (OSError, ValidationError) as error:
                # Not begun anew: other numbers would leave the old ones' files counted elsewhere.
                raise RuntimeRefused(
                    LIMIT_NOT_SET(folder=str(self._file), reason=str(error)[:200])
                ) from error
        return self._known

    def _next(self) -> int:
        """A number that this site has not given. Two sites on one file system begin apart."""
        first = 2**20 * (1 + zlib.crc32(self.settings.site_id.encode()) % 2047)
        return max((one.id for one in self._projects().values()), default=first) + 1

    def _note(self, area: Area, name: str, one: Project) -> None:
        """On the disk before anything is done with it."""
        known = {**self._projects(), f"{area}/{name}": one}
        part = self._file.with_suffix(".part")
        try:
            with part.open("wb") as file:
                file.write(_PROJECTS.dump_json(known))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._file)
        except OSError as error:
            reason = error.strerror or str(error)
            raise RuntimeRefused(LIMIT_NOT_SET(folder=f"{area}/{name}", reason=reason)) from error
        self._known = known
