"""Taking on a package: checked in a process of its own, judged by the site's rules, then seen."""

from __future__ import annotations

import hashlib
import hmac
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from commons.site import Site
from commons.units import amount
from environments.channels import child
from environments.channels.inspect import FILE, NotTaken
from environments.channels.shelf import Kept, Shelf, room
from environments.messages import channels as texts


def shelf(data: Path, channel: str, site: Site) -> Shelf:
    """A channel of a site."""
    return Shelf(data, channel, child.index, site.channels)


def check_name(file: str, size: int | None, site: Site) -> None:
    """Before anything of it has come: its name, and the size that is announced. Raises NotTaken."""
    if not FILE.fullmatch(file):
        raise NotTaken(texts.FILE_NAME(file=file[:200]))
    name = file.rsplit("-", 2)[0]
    for pattern, reason in site.environments.policy.denied_packages.items():
        if fnmatchcase(name, pattern):
            if reason:
                raise NotTaken(texts.DENIED(name=name, reason=reason))
            raise NotTaken(texts.DENIED_PLAIN(name=name))
    if size is not None and size > site.channels.largest_bytes:
        error = NotTaken(texts.TOO_LARGE(file=file, most=amount(site.channels.largest_bytes)))
        error.status = 413
        raise error


def write(sent: IO[bytes], piece: bytes) -> None:
    """A piece of what is sent. Raises NoRoom."""
    with room():
        sent.write(piece)
        sent.flush()


def take(
    place: Shelf, sent: IO[bytes], file: str, site: Site, by: str, sha256: str = ""
) -> tuple[Kept, bool]:
    """A package that has come whole, in a file of the shelf's; whether it is new.

    ``sha256``: what the sender says. Raises LabError.
    """
    with room():
        sent.flush()
        os.fsync(sent.fileno())
    path = Path(sent.name)
    check_name(file, path.stat().st_size, site)
    if not path.stat().st_size:
        raise NotTaken(texts.EMPTY_BODY())
    if sha256:
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if not hmac.compare_digest(digest, sha256.lower()):
            raise NotTaken(texts.HASH_WRONG(found=digest, wanted=sha256.lower()[:64]))
    found = child.check(path, file, site.channels, site.environments)
    return place.add(path, file, found, by)
