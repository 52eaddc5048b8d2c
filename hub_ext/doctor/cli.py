"""``labcommons doctor``, as the hub's container sees the site."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from commons.i18n import terminal_language
from commons.site import load_site
from commons.store import StoreError
from hub_ext.doctor import (  # noqa: F401  (they add theirs)
    backups,
    certificates,
    checks,
    compared,
    kept,
    mirror,
    storage,
)
from hub_ext.doctor.registry import CHECKS, Here, examine, exit_code

MAX_HOST = 4 * 2**20  # bytes of what the host says


@click.command()
@click.argument("names", metavar="[CHECK]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--keep", is_flag=True, help="Let the console's page Health have what was found.")
@click.option("--host", is_flag=True, hidden=True, help="Read what the host found from stdin.")
def doctor(names: tuple[str, ...], as_json: bool, keep: bool, host: bool) -> None:
    """Check that all is well; each finding with its cause and what to do.

    Called as bin/labcommons on the machine itself, it also looks at Docker, disks and ports.
    Exit 0: all well; 1: a warning, or something unknown; 2: something is broken.

    \b
    Examples:
      labcommons doctor
      labcommons doctor databases directory --json
    """
    if unknown := set(names) - CHECKS.keys():
        known = ", ".join(CHECKS)
        raise click.UsageError(
            f"no check is called {', '.join(sorted(unknown))}; there are: {known}"
        )
    said = _from_host(sys.stdin.buffer.read(MAX_HOST + 1)) if host else {}
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    here = Here(load_site(), data, facts=said.get("facts", {}))
    chosen = {name: CHECKS[name] for name in CHECKS if not names or name in names}
    rows = [*said.get("checks", ()), *examine(here, chosen)]
    if keep:
        # Where the database is away, that is what was found.
        with suppress(StoreError):
            here.store.transact(lambda session: kept.keep(session, rows))
    if as_json:
        click.echo(json.dumps({"checks": rows}, ensure_ascii=False))
    else:
        lang = terminal_language()
        for row in rows:
            click.echo(shown(row, lang))
    raise SystemExit(exit_code(rows))


def _from_host(text: bytes) -> dict[str, Any]:
    """What ``deploy.doctor`` sends: {"checks": rows, "facts": …}; raises UsageError."""
    try:
        found = json.loads(text[:MAX_HOST])
    except ValueError as error:
        raise click.UsageError(f"stdin is not what the host says: {error}") from error
    if not isinstance(found, dict):
        raise click.UsageError("stdin is not what the host says")
    return found


def shown(row: dict[str, Any], lang: str) -> str:
    """One finding for a terminal: state, check, cause, and the remedy on a line of its own."""
    about = f" {row['about']}" if row["about"] else ""
    line = f"{row['state']:8} {row['check']}{about}: {row['cause'].get(lang) or row['cause']['en']}"
    remedy = row["remedy"].get(lang) or row["remedy"].get("en")
    return f"{line}\n         -> {remedy}" if remedy else line
