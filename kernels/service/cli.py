"""``labcommons kernels``: run the service; ``list`` and ``show`` what it has registered.

The two read the store, so they work wherever that is, also while the service is down.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy.orm import Session

from commons.principal import Principal
from commons.scopes import SCOPES, Keeper
from commons.store import DirectoryPerson, Store
from commons.store.models import utcnow
from commons.store.usage import LATELY, Use, uses
from kernels.service.app import PORT
from kernels.service.app import run as run_service
from kernels.service.entries import RegistryEntry, State
from kernels.service.registrar import reasons
from kernels.service.roots import FOLDERS
from kernels.service.rows import read_entries
from kernels.service.visible import visible

T = TypeVar("T")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.option("--host", default="0.0.0.0", show_default=True, help="Address.")  # noqa: S104
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(1, 65535))
@click.option(
    "--interval",
    default=2.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    help="Seconds between two looks at the catalog; folders tell by themselves.",
)
@click.option(
    "--registry",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the registry.  [default: $LABCOMMONS_DATA/kernels]",
)
@click.option(
    "--folders",
    type=click.Path(path_type=Path, file_okay=False),
    default=FOLDERS,
    show_default=True,
    help="Folder with shared/, teams/ and courses/, at the path it has in people's servers.",
)
@click.pass_context
def kernels(
    context: click.Context,
    host: str,
    port: int,
    interval: float,
    registry: Path | None,
    folders: Path,
) -> None:
    """Run the service that registers every environment as kernels; list and show them.

    Without a command the service runs; the options are its own.

    \b
    Examples:
      labcommons kernels list --problems
      labcommons kernels show conda-shared-torch-python3
      JUPYTERHUB_API_URL=http://127.0.0.1:8081/hub/api labcommons kernels --host 127.0.0.1
    """
    if context.invoked_subcommand is None:
        run_service(host, port, interval, registry, folders)


@kernels.command("list")
@click.option("--user", default="", help="Only what this person may see; starts are theirs alone.")
@click.option("--source", default="", help="Only of image, shared, team-NAME or course-NAME.")
@click.option("--problems", is_flag=True, help="Only environments that are not healthy.")
@_JSON
def list_command(user: str, source: str, problems: bool, as_json: bool) -> None:
    """List registered environments with their kernels, states and use.

    Starts are those of the last 30 days. People's own environments are not registered; in their
    servers “labcommons kernels list” shows them.

    \b
    Examples:
      labcommons kernels list
      labcommons kernels list --user alice --json
      labcommons kernels list --problems --source team-vision
    """
    found = _read(lambda session: _registered(session, user))
    found = [
        one
        for one in found
        if source in ("", one["source"]) and not (problems and one["state"] == State.HEALTHY)
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for one in found:
        names = ", ".join(kernel["name"] for kernel in one["kernels"]) or "no kernel"
        click.echo(f"{one['source']}/{one['environment']}  {one['version']}  {one['state']}")
        click.echo(f"    {names}; {_use(one)}")
        if one["reason"]:
            click.echo(f"    {one['reason']}")
    if not found:
        click.echo("Nothing fits." if user or source or problems else "Nothing is registered yet.")


@kernels.command("show")
@click.argument("name")
@_JSON
def show_command(name: str, as_json: bool) -> None:
    """Show one kernel in each version that has it: where it is, who may use it, how it is used.

    \b
    Examples:
      labcommons kernels show conda-shared-torch-python3
      labcommons kernels show conda-image-py313-data-python3 --json

    Exit 1 where no registered environment has it.
    """
    found = [
        one
        for one in _read(lambda session: _registered(session, ""))
        if any(kernel["name"] == name for kernel in one["kernels"])
    ]
    if not found:
        raise click.ClickException(
            f"no registered environment has a kernel {name!r}; labcommons kernels list shows them"
        )
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for one in found:
        [shown] = [k["display_name"] for k in one["kernels"] if k["name"] == name]
        click.echo(f"{shown}\n    version {one['version']}, {one['state']}, {one['prefix']}")
        click.echo(f"    for {', '.join(one['for'])}; {_use(one)}")
        if one["reason"]:
            click.echo(f"    {one['reason']}")


_EVERYBODYS = [row.name for row in SCOPES.values() if row.keeper is Keeper.SITE]


def _read(work: Callable[[Session], T]) -> T:
    store = Store()
    try:
        return store.transact(work, read=True)
    finally:
        store.close()


def _registered(session: Session, user: str) -> list[dict[str, Any]]:
    """All environments, or those of a person, by source, name and version."""
    entries = [entry for entry, _ in read_entries(session)]
    if user:
        entries = visible(_person(session, user), entries)
    since = (utcnow() - LATELY).date()
    used: dict[tuple[str, str, str], list[Use]] = {}
    for use in uses(session, since, user or None):
        used.setdefault((use.source, use.environment, use.version), []).append(use)
    return [_plain(entry, used) for entry in sorted(entries, key=lambda entry: entry.key)]


def _person(session: Session, user: str) -> Principal:
    """What the directory last said of a person. Raises ClickException."""
    row = session.get(DirectoryPerson, user)
    if row is None:
        raise click.ClickException(f"nobody called {user!r} has logged in yet; see the spelling")
    return Principal.from_auth_state(user, bool(row.roles.get("admin")), row.roles)


def _plain(
    entry: RegistryEntry, used: Mapping[tuple[str, str, str], Sequence[Use]]
) -> dict[str, Any]:
    mine = used.get(entry.key, ())
    last = max((use.last_used for use in mine), default=None)
    return {
        "source": entry.source,
        "environment": entry.environment,
        "version": entry.version,
        "prefix": entry.prefix,
        "python": entry.python,
        "state": entry.state.value,
        **reasons(entry.reason),
        "for": ["everybody" if one in _EVERYBODYS else one for one in entry.audience],
        "kernels": [{"name": k.name, "display_name": k.display_name} for k in entry.kernels],
        "starts": sum(use.starts for use in mine),
        "last_used": _iso(last),
    }


def _iso(moment: datetime | None) -> str | None:
    return f"{moment.isoformat(timespec='seconds')}Z" if moment else None


def _use(one: Mapping[str, Any]) -> str:
    if not one["starts"]:
        return f"not started in {LATELY.days} days"
    return f"starts in {LATELY.days} days: {one['starts']}, last on {one['last_used'][:10]}"
