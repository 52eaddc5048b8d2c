"""``labcommons ssh``: the keys with which people reach their servers."""

from __future__ import annotations

from typing import Any

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from commons.audit import record_command
from commons.store import ssh_keys
from commons.store.models import SshKey
from spawner.gpu.cli.tools import as_json, operator, print_json, print_table, read, write


@click.group()
def ssh() -> None:
    """SSH to people's servers.

    \b
    Examples:
      labcommons ssh keys list alice
      labcommons ssh keys add alice "ssh-ed25519 AAAA… laptop"
    """


@ssh.group()
def keys() -> None:
    """The keys that people have added; those of the directory are changed there.

    \b
    Examples:
      labcommons ssh keys list
      labcommons ssh keys remove alice SHA256:Ab…
    """


@keys.command("list")
@click.argument("person", default="")
@as_json
def list_(person: str, as_json: bool) -> None:
    """Those of everybody, or of PERSON.

    \b
    Example:
      labcommons ssh keys list alice --json
    """

    def look(session: Session) -> list[dict[str, Any]]:
        query = select(SshKey).order_by(SshKey.username, SshKey.added_at)
        if person:
            query = query.where(SshKey.username == person)
        return [{"user": row.username, **ssh_keys.as_json(row)} for row in session.scalars(query)]

    found = read(look)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No key was added. See “labcommons ssh keys add --help”.")
    else:
        print_table(
            ("PERSON", "FINGERPRINT", "NAME", "ADDED (UTC)", "LAST USED"),
            [
                (
                    one["user"],
                    one["fingerprint"],
                    one["name"],
                    one["added_at"][:16].replace("T", " "),
                    (one["used_at"] or "never")[:16].replace("T", " "),
                )
                for one in found
            ],
        )


@keys.command()
@click.argument("person")
@click.argument("line")
@click.option("--name", default="", help="What it is called; its comment without.")
@as_json
def add(person: str, line: str, name: str, as_json: bool) -> None:
    """Add a key for PERSON: LINE is the one line of a .pub file.

    \b
    Example:
      labcommons ssh keys add alice "$(cat id_ed25519.pub)" --name laptop
    """
    by = operator()
    row = write(lambda s: ssh_keys.as_json(ssh_keys.add(s, person, line, name, by)))
    details = {"done": "add", "of": person, "key": row["fingerprint"]}
    record_command("ssh-key-change", "success", details, user=by)
    print_json(row) if as_json else click.echo(f"Added: {row['fingerprint']} ({row['name']}).")


@keys.command()
@click.argument("person")
@click.argument("key")
@as_json
def remove(person: str, key: str, as_json: bool) -> None:
    """Remove a key of PERSON, by its fingerprint; connections with it end within a minute.

    \b
    Example:
      labcommons ssh keys remove alice SHA256:Ab…
    """
    by = operator()
    row = write(lambda s: ssh_keys.as_json(ssh_keys.remove(s, person, key)))
    details = {"done": "remove", "of": person, "key": row["fingerprint"]}
    record_command("ssh-key-change", "success", details, user=by)
    print_json(row) if as_json else click.echo(f"Removed: {row['fingerprint']}.")
