"""``labcommons course handin``: what was handed in, more time, and whether a receipt is true."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, BinaryIO

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.orm import Session

from commons.audit import record_command
from commons.messages import ENGLISH, Message
from courses import grading, handins, receipts, records
from courses.deadlines import MINUTE
from courses.handins import State
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

PAUSE = 1.0  # seconds between two looks
LARGEST = 16 * 2**20  # bytes of a receipt, with the manifest of ten thousand files


@click.group()
def handin() -> None:
    """What is handed in of a course, and when; handing in itself is on the course's page.

    \b
    Examples:
      labcommons course handin list ml101 hw1
      labcommons course handin extend ml101 hw1 "2026-11-05 23:59" --for s07
      labcommons course handin autograde ml101 hw1
      labcommons course handin verify receipt.json
    """


@handin.command("list")
@click.argument("name")
@click.argument("work", default="")
@as_json
def list_(name: str, work: str, as_json: bool) -> None:
    """All that was handed in of a course, or of one of its hand-ins, the newest first.

    \b
    Example:
      labcommons course handin list ml101 hw1 --json
    """

    def look(session: Session) -> list[dict[str, Any]]:
        records.get(session, name)
        return [handins.show(session, row) for row in handins.of_course(session, name, work)]

    found = read(look)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("Nothing was handed in.")
    else:
        print_table(
            ("ID", "HAND-IN", "WHO", "ASKED (UTC)", "LATE", "STATE", "FILES", "BYTES"),
            [
                (
                    one["id"],
                    one["handin"],
                    one["team"],
                    one["asked_at"][:19].replace("T", " "),
                    "late" if one["late"] else "-",
                    one["state"],
                    one["files"],
                    one["bytes"],
                )
                for one in found
            ],
        )


@handin.command()
@click.argument("name")
@click.argument("work")
@click.argument("until", default="")
@click.option("--for", "team", default="", help="A login name, or @ and a group; else for all.")
@as_json
def extend(name: str, work: str, until: str, team: str, as_json: bool) -> None:
    """Give more time, until a minute in the course's zone; without one, take it back.

    \b
    Examples:
      labcommons course handin extend ml101 hw1 "2026-11-05 23:59" --for s07
      labcommons course handin extend ml101 hw1 --for s07
    """
    by, now = operator(), time.time()

    def change(session: Session) -> dict[str, Any]:
        spec = records.spec_of(records.get(session, name))
        handins.extend(session, spec, handins.find(spec, work), team, until, by, now)
        return {
            one: handins.seconds(row.due_at) - MINUTE
            for one, row in handins.extensions(session, name, work).items()
        }

    found = write(change)
    done = {"done": "extension", "course": name, "handin": work, "team": team or "all"}
    record_command("hand-in-change", "success", {**done, "until": until}, user=by)
    if as_json:
        print_json({"extensions": found})
    elif not found:
        click.echo("No extensions.")
    else:
        print_table(("WHO", "UNTIL (UTC)"), [(k or "all", short(v)) for k, v in found.items()])


@handin.command()
@click.argument("name")
@click.argument("work")
@click.option("--for", "team", default="", help="A login name, or @ and a group; else for all.")
@click.option("--wait", default=3600.0, show_default=True, help="Seconds to wait for it; 0: none.")
@as_json
def autograde(name: str, work: str, team: str, wait: float, as_json: bool) -> None:
    """Grade what was handed in last with nbgrader, and say what it gave; exit 1 where one failed.

    The notebooks to grade by are in source/HAND-IN of the instructors' area. Marks and feedback are
    each student's at once; done again, they are replaced. A mark that a person gave stays.

    \b
    Examples:
      labcommons course handin autograde ml101 hw1
      labcommons course handin autograde ml101 hw1 --for s07
    """
    by, now = operator(), time.time()

    def ask(session: Session) -> list[str]:
        spec = records.spec_of(records.get(session, name))
        return [row.id for row in grading.ask(session, spec, work, team, by, now)]

    wanted, until, told = set(write(ask)), time.monotonic() + wait, 0
    while True:
        rows = read(lambda s: list(grading.newest(s, name, work).values()))
        found = [grading.show(row) for row in rows if row.id in wanted]
        done = sum(one["state"] in (State.KEPT, State.REFUSED) for one in found)
        if done > told and not as_json:
            click.echo(f"{done} of {len(found)}", err=True)
        told = done
        if done == len(found) or time.monotonic() >= until:
            break
        time.sleep(PAUSE)
    for one in found:
        said = one["message"]
        one["message"] = Message.from_json(said).in_words(ENGLISH) if said else None
    if as_json:
        print_json({"gradings": found})
    else:
        print_table(("WHO", "STATE", "POINTS", "NOTE"), [_graded(one) for one in found])
    if done < len(found) and wait:
        raise click.ClickException(
            f"{len(found) - done} were not graded within {wait:.0f} seconds; the hub goes on when "
            "it runs: see “labcommons doctor”."
        )
    if any(one["state"] == State.REFUSED for one in found):
        raise SystemExit(1)


def _graded(one: dict[str, Any]) -> tuple[str, str, str, str]:
    notes = [one["message"] or ""]
    notes += [f"{each['name']}: {each['problem']}" for each in one["notebooks"] if each["problem"]]
    notes += ["something is to be marked by a person"] if one["manual"] else []
    notes += [f"the mark that a person gave stays: {', '.join(one['kept'])}"] if one["kept"] else []
    got = "-"
    if one["most"] is not None:
        got = f"{grading.points(one['score'])}/{grading.points(one['most'])}"
    return one["team"], one["state"], got, "; ".join(note for note in notes if note) or "-"


@handin.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--key",
    "pem",
    type=click.Path(path_type=Path),
    help="The site's public key in PEM, where this is not the site.",
)
def verify(file: BinaryIO, pem: Path | None) -> None:
    """Whether a receipt is this site's, and as it was signed; exit 1 where it is not.

    Whoever has the site's public key needs nothing else.

    \b
    Examples:
      labcommons course handin verify receipt.json
      labcommons course handin verify --key receipts.pem receipt.json
    """
    try:
        document = json.loads(file.read(LARGEST + 1)[:LARGEST])
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{file.name} is no receipt: {error}") from error
    with refusals():
        wrong = receipts.problems(document, public_key(pem))
    for one in wrong:
        click.echo(one, err=True)
    if wrong:
        raise SystemExit(1)
    said = document["receipt"]
    when = "late" if said.get("late") else "in time"
    click.echo(
        f"True: {said.get('asked_by')} asked at {said.get('asked_at')} (UTC, {when}) to hand in "
        f"{said.get('handin')} of {said.get('course')}: {said.get('files')} files, "
        f"sha256 {said.get('digest')}."
    )


@handin.command()
def key() -> None:
    """The public key of the site's receipts, in PEM.

    \b
    Example:
      labcommons course handin key > receipts.pem
    """
    pem, info = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    click.echo(public_key(None).public_bytes(pem, info).decode("ascii"), nl=False)


def public_key(pem: Path | None) -> Ed25519PublicKey:
    """The site's own, or of a file. Raises ClickException."""
    try:
        if pem is None:
            return receipts.site_key().public_key()
        found = serialization.load_pem_public_key(pem.read_bytes())
    except (OSError, ValueError) as error:
        raise click.ClickException(f"the key of receipts cannot be read: {error}") from error
    if not isinstance(found, Ed25519PublicKey):
        raise click.ClickException(f"{pem} is a key of another kind than Ed25519")
    return found
