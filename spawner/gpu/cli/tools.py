"""What the commands ``gpu``, ``quota`` and ``reservation`` share."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

import click
from sqlalchemy.orm import Session

from commons.errors import LabError, in_terminal
from commons.store import Store
from spawner.gpu.views import iso

T = TypeVar("T")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def refusals() -> Iterator[None]:
    """Make one clear line of what we refuse."""
    try:
        yield
    except LabError as error:
        raise click.ClickException(in_terminal(error)) from error


@contextmanager
def opened_store() -> Iterator[Store]:
    """The site's database, closed again."""
    store = Store()
    try:
        with refusals():
            yield store
    finally:
        store.close()


def read(work: Callable[[Session], T]) -> T:
    """Read from the site's database."""
    with opened_store() as store:
        return store.transact(work, read=True)


def write(work: Callable[[Session], T]) -> T:
    """Change the site's database, in one transaction."""
    with opened_store() as store:
        return store.transact(work)


def print_json(document: object) -> None:
    """Indented, with text as it is."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as what stands in them."""
    lines = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def operator() -> str:
    """Who gives the command, for the records."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):
        return "command line"


def short(moment: datetime | float | None) -> str:
    """``iso`` for a table: to the minute, ``-`` for none."""
    text = iso(moment)
    return text[:16].replace("T", " ") if text else "-"
