"""The container that fetches a course's materials: our services' uid, and the course's folders.

For a repository it has a builder's network and sees the materials alone; for the instructors'
folder it has no network, and that folder to read. What it runs is ``material_task``.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from commons.scopes import MATERIALS, STAFF
from spawner.runtime import labels
from spawner.runtime.docker import material_task
from spawner.runtime.docker.body import NONE, PURPOSE, PYTHON, TMP, Bind, Use, container
from spawner.runtime.docker.places import Places
from spawner.runtime.docker.rules import against_rules, build_variables
from spawner.runtime.docker.settings import OWNER, AgentSettings
from spawner.runtime.spec import Account, Fetched, FetchMaterials

SECONDS = material_task.SECONDS + 30
_KILLED = (137, 143)


def body(task: FetchMaterials, settings: AgentSettings, places: Places) -> dict[str, Any]:
    """Its create body. Raises RuntimeRefused."""
    scope = places.scope(task.scope)
    pair = places.owners.get(scope) if scope else None
    if scope is None or pair is None or MATERIALS not in scope.row.areas:
        raise against_rules(f"{task.scope[:40]!r} has no materials")
    found = {area: places.folder(*scope.folder.parts, area) for area in (MATERIALS, STAFF)}
    if None in found.values():
        raise against_rules(f"the folders of {task.scope} are not there")
    binds = [Bind(str(found[MATERIALS]), str(material_task.MATERIALS), read_only=False)]
    if not task.git:
        binds.append(Bind(str(found[STAFF]), str(material_task.STAFF)))
    words = json.dumps({"git": task.git, "branch": task.branch})
    return container(
        settings.builder_image,
        [PYTHON, "-I", "-m", "spawner.runtime.docker.material_task", words],
        # What it writes is for those in the course to read (the folder's own group).
        Account(uid=OWNER, gid=pair.members, gids=() if task.git else (pair.leads,)),
        Use(2**30, 2, 64, tmpfs={TMP: f"rw,nosuid,nodev,noexec,mode=1777,size={2**24}"}),
        labelled={labels.SITE: settings.site_id, PURPOSE: "materials"},
        env={**build_variables(task.env), "HOME": TMP, "LANG": "C.UTF-8"},
        binds=binds,
        network=settings.builders if task.git else NONE,
    )


def read(said: bytes, exit_code: int) -> Fetched:
    """What the program said last; whatever else comes is told as a failure."""
    if exit_code in _KILLED:
        return Fetched(failure="time")
    try:
        return Fetched.model_validate_json(said.strip().rpartition(b"\n")[2])
    except ValidationError:
        detail = said.decode("utf-8", "replace").strip()[-200:]
        return Fetched(failure="failed", detail=detail or f"exit code {exit_code}")
