"""``labcommons broadcast``: messages to everybody."""

from __future__ import annotations

import click

from commons import broadcasts
from commons.audit import record_command
from spawner.gpu.cli.tools import as_json, operator, print_json, print_table, read, write


@click.group()
def broadcast() -> None:
    """Messages to everybody, on every page and in every open JupyterLab.

    \b
    Examples:
      labcommons broadcast send "The network is slow today." --zh "今天网络较慢。" --until 8h
      labcommons broadcast list
      labcommons broadcast withdraw 0a1b2c3d4e5f
    """


@broadcast.command()
@click.argument("text", default="")
@click.option("--zh", default="", help="The text in Chinese. One text is enough: all see it then.")
@click.option("--kind", type=click.Choice(broadcasts.KINDS), default="info", show_default=True)
@click.option("--begin", "starts", default="", help="A time or a duration from now; at once "
              "without.")  # fmt: skip
@click.option("--until", required=True, help="A time (2026-11-24T18:00), or how long (2h).")
@click.option("--timezone", default="UTC", show_default=True, help="IANA name, of the times.")
@as_json
def send(
    as_json: bool, text: str, zh: str, kind: str, starts: str, until: str, timezone: str
) -> None:
    """Show TEXT to everybody, also on the login page, until its end.

    \b
    Examples:
      labcommons broadcast send "The network is slow today." --until 8h
      labcommons broadcast send "Disks are changed tonight." --zh "今晚更换磁盘。" \\
          --kind warning --begin 2026-11-24T16:00 --until 2026-11-24T22:00 --timezone Europe/Berlin
    """
    by = operator()
    row = write(
        lambda s: broadcasts.as_json(
            broadcasts.send(
                s, kind=kind, en=text, zh=zh, starts=starts, until=until, timezone=timezone, by=by
            )
        )
    )
    record_command("broadcast-change", "success", {"done": "send", "broadcast": row["id"]}, user=by)
    if as_json:
        print_json(row)
    else:
        click.echo(f"{row['id']}: shown from {row['starts_at']} until {row['ends_at']}.")


@broadcast.command("list")
@as_json
def list_(as_json: bool) -> None:
    """Those of the last 90 days, the newest first.

    \b
    Example:
      labcommons broadcast list --json
    """
    rows = read(lambda s: [broadcasts.as_json(row) for row in broadcasts.listed(s)])
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("No message was sent. See “labcommons broadcast send --help”.")
    else:
        print_table(
            ("ID", "KIND", "STATE", "FROM (UTC)", "UNTIL", "TEXT"),
            [
                (
                    one["id"],
                    one["kind"],
                    one["state"],
                    one["starts_at"][:16].replace("T", " "),
                    one["ends_at"][:16].replace("T", " "),
                    (one["en"] or one["zh"])[:50],
                )
                for one in rows
            ],
        )


@broadcast.command()
@click.argument("message")
@as_json
def withdraw(message: str, as_json: bool) -> None:
    """Take a message back; it is gone everywhere within seconds.

    \b
    Example:
      labcommons broadcast withdraw 0a1b2c3d4e5f
    """
    by = operator()
    row = write(lambda s: broadcasts.as_json(broadcasts.withdraw(s, message, by)))
    details = {"done": "withdraw", "broadcast": row["id"]}
    record_command("broadcast-change", "success", details, user=by)
    if as_json:
        print_json(row)
    else:
        click.echo(f"Withdrawn: {row['id']}.")
