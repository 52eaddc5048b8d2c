"""``labcommons user``: people who have been here, and shutting somebody out."""

from __future__ import annotations

from typing import Any

import click
from sqlalchemy.orm import Session

from commons.audit import record_command
from commons.broadcasts import moment
from commons.principal import Principal
from commons.store import blocks
from commons.store.models import utcnow
from commons.units import amount
from hub_ext.console import people_views
from hub_ext.console.live import Now
from hub_ext.console.people_views import Asked, Person
from hub_ext.server_cli import all_servers, what_runs
from spawner.gpu.cli.tools import as_json, operator, print_json, print_table, read, short, write


@click.group()
def user() -> None:
    """People: the directory decides who they are; what is known of them here, and who is blocked.

    \b
    Examples:
      labcommons user list --group course:ml101
      labcommons user show alice
      labcommons user block alice --reason "Ask carol first" --until 7d --stop
      labcommons user unblock alice
    """


def _people(only: str = "") -> list[Person]:
    try:
        now = what_runs()
    except click.ClickException as error:
        click.echo(f"servers are not known: {error.message}", err=True)
        now = Now(known=False)
    admin = Principal("", admin=True)
    return read(lambda s: people_views.people(s, admin, all_servers(now, s), now.seen, only))


@user.command("list")
@click.argument("words", default="")
@click.option("--group", default="", help="group:vision, course:ml101")
@click.option("--state", type=click.Choice(people_views.STATES), help="Only these.")
@click.option("--sort", type=click.Choice(people_views.SORTS), default="user", show_default=True)
@as_json
def list_(words: str, as_json: bool, **asked: str | None) -> None:
    """Everybody who has been here; WORDS: a part of the login name.

    \b
    Examples:
      labcommons user list --state blocked
      labcommons user list --sort home --json
    """
    wanted = Asked(q=words[: people_views.LONGEST], **{k: v for k, v in asked.items() if v})
    found = wanted.in_order(one for one in _people() if wanted.fits(one))
    if as_json:
        print_json([one.as_json() for one in found])
    elif not found:
        click.echo("Nobody is like that.")
    else:
        print_table(
            ("LOGIN", "GROUPS", "SERVERS", "LEASES", "HOME", "LAST HERE (UTC)", ""),
            [
                (
                    one.name,
                    ", ".join(one.groups)[:40],
                    len(one.servers) or "",
                    one.leases or "",
                    amount(one.home) if one.home is not None else "-",
                    short(one.seen),
                    "blocked" if one.block else one.barred,
                )
                for one in found
            ],
        )


@user.command()
@click.argument("name")
@as_json
def show(name: str, as_json: bool) -> None:
    """One person, with their servers, home and environments.

    \b
    Example:
      labcommons user show alice --json
    """
    found = _people(name)
    if not found:
        raise click.ClickException(str(blocks.NOT_KNOWN(name=name[:80])))
    beside = read(lambda s: _beside(s, name))
    told = {**found[0].as_json(), **beside}
    if as_json:
        print_json(told)
        return
    for key, value in told.items():
        if value not in (None, "", [], {}):
            click.echo(f"{key}: {value}")


def _beside(session: Session, name: str) -> dict[str, Any]:
    told = people_views.more(session, name)
    told["ends"] = [
        {"server": row.server_name, "cause": row.cause, "by": row.by, "at": short(row.at)}
        for row in told["ends"]
    ]
    return told


@user.command()
@click.argument("name")
@click.option("--reason", required=True, help="They read it at the login.")
@click.option("--until", default="", help="For how long, such as 7d, or a time; none: no end.")
@click.option("--timezone", default="UTC", show_default=True, help="Of that time.")
@click.option("--stop", is_flag=True, help="Their servers and jobs end, too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def block(
    name: str, reason: str, until: str, timezone: str, stop: bool, yes: bool, as_json: bool
) -> None:
    """Shut somebody out here, whatever the directory says.

    Their logins end within seconds, and their tokens do not work for as long as it lasts.

    \b
    Examples:
      labcommons user block alice --reason "Ask carol first" --until 7d --stop
    """
    if not yes:
        more = " and end their servers and jobs" if stop else ""
        click.confirm(f"Block {name}{more}?", abort=True, err=True)
    by = operator()

    def work(session: Session) -> dict[str, Any] | None:
        end = moment(until, timezone, utcnow()) if until else None
        return people_views.block_json(blocks.put(session, name, by, reason, end, stop))

    made = write(work)
    details = {"done": "block", "of": name, "reason": reason, "until": until, "stop": stop}
    record_command("person-block", "success", details, user=by)
    if as_json:
        print_json(made)
    else:
        click.echo(f"Blocked: {name}. The hub ends their logins within seconds.")


@user.command()
@click.argument("name")
@as_json
def unblock(name: str, as_json: bool) -> None:
    """Let somebody in again.

    \b
    Example:
      labcommons user unblock alice
    """
    by = operator()
    write(lambda s: blocks.take_back(s, name))
    record_command("person-block", "success", {"done": "unblock", "of": name}, user=by)
    if as_json:
        print_json({"unblocked": name})
    else:
        click.echo(f"{name} may log in again.")
