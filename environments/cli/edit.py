"""``labcommons env edit``: an environment changed, the difference shown before it is built."""

from __future__ import annotations

import json
from typing import Any

import click
from sqlalchemy.orm import Session

from commons.errors import LabError, in_terminal
from commons.principal import Principal
from commons.scopes import Scope
from commons.store import Store
from environments.builds import editing, queue, service
from environments.builds.editing import Draft
from environments.cli.asking import ask, common, limits, person_for, scope_named, which_one
from environments.cli.common import places
from environments.edit import Change
from environments.encoding import decode
from environments.kinds import MAX_LOCK


@click.command("edit")
@click.argument("which", metavar="[SOURCE/NAME]", required=False)
@click.option("--add", multiple=True, metavar="PACKAGE", help="With conda: numpy, 'numpy>=2'.")
@click.option("--pip", multiple=True, metavar="PACKAGE", help="With pip.")
@click.option("--remove", multiple=True, metavar="NAME", help="Wherever it is listed.")
@click.option("--file", type=click.File("rb"), help="The whole environment.yml.")
@click.option("--editor", is_flag=True, help="Open the whole text in $EDITOR.")
@click.option("--build", "failed", default="", metavar="ID", help="Correct a build that failed.")
@click.option("--base", default="", help="The version that you edited; another one is refused.")
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def edit(
    which: str | None,
    add: tuple[str, ...],
    pip: tuple[str, ...],
    remove: tuple[str, ...],
    file: Any,
    editor: bool,
    failed: str,
    base: str,
    dry_run: bool,
    yes: bool,
    user: str,
    as_json: bool,
    wait: bool,
) -> None:
    """Change an environment: a new version of it, built once the difference was shown.

    The version that people use stays until the new one is built. Of an image environment, --user
    gets a copy of their own.

    \b
    Examples:
      labcommons env edit personal/study --user alice --add cowsay --remove pandas
      labcommons env edit team-vision/torch --user bob --editor
      labcommons env edit shared/py313 --file environment.yml --yes --json
      labcommons env edit image/py313-data --user alice --add cowsay
      labcommons env edit --build 0123456789abcdef0123456789abcdef --add ipykernel
    """
    if bool(which) == bool(failed):
        raise click.UsageError("name SOURCE/NAME, or a build that failed with --build")
    change, text = Change(add, pip, remove), _read(file)
    if which and not scope_named(which_one(which)[0], user).has_folder:
        return _derive(which, change, text is not None or editor, user, as_json, wait)

    def draft(session: Session, spec: str | None, what: Change) -> Draft:
        if failed:
            person = _who(session, failed, user)
            return editing.draft_correction(session, person, failed, what, spec=spec)
        source, name = which_one(which or "")
        scope = scope_named(source, user)
        person = person_for(user, scope)
        return editing.draft_edit(session, person, scope, name, what, spec=spec, base=base)

    try:
        if editor:
            start = text or _text(which, failed, user)
            if change:
                spec = start
                start = Store().transact(lambda s: draft(s, spec, change), read=True).spec
            if (text := click.edit(start, extension=".yml")) is None:
                raise click.ClickException("nothing was saved, so nothing is changed")
            change = Change()
        made = Store().transact(lambda s: draft(s, text, change), read=True)
    except LabError as error:
        raise click.ClickException(in_terminal(error)) from error
    shown = made.as_json()
    if dry_run:
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False) if as_json else shown["diff"])
        return None
    if not (yes or as_json):
        click.echo(shown["diff"])
        click.confirm("Build this?", abort=True)

    def asked(session: Session) -> Any:
        again = draft(session, text, change)
        return editing.ask(session, person_for(user, again.scope), limits(), again)

    return ask(asked, as_json, wait)


def _read(file: Any) -> str | None:
    try:
        return decode(file.read(4 * MAX_LOCK), file.name) if file else None
    except LabError as error:
        raise click.ClickException(in_terminal(error)) from error


def _derive(which: str, change: Change, whole: bool, user: str, as_json: bool, wait: bool) -> None:
    if not user:
        raise click.UsageError("whose shall the copy be? name the person with --user")
    if whole:
        raise click.UsageError("a copy of an image environment takes --add, --pip and --remove")
    source, name = which_one(which)
    origin, kept = scope_named(source, user), editing.kept_in(places().versions)
    person = person_for(user, origin)
    ask(
        lambda s: editing.derive(s, person, limits(), origin, name, change, kept=kept),
        as_json,
        wait,
    )


def _who(session: Session, build: str, user: str) -> Principal:
    job = queue.get(session, build)
    scopes: list[Scope] = [queue.scope_of(job)] if job else []
    return person_for(user or (job.requested_by if job else ""), *scopes)


def _text(which: str | None, failed: str, user: str) -> str:
    """The environment.yml that is edited. Raises LabError."""

    def work(session: Session) -> str:
        if failed:
            return service.find_build(session, _who(session, failed, user), failed).spec
        source, name = which_one(which or "")
        scope = scope_named(source, user)
        row = service.find_version(session, person_for(user, scope), scope, name)
        return str(getattr(row, "spec", ""))

    return Store().transact(work, read=True)
