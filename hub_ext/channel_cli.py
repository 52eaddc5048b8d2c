"""``labcommons channel`` and ``labcommons package``: the site's own channels of packages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import click

from commons.audit import record_command
from commons.site import Site, load_site
from commons.units import amount
from commons.web.origins import public_url
from environments import own_channels as names
from environments.channels import taking
from environments.channels.shelf import Kept, Shelf, as_json
from spawner.gpu.cli.tools import as_json as json_option
from spawner.gpu.cli.tools import operator, print_json, print_table, refusals

_CHANNEL = click.option(
    "--channel", default=names.SITE_CHANNEL, show_default=True, help="site, team-NAME, course-NAME."
)
PYTHON = "3.13.0"


def _data() -> Path:
    return Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))


def _shelf(channel: str, site: Site) -> Shelf:
    names.known(channel, site)
    return taking.shelf(_data(), channel, site)


def _url(channel: str, site: Site) -> str:
    return f"{public_url(site)}/services/labcommons/channels/{channel}"


@click.group()
def channel() -> None:
    """The site's own channels of conda packages: one of the site, of each team and course.

    \b
    Examples:
      labcommons channel upload tool-1.0-pyh0_0.conda
      labcommons channel show team-vision
      labcommons channel yank tool-1.0-pyh0_0.conda --reason "wrong results"
    """


@channel.command("list")
@json_option
def list_(as_json: bool) -> None:
    """All channels.

    \b
    Example:
      labcommons channel list --json
    """
    site, found = load_site(), []
    for scope in names.of_site(site):
        name = names.name_of(scope)
        kept = taking.shelf(_data(), name, site).packages()
        size = sum(one.size for one in kept)
        about = {"channel": name, "url": _url(name, site)}
        found.append({**about, "packages": len(kept), "bytes": size})
    if as_json:
        print_json(found)
    else:
        print_table(
            ("CHANNEL", "PACKAGES", "SIZE"),
            [(one["channel"], one["packages"], amount(int(str(one["bytes"])))) for one in found],
        )


@channel.command()
@click.argument("channel", default=names.SITE_CHANNEL)
@json_option
def show(channel: str, as_json: bool) -> None:
    """The packages of a channel, the newest first.

    \b
    Example:
      labcommons channel show team-vision --json
    """
    with refusals():
        kept = _shelf(channel, load_site()).packages()
    if as_json:
        print_json([_told(one) for one in kept])
    elif not kept:
        click.echo("There are no packages yet. See “labcommons channel upload --help”.")
    else:
        print_table(
            ("PACKAGE", "SIZE", "WHO", "WHEN", "WITHDRAWN"),
            [(k.path, amount(k.size), k.by, k.at[:16], k.yanked[:60] or "-") for k in kept],
        )


@channel.command()
@click.argument("packages", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@_CHANNEL
@json_option
def upload(packages: tuple[str, ...], channel: str, as_json: bool) -> None:
    """Put packages into a channel. Each is checked before anybody sees it, and written once.

    \b
    Example:
      labcommons channel upload --channel team-vision tool-1.0-pyh0_0.conda
    """
    site, by, done = load_site(), operator(), []
    with refusals():
        shelf = _shelf(channel, site)
        for one in map(Path, packages):
            taking.check_name(one.name, one.stat().st_size, site)
            with shelf.incoming() as sent:
                try:
                    with one.open("rb") as file:
                        shutil.copyfileobj(file, sent)
                except PermissionError as error:
                    raise click.ClickException(
                        f"{one} cannot be read by uid {os.getuid()}: chmod a+r {one}"
                    ) from error
                kept, new = taking.take(shelf, sent, one.name, site, by)
            if new:
                about = {"channel": channel, "package": kept.path, "sha256": kept.sha256}
                record_command("channel-upload", "success", about, user=by)
            done.append({**_told(kept), "new": new})
            if not as_json:
                click.echo(f"{kept.path} {'is in' if new else 'was in'} {channel}")
    if as_json:
        print_json(done)


@channel.command()
@click.argument("package")
@_CHANNEL
@click.option("--reason", required=True, help="Why; users will read it.")
@json_option
def yank(package: str, channel: str, reason: str, as_json: bool) -> None:
    """Withdraw a package: who has it in a lock still gets it, and nobody else.

    \b
    Example:
      labcommons channel yank noarch/tool-1.0-pyh0_0.conda --reason "wrong results"
    """
    _decide("yank", package, channel, reason, as_json)


@channel.command()
@click.argument("package")
@_CHANNEL
@json_option
def restore(package: str, channel: str, as_json: bool) -> None:
    """Take the withdrawal of a package back.

    \b
    Example:
      labcommons channel restore noarch/tool-1.0-pyh0_0.conda
    """
    _decide("restore", package, channel, "", as_json)


def _decide(what: str, package: str, channel: str, reason: str, as_json: bool) -> None:
    by = operator()
    with refusals():
        shelf = _shelf(channel, load_site())
        path = next((k.path for k in shelf.packages() if package in (k.path, k.file)), package)
        kept, changed = shelf.yank(path, reason, by) if reason else shelf.restore(path, by)
    if changed:
        about = {"channel": channel, "package": kept.path, "reason": kept.yanked}
        record_command(f"channel-{what}", "success", about, user=by)
    if as_json:
        print_json(_told(kept))
    else:
        click.echo(f"{kept.path} is {'withdrawn' if kept.yanked else 'offered'}")


@channel.command()
@click.argument("channel", default=names.SITE_CHANNEL)
def url(channel: str) -> None:
    """The address of a channel, for programs outside.

    \b
    Example:
      labcommons channel url team-vision
    """
    site = load_site()
    with refusals():
        names.known(channel, site)
    click.echo(_url(channel, site))


def _told(kept: Kept) -> dict[str, Any]:
    return as_json(kept)


@click.group()
def package() -> None:
    """Conda packages of one's own software.

    \b
    Example:
      labcommons package build ./sdk
    """


@package.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path(),
              help="Where it is put; by default, here.")  # fmt: skip
@click.option("--python", default=PYTHON, show_default=True, help="For which markers count.")
@json_option
def build(folder: Path, output: Path, python: str, as_json: bool) -> None:
    """A package (noarch) of a Python project: a folder with a pyproject.toml.

    \b
    Examples:
      labcommons package build ./sdk
      labcommons channel upload --channel team-vision sdk-1.2.0-pyh0_0.conda
    """
    from environments.channels.build import build as make

    with refusals():
        try:
            made = make(folder, output, python)
        except OSError as error:
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    if as_json:
        print_json({"package": str(made), "size": made.stat().st_size})
    else:
        click.echo(made)
