"""`labcommons` as a command of this machine: a link to bin/labcommons of the checkout."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from deploy import settings
from deploy.settings import ROOT

OURS = ROOT / "bin" / "labcommons"
FOLDER = "/usr/local/bin"  # LABCOMMONS_BIN in .env names another; empty: none


def offer() -> str:
    """Make the link where that may be done; how the command is called here."""
    link = _link()
    if link is not None and not link.exists() and os.access(link.parent, os.W_OK):
        # A link to nowhere is of a checkout that is gone.
        link.unlink(missing_ok=True)
        link.symlink_to(OURS)
    found = shutil.which("labcommons")
    return "labcommons" if found and Path(found).resolve() == OURS.resolve() else str(OURS)


def take_back() -> None:
    """Remove the link, if it is this checkout's."""
    link = _link()
    if link is not None and link.is_symlink() and link.resolve() == OURS.resolve():
        link.unlink()


def _link() -> Path | None:
    known = settings.parse_env(settings.read(ROOT / ".env"))
    folder = os.environ.get("LABCOMMONS_BIN", known.get("LABCOMMONS_BIN", FOLDER))
    return Path(folder, "labcommons") if folder else None
