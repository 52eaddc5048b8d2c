"""``labcommons reservation``: GPUs set aside for a team, course or person."""

from __future__ import annotations

import time
from typing import Any

import click

from hub_ext.site import load_site
from spawner.gpu import reservation_store as reservations
from spawner.gpu.cli_tools import (
    as_json,
    operator,
    print_json,
    print_table,
    read,
    refusals,
    short,
    write,
)
from spawner.gpu.durations import show_duration

WEEKS = 4 * 7 * 86400.0


@click.group()
def reservation() -> None:
    """GPUs set aside for a group, course or person, once or again and again.

    Before a window only what ends in time starts on its GPUs; inside it they are the
    subject's; its end stops nobody.

    \b
    Examples:
      labcommons reservation create "ML lab" course:ml101 --gpus 4 \\
          --starts 2026-11-24T10:00 --duration 2h --timezone Europe/Berlin \\
          --repeat weekly --weekday tue --until 2027-02-09
      labcommons reservation list
      labcommons reservation skip "ML lab" 2026-12-24
    """


@reservation.command()
@click.argument("name")
@click.argument("subject")
@click.option("--starts", required=True, help="Day and time, in the time zone: 2026-11-24T10:00.")
@click.option("--duration", required=True, help="Such as 90m or 2h.")
@click.option("--timezone", required=True, help="IANA name, such as Europe/Berlin.")
@click.option("--gpus", type=int, help="How many GPUs.")
@click.option("--type", "gpu_type", default="", help="Of this type; any without.")
@click.option("--device", "devices", multiple=True, help="A certain GPU, instead of --gpus.")
@click.option("--repeat", type=click.Choice(["once", "daily", "weekly"]), default="once")
@click.option(
    "--weekday", "weekdays", multiple=True, help="mon … sun, of a weekly one; repeatable."
)
@click.option("--until", help="The last day, such as 2027-02-09.")
@as_json
def create(as_json: bool, **asked: Any) -> None:
    """Reserve GPUs. Exit 1, with the reservation that is in the way, where that is not possible.

    \b
    Example:
      labcommons reservation create "Demo day" group:vision --gpus 2 \\
          --starts 2026-12-01T09:00 --duration 8h --timezone Asia/Shanghai
    """
    wanted = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asked.items()
        if value not in (None, ())
    }
    with refusals():
        spec = reservations.check(wanted, load_site())
    by, now = operator(), time.time()
    made = write(
        lambda session: reservations.show(
            reservations.create(session, spec, by, now), now, now + WEEKS
        )
    )
    if as_json:
        print_json(made)
    else:
        click.echo(f"Reserved: {made['name']} ({made['id']}).")


@reservation.command("list")
@as_json
def list_(as_json: bool) -> None:
    """All reservations that stand, and when each is next.

    \b
    Example:
      labcommons reservation list --json
    """
    now = time.time()
    found = read(
        lambda session: [
            reservations.show(row, now, now + WEEKS) for row in reservations.standing(session)
        ]
    )
    if as_json:
        print_json(found)
    elif not found:
        click.echo("Nothing is reserved. See “labcommons reservation create --help”.")
    else:
        print_table(
            ("ID", "NAME", "SUBJECT", "GPUS", "REPEAT", "DURATION", "NEXT (UTC)"),
            [
                (
                    one["id"],
                    one["name"],
                    one["subject"],
                    f"{one['gpus']} {one['gpu_type']}".strip(),
                    one["repeat"],
                    show_duration(one["duration"]),
                    short(one["windows"][0]["start"]) if one["windows"] else "-",
                )
                for one in found
            ],
        )


@reservation.command()
@click.argument("reservation")
@as_json
def show(reservation: str, as_json: bool) -> None:
    """One reservation, by id or name, with its windows of the next four weeks.

    \b
    Example:
      labcommons reservation show "ML lab"
    """
    now = time.time()
    found = read(
        lambda session: reservations.show(reservations.get(session, reservation), now, now + WEEKS)
    )
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        if key != "windows" and value not in (None, "", []):
            click.echo(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    for window in found["windows"]:
        click.echo(f"  {short(window['start'])} to {short(window['end'])} UTC")


@reservation.command()
@click.argument("reservation")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def cancel(reservation: str, yes: bool, as_json: bool) -> None:
    """Give the reserved GPUs back to everybody; what runs inside goes on.

    \b
    Example:
      labcommons reservation cancel "ML lab" --yes
    """
    row = read(lambda session: reservations.get(session, reservation))
    if not yes:
        click.confirm(f"Cancel “{row.name}” of {row.subject}, all of its times?", abort=True)
    write(lambda session: reservations.cancel(session, row.id))
    if as_json:
        print_json({"id": row.id, "cancelled": True})
    else:
        click.echo(f"Cancelled: {row.name}.")


@reservation.command()
@click.argument("reservation")
@click.argument("day")
@as_json
def skip(reservation: str, day: str, as_json: bool) -> None:
    """Leave out one DAY, such as a holiday.

    \b
    Example:
      labcommons reservation skip "ML lab" 2026-12-24
    """
    now = time.time()
    found = write(
        lambda session: reservations.show(
            reservations.skip(session, reservation, day), now, now + WEEKS
        )
    )
    if as_json:
        print_json(found)
    else:
        click.echo(f"Left out: {found['name']} on {found['skipped'][-1]}.")
