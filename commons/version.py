"""Which version runs, and what is new in it: the package's version, the commit of the checkout that
`make up` ran in, and the release notes that it wrote down.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from commons.site import DEFAULT_SITE_FILE

REVISION = "revision"  # in the folder config
NEWS = "news.json"  # beside it: what `labcommons whatsnew --json` says
LARGE = 2**20  # bytes of it
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError)


def version() -> str:
    """Such as ``0.1.0 (0a1b2c3d4e5f)``; without a known commit the first part alone."""
    try:
        found = metadata.version("labcommons")
    except metadata.PackageNotFoundError:
        found = "unknown"
    for folder in _folders():
        with suppress(OSError, UnicodeDecodeError), (folder / REVISION).open("rb") as file:
            commit = file.read(64).decode("ascii").strip()
            if re.fullmatch(r"[0-9a-f]{7,40}\+?", commit):
                return f"{found} ({commit})"
    return found


@dataclass(frozen=True)
class News:
    """What is new since the version ``before``: CHANGELOG's entries, in English, where of Markdown
    only the backticks of code are left.
    """

    before: str
    changes: tuple[str, ...]


def news() -> News | None:
    """As the last `make up` wrote it down; None where no other version is known."""
    for folder in _folders():
        with suppress(*_UNREADABLE), (folder / NEWS).open("rb") as file:
            found = json.loads(file.read(LARGE))
            if found["before"]:
                texts = (str(one["text"]).replace("**", "") for one in found["changes"])
                return News(str(found["before"]), tuple(_LINK.sub(r"\1", one) for one in texts))
    return None


def _folders() -> Iterator[Path]:
    site = Path(os.environ.get("LABCOMMONS_SITE_FILE", DEFAULT_SITE_FILE))
    yield from (site.parent, site.parent.parent)  # the demo's site file is in one of its own
