"""``labcommons usage``: what was used, by person, team, course, model or environment."""

from __future__ import annotations

import click
from sqlalchemy.orm import Session

from commons.i18n import LANGUAGES, gettext_for
from commons.site import load_site
from hub_ext.usage_letter import render
from spawner.gpu.cli.tools import as_json, opened_store, print_json, print_table, read
from spawner.usage import report as reports
from spawner.usage import rollup
from spawner.usage.report import EVERYTHING, Asked, By, Report

HOURS = ("gpu_hours", "cpu_hours", "memory_gib_hours")


@click.group()
def usage() -> None:
    """What was used of GPUs, CPU and memory.

    \b
    Examples:
      labcommons usage report --by team --from 2026-10-01 --to 2026-10-31
      labcommons usage report --by person --account course:ml101 --csv > ml101.csv
    """


@usage.command()
@click.option("--from", "first", default="", help="A day; without one, thirty days back.")
@click.option("--to", "last", default="", help="A day; without one, today.")
@click.option(
    "--by",
    default="person",
    type=click.Choice([one.value for one in By]),
    help="A line for each of these.",
)
@click.option("--account", default="", help="Charged to group:NAME, course:NAME, user:NAME alone.")
@click.option("--person", default="", help="Of one person alone.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@as_json
def report(
    first: str, last: str, by: str, account: str, person: str, as_csv: bool, as_json: bool
) -> None:
    """GPU-, CPU- and memory-hours, waits, and how long GPUs were not used.

    \b
    Example:
      labcommons usage report --by model --from 2026-01-01 --json
    """
    if as_csv and as_json:
        raise click.UsageError("--csv or --json, not both")

    def work(session: Session) -> Report:
        span = reports.read_span(first, last, reports.today(session))
        return reports.make(session, Asked(*span, By(by), account, person), EVERYTHING)

    found = read(work)
    if as_csv:
        click.echo(reports.table(found), nl=False)
    elif as_json:
        print_json(reports.document(found))
    elif not found.lines:
        click.echo(f"Nothing was used from {found.asked.first} to {found.asked.last}.")
    else:
        lines = [reports.as_json(*line) for line in (*found.lines, ("(all)", found.all))]
        print_table(
            (
                by.upper(),
                "GPU-HOURS",
                "NOT USED",
                "CPU-HOURS",
                "GIB-HOURS",
                "WAIT",
                "SERVERS",
                "JOBS",
            ),
            [
                (
                    one["name"] or "-",
                    *(f"{one[key]:.1f}" for key in HOURS[:1]),
                    "-" if one["idle_share"] is None else f"{one['idle_share']:.0%}",
                    *(f"{one[key]:.1f}" for key in HOURS[1:]),
                    f"{one['mean_wait_seconds'] / 60:.0f} min" if one["waits"] else "-",
                    one["servers"],
                    one["jobs"],
                )
                for one in lines
            ],
        )


@usage.command()
@click.option("--month", default="", help="Such as 2026-10; without one, the last that is over.")
@click.option("--lang", default="en", type=click.Choice(LANGUAGES), help="Its language.")
def html(month: str, lang: str) -> None:
    """The report of a month as one HTML file, to print or save as PDF.

    \b
    Example:
      labcommons usage html --month 2026-10 > usage-2026-10.html
    """
    site, _ = load_site(), gettext_for(lang)
    click.echo(read(lambda s: render(s, site, month, _, lang)[0]))


@usage.command()
@as_json
def rebuild(as_json: bool) -> None:
    """Make the sums of all days anew, from the leases and servers themselves.

    The hub keeps them up to date; this is for who has changed the database by hand.

    \b
    Example:
      labcommons usage rebuild
    """
    with opened_store() as store:
        done = rollup.make_all(store, anew=True)
    if as_json:
        print_json({"first": done.first, "last": done.last, "timezone": done.zone})
    else:
        click.echo(f"summed up from {done.first} to {done.last} ({done.zone})")
