"""``labcommons server``: all servers of the site, and what is done with them."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import click
from sqlalchemy.orm import Session
from tornado.web import HTTPError

from commons.audit import record_command
from commons.errors import in_terminal
from commons.messages import ENGLISH
from commons.principal import Principal
from commons.units import amount
from hub_ext.console import live, server_acts, server_views
from hub_ext.console.live import Now
from hub_ext.console.server_acts import Done, Wanted
from hub_ext.console.server_views import Asked, Server
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
from spawner.warm.cli import server

PATIENCE = 15.0  # seconds for the hub
MOST = 8 * 2**20  # bytes of its answer
HUB_URL = "http://hub-control:8081"


def what_runs() -> Now:
    """As the hub says it. Raises ClickException where it does not answer."""
    url = os.environ.get("LABCOMMONS_HUB_URL", HUB_URL)
    folder = Path(os.environ.get("LABCOMMONS_SECRETS", "/run/labcommons"))
    try:
        token = (folder / "console-token").read_text("utf-8").strip()
        request = urllib.request.Request(  # noqa: S310 - the site's own hub
            f"{url}/hub/api/live", headers={"Authorization": f"token {token}"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return live.read(json.loads(answer.read(MOST)))
    except (OSError, ValueError, http.client.HTTPException, HTTPError) as error:
        raise click.ClickException(
            f"the hub does not say what runs ({error}): see “labcommons doctor”"
        ) from error


def all_servers(now: Now, session: Session) -> list[Server]:
    """Everybody's."""
    return server_views.servers(session, Principal("", admin=True), now, time.time())


@server.command("list")
@click.option("--state", type=click.Choice(server_views.STATES), help="Only these.")
@click.option("--gpus", type=click.Choice(["with", "without"]), help="Only these.")
@click.option("--account", default="", help="Charged to: group:vision, user:alice, …")
@click.option("--sort", type=click.Choice(server_views.SORTS), default="user", show_default=True)
@click.argument("words", default="")
@as_json
def list_(words: str, as_json: bool, **asked: str | None) -> None:
    """All servers that run, with and without GPUs; WORDS: a part of a name.

    \b
    Examples:
      labcommons server list --sort memory
      labcommons server list --gpus without --state idle --json
    """
    now = what_runs()
    wanted = Asked(q=words[: server_views.LONGEST], **{k: v for k, v in asked.items() if v})
    found = wanted.in_order(one for one in read(lambda s: all_servers(now, s)) if wanted.fits(one))
    if as_json:
        print_json([one.as_json() for one in found])
    elif not found:
        click.echo("No server is like that now.")
    else:
        print_table(
            ("SERVER", "STATE", "ENVIRONMENT", "MEMORY", "CPU", "GPUS", "SINCE", "ENDS (UTC)"),
            [
                (
                    one.run.key,
                    one.state,
                    one.run.environment,
                    amount(one.run.memory) if one.run.memory is not None else "-",
                    f"{one.run.cpu:.1f}" if one.run.cpu is not None else "-",
                    one.run.gpus or "",
                    short(one.run.started),
                    short(one.ends),
                )
                for one in found
            ],
        )


@server.command()
@click.argument("who")
@as_json
def show(who: str, as_json: bool) -> None:
    """One server: alice, or alice/train for one with a name.

    \b
    Example:
      labcommons server show alice/train
    """
    now = what_runs()
    found = next((s for s in read(lambda s: all_servers(now, s)) if s.run.key == who), None)
    if found is None:
        raise click.ClickException(f"no server “{who}” runs: see “labcommons server list”")
    if as_json:
        print_json(found.as_json())
        return
    for key, value in found.as_json().items():
        if value not in (None, ""):
            click.echo(f"{key}: {value}")


@server.command()
@click.argument("who", nargs=-1, required=True)
@click.option("-m", "--message", default="", help="What their owners read.")
@click.option("--in", "grace", default="", help="Tell them now, and stop them then: 15m.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def stop(who: tuple[str, ...], message: str, grace: str, yes: bool, as_json: bool) -> None:
    """Stop servers: the hub does it within seconds, or when the time is over.

    \b
    Examples:
      labcommons server stop alice bob/train -m "The machine is serviced." --in 15m
      labcommons server stop s01 --yes
    """
    _do("stop", who, message, grace, "" if yes else "Stop", as_json)


@server.command()
@click.argument("who", nargs=-1, required=True)
@click.option("-m", "--message", required=True, help="What they read.")
@as_json
def message(who: tuple[str, ...], message: str, as_json: bool) -> None:
    """Write to who uses servers: they read it in their notebooks and on their pages.

    \b
    Example:
      labcommons server message alice bob/train -m "Please save: the disk is nearly full."
    """
    _do("message", who, message, "", "", as_json)


@server.command()
@click.argument("who", nargs=-1, required=True)
@click.option("--by", default="30m", show_default=True, help="Such as 2h.")
@as_json
def extend(who: tuple[str, ...], by: str, as_json: bool) -> None:
    """Let servers with a time limit run longer, as far as limits and reservations allow.

    \b
    Example:
      labcommons server extend alice --by 2h
    """
    _do("extend", who, "", by, "", as_json)


def _do(
    do: str, who: Sequence[str], words: str, time: str, ask: str, as_json: bool = False
) -> None:
    """Do it; exit 1 where it was not done with all."""
    with refusals():
        wanted = Wanted.read(do, who, words, time)
    now, by = what_runs(), operator()
    admin = Principal("", admin=True)
    there = {one.run.key: one for one in read(lambda s: all_servers(now, s))}
    found, _ = server_acts.chosen(wanted, admin, there)
    if ask and found:
        click.confirm(f"{ask} {', '.join(one.run.key for one in found)}?", abort=True, err=True)

    def work(session: Session) -> Done:
        again, done = server_acts.chosen(wanted, admin, there)
        server_acts.act(session, wanted, by, again, done)
        return done

    done = write(work)
    if done.done:
        details = {"done": do, "who": done.done[:500], "message": wanted.message}
        record_command("servers-change", "success", details, user=by)
    if as_json:
        print_json(done.as_json(ENGLISH))
    else:
        word = {"stop": "Being stopped", "message": "Written to", "extend": "Extended"}[do]
        for key in done.done:
            click.echo(f"{word}: {key}")
        for key, why in done.left:
            click.echo(f"{key}: {in_terminal(why)}", err=True)
    raise SystemExit(1 if done.left else 0)
