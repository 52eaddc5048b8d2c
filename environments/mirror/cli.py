"""``labcommons mirror``: what the site's cache of packages saved, its upstreams, and filling it."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from commons.errors import LabError, in_terminal
from commons.site import Site, load_site
from commons.units import amount
from environments.cli.common import CONFIG, DATA, need_builder, table
from environments.mirror import check as checking
from environments.mirror import counts

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
SHOWN = 20  # failures that are listed
EVERY = 10.0  # seconds between two words of progress, where nobody sees a line change


@click.group()
def mirror() -> None:
    """The site's cache of packages.

    \b
    Examples:
      labcommons mirror show
      labcommons mirror check
      labcommons mirror fill
    """


def _site() -> Site:
    site = load_site()
    if site.mirror is None:
        raise click.ClickException(
            "this site has no mirror: add `mirror: {}` to the site file and mirror to "
            "COMPOSE_PROFILES in .env, then make up (docs/mirror.md)"
        )
    return site


@mirror.command()
@_JSON
def show(as_json: bool) -> None:
    """What it keeps, how often that was asked for, and what it saved.

    \b
    Examples:
      labcommons mirror show
      labcommons mirror show --json
    """
    _site()
    data = Path(os.environ.get("LABCOMMONS_DATA", DATA))
    known = counts.read(data / "health")
    runs = known.runs(time.time())
    if as_json:
        click.echo(json.dumps({**known.as_json(), "runs": runs}, indent=2))
        return
    if not known.at:
        click.echo("The mirror has not run yet: make up starts it.")
        return
    if not runs:
        click.echo(f"The mirror does not run; this is of {_moment(known.at)}.", err=True)
    cache = known.cache
    click.echo(
        f"Kept: {amount(cache.bytes)} of {amount(cache.limit)} in {cache.files} files"
        f"{f', and {amount(known.images)} of images' if known.images else ''}; "
        f"{amount(cache.free)} free on the disk"
    )
    click.echo(
        f"Saved: {amount(known.saved)} since {_moment(known.since)}; "
        f"{known.rate:.0%} of requests were answered from what is kept"
    )
    rows = [
        (kind, str(one.asked), f"{one.rate:.0%}", amount(one.from_cache),
         amount(one.from_outside), str(one.stale), str(one.failed))
        for kind, one in known.kinds.items()
    ]  # fmt: skip
    head = ("PACKAGES", "ASKED", "KEPT", "FROM CACHE", "FROM OUTSIDE", "STALE", "FAILED")
    click.echo(table(head, rows))
    for host, place in known.places.items():
        if place.get("failed"):
            click.echo(f"{host}: {place.get('problem')}", err=True)


@mirror.command()
@_JSON
def check(as_json: bool) -> None:
    """Try and time every upstream. Exit 0: each channel and index has one that answers; 1: not.

    \b
    Examples:
      labcommons mirror check
      labcommons mirror check --json
    """
    rows = checking.everything(_site())
    missing = checking.silent(rows)
    if as_json:
        click.echo(json.dumps([one.as_json() for one in rows], indent=2))
    else:
        shown = [
            (one.what, one.place, "" if one.problem else f"{one.milliseconds} ms",
             f"{amount(one.speed)}/s" if one.speed else "", one.problem or "answers")
            for one in rows
        ]  # fmt: skip
        click.echo(table(("WHAT", "UPSTREAM", "FIRST BYTES", "SPEED", "STATE"), shown))
        for better, first in checking.faster(rows):
            click.echo(
                f"{better.what}: {better.place} answers sooner than {first.place}; put it before "
                "that in the site file (mirror.upstreams, conda or pypi)",
                err=True,
            )
    if missing:
        raise click.ClickException(
            f"no upstream answers for {', '.join(missing)}: name another one in the site file "
            "(mirror.conda, mirror.pypi), or see whether this machine may go out"
        )


@mirror.command()
@click.argument("locks", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_JSON
def fill(locks: tuple[Path, ...], as_json: bool) -> None:
    """Fetch all that the site's locks name, or those that are named here; each file is compared.

    It can be ended at any time; the same command goes on from there. Exit 0: all is kept; 1: not.

    \b
    Examples:
      labcommons mirror fill
      labcommons mirror fill genomics/pixi.lock
      labcommons mirror fill --json
    """
    need_builder()
    site = _site()
    assert site.mirror is not None
    from environments.mirror import fill as filling

    config = Path(os.environ.get("LABCOMMONS_CONFIG", CONFIG))
    data = Path(os.environ.get("LABCOMMONS_DATA", DATA))
    paths = list(locks) or filling.locks_of(config / "environments", data)
    if not paths:
        raise click.ClickException(
            "there are no locks yet: labcommons env lock --all, or name some: "
            "labcommons mirror fill FOLDER/pixi.lock"
        )
    try:
        items, left_out = filling.items_of(filling.read_all(paths), site)
    except LabError as error:
        raise click.ClickException(in_terminal(error)) from error
    size = sum(item.size for item in items)
    if size > site.mirror.size_bytes:
        raise click.ClickException(
            f"the locks name at least {amount(size)}, and the mirror keeps {site.mirror.size}: "
            "set mirror.size in the site file, then make up"
        )
    progress = _Progress()
    filled = filling.fill(items, progress)
    progress.end()
    filled.left_out = left_out
    _say(filled, len(paths), as_json)
    if not filled.is_whole:
        raise click.ClickException(
            "not all of it is kept; when what is said above is mended, the same command goes on"
        )


class _Progress:
    """On stderr: a line that changes, on a terminal; else one now and then."""

    def __init__(self) -> None:
        self._terminal, self._at = sys.stderr.isatty(), time.monotonic()

    def __call__(self, filled: object) -> None:
        from environments.mirror.fill import Filled

        assert isinstance(filled, Filled)
        now = time.monotonic()
        if now - self._at < (0.2 if self._terminal else EVERY):
            return
        self._at = now
        done = filled.kept + filled.fetched + len(filled.failed)
        line = f"{done} of {filled.files} files, {amount(filled.bytes)}"
        line += f", {len(filled.failed)} failed" if filled.failed else ""
        click.echo(f"\r{line} …\x1b[K" if self._terminal else line, nl=not self._terminal, err=True)

    def end(self) -> None:
        """The line is done."""
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


def _say(filled: object, locks: int, as_json: bool) -> None:
    from environments.mirror.fill import Filled

    assert isinstance(filled, Filled)
    if as_json:
        click.echo(json.dumps({"locks": locks, **vars(filled), "whole": filled.is_whole}, indent=2))
        return
    click.echo(
        f"{locks} locks: {filled.fetched} files fetched, {filled.kept} were kept already, "
        f"{amount(filled.bytes)} compared"
    )
    for path, problem in list(filled.failed.items())[:SHOWN]:
        click.echo(f"{path}: {problem}", err=True)
    if len(filled.failed) > SHOWN:
        click.echo(f"… and {len(filled.failed) - SHOWN} more (--json has all)", err=True)
    if filled.stopped:
        click.echo("Stopped: nothing could be fetched any more.", err=True)
    if filled.left_out:
        hosts = sorted({str(url).split("/")[2] for url in filled.left_out})
        click.echo(
            f"{len(filled.left_out)} files do not go through the mirror ({', '.join(hosts)}): "
            "their channels are not among mirror.channels, or want a login",
            err=True,
        )


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
