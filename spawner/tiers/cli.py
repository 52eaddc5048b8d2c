"""``labcommons env create|publish|promote|delete|tiers|builds``: environments outside images.

Run by an administrator where the store is. A job is asked for in somebody's name with ``--user``,
and done with that person's rights; without it, it is the administrator's, for the shared ones.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy.orm import Session

from hub_ext.site import load_site
from hub_ext.store import Store
from hub_ext.store.environments import BuildState, EnvironmentBuild
from spawner.environments.cli import env
from spawner.errors import SpawnerError
from spawner.tiers import asking, cli_decide, jobs, shelf
from spawner.tiers.rights import Person
from spawner.tiers.tier import Kind, Tier, parse_source

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["env"]

for _command in cli_decide.COMMANDS:
    env.add_command(_command)

_PAUSE = 0.3  # seconds between two looks at a build
_NAME = re.compile(r"^name[ \t]*:[ \t]*[\"']?([^\"'\s#]+)", re.MULTILINE)


def _common(command: F) -> F:
    for decorate in (
        click.option("--user", default="", help="In whose name, and with whose rights."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--wait/--no-wait", default=True, help="Wait until it is done (default)."),
    ):
        command = decorate(command)
    return command


@env.command("create")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--to", "source", default="", help="personal, team-NAME, course-NAME or shared.")
@click.option("--name", default="", help="Another name than the one in the file.")
@_common
def create(file: Any, source: str, name: str, user: str, as_json: bool, wait: bool) -> None:
    """Build an environment from an environment.yml outside images.

    \b
    Examples:
      labcommons env create environment.yml --user alice
      labcommons env create environment.yml --user bob --to team-vision
      labcommons env create environment.yml --to shared --json
    """
    text = file.read(shelf.MAX_SPEC + 1)
    found = _NAME.search(text)
    wanted = name or (found[1] if found else "") or Path(file.name).resolve().parent.name
    tier = _tier(source or ("personal" if user else "shared"), user)
    _ask(
        lambda s: asking.create(s, _person(user, tier), _limits(), tier, wanted, text),
        as_json,
        wait,
    )


@env.command("publish")
@click.argument("name")
@click.option("--to", "target", required=True, help="team-NAME or course-NAME.")
@click.option("--from", "origin", default="personal", show_default=True, help="Where it is now.")
@click.option("--as", "new_name", default="", help="Another name for the copy.")
@_common
def publish(
    name: str, target: str, origin: str, new_name: str, user: str, as_json: bool, wait: bool
) -> None:
    """Give a team or course a copy of an environment, with the same packages.

    \b
    Examples:
      labcommons env publish torch-study --user bob --to team-vision
    """
    if not user:
        raise click.UsageError("name the lead who publishes with --user")
    _copy(name, origin, target, new_name, user, as_json, wait)


@env.command("promote")
@click.argument("which", metavar="SOURCE/NAME")
@click.option("--to", "target", default="shared", show_default=True, help="shared or image.")
@click.option("--as", "new_name", default="", help="Another name for the copy.")
@_common
def promote(which: str, target: str, new_name: str, user: str, as_json: bool, wait: bool) -> None:
    """Make an environment of a team one for everybody, with the same packages.

    \b
    Examples:
      labcommons env promote team-vision/torch-study
      labcommons env promote team-vision/torch-study --to image
    """
    origin, name = _which(which)
    _copy(name, origin, target, new_name, user, as_json, wait)


@env.command("delete")
@click.argument("which", metavar="SOURCE/NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_common
def delete(which: str, yes: bool, user: str, as_json: bool, wait: bool) -> None:
    """Delete an environment with all its versions; refused while somebody uses it.

    \b
    Examples:
      labcommons env delete personal/old --user alice
      labcommons env delete shared/py39 --yes
    """
    source, name = _which(which)
    tier = _tier(source, user)
    if not yes:
        click.confirm(f"Delete {name} of {tier.source} with all its versions?", abort=True)
    _ask(lambda s: asking.delete(s, _person(user, tier), _limits(), tier, name), as_json, wait)


@env.command("tiers")
@click.option("--user", default="", help="Only this person's own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_tiers(user: str, as_json: bool) -> None:
    """Environments outside images: shared, of teams and courses, personal.

    \b
    Examples:
      labcommons env tiers
      labcommons env tiers --user alice --json
    """

    def work(session: Session) -> list[dict[str, Any]]:
        tiers = [Tier(Kind.PERSONAL, user)] if user else shelf.tiers(session)
        return [shelf.as_json(row) for row in shelf.of_tiers(session, tiers)]

    rows = Store().transact(work, read=True)
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not rows:
        click.echo("None has been built. Build one with: labcommons env create FILE --user NAME")
    for row in [] if as_json else rows:
        marks = [row["tag"], "" if row["state"] == "offered" else row["state"]]
        marks += ["pinned" if row["pinned"] else "", "" if row["current"] else "old"]
        mark = f"  ({', '.join(filter(None, marks))})" if any(marks) else ""
        owner = f":{row['owner']}" if row["source"] == "personal" else ""
        by = row["built_by"] or "administrator"
        click.echo(
            f"{row['source']}{owner}/{row['name']}  {row['version']}  "
            f"Python {row['python'] or '-'}  {row['packages']} packages  by {by}{mark}"
        )


@env.command("builds")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_builds(as_json: bool) -> None:
    """The newest builds of environments outside images.

    \b
    Examples:
      labcommons env builds --json
    """
    rows = Store().transact(lambda s: [_row(job) for job in jobs.recent(s)], read=True)
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not rows:
        click.echo("Nothing has been built yet.")
    for row in [] if as_json else rows:
        click.echo(
            f"{row['queued']}  {row['state']:9} {row['action']:8} {row['source']}/{row['name']}  "
            f"by {row['requested_by'] or 'administrator'}  {row['message'][:80]}"
        )


def _copy(
    name: str, origin: str, target: str, new_name: str, user: str, as_json: bool, wait: bool
) -> None:
    source, to = _tier(origin, user), _tier(target, user)
    person = _person(user, to, source)
    _ask(
        lambda s: asking.copy(s, person, _limits(), source, name, to, new_name or None),
        as_json,
        wait,
    )


def _which(which: str) -> tuple[str, str]:
    source, _, name = which.partition("/")
    if not name:
        raise click.UsageError("write SOURCE/NAME, for example team-vision/torch-study")
    return source, name


def _tier(source: str, user: str) -> Tier:
    if source == "personal" and not user:
        raise click.UsageError("whose? name the person with --user")
    try:
        return parse_source(source, user)
    except SpawnerError as error:
        raise click.UsageError(str(error)) from error


def _person(user: str, *tiers: Tier) -> Person:
    """The person as far as this side knows: the hub asks the directory before it starts."""
    if not user:
        return Person("", admin=True)
    teams = {tier.owner: "lead" for tier in tiers if tier.kind is Kind.TEAM}
    courses = {tier.owner: "instructor" for tier in tiers if tier.kind is Kind.COURSE}
    return Person(user, True, teams, courses)


def _limits() -> Any:
    return load_site().builds


def _ask(work: Callable[[Session], EnvironmentBuild], as_json: bool, wait: bool) -> None:
    store = Store()
    try:
        job = store.transact(work)
    except SpawnerError as error:
        raise click.ClickException(str(error)) from error
    if wait:
        job = _wait(store, job.id)
    row = _row(job)
    if as_json:
        click.echo(json.dumps(row, indent=2, ensure_ascii=False))
    elif not wait:
        click.echo(f"{row['id']}  {row['state']}")
    if job.state in (BuildState.FAILED, BuildState.CANCELLED):
        raise click.ClickException(job.message or "it was cancelled")
    if wait and not as_json:
        click.echo(f"{row['source']}/{row['name']}  {row['version'] or 'deleted'}")


def _wait(store: Store, job_id: str) -> EnvironmentBuild:
    told = ""
    while True:
        job = store.transact(lambda s: jobs.get(s, job_id), read=True)
        if job is None:
            raise click.ClickException("the build was removed meanwhile")
        words = f"[{job.percent:3d}%] {job.message or job.state}"
        if words != told and job.state in jobs.LIVE:
            click.echo(words, err=True)
            told = words
        if job.state not in jobs.LIVE:
            return job
        time.sleep(_PAUSE)


def _row(job: EnvironmentBuild) -> dict[str, Any]:
    return {
        "id": job.id,
        "action": job.action,
        "source": jobs.tier_of(job).source,
        "owner": job.owner,
        "name": job.name,
        "requested_by": job.requested_by,
        "state": str(job.state),
        "percent": job.percent,
        "message": job.message,
        "version": job.version,
        "queued": f"{job.queued_at.isoformat(timespec='seconds')}Z",
    }
