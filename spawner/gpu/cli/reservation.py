"""``labcommons reservation``: GPUs set aside for a team, course or person."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from sqlalchemy.orm import Session

from commons.errors import in_terminal
from commons.site import load_site
from commons.store.models import GpuReservation
from commons.units import show_duration
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
from spawner.gpu.ledger import reservations
from spawner.gpu.ledger.reservations import ReservationUnkept
from spawner.gpu.policy.promises import Shortage

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
@click.option("--anyway", is_flag=True, help="Also where it cannot be kept as things are.")
@as_json
def create(as_json: bool, **asked: Any) -> None:
    """Reserve GPUs. Exit 1, with the reservation that is in the way, where that is not possible.

    Where it could not be kept as things are (GPUs that are drained, or held beyond its beginning,
    limits of those whom it is for), it says so and asks first; without a terminal, see --anyway.

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

    def reserve(spec: reservations.ReservationSpec) -> dict[str, Any] | ReservationUnkept:
        def work(session: Session) -> dict[str, Any] | ReservationUnkept:
            try:
                row = reservations.create(session, spec, by, now)
            except ReservationUnkept as error:
                return error
            return reservations.show(row, now, now + WEEKS)

        return write(work)

    made = reserve(spec)
    if isinstance(made, ReservationUnkept):
        for reason in made.reasons:
            click.echo(in_terminal(reason), err=True)
        if as_json or not sys.stdin.isatty():
            raise click.ClickException(f"{in_terminal(made)} (--anyway)")
        click.confirm(in_terminal(made), abort=True)
        made = reserve(spec.model_copy(update={"anyway": True}))
    assert isinstance(made, dict)
    if as_json:
        print_json(made)
    else:
        click.echo(f"Reserved: {made['name']} ({made['id']}).")


def _shown(row: GpuReservation, now: float, unkept: tuple[Shortage, ...]) -> dict[str, Any]:
    found = reservations.show(row, now, now + WEEKS, unkept)
    for one in found["unkept"]:
        one["reasons"] = [in_terminal(reason) for reason in one["reasons"]]
    return found


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
            _shown(row, now, reservations.unkept_soon(session, now, reservations.WATCHED))
            for row in reservations.standing(session)
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
                    (short(one["windows"][0]["start"]) if one["windows"] else "-")
                    + ("  cannot be kept" if one["unkept"] else ""),
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
        lambda session: _shown(
            reservations.get(session, reservation),
            now,
            reservations.unkept_soon(session, now, reservations.WATCHED),
        )
    )
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        if key not in ("windows", "unkept") and value not in (None, "", []):
            click.echo(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    for window in found["windows"]:
        click.echo(f"  {short(window['start'])} to {short(window['end'])} UTC")
    for one in found["unkept"]:
        click.echo(f"  cannot be kept on {short(one['start'])} UTC: {'; '.join(one['reasons'])}")


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
