"""The machine's part in the mirror: its configuration, where compose mounts it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy import settings
from deploy.files import write_atomically
from deploy.settings import ROOT, Settings, read
from deploy.shell import Failure

PROFILE = "mirror"
FOLDER = ".mirror"
FILES = {"nginx": "nginx.conf", "registry": "registry.yml", "kept": "kept.yml"}


def record(wanted: Mapping[str, Any] | None, site: Settings, root: Path = ROOT) -> None:
    """Write what ``labcommons site check`` made of the section, and whether there are images.

    Raises Failure where the site file and COMPOSE_PROFILES say different things.
    """
    on = PROFILE in site.profiles
    if on and wanted is None:
        raise Failure(
            "COMPOSE_PROFILES has mirror, and the site file has no such section",
            f"add `mirror: {{}}` to config/{site.site_file} (docs/mirror.md), or take the profile "
            "out of .env",
        )
    if wanted is not None and not on:
        profiles = ",".join([*site.profiles, PROFILE])
        raise Failure(
            "the site file has a section mirror, and its services are not wanted",
            f"set COMPOSE_PROFILES={profiles} in .env, or take the section out",
        )
    found = {"LABCOMMONS_MIRROR_IMAGES": "0", "LABCOMMONS_MIRROR_HASH": ""}
    if wanted is not None:
        folder, total = root / FOLDER, hashlib.sha256()
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        for key, name in FILES.items():
            if read(folder / name) != wanted[key]:
                write_atomically(folder / name, wanted[key], 0o644)
            total.update(wanted[key].encode())
        found["LABCOMMONS_MIRROR_HASH"] = total.hexdigest()[:16]
        found["LABCOMMONS_MIRROR_IMAGES"] = str(int(wanted["images"]))
        found["LABCOMMONS_MIRROR_IMAGES_PORT"] = str(wanted["images_port"])
    settings.record(found, root)
    os.environ.update(found)
