"""``labcommons env`` for versions that are built: show, compare, export, clear away."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from commons.audit import record_command
from commons.errors import in_terminal
from commons.signatures.check import ENVELOPE, Checker
from commons.store import ScopeEnvironment, Store
from commons.store.models import utcnow
from commons.units import amount
from environments import catalog
from environments.catalog import CatalogEntry
from environments.cli.common import gpus, need_builder, places, settings, signatures, table
from environments.files import FILE_NAMES, SBOM_FILE
from environments.signed import as_image

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="The data folder.  [default: $LABCOMMONS_DATA]",
)
_VERSION = click.argument("version", metavar="NAME[:VERSION]")


def entry_named(text: str, store: Store | None = None) -> CatalogEntry:
    """The version that ``name``, ``name:version`` or ``name:tag`` means."""
    name, _, version = text.partition(":")
    try:
        return (store or Store()).transact(lambda s: catalog.get(s, name, version), read=True)
    except catalog.NoSuchVersion as error:
        raise click.ClickException(f"{error.args[0]} (labcommons env list --versions)") from error


@click.command("show")
@_VERSION
@_JSON
@_DATA
def show(version: str, as_json: bool, data: Path | None) -> None:
    """What a version is made of, its state, and what the site's rules say of it.

    Without a version it is the newest that is offered. A tag is as good as a version.

    \b
    Examples:
      labcommons env show py313-data
      labcommons env show py313-data:1.2.0 --json
    """
    entry = entry_named(version)
    folder = places(data=data).versions / entry.name / entry.version
    sbom = folder / SBOM_FILE
    if as_json:
        files = {"folder": str(folder), "sbom": str(sbom)} if sbom.exists() else {}
        click.echo(json.dumps(entry.as_json() | files, indent=2, ensure_ascii=False))
        return
    lines = [
        ("environment", f"{entry.name}:{entry.version}" + (f" ({entry.tag})" if entry.tag else "")),
        ("state", standing(entry)),
        ("image", entry.image),
        ("python", entry.python or "none"),
        ("cuda", entry.cuda or "none"),
        ("size", amount(entry.size) if entry.size else "not known"),
        ("created", f"{entry.created_at:%Y-%m-%d %H:%M} UTC"),
        ("revision", entry.revision or "not in a repository"),
        ("lock", entry.lock_digest),
        ("channels", " ".join(entry.channels)),
        ("signature", _signature(entry, data)),
        ("SBOM", str(sbom) if sbom.exists() else "none is kept"),
    ]
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        click.echo(f"{key.ljust(width)}  {value}")
    for finding in entry.findings:
        click.echo(f"{finding['level']}: {finding['message']}; {finding['remedy']}")
    click.echo()
    rows = [[p["name"], p["version"], p.get("build", ""), p["channel"]] for p in entry.packages]
    click.echo(table(["PACKAGE", "VERSION", "BUILD", "CHANNEL"], rows))


def _signature(entry: CatalogEntry, data: Path | None) -> str:
    """Who has signed what it was made of, in words."""
    found = Checker(signatures(), places(data=data).data).check(as_image(entry))
    if found.state == "signed":
        return f"by {found.key[:16]}"
    return f"{found.state}: {in_terminal(found.why)}"


def standing(entry: CatalogEntry | ScopeEnvironment) -> str:
    """What was decided about a version, in words."""
    words = entry.state
    if entry.withdrawn_at:
        words += f" since {entry.withdrawn_at:%Y-%m-%d}: {entry.withdrawn_reason or 'no reason'}"
    elif entry.deprecated_at:
        words += f" since {entry.deprecated_at:%Y-%m-%d}: {entry.deprecated_reason or 'no reason'}"
    return words + (", pinned" if entry.pinned else "")


@click.command("diff")
@click.argument("before", metavar="NAME[:VERSION]")
@click.argument("after", metavar="NAME[:VERSION]", required=False)
@_JSON
def diff(before: str, after: str | None, as_json: bool) -> None:
    """Which packages differ between two versions; with one name, between its last two.

    \b
    Examples:
      labcommons env diff py313-data
      labcommons env diff py313-data:1.1.0 py313-data:1.2.0
      labcommons env diff py311-numpy1 py313-data --json
    """
    from environments.compare import compare

    store = Store()
    if after is None:
        right = entry_named(before, store)
        entries = store.transact(catalog.newest, read=True)[right.name]
        older = entries[entries.index(right) + 1 :]
        if not older:
            raise click.ClickException(f"{right.name} has nothing older than {right.version}")
        left = older[0]
    else:
        left, right = entry_named(before, store), entry_named(after, store)
    changes = compare(left.packages, right.packages)
    if as_json:
        names = {
            key: f"{entry.name}:{entry.version}" for key, entry in (("from", left), ("to", right))
        }
        click.echo(json.dumps(names | {"changes": [c.as_json() for c in changes]}, indent=2))
        return
    click.echo(f"{left.name}:{left.version} -> {right.name}:{right.version}")
    for change in changes:
        click.echo(str(change))
    if not changes:
        click.echo("the same packages")


@click.command("export")
@_VERSION
@click.option(
    "--format", "format_", default="environment.yml", show_default=True, help="See above."
)
@click.option("--output", type=click.Path(path_type=Path), help="A file, or with all a folder.")
@_DATA
def export(version: str, format_: str, output: Path | None, data: Path | None) -> None:
    """A version in a format that makes it again elsewhere, without LabCommons.

    Formats: environment.yml, explicit (conda's @EXPLICIT list with hashes), conda-lock, pixi.lock,
    requirements (pip's part, with hashes), dockerfile; all writes every one into a folder, with
    the bill of materials and the signed statement of what it was made of (docs/signatures.md).

    \b
    Examples:
      labcommons env export py313-data
      labcommons env export py313-data:1.2.0 --format explicit > explicit.txt
      labcommons env export py313-data --format all --output paper/environment
    """
    need_builder()
    from environments.errors import BuildError
    from environments.export import FORMATS, export_folder

    if format_ not in (*FORMATS, "all"):
        raise click.UsageError(f"--format is one of {', '.join(FORMATS)}, all")
    if format_ == "all" and output is None:
        raise click.UsageError("--format all needs --output FOLDER")
    entry = entry_named(version)
    folder = places(data=data).versions / entry.name / entry.version
    try:
        if format_ == "all":
            assert output is not None
            output.mkdir(parents=True, exist_ok=True)
            for name in FORMATS:
                (output / FILE_NAMES[name]).write_text(export_folder(folder, name), "utf-8")
            proofs = [name for name in (ENVELOPE, SBOM_FILE) if (folder / name).is_file()]
            for name in proofs:
                (output / name).write_bytes((folder / name).read_bytes())
            click.echo(f"{output}: {', '.join([*FILE_NAMES.values(), *proofs])}")
        elif output:
            output.write_text(export_folder(folder, format_), "utf-8")
        else:
            click.echo(export_folder(folder, format_), nl=False)
    except (BuildError, OSError) as error:
        raise click.ClickException(in_terminal(error)) from error


@click.command("prune")
@click.option("--keep", type=click.IntRange(1, 1000), help="Versions of each to keep.")
@click.option(
    "--unused",
    type=click.IntRange(0, 396),
    metavar="DAYS",
    help="Days without use after which a version may go.",
)
@click.option("--cache", is_flag=True, help="Also cached packages that no lock names.")
@click.option("--dry-run", is_flag=True, help="Only say what would go, and what takes room.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_JSON
@_DATA
def prune(
    keep: int | None,
    unused: int | None,
    cache: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    data: Path | None,
) -> None:
    """Remove old versions and their images.

    What a server uses, what is pinned, the last ones of each (environments.keep in the site
    file) and what somebody started a kernel in lately (environments.keep_used, in days) stay.
    Where the offline channel is larger than environments.offline_size, packages go that no lock
    names.

    \b
    Examples:
      labcommons env prune --dry-run
      labcommons env prune --keep 2 --unused 90 --cache --yes
    """
    need_builder()
    from environments import prune as pruning
    from environments.errors import BuildError
    from environments.image import Images

    store, images, where = Store(), Images(), places(data=data)
    decided = settings()
    days = decided.keep_used if unused is None else unused
    keeping = pruning.Keeping.of(keep or decided.keep, days, utcnow())
    try:
        verdicts = pruning.prune(store, images, where, keeping, dry_run=True)
        going = [verdict for verdict in verdicts if not verdict.keep]
        if not dry_run and not yes and (going or cache):
            for verdict in going:
                click.echo(
                    f"{verdict.entry.name}:{verdict.entry.version}  {in_terminal(verdict.why)}"
                )
            click.confirm(
                f"Remove {len(going)} versions"
                + (" and packages that no lock names" if cache else "")
                + "?",
                abort=True,
                err=True,
            )
        if not dry_run:
            verdicts = pruning.prune(store, images, where, keeping)
            for verdict in verdicts:
                if not verdict.keep:
                    gone = {"environment": verdict.entry.name, "version": verdict.entry.version}
                    details = {"scope": "image", **gone, "why": str(verdict.why)}
                    record_command("environment-prune", "success", details, data=where.data)
        freed = sum(map(sum, pruning.prune_cache(where, dry_run).values())) if cache else 0
        channel = pruning.prune_channel(where, store, decided.offline_bytes, dry_run)
        use = pruning.disk_use(where)
    except (BuildError, OSError) as error:
        raise click.ClickException(in_terminal(error)) from error
    if as_json:
        rows = [verdict.as_json() for verdict in verdicts]
        document = {
            "dry_run": dry_run,
            "versions": rows,
            "cache_freed": freed,
            "channel_freed": channel.freed,
            "disk_use": use,
        }
        click.echo(json.dumps(document, indent=2))
        return
    verb = "would go" if dry_run else "removed"
    for verdict in verdicts:
        word = "kept" if verdict.keep else verb
        click.echo(
            f"{verdict.entry.name}:{verdict.entry.version}  {word}: {in_terminal(verdict.why)}"
        )
    if cache:
        click.echo(f"cached packages {verb}: {amount(freed)}")
    if channel.freed:
        click.echo(f"packages of the offline channel {verb}: {amount(channel.freed)}")
    for name, size in use.items():
        click.echo(f"{name}: {amount(size)}")


@click.command("doctor")
@_JSON
@click.option("--server-image", help="The image that environments are built on.")
@click.option(
    "--environments",
    type=click.Path(path_type=Path, file_okay=False),
    help="The environments folder.  [default: $LABCOMMONS_CONFIG/environments]",
)
@_DATA
def doctor(
    as_json: bool, server_image: str | None, environments: Path | None, data: Path | None
) -> None:
    """Look at specs, locks, channels, Docker, what is offered and the disk; fail if one fails.

    \b
    Examples:
      labcommons env doctor
      labcommons env doctor --json
    """
    need_builder()
    from environments.build import SERVER_IMAGE
    from environments.doctor import examine
    from environments.image import Images

    checks = []
    for check in examine(
        settings(),
        places(environments, data),
        Store(),
        Images(),
        server_image or SERVER_IMAGE,
        datetime.now(UTC).date(),
        gpus(),
    ):
        checks.append(check)
        if not as_json:
            remedy = f"\n      {in_terminal(check.advice)}" if check.advice else ""
            click.echo(f"{check.level:4}  {check.what}: {in_terminal(check.finding)}{remedy}")
    if as_json:
        click.echo(json.dumps([check.as_json() for check in checks], indent=2))
    failed = [check for check in checks if check.level == "fail"]
    if failed:
        raise click.ClickException(f"{len(failed)} of {len(checks)} checks failed")


COMMANDS = (show, diff, export, prune, doctor)
