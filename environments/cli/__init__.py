"""``labcommons env``: lock, build and list the environments of the site."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from commons.errors import in_terminal
from commons.i18n import gettext_for, terminal_language
from commons.store import Store
from commons.units import amount
from environments import catalog
from environments.cli import checking, signing, versions, vulnerable
from environments.cli.common import (
    need_builder,
    operator,
    places,
    settings,
    signatures,
    table,
)
from environments.progress import Progress

if TYPE_CHECKING:
    from environments.build import Builder

# It adds its commands to the group.
_OF_SCOPES = "environments.cli.builds"
F = TypeVar("F", bound=Callable[..., Any])


class _Env(click.Group):
    """The commands of this module at once, those of scopes when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        importlib.import_module(_OF_SCOPES)
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            importlib.import_module(_OF_SCOPES)
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Env)
def env() -> None:
    """Environments: from environment.yml to images that servers start from.

    Each subfolder of the environments folder with an environment.yml is one; a
    labcommons.yml beside it says title, description, who may use it and more.

    \b
    Examples:
      labcommons env build py313-data
      labcommons env build --all --json
      labcommons env lock --beside py313-data
      labcommons env show py313-data
      labcommons env export py313-data --format dockerfile
    """


for _command in (*versions.COMMANDS, *signing.COMMANDS, *checking.COMMANDS, *vulnerable.COMMANDS):
    env.add_command(_command)


