"""``labcommons backup restore``: a site is laid down from a backup, on a new machine."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy import base, engine, images, settings, up
from deploy.backup import DUMPS, LIMIT, container
from deploy.builder import IN_CONTAINER
from deploy.engine import CACHE, Engine
from deploy.settings import ROOT, Settings
from deploy.shell import Failure
from deploy.steps import Progress, Step

TARGET = "/srv/labcommons/backup"
KEY = "/run/labcommons/recovery.key"
ABOUT = """Lay down a site from a backup, in a new checkout with an empty data folder. Afterwards
`make up` starts it."""
ENDS = """examples:
  labcommons backup restore --key recovery.key
  labcommons backup restore --key recovery.key --from /mnt/disk/labcommons 4f3c9b12"""


def restore(words: Sequence[str]) -> int:
    """``labcommons backup restore``. Raises Failure."""
    parser = argparse.ArgumentParser(
        prog="labcommons backup restore",
        description=ABOUT,
        epilog=ENDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("snapshot", metavar="BACKUP", nargs="?", default="latest")
    parser.add_argument("--key", type=Path, required=True, help="what “backup init” printed")
    parser.add_argument("--from", dest="target", default="", help="instead of the key's target")
    parser.add_argument("--json", action="store_true", help="print what was restored as JSON")
    asked = parser.parse_args(words)
    with up.alone():
        site = settings.prepare()
        progress = Progress(5, CACHE / "log")
        with progress.step("Docker Engine") as step:
            docker = engine.ensure(step)
            _not_over_another(docker, site)
        with progress.step("Debian 13") as step:
            base.ensure_debian(docker, step)
        base.write_context(CACHE / "base")
        with progress.step("images") as step:
            for image in (images.BASE, *images.needed(())):
                if image.name in ("base", "hub", "backup"):
                    images.ensure(image, docker, step)
        with progress.step("the site's folders, databases and secrets") as step:
            found = _lay_down(docker, site, asked, step)
            step.result = f"as of {found['moment'][:19]} UTC, in {found['took']:.0f} s"
        with progress.step("the site's own files") as step:
            step.result = _checkout(docker, site, step)
    if asked.json:
        print(json.dumps(found))
        return 0
    age = datetime.now(UTC) - datetime.fromisoformat(found["moment"])
    print(
        f"\nRestored: {found['site']}, LabCommons {found['version']}.\n"
        f"What was done in the {_span(age.total_seconds())} since the backup is not in it.\n"
        "Next: compare .env with .env.restored, where there is one; then make up"
    )
    return 0


def _not_over_another(docker: Engine, site: Settings) -> None:
    listing = docker.docker(
        "ps", "--quiet", f"--filter=label=com.docker.compose.project={site.project}",
        "--filter=label=com.docker.compose.oneoff=False",
    )  # fmt: skip
    if listing:
        raise Failure(
            f"the site {site.project} runs: a backup is not restored over it",
            "make down and move its data away; or restore into another checkout, with another "
            "COMPOSE_PROJECT_NAME, LABCOMMONS_DATA and ports in .env",
        )


def _lay_down(
    docker: Engine, site: Settings, asked: argparse.Namespace, step: Step
) -> dict[str, Any]:
    key = asked.key.resolve()
    if not key.is_file():
        raise Failure(f"{asked.key} is not there", "give the file that “backup init” printed")
    lines = key.read_text("utf-8", "replace").splitlines()
    target = asked.target or next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("target:")), ""
    )
    if target and not target.partition(":")[1]:
        target = str(Path(target).resolve())
        if not Path(target).is_dir():
            raise Failure(f"the folder {target} is not there", "mount the disk, or name it: --from")
    site.data.mkdir(parents=True, exist_ok=True)
    command = [
        *container(site, "--network=bridge"),
        f"--volume={key}:{KEY}:ro",
        *([f"--volume={target}:{TARGET}:ro"] if target.startswith("/") else []),
        *("labcommons/backup", "labcommons", "backup", "restore", "--key", KEY),
        *(["--from", target] if target else []),
        asked.snapshot,
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
        env={**os.environ, **docker.env}, check=False,
    )  # fmt: skip
    step.note(done.stderr)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise Failure(said.removeprefix("Error: "))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _checkout(docker: Engine, site: Settings, step: Step) -> str:
    """Put config/ and .env into this checkout; what differs there is kept beside."""
    staged = CACHE / "restored"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    mine = f"{os.getuid()}:{os.getgid()}"
    step.run(
        [
            *container(site, "--network=none"),
            f"--volume={staged}:/staged",
            *("--entrypoint=sh", "labcommons/backup", "-c"),
            f"cp -r {IN_CONTAINER}/{DUMPS}/config {IN_CONTAINER}/{DUMPS}/env /staged/ "
            f"2>/dev/null; chown -R {mine} /staged; rm -rf {IN_CONTAINER}/{DUMPS}/config "
            f"{IN_CONTAINER}/{DUMPS}/env",
        ],
        timeout=300,
        env=docker.env,
    )
    kept = 0
    for file in sorted((staged / "config").rglob("*")):
        if not file.is_file() or file.is_symlink():
            continue
        there = ROOT / "config" / file.relative_to(staged / "config")
        # Programs of ours are this version's.
        if "images" in file.relative_to(staged / "config").parts[:1]:
            continue
        if there.is_file() and there.read_bytes() != file.read_bytes():
            shutil.copy2(there, there.with_name(f"{there.name}.before-restore"))
            kept += 1
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, there)
    if (staged / "env").is_file():
        shutil.copy(staged / "env", ROOT / ".env.restored")
        (ROOT / ".env.restored").chmod(0o600)
    shutil.rmtree(staged)
    return f"in place; {kept} that differed are kept as NAME.before-restore" if kept else "in place"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} seconds"
