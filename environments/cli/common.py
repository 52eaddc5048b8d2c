"""What the commands of ``labcommons env`` share: where things are, and how tables look."""

from __future__ import annotations

import getpass
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commons.site import DEFAULT_SITE_FILE, Environments, Gpus, Signatures, load_site

if TYPE_CHECKING:
    from environments.build import Places

CONFIG, DATA = "/etc/labcommons", "/srv/labcommons/data"


def need_builder() -> None:
    """Refuse with the remedy where what solves and installs is not there: the hub has none."""
    if importlib.util.find_spec("rattler") is None:
        raise click.ClickException(
            "this needs py-rattler, which is in the image labcommons/builder: run it there, with "
            "the site's data and config folders (or: pip install 'labcommons[hub,build]')"
        )


def places(environments: Path | None = None, data: Path | None = None) -> Places:
    """The folders of the site, or those that were named."""
    from environments.build import Places

    config = Path(os.environ.get("LABCOMMONS_CONFIG", CONFIG))
    return Places(
        environments or config / "environments",
        data or Path(os.environ.get("LABCOMMONS_DATA", DATA)),
    )


def settings() -> Environments:
    """What the site file says of environments; the defaults where there is no site file."""
    if "LABCOMMONS_SITE_FILE" not in os.environ and not DEFAULT_SITE_FILE.exists():
        return Environments()
    return load_site().environments


def gpus() -> Gpus:
    """What the site file says of GPUs; none where there is no site file."""
    if "LABCOMMONS_SITE_FILE" not in os.environ and not DEFAULT_SITE_FILE.exists():
        return Gpus()
    return load_site().gpus


def signatures() -> Signatures:
    """What the site file says of signatures; the defaults where there is no site file."""
    if "LABCOMMONS_SITE_FILE" not in os.environ and not DEFAULT_SITE_FILE.exists():
        return Signatures()
    return load_site().signatures


def operator() -> str:
    """Who gives the command, for the records."""
    try:
        return f"{getpass.getuser()} (command line)"
    except (KeyError, OSError):
        return "command line"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text below their heads, each as wide as it must be."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
