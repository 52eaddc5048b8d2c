"""``labcommons run`` and ``labcommons jobs`` on the machine: people's jobs, for administrators."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from commons.audit import record_command
from commons.messages import ENGLISH
from commons.store.models import Job
from commons.units import parse_duration
from jobs import asked, output, records
from spawner.gpu.cli.tools import as_json, operator, print_json, print_table, read, refusals, write

FOLLOW = 1.0  # seconds between two looks


@click.group()
def jobs() -> None:
    """People's jobs: programs that run without their servers.

    \b
    Examples:
      labcommons jobs list --user alice
      labcommons jobs log 17 --follow
      labcommons jobs cancel 17_3
    """


@jobs.command("list")
@click.option("--user", default=None, help="Only of one person.")
@click.option("--open", "unfinished", is_flag=True, help="Only those that are not over.")
@as_json
def list_(user: str | None, unfinished: bool, as_json: bool) -> None:
    """Jobs, the newest first, at most 500.

    \b
    Example:
      labcommons jobs list --open --json
    """
    _print(
        read(lambda s: records.show_all(s, records.mine(s, user, not unfinished), ENGLISH)), as_json
    )


@jobs.command()
@click.argument("job")
@as_json
def show(job: str, as_json: bool) -> None:
    """A job, a task of an array, or all tasks of one.

    \b
    Example:
      labcommons jobs show 17 --json
    """
    _print(read(lambda s: records.show_all(s, records.find(s, job), ENGLISH)), as_json)


@jobs.command()
@click.argument("job")
@click.option("--follow", "-f", is_flag=True, help="Go on until it is over.")
@as_json
def log(job: str, follow: bool, as_json: bool) -> None:
    """What a job has printed, in its last attempt.

    \b
    Example:
      labcommons jobs log 17 --follow
    """
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    offset, whole = 0, ""
    while True:
        row: Job = read(lambda s: records.find(s, job)[0])
        text, offset = output.part(data, row.id, row.attempt, offset)
        if as_json:
            whole += text
        else:
            click.echo(text, nl=False)
        if not text and (not follow or row.state not in records.UNFINISHED):
            break
        if not text:
            time.sleep(FOLLOW)
    if as_json:
        print_json({"job": records.name(row), "log": whole})


@jobs.command()
@click.argument("job")
@as_json
def cancel(job: str, as_json: bool) -> None:
    """End a job, a task of an array, or all tasks of one; what runs has time to save.

    \b
    Example:
      labcommons jobs cancel 17
    """
    by = operator()

    def work(session: Session) -> tuple[int, list[dict[str, Any]]]:
        rows = records.find(session, job)
        return records.cancel(session, rows, by), records.show_all(session, rows, ENGLISH)

    count, found = write(work)
    record_command("job-cancel", "success", {"job": job, "of": found[0]["user"]}, user=by)
    if as_json:
        print_json({"cancelled": count, "jobs": found})
    else:
        click.echo(f"{count} told to end.")


@click.command()
@click.argument("command", nargs=-1, required=True)
@click.option("--user", required=True, help="Whose job it is, and who is charged.")
@click.option("--gpus", default=0, type=click.IntRange(0), help="How many GPUs.")
@click.option("--gpu-type", default="", help="Their model.")
@click.option("--time", "limit", default="", help="Time limit: 90m, 4h, 1d12h.")
@click.option("--env", "environment", default="", help="NAME or NAME:VERSION.")
@click.option("--size", default="", help="A size of the site file.")
@click.option("--account", default="", help="Who is charged.")
@click.option("--folder", default="", help="Where it runs, below the home.")
@click.option("--array", default="", help="Tasks: 0-9, 1,4,7 or 0-99%5 (five at once).")
@click.option("--after", multiple=True, help="A job of theirs that has to be done first.")
@click.option("--retries", default=0, help="How often it is run again where it was cut off.")
@click.option("--preemptible", is_flag=True, help="It makes room for others.")
@as_json
def run(command: tuple[str, ...], user: str, limit: str, as_json: bool, **said: Any) -> None:
    """Have a program run for somebody, without their server, as if they had asked.

    \b
    Example:
      labcommons run --user alice --gpus 1 --time 4h -- python train.py
    """
    try:
        minutes = max(1, parse_duration(limit) // 60) if limit else None
    except ValueError as error:
        raise click.UsageError(f"--time {error}") from error
    with refusals():
        wanted = asked.parse(
            {**said, "command": list(command), "after": list(said["after"]), "time_limit": minutes}
        )
    found = write(
        lambda s: records.show_all(s, records.submit(s, wanted, user), ENGLISH),
    )
    about = {"job": found[0]["id"], "of": user, "command": records.shown(command)}
    record_command("job-submit", "success", about, user=operator())
    if as_json:
        print_json(found)
    else:
        click.echo(f"job {found[0]['id'].partition('_')[0]} is queued for {user}")


def _print(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif not found:
        click.echo("There are no jobs.")
    else:
        print_table(
            ("ID", "WHO", "STATE", "GPUS", "ENVIRONMENT", "WHY", "COMMAND"),
            [
                (
                    one["id"],
                    one["user"],
                    one["state"],
                    one["gpus"] or "-",
                    one["environment"] or "-",
                    " ".join(reason["sentence"] for reason in one["reasons"])[:60] or "-",
                    records.shown(one["command"])[:60],
                )
                for one in found
            ],
        )
