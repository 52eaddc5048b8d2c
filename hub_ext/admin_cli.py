"""``labcommons site`` and ``labcommons store``: what an administrator checks and prepares."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
from sqlalchemy.exc import DBAPIError

from hub_ext import origins
from hub_ext.directory.cli import DirectoryOfSite
from hub_ext.directory.errors import DirectoryError
from hub_ext.site import DEFAULT_SITE_FILE, Site, load_site
from hub_ext.store.database import Store, StoreError
from spawner.tiers.groups import owners


@click.group()
def site() -> None:
    """The site file."""


@site.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--offline", is_flag=True, help="Do not ask the directory for the groups.")
@click.option("--json", "as_json", is_flag=True, help="Print what the file decides as JSON.")
def check(file: Path | None, offline: bool, as_json: bool) -> None:
    """Say whether a site file is right; every wrong key with its remedy.

    FILE is LABCOMMONS_SITE_FILE by default. A denied group that the directory does not have is
    wrong; other unknown groups, and a directory that does not answer, are only said.
    Exit 0: right; 1: not.

    \b
    Examples:
      labcommons site check
      labcommons site check --offline config/site.yaml
    """
    path = file or Path(os.environ.get("LABCOMMONS_SITE_FILE", DEFAULT_SITE_FILE))
    checked = load_site(path)
    # Also where nobody asks for JSON: two teams with one gid are wrong.
    groups = owners(checked)
    if not offline:
        _check_groups(checked, path)
    if as_json:
        summary = {
            "file": str(path),
            "name": checked.site.name,
            "public_url": checked.site.public_url.rstrip("/"),
            "server_names": origins.server_names(checked),
            "demo": checked.site.demo,
            "sizes": list(checked.sizes),
            "gpus": {"source": checked.gpus.source, "listed": len(checked.gpus.devices)},
            # What the service of kernels needs to read the environments of teams and courses.
            "kernels_groups": sorted(pair.members for pair in groups.values()),
        }
        click.echo(json.dumps(summary, ensure_ascii=False))
    else:
        click.echo(f"{path}: right. {checked.site.name}, {checked.site.public_url}")


def _check_groups(checked: Site, path: Path) -> None:
    try:
        findings = DirectoryOfSite(checked).unknown_groups()
    except (DirectoryError, click.ClickException) as error:
        click.echo(f"{path}: its groups are not checked at the directory: {error}", err=True)
        return
    for finding in findings:
        click.echo(f"{path}: {finding.text}; {finding.remedy}", err=True)
    if any(finding.level == "wrong" for finding in findings):
        raise click.ClickException(
            f"{path}: a group of denied_groups that nobody can be in keeps nobody out"
        )


@click.group()
def store() -> None:
    """The database."""


@store.command("migrate")
@click.option("--json", "as_json", is_flag=True, help="Print the database's address as JSON.")
def migrate(as_json: bool) -> None:
    """Bring the tables to this version. Harmless to repeat."""
    database = Store()
    try:
        database.migrate()
    except DBAPIError as error:
        raise StoreError(
            f"database {database.safe_url}: {error.orig}; does it run, and does the user exist?"
        ) from error
    finally:
        database.close()
    click.echo(
        json.dumps({"database": database.safe_url})
        if as_json
        else f"{database.safe_url}: up to date"
    )