def _names_and_places(command: F) -> F:
    for decorate in (
        click.argument("names", nargs=-1, metavar="[NAME]..."),
        click.option("--all", "everything", is_flag=True, help="All environments of the folder."),
        click.option("--update", is_flag=True, help="Take newer packages where there are some."),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            help="Print JSON, and what happens as JSON lines on the error output.",
        ),
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

    A failed build leaves the version that people use in place. With --all, environments whose
    folder is gone are no more offered.

    \b
    Examples:
      labcommons env build py313-data
      labcommons env build --all
      labcommons env build --update --json py313-data
    """
    need_builder()
    from environments.build import SERVER_IMAGE

    builder = _builder(environments, data, as_json, server_image or SERVER_IMAGE)

    def work(name: str) -> dict[str, Any]:
        outcome = builder.build(name, update)
        entry, state = outcome.entry, "built" if outcome.is_new else "up to date"
        return {
            "name": name,
            "version": entry.version,
            "image": entry.image,
            "state": state,
            "findings": entry.findings,
        }

    chosen = _chosen(names, everything, builder.places.environments)
    if everything:
        for name in builder.store.transact(lambda s: catalog.set_present(s, chosen)):
            click.echo(f"{name}: its folder is gone; it is no more offered", err=True)
    rows = _each(chosen, work)
    if everything:
        _bound_channel(builder)
    _show(rows, as_json, lambda row: f"{row['image']}  {row['state']}")


def _bound_channel(builder: Builder) -> None:
    """Keep the offline channel within its bound, after what may have made it larger."""
    from environments.errors import BuildError
    from environments.prune import prune_channel

    try:
        room = prune_channel(builder.places, builder.store, builder.settings.offline_bytes)
    except (BuildError, OSError) as error:  # no reason for the environments to have failed
        click.echo(f"the offline channel is left as large as it is: {error}", err=True)
        return
    if room.freed:
        words = f"{amount(room.freed)} that no lock needs were removed from the offline channel"
        click.echo(words, err=True)


@env.command("lock")
@_names_and_places
@click.option("--beside", is_flag=True, help="Write pixi.lock beside environment.yml, to commit.")
@click.option("--check", is_flag=True, help="Only say whether committed locks are up to date.")
def lock(
    names: tuple[str, ...],
    everything: bool,
    update: bool,
    as_json: bool,
    environments: Path | None,
    data: Path | None,
    beside: bool,
    check: bool,
) -> None:
    """Choose the exact packages of environments and write them down as a pixi.lock.

    --check asks no channel and needs no site file: it fails (1) where a committed lock does not
    answer its environment.yml, and says what changed.

    \b
    Examples:
      labcommons env lock py313-data
      labcommons env lock --update --beside --all
      labcommons env lock --check --all --environments config/environments
    """
    need_builder()
    if check and (update or beside):
        raise click.UsageError("--check changes nothing: leave out --update and --beside")
    builder = _builder(environments, data, as_json)
    folder = builder.places.environments

    def work(name: str) -> dict[str, Any]:
        from environments.files import LOCK_FILE

        made = builder.lock(name, update, folder / name / LOCK_FILE if beside else None)
        return {
            "name": name,
            "lock": str(made.path),
            "digest": made.digest,
            "packages": len(made.packages),
            "pip": len(made.pip),
        }

    chosen = _chosen(names, everything, folder)
    if check:
        _show(
            _each(chosen, lambda name: _check_lock(folder / name)),
            as_json,
            lambda row: f"{row['lock']}  {row['state']}",
        )
        return
    rows = _each(chosen, work)
    _show(rows, as_json, lambda row: f"{row['lock']}  {row['packages'] + row['pip']} packages")


def _check_lock(folder: Path) -> dict[str, Any]:
    """Whether the lock beside an environment.yml answers it. Raises LockError."""
    from environments.errors import LockError
    from environments.files import LOCK_FILE
    from environments.lock import changes, read_lock
    from environments.messages import making as texts
    from environments.spec import load_spec

    spec = load_spec(folder)
    path = folder / LOCK_FILE
    remedy = texts.MAKE_BESIDE(name=spec.name)
    if not path.exists():
        raise LockError(texts.LOCK_NOT_THERE(file=path, remedy=remedy))
    made = read_lock(path, spec.platforms[0])
    if made.spec_digest != spec.digest:
        raise LockError(
            texts.LOCK_ANSWERS_OTHER(
                file=path,
                spec=f"{folder.name}/environment.yml",
                changes=changes(spec, made) or [texts.SAYS_NOT_WHAT()],
                remedy=remedy,
            )
        )
    return {"name": spec.name, "lock": str(path), "state": "up to date", "digest": made.digest}


@env.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--versions", "all_versions", is_flag=True, help="Not only the newest.")
def list_environments(as_json: bool, all_versions: bool) -> None:
    """Environments that servers can be started with.

    \b
    Examples:
      labcommons env list
      labcommons env list --versions --json
    """
    from environments.pythons import python_state

    found = Store().transact(lambda s: catalog.newest(s, not all_versions), read=True)
    entries = [entry for rows in found.values() for entry in (rows if all_versions else rows[:1])]
    today = datetime.now(UTC).date()
    if as_json:
        rows = [
            entry.as_json() | {"python_state": python_state(entry.python or "", today)}
            for entry in entries
        ]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not entries:
        click.echo("No environment has been built. Build them with: labcommons env build --all")
        return
    marks = {"ended": " (ended)", "ending": " (ends soon)", "ok": ""}
    click.echo(
        table(
            ["NAME", "VERSION", "TAG", "STATE", "PYTHON", "PACKAGES", "SIZE", "CREATED (UTC)"],
            [
                [
                    entry.name,
                    entry.version + (" *" if entry.pinned else ""),
                    entry.tag or "-",
                    entry.state,
                    f"{entry.python}{marks[python_state(entry.python, today)]}"
                    if entry.python
                    else "-",
                    str(len(entry.packages)),
                    f"{entry.size >> 20} MB" if entry.size else "-",
                    f"{entry.created_at:%Y-%m-%d %H:%M}",
                ]
                for entry in entries
            ],
        )
    )
    if any(entry.pinned for entry in entries):
        click.echo("* pinned")


def _builder(
    environments: Path | None, data: Path | None, as_json: bool, server_image: str = ""
) -> Builder:
    from commons.signatures.check import Checker
    from environments.build import Builder
    from environments.provenance import Provenance

    gettext = gettext_for(terminal_language())

    def report(progress: Progress) -> None:
        words = (
            json.dumps(progress.as_json(), ensure_ascii=False)
            if as_json
            else progress.in_words(gettext)
        )
        click.echo(words, err=True)

    where = places(environments, data)
    stated = Provenance.of(Checker(signatures(), where.data), operator())
    return Builder(settings(), where, Store(), report, server_image, provenance=stated)


def _chosen(names: Sequence[str], everything: bool, folder: Path) -> list[str]:
    from environments.spec import find_environments

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
    from environments.errors import BuildError

    rows = []
    for name in names:
        try:
            rows.append(work(name))
        except (BuildError, OSError) as error:
            click.echo(f"Error: {in_terminal(error)}", err=True)
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
