"""``labcommons server warm``: people's servers, started ahead of time."""

from __future__ import annotations

from typing import Any

import click

from commons.errors import in_terminal
from commons.messages import Message
from commons.site import load_site
from spawner.gpu.cli.tools import (
    as_json,
    operator,
    print_json,
    print_table,
    read,
    refusals,
    write,
)
from spawner.warm import records


@click.group()
def server() -> None:
    """People's servers."""


@server.group()
def warm() -> None:
    """Servers that are started ahead of time, so that a class finds them ready.

    They start behind people's own clicks, are held for --hold, and stop if nobody has come by
    then. Who has a server already keeps it; who chooses something else gets that.

    \b
    Examples:
      labcommons server warm start "Lesson 3" course:ml101 --at 2026-11-24T09:50 \\
          --timezone Europe/Berlin --hold 1h --environment py313-data --size small
      labcommons server warm list
      labcommons server warm cancel "Lesson 3"
    """


@warm.command()
@click.argument("name")
@click.argument("subject", default="")
@click.option("--user", "people", multiple=True, help="A login name; repeatable. Of a team or "
              "course: these alone.")  # fmt: skip
@click.option("--at", "starts", help="Day and time, in the time zone: 2026-11-24T09:50. "
              "At once without.")  # fmt: skip
@click.option("--timezone", help="IANA name, such as Europe/Berlin; UTC without.")
@click.option("--hold", help="How long they are kept for who does not come, such as 90m; 1h "
              "without.")  # fmt: skip
@click.option("--environment", help="As on the spawn page; the site's or the course's without.")
@click.option("--size", help="A size of the site file.")
@click.option("--gpus", type=int, help="GPUs for each.")
@click.option("--gpu-type", help="Of this type.")
@click.option("--time-limit", type=int, help="Minutes, of a server with GPUs.")
@as_json
def start(as_json: bool, name: str, subject: str, people: tuple[str, ...], **asked: Any) -> None:
    """Start servers ahead of time, for SUBJECT (course:NAME, group:NAME) or for people.

    \b
    Examples:
      labcommons server warm start "Lesson 3" course:ml101 --at 2026-11-24T09:50 \\
          --timezone Europe/Berlin --environment course-ml101/lesson
      labcommons server warm start "Exam" --user alice --user bob --hold 2h
    """
    wanted: dict[str, Any] = {"name": name, "subject": subject, "people": list(people)}
    said = {key: value for key, value in asked.items() if value is not None}
    when = ("starts", "timezone", "hold")
    wanted |= {key: value for key, value in said.items() if key in when}
    wanted["options"] = {key: value for key, value in said.items() if key not in when}
    site = load_site()
    with refusals():
        spec = records.check(wanted, site)
    by = operator()
    made = write(lambda s: records.show(s, records.create(s, spec, by, site)))
    if as_json:
        print_json(made)
    else:
        click.echo(
            f"Servers start at {_utc(made['starts_at'])} UTC, and are held until "
            f"{_utc(made['hold_until'])}: {made['name']} ({made['id']})."
        )


@warm.command("list")
@as_json
def list_(as_json: bool) -> None:
    """What is to come, goes on, or was over in the last 30 days.

    \b
    Example:
      labcommons server warm list --json
    """
    found = read(lambda s: [records.show(s, row) for row in records.standing(s)])
    if as_json:
        print_json(found)
    elif not found:
        click.echo("Nothing is started ahead of time. See “labcommons server warm start --help”.")
    else:
        print_table(
            ("ID", "NAME", "FOR", "STATE", "STARTS (UTC)", "HELD UNTIL", "SERVERS"),
            [
                (
                    one["id"],
                    one["name"],
                    one["subject"] or ", ".join(one["people"])[:30],
                    one["state"],
                    _utc(one["starts_at"]),
                    _utc(one["hold_until"]),
                    _counted(one["counts"]),
                )
                for one in found
            ],
        )


@warm.command()
@click.argument("warm")
@as_json
def show(warm: str, as_json: bool) -> None:
    """One, by id or name, with what became of each person's server, and why.

    \b
    Example:
      labcommons server warm show "Lesson 3"
    """
    found = read(lambda s: records.show(s, records.get(s, warm)))
    if as_json:
        print_json(found)
        return
    for key in ("id", "name", "subject", "starts_at", "hold_until", "created_by", "state"):
        if found[key]:
            click.echo(f"{key}: {found[key]}")
    for one in found["servers"]:
        why = f": {in_terminal(Message.from_json(one['reason']))}" if one["reason"] else ""
        click.echo(f"  {one['user']}  {one['state']}{why}")


@warm.command()
@click.argument("warm")
@as_json
def cancel(warm: str, as_json: bool) -> None:
    """Start no more of them, and release those that nobody has opened.

    \b
    Example:
      labcommons server warm cancel "Lesson 3"
    """
    found = write(lambda s: records.show(s, records.cancel(s, warm)))
    if as_json:
        print_json(found)
    else:
        click.echo(f"Cancelled: {found['name']}. What nobody has opened is stopped.")


def _utc(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items()) or "-"
