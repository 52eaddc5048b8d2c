"""``labcommons env vulnerable``: what is vulnerable, who uses it, what fixes it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from commons import holes
from commons.errors import in_terminal
from commons.store import Store
from commons.store.models import utcnow
from environments.cli.common import places, settings, table


@click.command("vulnerable")
@click.option("--scan", is_flag=True, help="Look at the advisories now, and tell who is concerned.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="The data folder.  [default: $LABCOMMONS_DATA]",
)
def vulnerable(scan: bool, as_json: bool, data: Path | None) -> None:
    """Versions with known holes, or with a Python without security fixes: who uses them, and what
    to build anew.

    Holes are as the last look at environments.scan.advisories found them, which the hub takes once
    a day (environments.scan.rescan).

    \b
    Examples:
      labcommons env vulnerable
      labcommons env vulnerable --scan --json
    """
    from environments.errors import BuildError
    from environments.vulnerable import vulnerable as everything

    store = Store()
    if scan:
        from environments.rescan import rescan

        decided = settings().scan
        if decided.advisories is None:
            raise click.ClickException(
                "environments.scan.advisories names no advisories (docs/environments.md, Rules)"
            )
        try:
            done = rescan(store, decided, places(data=data).data)
        except (BuildError, OSError) as error:
            raise click.ClickException(in_terminal(error)) from error
        click.echo(
            f"{done['versions']} versions, {done['advisories']} advisories: {done['holes']} holes, "
            f"{done['new']} of them new; {done['told']} people are told",
            err=True,
        )
    today = utcnow().date()
    found, last = store.transact(
        lambda session: (everything(session, today), holes.last(session)), read=True
    )
    if as_json:
        looked = last and {"at": f"{last.at.isoformat()}Z", "problem": last.problem}
        rows = [one.as_json() for one in found]
        click.echo(json.dumps({"looked": looked, "vulnerable": rows}, indent=2))
        return
    if last is None:
        click.echo("Nothing was looked for yet: labcommons env vulnerable --scan", err=True)
    elif last.problem:
        click.echo(f"The last look came to no end: {last.problem}", err=True)
    lines = []
    for one in found:
        which = one.of.which
        fix = f"take {which.name}:{one.take}" if one.take else ", ".join(one.as_json()["ask_for"])
        what = f"{len(one.found)} holes" if one.found else ""
        ended = f"Python {one.of.python}, without fixes since {one.python_end}"
        lines.append(
            [
                f"{which.source}/{which.name}:{which.version}",
                "refused" if one.blocks else "noted",
                "; ".join(filter(None, [what, ended if one.python_end else ""])),
                str(one.users),
                fix or "-",
            ]
        )
    if lines:
        click.echo(table(["VERSION", "RULE", "WHAT", "USERS", "WHAT FIXES IT"], lines))
    elif last is not None:
        click.echo("No version has a known hole.")


COMMANDS = (vulnerable,)
