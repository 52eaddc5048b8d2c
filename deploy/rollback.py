"""`make rollback`: what ran before the last `make up`, again."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

from deploy import engine, images, release, settings
from deploy.copies import DATABASES, Copies, Database, made_at
from deploy.engine import Engine
from deploy.release import Release, State
from deploy.settings import ROOT
from deploy.shell import Failure
from deploy.steps import Progress
from deploy.up import HEALTH_TIMEOUT, Compose, alone, of_this_folder

# What has a database open. People's servers, CHP and the proxy go on without them.
WRITERS = ("hub", "console", "kernels")


def rollback() -> None:
    """Put images, databases where their tables went forward, and files of before back; then start.

    All that can be refused is, before anything changes; whatever ends it in the middle, the same
    command goes on. The start is that version's own `make up`, which builds nothing.
    """
    with alone():
        site = settings.load()
        docker = engine.find()
        of_this_folder(docker, site)
        state = release.load(site)
        before = _previous(docker, state)
        branch = _files(before)
        compose = Compose(docker, site)
        copies = Copies(docker, site, compose)
        if "postgres" in site.profiles:
            compose.output("up", "--detach", "--wait", "db", timeout=HEALTH_TIMEOUT)
        forward = _forward(copies, before)
        _tell(before, forward)
        if forward:
            _ask()
        progress = Progress(2 + 2 * bool(forward), site.data / "log")
        if forward:
            with progress.step("stopping what writes into the databases") as step:
                compose.run(step, "stop", *WRITERS, timeout=120)
            with progress.step("copies of the databases, back in their place") as step:
                kept = [copies.restore(which, before.schemas[which.name]) for which in forward]
                step.result = "done; what there was is kept: " + ", ".join(kept)
        with progress.step("images of before") as step:
            for tag, image in before.images.items():
                step.run(["docker", "tag", image, tag], timeout=60, env=docker.env)
        with progress.step("files of before") as step:
            step.result = "here already" if branch is None else before.commit
            if branch is not None:
                commit = before.commit.rstrip("+")
                words = ["git", "-C", ROOT, "checkout", "--quiet", "--detach", commit]
                step.run(words, timeout=120)
        release.save(site, State(before))
    if branch is not None:
        print(f"\nThe checkout is at {before.commit} now. Forward again: git checkout {branch}")
    sys.stdout.flush()
    os.environ["LABCOMMONS_IMAGES"] = "as they are"
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "deploy", "up"])  # noqa: S606


def _previous(docker: Engine, state: State) -> Release:
    before = state.previous
    if before is None:
        raise Failure(
            "nothing is known of a version before this one: `make up` has put none in its place",
            "go on with the version that runs: make up",
        )
    if gone := [tag for tag, image in before.images.items() if not images.identity(docker, image)]:
        raise Failure(
            f"images of {before} are gone from this machine: {', '.join(gone)}",
            f"put the files of that version here (git checkout {before.commit or 'COMMIT'}) and "
            "run make up, which builds them",
        )
    return before


def _files(before: Release) -> str | None:
    """Where the checkout is, to come back to; None where it has the files of before already.

    Raises Failure where git could not bring them.
    """
    commit = before.commit.rstrip("+")
    here = release.git("rev-parse", "HEAD")
    if not commit or not here or release.git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise Failure(
            f"git does not know the files of {before} in {ROOT}",
            "fetch that commit with git, and run make rollback again",
        )
    if here.startswith(commit):
        return None
    # Every local change that the other commit would overwrite is refused, by git itself.
    if release.git("read-tree", "--dry-run", "-m", "-u", "HEAD", commit) is None:
        raise Failure(
            f"files that you have changed in {ROOT} are others in {before}",
            f"see git diff HEAD {commit}; put your changes aside, and run make rollback again",
        )
    return release.git("symbolic-ref", "--short", "HEAD") or here


def _forward(copies: Copies, before: Release) -> dict[Database, str]:
    """The databases whose tables are no longer those of before, with the copy of each."""
    found = {}
    for which in DATABASES:
        wanted = before.schemas.get(which.name, "")
        if not wanted or copies.revision(which) == wanted:
            continue
        if not (copy := copies.newest(which, wanted)):
            raise Failure(
                f"{which.title}: there is no copy of before its tables changed",
                "restore it from your backup",
            )
        found[which] = copy
    return found


def _tell(before: Release, forward: dict[Database, str]) -> None:
    """What comes, and what is lost by it."""
    up = f", up since {before.at[:16].replace('T', ' ')} UTC" if before.at else ""
    print(f"Back to LabCommons {before}{up}. Servers of people go on.")
    if not forward:
        print("The databases' tables are the same in both: nothing is lost.")
    for which, copy in forward.items():
        at = made_at(copy)
        when = f"{at:%Y-%m-%d %H:%M} UTC ({_ago(at)} ago)" if at else "before"
        print(f"The tables of {which.title} went forward: its copy of {when} is put back.")
        print(f"  LOST is what was written since: {which.holds}.")
        print(f"  The copy: {copy}")


def _ago(at: datetime) -> str:
    minutes = int((datetime.now(UTC) - at).total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 2880 else f"{minutes // 1440} days"


def _ask() -> None:
    if os.environ.get("FORCE") == "yes":
        return
    if not sys.stdin.isatty():
        raise Failure("nobody there to ask", "for scripts: make rollback FORCE=yes")
    if input("Type back to go on: ").strip() != "back":
        raise Failure("nothing was changed")
