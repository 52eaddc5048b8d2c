"""``labcommons env create|publish|promote|delete|scopes|builds``: environments outside images.

Run by an administrator where the store is. A job is asked for in somebody's name with ``--user``,
and done with that person's rights; without it, it is the administrator's, for the shared ones.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from commons.errors import LabError, in_terminal
from commons.scopes import personal
from commons.store import Store
from environments.builds import queue, repository, service
from environments.cli import decisions, env
from environments.cli.asking import ask, common, limits, person_for, row_of, scope_named, which_one
from environments.cli.edit import edit
from environments.encoding import decode
from environments.kinds import MAX_LOCK

__all__ = ["env"]

for _command in (*decisions.COMMANDS, edit):
    env.add_command(_command)

_NAME = re.compile(r"^name[ \t]*:[ \t]*[\"']?([^\"'\s#]+)", re.MULTILINE)


@env.command("create")
@click.argument("file", type=click.File("rb"))
@click.option("--to", "source", default="", help="personal, team-NAME, course-NAME or shared.")
@click.option("--name", default="", help="Another name than the one in the file.")
@common
def create(file: Any, source: str, name: str, user: str, as_json: bool, wait: bool) -> None:
    """Build an environment from an environment.yml outside images.

    A lock of conda-lock or pixi, an @EXPLICIT list and a pixi.toml are built as well; FILE may be
    - (standard input).

    \b
    Examples:
      labcommons env create environment.yml --user alice
      labcommons env create environment.yml --user bob --to team-vision
      labcommons env create environment.yml --to shared --json
      labcommons env create conda-lock.yml --name study --user alice
    """
    try:
        text = decode(file.read(4 * MAX_LOCK), file.name)
    except LabError as error:
        raise click.ClickException(in_terminal(error)) from error
    found = _NAME.search(text)
    wanted = name or (found[1] if found else "") or Path(file.name).resolve().parent.name
    scope = scope_named(source or ("personal" if user else "shared"), user)
    ask(
        lambda s: service.create(s, person_for(user, scope), limits(), scope, wanted, text),
        as_json,
        wait,
    )


@env.command("publish")
@click.argument("name")
@click.option("--to", "target", required=True, help="team-NAME or course-NAME.")
@click.option("--from", "origin", default="personal", show_default=True, help="Where it is now.")
@click.option("--as", "new_name", default="", help="Another name for the copy.")
@common
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
@common
def promote(which: str, target: str, new_name: str, user: str, as_json: bool, wait: bool) -> None:
    """Make an environment of a team one for everybody, with the same packages.

    \b
    Examples:
      labcommons env promote team-vision/torch-study
      labcommons env promote team-vision/torch-study --to image
    """
    origin, name = which_one(which)
    _copy(name, origin, target, new_name, user, as_json, wait)


@env.command("delete")
@click.argument("which", metavar="SOURCE/NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def delete(which: str, yes: bool, user: str, as_json: bool, wait: bool) -> None:
    """Delete an environment with all its versions; refused while somebody uses it.

    \b
    Examples:
      labcommons env delete personal/old --user alice
      labcommons env delete shared/py39 --yes
    """
    source, name = which_one(which)
    scope = scope_named(source, user)
    if not yes:
        click.confirm(f"Delete {name} of {scope.source} with all its versions?", abort=True)
    ask(lambda s: service.delete(s, person_for(user, scope), limits(), scope, name), as_json, wait)


@env.command("scopes")
@click.option("--user", default="", help="Only this person's own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_scopes(user: str, as_json: bool) -> None:
    """Environments outside images: shared, of teams and courses, personal.

    \b
    Examples:
      labcommons env scopes
      labcommons env scopes --user alice --json
    """

    def work(session: Session) -> list[dict[str, Any]]:
        scopes = [personal(user)] if user else repository.scopes(session)
        return [repository.as_json(row) for row in repository.of_scopes(session, scopes)]

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
    rows = Store().transact(lambda s: [row_of(job) for job in queue.recent(s)], read=True)
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
    source, to = scope_named(origin, user), scope_named(target, user)
    person = person_for(user, to, source)
    ask(
        lambda s: service.copy(s, person, limits(), source, name, to, new_name or None),
        as_json,
        wait,
    )
