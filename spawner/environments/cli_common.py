"""What the commands of ``labcommons env`` share: where things are, and how tables look."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hub_ext.site import DEFAULT_SITE_FILE, Environments, load_site

if TYPE_CHECKING:
    from spawner.environments.build import Places

CONFIG, DATA = "/etc/labcommons", "/srv/labcommons/data"


def places(environments: Path | None = None, data: Path | None = None) -> Places:
    """The folders of the site, or those that were named."""
    from spawner.environments.build import Places

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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text below their heads, each as wide as it must be."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def amount(count: int) -> str:
    """Bytes for people, such as 1.5 GB."""
    for unit, factor in (("GB", 2**30), ("MB", 2**20), ("kB", 2**10)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
