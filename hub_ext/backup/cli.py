"""``labcommons backup``: copies of the site, on a schedule and by hand."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from commons.site import load_site
from commons.units import amount
from hub_ext.backup import keys, making, restoring
from hub_ext.backup.databases import HUB, STORE
from hub_ext.backup.places import SITE_ID, Room
from hub_ext.backup.repository import Repository
from hub_ext.backup.trouble import BackupError
from spawner.gpu.cli.tools import as_json, print_json, print_table

EVERY = 0.2  # seconds between two words of progress


class _Teller:
    """Progress on stderr: one line a step, which on a terminal is written anew."""

    def __init__(self) -> None:
        self._step, self._at = "", 0.0
        self._terminal = sys.stderr.isatty()

    def __call__(self, step: str, share: float | None) -> None:
        now = time.monotonic()
        if step == self._step and (not self._terminal or now - self._at < EVERY):
            return
        if step != self._step and self._step and self._terminal:
            click.echo("", err=True)
        percent = f" {share:4.0%}" if share is not None and self._terminal else ""
        click.echo(f"\r{step} …{percent}" if self._terminal else f"{step} …",
                   nl=not self._terminal, err=True)  # fmt: skip
        self._step, self._at = step, now

    def end(self) -> None:
        """The line is done."""
        if self._step and self._terminal:
            click.echo("", err=True)


class _Group(click.Group):
    """Its commands' errors in one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BackupError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
def backup() -> None:
    """Copies of the whole site, and the way back from them.

    \b
    Examples:
      labcommons backup init > recovery.key     once; keep the file elsewhere
      labcommons backup create
      labcommons backup list
      labcommons backup verify
      labcommons backup restore --key recovery.key    on a new machine
    """


@backup.command()
def init() -> None:
    """Make the repository and the recovery key, which is printed once and kept nowhere here.

    Without it a restore is impossible: keep it away from the site and from its backups.

    \b
    Example:
      labcommons backup init > recovery.key
    """
    settings, room = load_site().backup, Room()
    repository = Repository(settings, room)
    with making.alone(room, _Teller()):
        key = keys.make(room, settings.target)
        try:
            repository.init()
        except BaseException:
            # Nothing is encrypted with it yet.
            room.password.unlink()
            room.recipient.unlink()
            raise
        state = making.State.read(room.state)
        state.target, state.ready = settings.target, True
        state.write(room.state)
    click.echo(key.text(SITE_ID), nl=False)
    click.echo(
        f"Backups go to {settings.target}, each night at {settings.at} UTC. What was printed is "
        "the recovery key: it is nowhere on this machine. Next: labcommons backup create",
        err=True,
    )


@backup.command()
@as_json
def create(as_json: bool) -> None:
    """Make a backup now. People go on working meanwhile.

    \b
    Examples:
      labcommons backup create
      labcommons backup create --json
    """
    tell = _Teller()
    made = making.create(load_site(), tell)
    tell.end()
    if as_json:
        print_json(vars(made))
        return
    click.echo(
        f"Backup {made.snapshot[:8]}: {amount(made.size)} as of {made.moment[:19]} UTC, "
        f"{amount(made.added)} of it new, in {made.took:.1f} s"
    )
    if made.unread:
        more = f" and {len(made.unread) - 5} more" if len(made.unread) > 5 else ""
        click.echo(f"Not in it, as it could not be read: {', '.join(made.unread[:5])}{more}")


@backup.command("list")
@as_json
def list_(as_json: bool) -> None:
    """The backups that there are, the newest first.

    \b
    Examples:
      labcommons backup list
      labcommons backup list --json
    """
    found = Repository(load_site().backup, Room()).snapshots()
    if as_json:
        print_json([{**vars(one), "time": one.time.isoformat()} for one in found])
        return
    if not found:
        click.echo("There is no backup yet. Make one: labcommons backup create")
        return
    rows = [
        (one.id[:8], f"{one.time.astimezone(UTC):%Y-%m-%d %H:%M:%S}", amount(one.size),
         amount(one.added), "yes" if any(p.endswith("/homes") for p in one.paths) else "no",
         "yes" if any(p.endswith("/teams") for p in one.paths) else "no")
        for one in found
    ]  # fmt: skip
    print_table(("BACKUP", "AS OF (UTC)", "SIZE", "NEW", "HOMES", "TEAMS"), rows)


@backup.command()
@click.argument("snapshot", default="latest")
@as_json
def verify(snapshot: str, as_json: bool) -> None:
    """Read a backup back: the repository, both databases, and digests of what else is in it.

    A share of the data is read each time, so that all of it is in the course of a year.

    \b
    Examples:
      labcommons backup verify
      labcommons backup verify 4f3c9b12
    """
    tell = _Teller()
    manifest = making.verify(load_site(), tell, snapshot)
    tell.end()
    if as_json:
        print_json(manifest)
    else:
        click.echo(f"The backup as of {manifest['moment'][:19]} UTC is whole.")


@backup.command()
@as_json
def schedule(as_json: bool) -> None:
    """When the next one is made, what stays, and how the last one went.

    It is set in the site file (backup: at, keep, homes, teams).

    \b
    Example:
      labcommons backup schedule
    """
    from hub_ext.backup.service import next_at

    settings, state = load_site().backup, making.State.read(Room().state)
    soon = next_at(settings.at, datetime.now(UTC)) if settings.target else None
    if as_json:
        print_json({"next": soon and soon.isoformat(), "settings": settings.model_dump(),
                    "last": vars(state)})  # fmt: skip
        return
    if soon is None:
        click.echo("No backups are made: the site file names no backup.target (docs/backup.md).")
        return
    keep = settings.keep
    click.echo(f"Next: {soon:%Y-%m-%d %H:%M} UTC, to {settings.target}")
    click.echo(f"Kept: {keep.daily} days, {keep.weekly} weeks, {keep.monthly} months")
    if state.made:
        at = datetime.fromtimestamp(state.moment, UTC)
        click.echo(f"Last: as of {at:%Y-%m-%d %H:%M:%S} UTC, in {state.took:.1f} s")
    if state.problem:
        click.echo(f"The last one failed: {state.problem}")


@backup.command(hidden=True)
def serve() -> None:
    """Make backups by the schedule, and give people their files back."""
    from hub_ext.backup import service

    service.serve(load_site())


@backup.command("restore", hidden=True)
@click.option("--from", "target", default="")
@click.option("--key", type=click.Path(path_type=Path), required=True)
@click.argument("snapshot", default="latest")
def restore_(target: str, key: Path, snapshot: str) -> None:
    """What deploy.backup calls, with an empty data folder."""
    tell = _Teller()
    found = restoring.restore(target, key, snapshot, tell)
    tell.end()
    print_json(found)


@backup.command(hidden=True)
def load() -> None:
    """Put restored dumps into PostgreSQL; what ``make up`` calls."""
    urls = {
        STORE: os.environ["LABCOMMONS_DATABASE_URL"],
        HUB: os.environ["LABCOMMONS_HUB_DATABASE_URL"],
    }
    restoring.load_dumps(urls, _Teller())
