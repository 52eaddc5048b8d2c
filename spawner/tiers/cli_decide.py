"""``labcommons env pin|tag|deprecate|withdraw``: decide about a version, in every tier."""

from __future__ import annotations

import json
from typing import Any

import click
from sqlalchemy.orm import Session

from hub_ext.audit import record_command
from hub_ext.site import Builds, load_site
from hub_ext.store import Store
from spawner.environments.catalog import CatalogEntry
from spawner.environments.cli_versions import standing
from spawner.errors import SpawnerError
from spawner.tiers import decisions, shelf
from spawner.tiers.rights import Person
from spawner.tiers.tier import IMAGE, Kind, Tier, parse_source

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
    if reason and (len(reason) > decisions.MAX_REASON or not reason.isprintable()):
        raise click.UsageError(f"--reason: one line of at most {decisions.MAX_REASON} characters")
    return None if undo else reason


def _decide(which: str, what: decisions.What, value: str | None, user: str, as_json: bool) -> None:
    """Decide, leave a line in the audit trail, and say what the version is now."""
    source, slash, rest = which.rpartition("/")
    name, _, version = rest.partition(":")
    if not version:
        raise click.UsageError(f"name the version: {which}:VERSION (labcommons env list, tiers)")
    try:
        tier = parse_source(source, user) if slash else IMAGE
    except SpawnerError as error:
        raise click.UsageError(str(error)) from error
    if tier.kind in (Kind.PERSONAL, Kind.TEAM, Kind.COURSE) and not user:
        raise click.UsageError("name whose it is, or the lead who decides, with --user")
    person = _person(user, tier)

    def work(session: Session) -> dict[str, Any]:
        limits = Builds() if tier == IMAGE else load_site().builds
        found, _ = decisions.decide(session, person, limits, tier, name, version, what, value)
        row = found.as_json() if isinstance(found, CatalogEntry) else shelf.as_json(found)
        return row | {"standing": standing(found)}

    details: dict[str, object] = {"tier": tier.source, "environment": name, "version": version}
    details |= {"decision": what, "undone": value is None, **({"why": value} if value else {})}
    try:
        row = Store().transact(work)
    except SpawnerError as error:
        record_command("environment-decide", "failure", details | {"code": error.code}, user=user)
        raise click.ClickException(str(error)) from error
    record_command(
        "environment-decide", "success", details | {"version": row["version"]}, user=user
    )
    if as_json:
        click.echo(json.dumps(row, indent=2, ensure_ascii=False))
    else:
        place = "" if tier == IMAGE else f"{tier.source}/"
        click.echo(f"{place}{row['name']}:{row['version']}  {row['standing']}")


def _person(user: str, tier: Tier) -> Person:
    """The person as far as this side knows: the hub asks the directory before it acts."""
    if not user:
        return Person("", admin=True)
    teams = {tier.owner: "lead"} if tier.kind is Kind.TEAM else {}
    courses = {tier.owner: "instructor"} if tier.kind is Kind.COURSE else {}
    return Person(user, False, teams, courses)


COMMANDS = (pin, tag, deprecate, withdraw)
