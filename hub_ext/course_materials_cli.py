"""``labcommons course materials``: when they were fetched, and having them fetched now."""

from __future__ import annotations

import time
from typing import Any

import click

from commons.audit import record_command
from commons.messages import ENGLISH
from commons.store.models import utcnow
from courses import materials as records
from spawner.gpu.cli.tools import as_json, operator, print_json, read, refusals, write

PAUSE = 1.0  # seconds between two looks


@click.group()
def materials() -> None:
    """What a course gives out: course.yaml says where it is, and the hub fetches it.

    \b
    Examples:
      labcommons course materials show ml101
      labcommons course materials fetch ml101
    """


@materials.command()
@click.argument("name")
@as_json
def show(name: str, as_json: bool) -> None:
    """When they were fetched, what was left out, and what is wrong.

    \b
    Example:
      labcommons course materials show ml101 --json
    """
    with refusals():
        _print(_look(name), as_json)


@materials.command()
@click.argument("name")
@click.option("--wait", default=360.0, show_default=True, help="Seconds to wait for it; 0: none.")
@as_json
def fetch(name: str, wait: float, as_json: bool) -> None:
    """Have them fetched now, and say what came of it; exit 1 where it failed.

    What was fetched before stays where that fails.

    \b
    Example:
      labcommons course materials fetch ml101
    """
    by = operator()
    write(lambda s: records.want(s, name, utcnow()))
    record_command("course-change", "success", {"done": "fetch", "course": name}, user=by)
    until = time.monotonic() + wait
    found = _look(name)
    while found["waits"] and time.monotonic() < until:
        time.sleep(PAUSE)
        found = _look(name)
    _print(found, as_json)
    if found["waits"] and wait:
        raise click.ClickException(
            f"They were not fetched within {wait:.0f} seconds; the hub does it when it runs: "
            "see “labcommons doctor”."
        )
    if found["problem"] and not found["waits"]:
        raise SystemExit(1)


def _look(name: str) -> dict[str, Any]:
    return records.in_words(read(lambda s: records.of(s, name)), ENGLISH)


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    at = found["fetched_at"]
    click.echo(f"source: {found['source']}")
    click.echo(f"fetched: {at[:16].replace('T', ' ') + ' UTC' if at else 'never'}")
    click.echo(f"files: {found['files']} ({found['bytes']} bytes)")
    for one in found["left_out"]:
        click.echo(f"left out: {one['path']}: {one['why']}")
    if found["more_left_out"]:
        click.echo(f"left out: {found['more_left_out']} more")
    if found["waits"]:
        click.echo("They are to be fetched.")
    elif found["problem"]:
        click.echo(f"problem: {found['problem']}")
