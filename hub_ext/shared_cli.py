"""``labcommons shared``: servers that a team or course uses together."""

from __future__ import annotations

from typing import Any

import click
from sqlalchemy.orm import Session

from commons.audit import record_command
from commons.principal import Principal
from commons.site import load_site
from spawner import shared_servers
from spawner.gpu.cli.tools import (
    as_json,
    operator,
    print_json,
    print_table,
    read,
    refusals,
    short,
    write,
)

_ADMIN = Principal("", admin=True)


@click.group()
def shared() -> None:
    """Servers that a team or course uses together, each of the team's or course's own account.

    A team or course is named by its source: team-vision, course-ml101.

    \b
    Examples:
      labcommons shared set course-ml101 project-a --size small
      labcommons shared start course-ml101 project-a
      labcommons shared list --json
    """


@shared.command("list")
@as_json
def list_(as_json: bool) -> None:
    """All of them, with their state and who is in them.

    \b
    Example:
      labcommons shared list --json
    """
    rows = read(shared_servers.all_of)
    found = [shared_servers.show(row, _ADMIN) for row in rows]
    if as_json:
        print_json(found)
    elif not found:
        click.echo("There is no shared server. See “labcommons shared set --help”.")
    else:
        heads = ("OF", "NAME", "STATE", "SINCE", "BY", "PEOPLE")
        print_table(
            heads,
            [
                (row.scope, row.name, row.state, short(row.at), row.by or "-",
                 ", ".join(row.people) or "-")
                for row in rows
            ],
        )  # fmt: skip


@shared.command("set")
@click.argument("scope")
@click.argument("name")
@click.option("--environment", default="", help="NAME or NAME:VERSION; the usual one.")
@click.option("--size", default="", help="A size of the site file; the usual one.")
@click.option("--gpus", default=0, type=click.IntRange(0), help="How many GPUs it has.")
@click.option("--leads-only", is_flag=True, help="Only leads, instructors and assistants enter.")
@click.option("--leads-start", is_flag=True, help="Only they start and stop it.")
@as_json
def set_(
    scope: str,
    name: str,
    environment: str,
    size: str,
    gpus: int,
    leads_only: bool,
    leads_start: bool,
    as_json: bool,
) -> None:
    """Make a shared server, or change with what it starts next and who uses it.

    \b
    Example:
      labcommons shared set team-vision review --gpus 1 --leads-start
    """
    site, by = load_site(), operator()
    given = {"environment": environment, "size": size, "gpus": gpus}
    options: dict[str, Any] = {key: value for key, value in given.items() if value}

    def work(session: Session) -> dict[str, Any]:
        row = shared_servers.save(
            session,
            shared_servers.scope_in_site(scope, site),
            name,
            options,
            site,
            by,
            leads_only=leads_only,
            members_run=not leads_start,
        )
        return shared_servers.show(row, _ADMIN)

    with refusals():
        _tell("save", write(work), by, as_json)


@shared.command()
@click.argument("scope")
@click.argument("name")
@as_json
def start(scope: str, name: str, as_json: bool) -> None:
    """Have it started; the hub begins within seconds.

    \b
    Example:
      labcommons shared start course-ml101 project-a
    """
    _ask(scope, name, True, as_json)


@shared.command()
@click.argument("scope")
@click.argument("name")
@as_json
def stop(scope: str, name: str, as_json: bool) -> None:
    """Have it stopped, for everybody who is in it.

    \b
    Example:
      labcommons shared stop course-ml101 project-a
    """
    _ask(scope, name, False, as_json)


@shared.command()
@click.argument("scope")
@click.argument("name")
@as_json
def remove(scope: str, name: str, as_json: bool) -> None:
    """Remove its name, once it is stopped; the files of its account stay.

    \b
    Example:
      labcommons shared remove course-ml101 project-a
    """
    site, by = load_site(), operator()

    def work(session: Session) -> dict[str, Any]:
        row = shared_servers.get(session, shared_servers.scope_in_site(scope, site), name)
        shown = shared_servers.show(row, _ADMIN)
        shared_servers.remove(session, row)
        return shown

    with refusals():
        _tell("remove", write(work), by, as_json)


def _ask(scope: str, name: str, up: bool, as_json: bool) -> None:
    site, by = load_site(), operator()

    def work(session: Session) -> dict[str, Any]:
        row = shared_servers.get(session, shared_servers.scope_in_site(scope, site), name)
        shared_servers.ask(session, row, up, by, site)
        return shared_servers.show(row, _ADMIN)

    with refusals():
        _tell("start" if up else "stop", write(work), by, as_json)


def _tell(done: str, shown: dict[str, Any], by: str, as_json: bool) -> None:
    about = {"done": done, "scope": shown["scope"], "server": shown["name"]}
    record_command("shared-server-change", "success", about, user=by)
    if as_json:
        print_json(shown)
    else:
        click.echo(f"{shown['scope']} {shown['name']}: {shown['state']}.")
