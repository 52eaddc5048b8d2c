"""``labcommons course``: courses as data."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, BinaryIO, TextIO

import click
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from commons.audit import record_command
from commons.errors import in_terminal
from commons.scopes import Scope
from commons.site import load_site
from courses import people, records, roster_files
from courses.document import CourseSpec, check_in_site, read_course, to_yaml
from hub_ext import course_room, course_roster
from hub_ext.course_end_cli import archive, erase, freeze, thaw
from hub_ext.course_materials_cli import materials
from hub_ext.directory.cli import DirectoryOfSite
from hub_ext.doctor.checks import HUB_DATABASE
from hub_ext.handin_cli import handin
from spawner.gpu.cli.tools import (
    as_json,
    operator,
    print_json,
    print_table,
    read,
    refusals,
    write,
)


@click.group()
def course() -> None:
    """Courses: who is in them, when they are, and what their servers are started with.

    A course must be in the site file (directory.courses), which says who teaches it; what it is
    a course.yaml says, here or on its page.

    \b
    Examples:
      labcommons course apply -f ml101.yaml --dry-run
      labcommons course show ml101
      labcommons course export ml101 > ml101.yaml
    """


@course.command()
@click.option(
    "-f",
    "--file",
    type=click.File(encoding="utf-8"),
    required=True,
    help="The course.yaml; - for standard input.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--anyway", is_flag=True, help="Also where its GPUs cannot be kept as things are.")
@as_json
def apply(file: TextIO, dry_run: bool, anyway: bool, as_json: bool) -> None:
    """Make a course what a course.yaml says, and show what changes.

    GPUs of its hours are reserved, and its servers planned, in the same transaction: where that
    cannot be, nothing changes, exit 1.

    \b
    Examples:
      labcommons course apply -f ml101.yaml --dry-run
      labcommons course export ml101 | labcommons course apply -f -
    """
    try:
        text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file.name}: not readable as UTF-8 text: {error}") from error
    site, by = load_site(), operator()
    with refusals():
        spec = read_course(text, file.name)

    def work(session: Session) -> list[records.Change]:
        changes = records.apply(session, spec, by, site, anyway=anyway)
        if dry_run:
            raise _DryRunError(changes)
        return changes

    try:
        changes = write(work)
    except _DryRunError as tried:
        changes = tried.changes
    if changes and not dry_run:
        record_command(
            "course-change", "success", {"done": "apply", "course": spec.course}, user=by
        )
    if as_json:
        print_json({"applied": not dry_run, "changes": [vars(change) for change in changes]})
        return
    for change in changes:
        click.echo(str(change))
    if not changes:
        click.echo("Nothing changes.")
    else:
        click.echo("Not applied (--dry-run)." if dry_run else "Applied.")


class _DryRunError(Exception):
    """Takes back what was tried."""

    def __init__(self, changes: list[Any]) -> None:
        super().__init__()
        self.changes = changes


@course.command("list")
@as_json
def list_(as_json: bool) -> None:
    """All courses of which something is said.

    \b
    Example:
      labcommons course list --json
    """
    now = time.time()
    found = read(lambda s: [records.show(s, row, now) for row in records.all_of(s)])
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No course is set up. See “labcommons course apply --help”.")
    else:
        print_table(
            ("COURSE", "TITLE", "TERM", "PEOPLE", "NEXT"),
            [
                (
                    one["course"]["course"],
                    one["course"]["title"]["en"],
                    f"{one['course']['term']['first']} – {one['course']['term']['last']}",
                    one["on_roster"],
                    _next(one["sessions"]),
                )
                for one in found
            ],
        )


@course.command()
@click.argument("name")
@as_json
def show(name: str, as_json: bool) -> None:
    """One course, with its sessions of the next two weeks and its roster.

    \b
    Example:
      labcommons course show ml101
    """
    now = time.time()

    def work(session: Session) -> dict[str, Any]:
        return {
            **records.show(session, records.get(session, name), now),
            "roster": people.roster(session, name),
        }

    found = read(work)
    if as_json:
        print_json(found)
        return
    click.echo(to_yaml(CourseSpec.model_validate(found["course"])), nl=False)
    click.echo(f"changed: {_utc(found['changed_at'])} UTC by {found['changed_by']}")
    for one in found["sessions"]:
        warm = f"  servers ahead of time: {one['warm']}" if one["warm"] else ""
        click.echo(f"session: {one['day']} {one['time']}{warm}")
    for username, position in found["roster"].items():
        click.echo(f"roster: {username} ({position})")


@course.command()
@click.argument("name")
def export(name: str) -> None:
    """The course.yaml of a course: applied again, it changes nothing.

    \b
    Example:
      labcommons course export ml101 > ml101.yaml
    """
    spec = read(lambda s: records.spec_of(records.get(s, name)))
    click.echo(to_yaml(spec), nl=False)


@course.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def remove(name: str, yes: bool, as_json: bool) -> None:
    """Forget what is said of a course: its roster, reservations and planned servers.

    Its folder stays, and whom the directory puts into it.

    \b
    Example:
      labcommons course remove ml101
    """
    read(lambda s: records.get(s, name))
    if not yes:
        click.confirm(f"Remove {name} with its roster and its reservations?", abort=True)
    by = operator()
    write(lambda s: records.remove(s, name))
    record_command("course-change", "success", {"done": "remove", "course": name}, user=by)
    if as_json:
        print_json({"removed": name})
    else:
        click.echo(f"Removed: {name}. Its folder stays.")


@course.command()
@click.argument("name")
@click.option("--csv", "as_csv", is_flag=True, help="For a spreadsheet, with GPU-hours.")
@as_json
def room(name: str, as_csv: bool, as_json: bool) -> None:
    """Who is in a course, and the servers of it that run; memory is on the page alone.

    \b
    Examples:
      labcommons course room ml101
      labcommons course room ml101 --json
      labcommons course room ml101 --csv > room.csv
    """
    with refusals():
        check_in_site(Scope("course", name), load_site())
    engine = create_engine(os.environ.get("LABCOMMONS_HUB_DATABASE_URL", HUB_DATABASE))
    try:
        with Session(engine) as hub:
            found = read(lambda s: course_room.read(hub, s, name))
    except SQLAlchemyError as error:
        raise click.ClickException(f"the hub's database does not answer: {error}") from error
    finally:
        engine.dispose()
    if as_json:
        print_json([one.as_json() for one in found])
    elif as_csv:
        click.echo(
            course_room.as_csv(found, read(lambda s: course_room.gpu_hours(s, name))), nl=False
        )
    elif not found:
        click.echo("Nobody is in this course. See “labcommons course roster --help”.")
    else:
        print_table(
            ("LOGIN", "POSITION", "STATE", "SERVER", "SIZE", "GPUS", "ACTIVE (UTC)"),
            [
                (
                    one.user,
                    one.position,
                    one.state,
                    one.server,
                    one.size,
                    one.gpus or "",
                    f"{one.active:%Y-%m-%d %H:%M}" if one.active else "",
                )
                for one in found
            ],
        )


@course.group()
def roster() -> None:
    """Whom a file puts into a course, beside those whom the directory's groups do.

    \b
    Examples:
      labcommons course roster apply ml101 students.csv --dry-run
      labcommons course roster list ml101
      labcommons course roster remove ml101 s07
    """


@roster.command("apply")
@click.argument("name")
@click.argument("file", type=click.File("rb"))
@click.option("--class", "class_", default="", help="The class in the file, where that names it "
              "otherwise.")  # fmt: skip
@click.option("--prune", is_flag=True, help="Take off whom the file does not name.")
@click.option("--yes", is_flag=True, help="Do not ask before somebody is taken off.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@as_json
def apply_roster(
    name: str, file: BinaryIO, class_: str, prune: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Put the people of FILE on the roster: CSV, Moodle's upload format, or a OneRoster zip.

    They are found in the directory by login name, e-mail address or number. Whoever is not is
    listed, and nobody is created; exit 1 then, with all others on the roster.

    \b
    Examples:
      labcommons course roster apply ml101 students.csv --dry-run
      labcommons course roster apply ml101 oneroster.zip --class ML-2026 --prune
    """
    site, by = load_site(), operator()
    with refusals():
        check_in_site(Scope("course", name), site)
        read_file = roster_files.read(
            file.read(roster_files.MAX_BYTES + 1), file.name, class_ or name
        )
        matches = asyncio.run(
            DirectoryOfSite(site).directory.find_people(course_roster.asked(read_file.people))
        )
    found = course_roster.known(read_file.people, matches, people.WORDS)

    said = None
    if prune and not dry_run and not yes:
        gone = people.leaving(read(lambda s: people.diff(s, name, found.people, prune)))
        if gone:
            click.echo(f"These leave the course: {', '.join(gone)}", err=True)
            said = click.prompt("How many are that", type=int, err=True)
        else:
            said = 0

    def work(session: Session) -> list[people.Change]:
        changes = people.apply(session, name, found.people, by, prune, said)
        if dry_run:
            raise _DryRunError(changes)
        return changes

    try:
        changes = write(work)
    except _DryRunError as tried:
        changes = tried.changes
    if changes and not dry_run:
        lines = [str(change) for change in changes]
        record_command(
            "course-change",
            "success",
            {"done": "roster", "course": name, "changes": lines[:500]},
            user=by,
        )
    if as_json:
        print_json(
            {
                "applied": not dry_run,
                "changes": [vars(change) for change in changes],
                "left": [one.as_json() for one in found.left],
            }
        )
    else:
        for change in changes:
            click.echo(str(change))
        for one in found.left:
            click.echo(f"line {one.line}: {one.who}: {in_terminal(one.reason)}", err=True)
        if not changes:
            click.echo("Nothing changes.")
        else:
            click.echo("Not applied (--dry-run)." if dry_run else "Applied.")
    raise SystemExit(1 if found.left else 0)


