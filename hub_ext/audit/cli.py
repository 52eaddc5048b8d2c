"""``labcommons audit``: who did what; whether the trail is whole; what is sent where."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from commons.audit import ACTIONS, reading
from commons.audit.chain import encode
from commons.audit.table import COLUMNS, cells, plain, row
from commons.audit.trail import folder
from commons.errors import WrongValue
from commons.site import load_site
from commons.units import parse_duration
from hub_ext.audit import service, targets
from hub_ext.audit.shipper import Shipper
from spawner.gpu.cli.tools import as_json, print_json, print_table

FOLLOW = 1.0  # seconds

Command = Callable[..., Any]


def filters(command: Command) -> Command:
    """The options that say which events."""
    for option in reversed(
        (
            click.option("--person", default="", help="A login name."),
            click.option("--action", type=click.Choice(sorted(ACTIONS)), default=None,
                         help="Such as login, server-end, quota-change."),
            click.option("--outcome", type=click.Choice(["success", "failure", "unknown"])),
            click.option("--writer", default="", help="hub, console, command, audit or before."),
            click.option("--about", default="", help="A word of the details: a server, a lease, an "
                         "environment."),
            click.option("--since", callback=_moment, help="2026-11-27, 2026-11-27T09:30 (UTC), or "
                         "an age: 90m, 2h, 7d."),
            click.option("--until", callback=_moment, help="As --since; not in it any more."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _moment(_context: click.Context, _option: click.Parameter, said: str | None) -> str:
    if not said:
        return ""
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        try:
            moment = datetime.now(UTC) - timedelta(seconds=parse_duration(said))
        except (WrongValue, OverflowError) as error:
            raise click.BadParameter(
                f"{said!r} is neither a day, such as 2026-11-27, nor an age, such as 2h"
            ) from error
    return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).isoformat()[:23]


def _filter(asked: dict[str, Any]) -> reading.Filter:
    return reading.Filter(**{name: value or "" for name, value in asked.items()})


@click.group()
def audit() -> None:
    """The audit trail: who did what, from where, with which outcome.

    \b
    Examples:
      labcommons audit show --person alice --since 7d
      labcommons audit show --action login --outcome failure
      labcommons audit verify
      labcommons audit export --since 2026-11-01 --csv > november.csv
    """


@audit.command()
@filters
@click.option("-n", "--lines", default=50, show_default=True, help="The newest so many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@as_json
def show(as_json: bool, lines: int, follow: bool, **asked: Any) -> None:
    """The newest events, the last one at the end.

    \b
    Examples:
      labcommons audit show --person alice --since 2h
      labcommons audit show --about GPU-5c5a1b1e --json
      labcommons audit show --follow
    """
    wanted = _filter(asked)
    found = list(islice(reading.events(folder(), wanted, newest=True), max(0, lines)))[::-1]
    if as_json and not follow:
        print_json(found)
        return
    rows = [row(event) for event in found]
    if rows and not follow:
        heads = ("TIME (UTC)", "PERSON", "ACTION", "OUTCOME", "FROM", "ABOUT")
        print_table(heads, [_short(one) for one in rows])
    elif not follow:
        click.echo("No such event. Without filters, “labcommons audit show” has all.")
    for event in (*found, *_coming(wanted)) if follow else ():
        click.echo("  ".join(map(str, _short(row(event)))))


def _coming(wanted: reading.Filter) -> Iterator[dict[str, Any]]:
    known = {name: head.sequence for name, head in reading.heads(folder()).items()}
    while True:
        time.sleep(FOLLOW)
        for name, head in reading.heads(folder()).items():
            count = head.sequence - known.get(name, 0)
            if count > 0 and wanted.writer in ("", name):
                only = reading.Filter(writer=name)
                new = list(islice(reading.events(folder(), only, newest=True), count))[::-1]
                yield from filter(wanted.lets, new)
            known[name] = head.sequence


@audit.command()
@filters
@click.option("--csv", "as_csv", is_flag=True, help="A table instead of JSON lines.")
def export(as_csv: bool, **asked: Any) -> None:
    """All events that fit, the oldest first: JSON lines (ECS), or CSV. The export is an event, too.

    \b
    Examples:
      labcommons audit export --since 2026-11-01 --until 2026-12-01 > november.jsonl
      labcommons audit export --person alice --csv > alice.csv
    """
    said = {name: value for name, value in asked.items() if value}
    keeper = service.Keeper(folder(), load_site().audit.without_targets(), service.private_key(),
                            service.SECRETS)  # fmt: skip
    keeper.record("export", "success", {"what": "audit", **said})
    found = reading.events(folder(), _filter(asked))
    if not as_csv:
        for event in found:
            click.echo(encode(event))
        return
    table = csv.writer(sys.stdout)
    table.writerow(COLUMNS)
    for event in found:
        table.writerow(cells(event))


@audit.command()
@click.option(
    "--key",
    type=click.Path(path_type=Path, exists=True),
    help="The public key, for a copy of the trail; the site's own without.",
)
@click.option(
    "--folder",
    "root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A copy of data/audit; the site's own without.",
)
@as_json
def verify(as_json: bool, key: Path | None, root: Path | None) -> None:
    """Go through all chains: is every line as it was written, and none missing?

    Exit code 1 where something is wrong. What was changed after the last checkpoint and is the end
    of a chain can't be told: see docs/audit.md.

    \b
    Examples:
      labcommons audit verify
      labcommons audit verify --folder /mnt/copy/audit --key audit.pem
    """
    result = reading.verify(root or folder(), service.checking(_public(key)))
    if as_json:
        print_json(
            {
                "whole": result.whole,
                "lines": result.lines,
                "checkpoints": result.checkpoints,
                "findings": [finding.__dict__ for finding in result.findings],
            }
        )
    else:
        for writer, count in sorted(result.lines.items()):
            click.echo(f"{writer}: {count} events")
        click.echo(f"{result.checkpoints} signed checkpoints")
        for finding in result.findings:
            about = f" ({finding.about})" if finding.about else ""
            click.echo(f"{finding.file}, line {finding.line}: {finding.kind}{about}")
        click.echo("The trail is whole." if result.whole else "THE TRAIL IS NOT WHOLE.")
    sys.exit(0 if result.whole else 1)


def _public(path: Path | None) -> Ed25519PublicKey:
    if path is None:
        return service.private_key().public_key()
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path} is no public key in PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise click.ClickException(f"{path} is a key of another kind than Ed25519")
    return key


@audit.command()
def key() -> None:
    """The public key of the checkpoints. Keep it elsewhere, with a copy of the trail.

    \b
    Example:
      labcommons audit key > audit.pem
    """
    click.echo(service.public_pem(service.private_key().public_key()), nl=False)


@audit.command("targets")
@as_json
def targets_(as_json: bool) -> None:
    """Where events are sent to, how much is still to be sent, and what is in the way.

    \b
    Example:
      labcommons audit targets --json
    """
    found = []
    for one in load_site().audit.targets:
        shipper = Shipper(folder(), targets.make(one, service.SECRETS), lambda *_: None)
        known = shipper.standing
        found.append(
            {
                "name": one.name,
                "kind": one.kind,
                "url": one.url,
                "sent": known.sent,
                "refused": known.refused,
                "behind_bytes": shipper.behind(),
                "last": known.last,
                "problem": known.problem,
                "since": known.since,
            }
        )
    if as_json:
        print_json(found)
    elif not found:
        click.echo("Events are sent nowhere. See “audit: targets:” in docs/audit.md.")
    else:
        heads = ("NAME", "KIND", "SENT", "BEHIND (BYTES)", "LAST (UTC)", "PROBLEM")
        names = ("name", "kind", "sent", "behind_bytes", "last", "problem")
        print_table(heads, [[one[name] for name in names] for one in found])


@audit.command(hidden=True)
def serve() -> None:
    """Keep the trail: sign it, send it on, remove what is old."""
    service.serve(load_site())


def _short(values: dict[str, Any]) -> tuple[str, ...]:
    outcome = f"{values['outcome']} ({values['reason']})" if values["reason"] else values["outcome"]
    return (
        values["time"][:19].replace("T", " "),
        plain(values["person"])[:32] or "-",
        values["action"],
        outcome,
        values["address"] or "-",
        values["about"][:120],
    )
