"""``labcommons env``: lock, build and list the environments of the site."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from hub_ext.site import load_site
from hub_ext.store import Store
from spawner.environments import catalog

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

CONFIG, DATA = "/etc/labcommons", "/srv/labcommons/data"


@click.group()
def env() -> None:
    """Environments: from environment.yml to images that servers start from.

    Each subfolder of the environments folder with an environment.yml is one; a
    labcommons.yml beside it has its title and description.

    \b
    Examples:
      labcommons env build py313-data
      labcommons env build --all --json
      labcommons env lock --update py313-data
      labcommons env list
    """


def _names_and_places(command: F) -> F:
    for decorate in (
        click.argument("names", nargs=-1, metavar="[NAME]..."),
        click.option("--all", "everything", is_flag=True, help="All environments of the folder."),
        click.option("--update", is_flag=True, help="Take newer packages where there are some."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option(
            "--environments",
            type=click.Path(path_type=Path, file_okay=False),
            help="The environments folder.  [default: $LABCOMMONS_CONFIG/environments]",
        ),
        click.option(
            "--data",
            type=click.Path(path_type=Path, file_okay=False),
            help="The data folder.  [default: $LABCOMMONS_DATA]",
        ),
    ):
        command = decorate(command)
    return command


@env.command("build")
@_names_and_places
@click.option("--server-image", help="The image that environments are built on.")
def build(
    names: tuple[str, ...],
    everything: bool,
    update: bool,
    as_json: bool,
    environments: Path | None,
    data: Path | None,
    server_image: str | None,
) -> None:
    """Build images of environments; what is built already is left as it is.

    A failed build leaves the version that people use in place.

    \b
    Examples:
      labcommons env build py313-data
      labcommons env build --all
    """
    from spawner.environments.build import SERVER_IMAGE

    builder = _builder(environments, data, server_image or SERVER_IMAGE)

    def work(name: str) -> dict[str, Any]:
        outcome = builder.build(name, update)
        entry, state = outcome.entry, "built" if outcome.is_new else "up to date"
        return {"name": name, "version": entry.version, "image": entry.image, "state": state}

    rows = _each(_chosen(names, everything, builder.places.environments), work)
    _show(rows, as_json, lambda row: f"{row['image']}  {row['state']}")


@env.command("lock")
@_names_and_places
def lock(
    names: tuple[str, ...],
    everything: bool,
    update: bool,
    as_json: bool,
    environments: Path | None,
    data: Path | None,
) -> None:
    """Choose the exact packages of environments and write them down as a pixi.lock.

    To commit one, copy it beside its environment.yml.

    \b
    Examples:
      labcommons env lock py313-data
      labcommons env lock --update --all
    """
    builder = _builder(environments, data)

    def work(name: str) -> dict[str, Any]:
        made = builder.lock(name, update)
        return {
            "name": name,
            "lock": str(made.path),
            "digest": made.digest,
            "packages": len(made.packages),
        }

    rows = _each(_chosen(names, everything, builder.places.environments), work)
    _show(rows, as_json, lambda row: f"{row['lock']}  {row['packages']} packages")


@env.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--versions", is_flag=True, help="All versions, not only the newest.")
def list_environments(as_json: bool, versions: bool) -> None:
    """Environments that servers can be started with.

    \b
    Examples:
      labcommons env list
      labcommons env list --versions --json
    """
    found = Store().transact(catalog.newest, read=True)
    entries = [entry for every in found.values() for entry in (every if versions else every[:1])]
    if as_json:
        click.echo(json.dumps([entry.as_json() for entry in entries], indent=2, ensure_ascii=False))
        return
    if not entries:
        click.echo("No environment has been built. Build them with: labcommons env build --all")
        return
    rows = [("NAME", "VERSION", "PYTHON", "PACKAGES", "IMAGE", "CREATED (UTC)")]
    rows += [
        (
            entry.name,
            entry.version,
            entry.python or "-",
            str(len(entry.packages)),
            entry.image,
            f"{entry.created_at:%Y-%m-%d %H:%M}",
        )
        for entry in entries
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _builder(environments: Path | None, data: Path | None, server_image: str = "") -> Any:
    from spawner.environments.build import Builder, Places

    config = Path(os.environ.get("LABCOMMONS_CONFIG", CONFIG))
    places = Places(
        environments or config / "environments",
        data or Path(os.environ.get("LABCOMMONS_DATA", DATA)),
    )
    return Builder(
        load_site().environments,
        places,
        Store(),
        lambda message: click.echo(message, err=True),
        server_image,
    )


def _chosen(names: Sequence[str], everything: bool, folder: Path) -> list[str]:
    from spawner.environments.spec import find_environments

    known = find_environments(folder)
    if bool(names) == everything:
        raise click.UsageError(
            f"name environments, or give --all. In {folder}: {', '.join(known) or 'none'}"
        )
    for name in names:
        if name not in known:
            raise click.UsageError(
                f"there is no environment {name!r} in {folder}: {', '.join(known) or 'none'}"
            )
    return list(dict.fromkeys(names)) or known


def _each(names: Sequence[str], work: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Do the work for each environment; one that fails does not keep the others from it."""
    from spawner.environments.errors import BuildError

    rows = []
    for name in names:
        try:
            rows.append(work(name))
        except (BuildError, OSError) as error:
            click.echo(f"Error: {error}", err=True)
            rows.append({"name": name, "state": "failed", "error": str(error)})
    return rows


def _show(rows: list[dict[str, Any]], as_json: bool, line: Callable[[dict[str, Any]], str]) -> None:
    """Print the results; raises ClickException (exit 1) when one of them failed."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    failed = [row["name"] for row in rows if "error" in row]
    for row in rows:
        if not as_json and "error" not in row:
            click.echo(line(row))
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(rows)} environments failed: {', '.join(failed)}. What people "
            "use now stays as it is. Mend what is said above and run the command again."
        )