@roster.command("list")
@click.argument("name")
@as_json
def list_roster(name: str, as_json: bool) -> None:
    """Who is on it; whom the directory's groups put into the course are not listed.

    \b
    Example:
      labcommons course roster list ml101 --json
    """
    found = read(lambda s: people.roster(s, name))
    if as_json:
        print_json(found)
    elif not found:
        click.echo("Nobody is on the roster. See “labcommons course roster apply --help”.")
    else:
        print_table(("LOGIN", "POSITION"), list(found.items()))


@roster.command("remove")
@click.argument("name")
@click.argument("login")
@as_json
def remove_person(name: str, login: str, as_json: bool) -> None:
    """Take somebody off it.

    \b
    Example:
      labcommons course roster remove ml101 s07
    """
    by = operator()
    write(lambda s: people.remove(s, name, login))
    done = {"done": "roster", "course": name, "changes": [f"- {login}"]}
    record_command("course-change", "success", done, user=by)
    if as_json:
        print_json({"removed": login})
    else:
        click.echo(f"Removed: {login}.")


for command in (handin, freeze, thaw, archive, erase):
    course.add_command(command)
course.add_command(materials)


def _utc(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _next(sessions: list[dict[str, Any]]) -> str:
    return f"{sessions[0]['day']} {sessions[0]['time']}" if sessions else "-"
