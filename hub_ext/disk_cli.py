"""``labcommons disk``: what fills the disk, by kind and by person; ``disk prune``."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from sqlalchemy import select

from commons.audit import record_command
from commons.errors import in_terminal
from commons.site import load_site
from commons.site.storage import AREAS
from commons.store import DiskUse, Store, prunes
from commons.store.models import utcnow
from environments.cli.common import need_builder, places, settings
from spawner.options.form import show_bytes
from spawner.storage import Limits, share


def report(store: Store) -> dict[str, Any]:
    """All that is known, as JSON. Raises StoreError."""
    site = load_site()
    rows, limits = store.transact(
        lambda s: (
            list(s.scalars(select(DiskUse).order_by(DiskUse.bytes.desc()))),
            Limits(s, site.storage),
        ),
        read=True,
    )
    disk = shutil.disk_usage(
        Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"), "store")
    )
    return {
        "disk": {"total": disk.total, "free": disk.free},
        "areas": {
            area: {
                "limit": site.storage.limit(area),
                "bytes": sum(row.bytes for row in rows if row.area == area),
                "folders": sum(row.area == area for row in rows),
            }
            for area in AREAS
        },
        "folders": [
            {
                "area": row.area,
                "name": row.name,
                "bytes": row.bytes,
                "share": round(share(row.bytes, limits.of(row.area, row.name)), 3),
                "largest": row.largest,
                "whole": row.whole,
                "at": f"{row.at.isoformat(timespec='seconds')}Z",
            }
            for row in rows
        ],
    }


def ago(seconds: float) -> str:
    """A duration in one number."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def plain(text: str) -> str:
    """A name that somebody chose, for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)[:80]


@click.group(invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="All folders, not the twenty largest.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def disk(context: click.Context, everything: bool, as_json: bool) -> None:
    """Say what fills the disk: homes, teams and courses, with their largest folders.

    The figures are those of the last look, whose age is told. Limits: storage in the site file.

    \b
    Examples:
      labcommons disk
      labcommons disk --all --json
      labcommons disk prune --dry-run
    """
    if context.invoked_subcommand:
        return
    store = Store()
    try:
        found = report(store)
    finally:
        store.close()
    shown = found["folders"] if everything else found["folders"][:20]
    if as_json:
        click.echo(json.dumps({**found, "folders": shown}, ensure_ascii=False))
        return
    free, total = found["disk"]["free"], found["disk"]["total"]
    click.echo(f"disk: {show_bytes(free)} free of {show_bytes(total)} ({100 * free // total} %)")
    for area, one in found["areas"].items():
        limit = f", each up to {show_bytes(one['limit'])}" if one["limit"] else ""
        click.echo(f"{area}: {show_bytes(one['bytes'])} in {one['folders']} folders{limit}")
    if not shown:
        click.echo("nothing is measured yet: the hub looks at one folder a minute")
    now = utcnow()
    by_key = {(one["area"], one["name"]): one for one in shown}
    for (area, name), one in by_key.items():
        age = ago((now - datetime.fromisoformat(one["at"].removesuffix("Z"))).total_seconds())
        part = f", {one['share']:.0%} of its limit" if one["share"] else ""
        part += "" if one["whole"] else ", at least"
        click.echo(f"\n{area}/{plain(name)}: {show_bytes(one['bytes'])}{part} ({age} ago)")
        for folder in one["largest"]:
            click.echo(f"  {show_bytes(folder['bytes']):>10}  {plain(folder['folder'])}")


@disk.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def prune(dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove what nobody needs: old versions, caches, logs, images without a name.

    Versions that a server uses or waits for, that are pinned, lately used or among the last of
    each (environments.keep, keep_used in the site file) stay; so do packages that a lock names or
    that came within a week. The running site does the same each day at storage.prune.

    \b
    Examples:
      labcommons disk prune --dry-run
      labcommons disk prune --yes --json
    """
    need_builder()
    from environments.errors import BuildError
    from environments.image import Images
    from environments.prune import Removed, everything

    store, images, where, decided = Store(), Images(), places(), settings()
    wanted = store.transact(prunes.asked_for, read=True)

    def look(dry: bool, verb: str) -> list[Removed]:
        found = []
        for one in everything(store, images, where, decided, wanted, utcnow(), dry):
            found.append(one)
            if not as_json and one.count:
                names = f" ({', '.join(map(plain, one.names))})" if one.names else ""
                click.echo(f"{one.kind} {verb}: {one.count}, {show_bytes(one.freed)}{names}")
        return found

    try:
        if not dry_run and not yes:
            if not any(one.count for one in look(True, "that would go")):
                click.echo("there is nothing that nobody needs", err=True)
                return
            click.confirm("Remove it?", abort=True, err=True)
        removed = look(dry_run, "that would go" if dry_run else "removed")
    except (BuildError, OSError) as error:
        if not dry_run:
            store.transact(partial(prunes.note, removed=[], problem=str(error)))
        raise click.ClickException(in_terminal(error)) from error
    rows = [one.as_json() for one in removed]
    if not dry_run:
        store.transact(partial(prunes.note, removed=rows))
        for name in prunes.versions(rows):
            record_command("environment-prune", "success", name, data=where.data)
    freed = sum(one.freed for one in removed)
    if as_json:
        document = {"dry_run": dry_run, "freed": freed, "removed": rows}
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        click.echo(f"{'it would give back' if dry_run else 'given back'}: {show_bytes(freed)}")
