"""``labcommons site`` and ``labcommons store``: what an administrator checks and prepares."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
from sqlalchemy.exc import DBAPIError

from hub_ext import origins
from hub_ext.site import DEFAULT_SITE_FILE, load_site
from hub_ext.store.database import Store, StoreError
from spawner.tiers.groups import owners


@click.group()
def site() -> None:
    """The site file."""


@site.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what the file decides as JSON.")
def check(file: Path | None, as_json: bool) -> None:
    """Say whether a site file is right; every wrong key with its remedy.

    FILE is LABCOMMONS_SITE_FILE by default. Exit 0: right; 1: not.
    """
    path = file or Path(os.environ.get("LABCOMMONS_SITE_FILE", DEFAULT_SITE_FILE))
    checked = load_site(path)
    # Also where nobody asks for JSON: two teams with one gid are wrong.
    groups = owners(checked)
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
