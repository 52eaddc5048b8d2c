"""Packages of channels that want a login, fetched for somebody who shall not have the login."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from environments import own_channels as names
from environments.channel import Source, local_folder
from environments.credentials import Credentials
from environments.errors import ChannelError
from environments.lock import Lock, LockedPackage
from environments.messages import making as texts

TIMEOUT = 60  # seconds between two words of a server


def fetch(
    sources: Sequence[Source],
    lock: Lock,
    credentials: Credentials,
    folder: Path,
    everything: bool = False,
) -> list[Source]:
    """The sources, those behind a login replaced by folders with what the lock needs of them.

    ``everything``: all that have to be fetched, as the way to them wants a login.

    Each package is checked against the lock. Raises ChannelError.
    """
    found = []
    for number, source in enumerate(sources):
        wanted = everything or credentials.headers(source.place)
        there = local_folder(source.place)
        # A channel of the site's own is not for the steps that come next to see.
        if names.in_url(source.url) is None and (there is not None or not wanted):
            found.append(source)
            continue
        place = folder / str(number)
        place.mkdir(parents=True, exist_ok=True)
        for package in lock.packages:
            if package.url.startswith(source.url):
                _fetch(source, package, place, credentials, there)
        found.append(replace(source, place=str(place)))
    return found


def wheels(paths: Iterable[Path], folder: Path) -> None:
    """Put pip's wheels where ``pip_section.fetch`` takes them from, in a cache of this job."""
    for path in paths:
        target = folder / "wheels" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _fetch(
    source: Source,
    package: LockedPackage,
    place: Path,
    credentials: Credentials,
    there: Path | None,
) -> None:
    path = package.url.removeprefix(source.url)
    target = place / path
    if ".." in Path(path).parts or not target.is_relative_to(place):
        raise ChannelError(texts.CHANNEL_PATH(channel=source.channel, path=path))
    target.parent.mkdir(parents=True, exist_ok=True)
    url = (there / path).as_uri() if there else f"{source.place.rstrip('/')}/{path}"
    request = urllib.request.Request(url)  # noqa: S310  (its scheme was checked with the place)
    for name, value in credentials.headers(url).items():
        request.add_unredirected_header(name, value)
    partial = target.with_name(f".{target.name}.part")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, partial.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, OSError) as error:
        raise ChannelError(
            texts.CHANNEL_NOT_FETCHED(channel=source.channel, path=path, reason=error)
        ) from error
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        partial.unlink()
        raise ChannelError(texts.CHANNEL_HASH(channel=source.channel, path=path))
    partial.rename(target)
