"""The containers at the end of a course's term: its archive, and the removal of its folder.

An archive is made as our services' user with the course's groups, without a network: it sees the
course read-only, and the folder of archives. What its instructors have shut to their own group is
left out, and told. A folder is removed by a maker, which first takes its name away.
"""

from __future__ import annotations

from typing import Any

from spawner.runtime import labels
from spawner.runtime.docker import archive_task
from spawner.runtime.docker.body import (
    BUILD,
    JOB,
    PURPOSE,
    STEP,
    Bind,
    Log,
    Use,
    container,
    maker_body,
)
from spawner.runtime.docker.places import Places
from spawner.runtime.docker.quotas import PYTHON
from spawner.runtime.docker.rules import against_rules
from spawner.runtime.docker.settings import OWNER, AgentSettings
from spawner.runtime.spec import Account, CourseStep

ARCHIVE, REMOVAL = "archive", "removal"  # what their containers are for
_REMOVE = (
    'set -e; cd /courses; gone=".$1.gone.$2"; [ -L "$1" ] && exit 9; '
    'if [ -d "$1" ] && [ ! -d "$gone" ]; then mv -T "$1" "$gone"; fi; rm -rf "$gone"'
)


def body(task: CourseStep, settings: AgentSettings, places: Places, job: str) -> dict[str, Any]:
    """The create body of one step; ``job``: its folder on the Engine's machine.

    Raises RuntimeRefused.
    """
    scope = places.scope(task.scope)
    pair = places.owners.get(scope) if scope else None
    if scope is None or pair is None or scope.kind != "course":
        raise against_rules(f"the site file has no course {task.scope[:40]!r}")
    labelled = {
        labels.SITE: settings.site_id,
        PURPOSE: REMOVAL if task.step == "remove" else ARCHIVE,
        BUILD: task.job_id,
        STEP: task.step,
    }
    if task.step == "remove":
        above = Bind(str(places.host / "courses"), "/courses", read_only=False)
        command = ["sh", "-c", _REMOVE, "remove", scope.owner, task.job_id]
        made = maker_body(settings.site_id, REMOVAL, settings.maker_image, command, above)
        made["Labels"] |= labelled
        return made
    folder = places.folder(*scope.folder.parts)
    if folder is None:
        raise against_rules(f"the folder of {task.scope} is not there")
    host = places.host
    binds = [
        Bind(job, JOB),
        Bind(str(folder), str(archive_task.COURSE)),
        Bind(str(host / "versions"), str(archive_task.VERSIONS)),
        Bind(str(host / "archives"), str(archive_task.ARCHIVES), read_only=False),
    ]
    program = [PYTHON, "-I", "-m", "spawner.runtime.docker.archive_task", f"{JOB}/job.json"]
    return container(
        settings.agent_image,
        program,
        Account(uid=OWNER, gid=pair.leads, gids=(pair.members,)),
        Use(2**30, 1, 16, log=Log("4m")),
        labelled=labelled,
        env={},
        binds=binds,
        folder="/",
    )
