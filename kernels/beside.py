"""What people's own tools put beside an environment that is not theirs to change.

npm and Julia have a place for what somebody adds to a shared installation. Here it is in the home,
one folder for each environment: nothing of it is in another, and none of it comes before what the
environment has. uv, poetry and pdm would install into the active environment; before them stand
programs that are asked first (``kernels.absent``).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping

from kernels import files
from kernels.packages import environment_of, is_own

FRONT = "/opt/labcommons/front"
_FOLDER = ".local/share/labcommons/beside"
_NPM = "NPM_CONFIG_PREFIX"
_ASKED = ("uv", "poetry", "pdm")
_MAX_BYTES = 64 * 1024


def folder(prefix: str, home: str) -> str:
    """The home's folder beside an environment; "" where that is the person's own."""
    if not home or is_own(prefix):
        return ""
    source, name = environment_of(prefix)
    return f"{home}/{_FOLDER}/{source or 'other'}/{name}"


def path(prefix: str, home: str) -> tuple[list[str], list[str]]:
    """The folders of PATH before and behind an environment's own."""
    if not (beside := folder(prefix, home)):
        return [], []
    there = [name for name in (*_ASKED, "npm") if os.path.exists(f"{prefix}/bin/{name}")]
    before = [f"{FRONT}/{name}" for name in there if name in _ASKED]
    return before, [f"{beside}/npm/bin"] if "npm" in there else []


def variables(prefix: str, base: Mapping[str, str]) -> dict[str, str]:
    """What says where ``npm install -g`` is to put things, unless the person has said it."""
    home = base.get("HOME", "")
    if _NPM in base or not path(prefix, home)[1] or _says_prefix(f"{home}/.npmrc"):
        return {}
    return {_NPM: f"{folder(prefix, home)}/npm"}


def is_ours(name: str, value: str) -> bool:
    """Whether a variable is one of ``variables``."""
    return name == _NPM and f"/{_FOLDER}/" in value


def _says_prefix(npmrc: str) -> bool:
    try:
        raw, _ = files.read(npmrc, _MAX_BYTES)
    except OSError:
        return False
    return re.search(rb"^\s*prefix\s*=", raw, re.MULTILINE) is not None


# Julia --------------------------------------------------------------------------------------------
# conda's Julia keeps all in the environment, as its activation script says: a depot, and a project
# of the environment's name. Ours come first: what Pkg writes goes there, and both are read.


def julia(prefix: str, activated: Mapping[str, str]) -> dict[str, str]:
    """What changes of a process's variables after the environment's scripts have run."""
    depots = activated.get("JULIA_DEPOT_PATH", "")
    beside = folder(prefix, activated.get("HOME", ""))
    if not beside or depots.split(":")[0] != f"{prefix}/share/julia":
        return {}
    depot, project = _julia(beside)
    projects = activated.get("JULIA_LOAD_PATH", "@").removeprefix("@").removeprefix(":")
    return {
        "JULIA_DEPOT_PATH": f"{depot}:{depots}",
        "JULIA_PROJECT": project,
        "JULIA_LOAD_PATH": ":".join(filter(None, ("@", project, projects))),
    }


def julia_in_shell(prefix: str, home: str) -> list[str]:
    """The same, as words for a shell that has sourced the scripts itself."""
    if not (beside := folder(prefix, home)):
        return []
    depot, project = map(shlex.quote, _julia(beside))
    return [
        f'case "${{JULIA_DEPOT_PATH:-}}:" in {shlex.quote(f"{prefix}/share/julia")}:*)'
        f' export JULIA_DEPOT_PATH={depot}:"$JULIA_DEPOT_PATH" JULIA_PROJECT={project}'
        f' JULIA_LOAD_PATH=@:{project}:"${{JULIA_LOAD_PATH#@:}}" ;; esac'
    ]


def _julia(beside: str) -> tuple[str, str]:
    return f"{beside}/julia", f"{beside}/julia/environments/own/Project.toml"
