"""``labcommons env check``: for a site's own CI, over a repository of environments."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from commons.errors import in_terminal
from commons.signatures import dsse
from commons.signatures.check import Trusted, read_file
from commons.site import Environments, Signatures, SiteFileError, load_site
from environments.cli.common import need_builder, settings, signatures

_FORMATS = ("text", "json", "sarif", "junit")


@click.command("check")
@click.argument(
    "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), required=False
)
@click.option("--format", "format_", type=click.Choice(_FORMATS), default="text", show_default=True)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write it there.")
@click.option(
    "--site",
    "site_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The site file, for its rules and keys.  [default: $LABCOMMONS_SITE_FILE, or none]",
)
@click.option(
    "--advisories",
    type=click.Path(path_type=Path, exists=True),
    help="OSV documents: a folder, a zip or a file.  [default: the site file's]",
)
@click.option(
    "--key",
    "keys",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help="A public key (PEM) that statements may be signed with; besides the site file's.",
)
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
def check(
    folder: Path,
    format_: str,
    output: Path | None,
    site_file: Path | None,
    advisories: Path | None,
    keys: tuple[Path, ...],
    strict: bool,
) -> None:
    """Check all environments below FOLDER: files, names, locks, the site's rules, known holes,
    signed statements. Nothing is fetched, installed or run, and no site is asked.

    Exit 0: nothing is wrong; 1: something is; 2: wrong usage. Examples for GitLab, Gitea and
    GitHub are in docs/ci.md.

    \b
    Examples:
      labcommons env check
      labcommons env check environments --site site.yaml --strict
      labcommons env check --format sarif --output check.sarif
    """
    need_builder()
    from environments import scan
    from environments.check_formats import FORMATS
    from environments.checking import Rules
    from environments.checking import check as look
    from environments.errors import BuildError

    found, decided = _site(site_file)
    place = advisories or found.scan.advisories
    if place is not None and advisories is None and not place.exists():
        click.echo(f"{place} is not here: known holes are not looked for", err=True)
        place = None
    try:
        trusted = (*_listed(decided), *_named(keys))
        documents = list(scan.advisories(place)) if place else []
        rules = Rules(found, datetime.now(UTC).date(), documents, trusted)
        results = look(folder, rules)
    except (BuildError, OSError, ValueError) as error:
        raise click.ClickException(in_terminal(error)) from error
    text = FORMATS[format_](results)
    if output:
        output.write_text(text, "utf-8")
    else:
        click.echo(text, nl=False)
    if not results:
        raise click.ClickException(f"there is no environment.yml below {folder}")
    levels = {one.level for result in results for one in result.problems}
    if "error" in levels or (strict and levels):
        raise click.ClickException("not all environments pass")


def _site(path: Path | None) -> tuple[Environments, Signatures]:
    try:
        if path is None:
            return settings(), signatures()
        site = load_site(path)
    except SiteFileError as error:
        raise click.ClickException(str(error)) from error
    return site.environments, site.signatures


def _listed(decided: Signatures) -> list[Trusted]:
    return [Trusted.of(key) for key in decided.keys]


def _named(paths: tuple[Path, ...]) -> list[Trusted]:
    return [Trusted(dsse.of_pem(read_file(path, 4096))) for path in paths]


COMMANDS = (check,)
