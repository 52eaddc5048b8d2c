"""``labcommons env pin|tag|deprecate|withdraw``: decide about a version, in every scope."""

from __future__ import annotations

import json
from typing import Any

import click
from sqlalchemy.orm import Session

from commons.audit import record_command
from commons.errors import LabError, in_terminal
from commons.one_line import is_one_line
from commons.principal import Principal
from commons.scopes import IMAGE, Keeper, Scope, parse_source
from commons.site import Builds, load_site
from commons.store import Store
from environments.builds import decisions, repository
from environments.catalog import CatalogEntry
from environments.cli.versions import standing

_VERSION = click.argument("which", metavar="[SOURCE/]NAME:VERSION")
_REASON = click.option("--reason", help="Shown to people; one line.")
_UNDO = click.option("--undo", is_flag=True, help="Take it back.")
_USER = click.option("--user", default="", help="In whose name, and with whose rights.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("pin")
@_VERSION
@_UNDO
@_USER
@_JSON
def pin(which: str, undo: bool, user: str, as_json: bool) -> None:
    """Keep a version whatever its age, as one that a paper cites.

    \b
    Examples:
      labcommons env pin py313-data:1.2.0
      labcommons env pin py313-data:1.2.0 --undo
      labcommons env pin team-vision/study:20261121-1a2b3c4d --user bob
    """
    _decide(which, "pin", None if undo else "", user, as_json)


@click.command("tag")
@_VERSION
@click.option("--tag", help="A semantic version, such as 1.2.0.")
@_UNDO
@_USER
@_JSON
def tag(which: str, tag: str | None, undo: bool, user: str, as_json: bool) -> None:
    """Give a version outside images a semantic version; that of images is in labcommons.yml.

    \b
    Examples:
      labcommons env tag team-vision/study:20261121-1a2b3c4d --tag 1.0.0 --user bob
    """
    if bool(tag) == undo:
        raise click.UsageError("give --tag or --undo")
    _decide(which, "tag", tag if not undo else None, user, as_json)


@click.command("deprecate")
@_VERSION
@_REASON
@_UNDO
@_USER
@_JSON
def deprecate(which: str, reason: str | None, undo: bool, user: str, as_json: bool) -> None:
    """Say that a version should no more be used. It still can, and says since when and why.

    \b
    Examples:
      labcommons env deprecate py311-numpy1:20261121-1a2b3c4d --reason "use py313-data"
      labcommons env deprecate py311-numpy1:20261121-1a2b3c4d --undo
      labcommons env deprecate shared/stats:1.0.0 --reason "stats 2 is out"
    """
    _decide(which, "deprecate", _reason(reason, undo), user, as_json)


@click.command("withdraw")
@_VERSION
@_REASON
@_UNDO
@_USER
@_JSON
def withdraw(which: str, reason: str | None, undo: bool, user: str, as_json: bool) -> None:
    """Offer a version no more. Servers that run it go on; who asks for it is told why.

    \b
    Examples:
      labcommons env withdraw py313-data:1.1.0 --reason "a hole in pillow, take 1.1.1"
      labcommons env withdraw py313-data:1.1.0 --undo
      labcommons env withdraw team-vision/study:1.0.0 --reason "wrong units" --user bob
    """
    _decide(which, "withdraw", _reason(reason, undo), user, as_json)


def _reason(reason: str | None, undo: bool) -> str | None:
    if undo and reason:
        raise click.UsageError("give --reason or --undo")
    if not undo and not (reason and reason.strip()):
        raise click.UsageError("say why, for those who use it: --reason 'numpy 2 is out'")
    if reason and (len(reason) > decisions.MAX_REASON or not is_one_line(reason)):
        raise click.UsageError(f"--reason: one line of at most {decisions.MAX_REASON} characters")
    return None if undo else reason


def _decide(which: str, what: decisions.What, value: str | None, user: str, as_json: bool) -> None:
    """Decide, leave a line in the audit trail, and say what the version is now."""
    source, slash, rest = which.rpartition("/")
    name, _, version = rest.partition(":")
    if not version:
        raise click.UsageError(f"name the version: {which}:VERSION (labcommons env list, scopes)")
    try:
        scope = parse_source(source, user) if slash else IMAGE
    except LabError as error:
        raise click.UsageError(in_terminal(error)) from error
    if scope.keeper is not Keeper.SITE and not user:
        raise click.UsageError("name whose it is, or the lead who decides, with --user")
    person = _person(user, scope)

    def work(session: Session) -> dict[str, Any]:
        limits = Builds() if scope == IMAGE else load_site().builds
        found, _ = decisions.decide(session, person, limits, scope, name, version, what, value)
        row = found.as_json() if isinstance(found, CatalogEntry) else repository.as_json(found)
        return row | {"standing": standing(found)}

    details: dict[str, object] = {"scope": scope.source, "environment": name, "version": version}
    details |= {"decision": what, "undone": value is None, **({"why": value} if value else {})}
    try:
        row = Store().transact(work)
    except LabError as error:
        record_command("environment-decide", "failure", details | {"code": error.code}, user=user)
        raise click.ClickException(in_terminal(error)) from error
    record_command(
        "environment-decide", "success", details | {"version": row["version"]}, user=user
    )
    if as_json:
        click.echo(json.dumps(row, indent=2, ensure_ascii=False))
    else:
        place = "" if scope == IMAGE else f"{scope.source}/"
        click.echo(f"{place}{row['name']}:{row['version']}  {row['standing']}")


def _person(user: str, scope: Scope) -> Principal:
    """The person as far as this side knows: the hub asks the directory before it acts."""
    return Principal.assumed(user, [scope], admin=not user)


COMMANDS = (pin, tag, deprecate, withdraw)
