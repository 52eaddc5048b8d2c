"""``labcommons course freeze``, ``thaw``, ``archive`` and ``erase``: the end of a course's term."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import click
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.orm import Session

from commons.audit import record_command
from commons.messages import ENGLISH, Message
from commons.site import load_site
from commons.store.models import CourseWork
from commons.units import amount
from courses import archives, records, term
from courses.archives import State
from hub_ext.handin_cli import public_key
from spawner.gpu.cli.tools import as_json, operator, print_json, print_table, read, write
from spawner.runtime.docker.archive_task import SIGNATURE, Read, check

PAUSE = 1.0  # seconds between two looks


@click.command()
@click.argument("name")
def freeze(name: str) -> None:
    """Nobody writes into a course from now on: no hand-ins, no servers for it; people still read.

    Its reservations and planned servers are given back. Servers that run keep what they have
    until they are started anew.

    \b
    Example:
      labcommons course freeze ml101
    """
    site, by, now = load_site(), operator(), time.time()
    changed = write(lambda s: term.freeze(s, name, by, site, now))
    _changed("freeze", name, by, changed)
    click.echo(f"Frozen: {name}." if changed else f"{name} is frozen already.")


@click.command()
@click.argument("name")
def thaw(name: str) -> None:
    """Take a freeze back; its clock does not freeze it again until its end is another day.

    \b
    Example:
      labcommons course thaw ml101
    """
    site, by, now = load_site(), operator(), time.time()
    changed = write(lambda s: term.thaw(s, name, by, site, now))
    _changed("thaw", name, by, changed)
    click.echo(f"Thawed: {name}." if changed else f"{name} is not frozen.")


def _changed(done: str, name: str, by: str, changed: bool) -> None:
    if changed:
        record_command("course-change", "success", {"done": done, "course": name}, user=by)


@click.group()
def archive() -> None:
    """One signed file of all that a course is: its files, hand-ins, marks, people, environment.

    \b
    Examples:
      labcommons course archive create ml101
      labcommons course archive verify ml101
      labcommons course archive download ml101 > ml101.tar.gz
    """


@archive.command()
@click.argument("name")
@click.option("--wait/--no-wait", default=True, help="Say how far it has come, to its end.")
@as_json
def create(name: str, wait: bool, as_json: bool) -> None:
    """Have an archive made; exit 1 where it fails. The running hub makes it, also without you.

    \b
    Examples:
      labcommons course archive create ml101
      labcommons course archive create ml101 --no-wait
    """
    by = operator()
    one = write(lambda s: archives.ask(s, name, by).id)
    row = _wait(one, quiet=as_json) if wait else _look(one)
    if as_json:
        print_json(row)
    elif row["state"] == State.KEPT:
        click.echo(
            f"{row['name']}: {row['files']} files, {amount(row['size'])}, "
            f"{row['left_out']} left out; read again and found whole."
        )
    elif row["state"] == State.FAILED:
        raise click.ClickException(_words(row))
    else:
        click.echo(f"The hub makes it: see “labcommons course archive list {name}”.")
    if row["state"] == State.FAILED:
        raise SystemExit(1)


@archive.command("list")
@click.argument("name")
@as_json
def list_(name: str, as_json: bool) -> None:
    """Archives of a course, also of one that was removed, the newest first.

    \b
    Example:
      labcommons course archive list ml101
    """
    found = read(lambda s: [archives.show(row) for row in archives.of_course(s, name)])
    if as_json:
        print_json(found)
    elif not found:
        click.echo("There is none. See “labcommons course archive create --help”.")
    else:
        print_table(
            ("ID", "WHAT", "ASKED (UTC)", "BY", "STATE", "FILES", "LEFT OUT", "SIZE"),
            [
                (
                    one["id"],
                    one["kind"],
                    one["asked_at"][:16].replace("T", " "),
                    one["asked_by"],
                    one["state"],
                    one["files"],
                    one["left_out"],
                    amount(one["size"]) if one["size"] else "-",
                )
                for one in found
            ],
        )
        for one in found:
            if one["message"]:
                click.echo(f"{one['id']}: {_words(one)}", err=True)


@archive.command()
@click.argument("what")
@click.option("--id", "one", default="", help="Which archive of the course; else the newest.")
@click.option(
    "--key",
    "pem",
    type=click.Path(path_type=Path),
    help="The site's public key in PEM, where this is not the site.",
)
def verify(what: str, one: str, pem: Path | None) -> None:
    """Read an archive to its end: whether it is whole, as it was made, and signed; else exit 1.

    WHAT is a course (its newest archive here), a file, or - for standard input. Nothing is
    unpacked.

    \b
    Examples:
      labcommons course archive verify ml101
      labcommons course archive verify - --key receipts.pem < ml101.tar.gz
    """
    key = public_key(pem)
    try:
        if what == "-":
            found = check(sys.stdin.buffer)
        elif Path(what).is_file():
            with Path(what).open("rb") as file:
                found = check(file)
        else:
            with _open(what, one) as file:
                found = check(file)
    except OSError as error:
        raise click.ClickException(f"{what} cannot be read: {error.strerror}") from error
    wrong = [*found.wrong, *_signed(found, key)]
    for line in wrong[:50]:
        click.echo(line, err=True)
    if wrong:
        raise SystemExit(1)
    click.echo(f"Whole and true: {len(found.met)} files. It says: {found.statement.decode()}")


def _signed(found: Read, key: Ed25519PublicKey) -> list[str]:
    try:
        key.verify(found.texts[SIGNATURE], found.statement)
    except InvalidSignature:
        return ["the signature is not this site’s, or the statement was changed"]
    return []


@archive.command()
@click.argument("name")
@click.argument("one", default="")
def download(name: str, one: str) -> None:
    """Write an archive to standard output: the newest, or one by its id.

    \b
    Example:
      labcommons course archive download ml101 > ml101.tar.gz
    """
    if sys.stdout.isatty():
        raise click.ClickException("An archive is no text: send it to a file, by > FILE.")
    by = operator()
    with _open(name, one) as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 2**20)
    record_command("course-download", "success", {"course": name, "archive": one}, user=by)


def _open(name: str, one: str) -> BinaryIO:
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    path = read(lambda s: archives.path(data, archives.find(s, name, one)))
    try:
        return path.open("rb")
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from error


@click.command()
@click.argument("name")
@click.option("--without-archive", is_flag=True, help="Also where there is no archive of it.")
@click.option("--yes", default="", metavar="NAME", help="Its name, in place of being asked.")
def erase(name: str, without_archive: bool, yes: str) -> None:
    """Remove a course with all its files; only an archive of it stays.

    It must be frozen, and archived since. What goes is listed first, and its name is asked for.
    Copies of its materials in people's homes, the audit trail and what was used stay.

    \b
    Example:
      labcommons course erase ml101
    """
    told = read(lambda s: (records.get(s, name), archives.removed(s, name))[1])
    size = told.pop("bytes")
    click.echo(f"{told.pop('folder')}: {'not measured yet' if size is None else amount(size)}")
    for key, count in told.items():
        click.echo(f"{key.replace('_', ' ')}: {count}")
    typed = yes or click.prompt("Type the course's name to remove all of this")
    by = operator()
    one = write(
        lambda s: archives.ask_removal(s, name, by, typed, without_archive=without_archive).id
    )
    row = _wait(one, quiet=True)
    if row["state"] != State.KEPT:
        raise click.ClickException(_words(row))
    click.echo(f"Removed: {name}, with its files.")


def _look(one: str) -> dict[str, Any]:
    def work(session: Session) -> dict[str, Any]:
        row = session.get(CourseWork, one)
        assert row is not None
        return archives.show(row)

    return read(work)


def _wait(one: str, quiet: bool) -> dict[str, Any]:
    """To its end; how far it has come goes to standard error."""
    said = ""
    while (row := _look(one))["state"] in archives.WAITING:
        now = f"{amount(row['bytes'])} of {amount(row['all_bytes'])}" if row["all_bytes"] else ""
        now = _words(row) if row["message"] else now
        if now and now != said and not quiet:
            click.echo(now, err=True)
        said = now
        time.sleep(PAUSE)
    return row


def _words(row: dict[str, Any]) -> str:
    return Message.from_json(row["message"]).in_words(ENGLISH) if row["message"] else "It failed."
