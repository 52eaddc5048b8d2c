"""``labcommons maintenance``: nobody starts a server, and everybody is told."""

from __future__ import annotations

from typing import Any

import click

from commons import maintenance as windows
from commons.audit import record_command
from spawner.gpu.cli.tools import as_json, operator, print_json, print_table, read, write


@click.group()
def maintenance() -> None:
    """Maintenance: nobody but administrators starts a server, and everybody is told.

    What waits in line waits on. Servers that run go on, unless a stop is planned.

    \b
    Examples:
      labcommons maintenance start "Disks are changed." --zh "更换磁盘。" --until 4h --stop 30m
      labcommons maintenance start "New network." --begin 2026-11-24T18:00 --until 4h
      labcommons maintenance status
      labcommons maintenance stop
    """


@maintenance.command()
@click.argument("reason", default="")
@click.option("--zh", default="", help="The reason in Chinese. One is enough: all see it then.")
@click.option("--begin", "starts", default="", help="A time or a duration from now; at once "
              "without. Everybody reads of it a day before.")  # fmt: skip
@click.option("--until", default="", help="The expected end, at which it is over by itself: a time "
              "(2026-11-24T18:00) or how long (4h). Without, until it is stopped.")  # fmt: skip
@click.option("--stop", default="", help="When all servers are stopped, with warnings in "
              "JupyterLab an hour and ten minutes before: a time, or how long after the begin; "
              "without, they go on.")  # fmt: skip
@click.option("--timezone", default="UTC", show_default=True, help="IANA name, of the times.")
@as_json
def start(
    as_json: bool, reason: str, zh: str, starts: str, until: str, stop: str, timezone: str
) -> None:
    """Begin maintenance for REASON, now or later.

    \b
    Examples:
      labcommons maintenance start "Disks are changed." --until 4h --stop 30m
      labcommons maintenance start "New network." --begin 2026-11-24T18:00 --until 4h --stop 1h \\
          --timezone Asia/Shanghai
    """
    by = operator()
    asked: dict[str, Any] = {
        "en": reason,
        "zh": zh,
        "starts": starts,
        "until": until,
        "stop": stop,
        "timezone": timezone,
        "by": by,
    }
    found = write(lambda s: windows.as_json(windows.start(s, **asked)))
    details = {"done": "start", "begins": found["since"]}
    record_command("maintenance-change", "success", details, user=by)
    _say(found, as_json)


@maintenance.command()
@as_json
def status(as_json: bool) -> None:
    """Say whether there is maintenance or one is planned, by whom, and who is still working.

    Kernels that work are counted: BUSY KERNELS, “?” where a server does not say.

    \b
    Example:
      labcommons maintenance status --json
    """
    _say(read(lambda s: windows.as_json(windows.found(s))), as_json)


@maintenance.command()
@as_json
def stop(as_json: bool) -> None:
    """End it, or cancel what is planned: what waits in line starts.

    \b
    Example:
      labcommons maintenance stop
    """
    by = operator()
    found = write(lambda s: windows.as_json(windows.stop(s, by)))
    record_command("maintenance-change", "success", {"done": "stop"}, user=by)
    _say(found, as_json)


def _say(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    if found["state"] == "none":
        click.echo("There is no maintenance, and none is planned.")
        return
    since = "since" if found["on"] else "planned from"
    click.echo(
        f"Maintenance {since} {found['since']}, by {found['by']}: {found['en'] or found['zh']}"
    )
    click.echo(f"Expected end: {found['ends_at'] or 'when it is stopped'}")
    click.echo(f"Servers are stopped: {found['stop_at'] or 'no'}")
    if found["working"]:
        print_table(
            ("USER", "SERVER", "STARTED (UTC)", "LAST USED", "BUSY KERNELS"),
            [
                (
                    one["user"],
                    one["server"] or "-",
                    one["started"][:16].replace("T", " "),
                    one["last_activity"][:16].replace("T", " "),
                    "?" if one["busy_kernels"] is None else str(one["busy_kernels"]),
                )
                for one in found["working"]
            ],
        )
    else:
        click.echo(
            "Nobody is working, as the hub last saw; it looks from an hour before the begin, and "
            "some seconds after the command."
        )
