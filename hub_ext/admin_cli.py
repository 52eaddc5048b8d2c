"""``labcommons site`` and ``labcommons store``: what an administrator checks and prepares."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from commons.errors import RuntimeSilent
from commons.i18n import gettext_for, terminal_language
from commons.scopes import owners
from commons.site import DEFAULT_SITE_FILE, Site, load_site, parse_bytes, site_digest
from commons.site.egress import mirror_places
from commons.store.database import MIGRATIONS, Store
from commons.web import origins
from environments.mirror import conf
from hub_ext.directory.cli import DirectoryOfSite
from hub_ext.directory.errors import DirectoryError
from hub_ext.directory.report import Finding
from hub_ext.site_agreement import differing
from spawner import options
from spawner.options.form import show_bytes
from spawner.runtime.client import from_environment
from spawner.runtime.protocol import Node
from spawner.starts import room
from spawner.starts.room import Need

FEW = 10  # servers of one size at once, below which people of a class would wait


@click.group()
def site() -> None:
    """The site file."""


@site.command("options")
@click.option("--json", "as_json", is_flag=True, help="Print them as a JSON schema.")
def server_options(as_json: bool) -> None:
    """List what may be asked of a server: the keys of user_options in the hub's REST API.

    \b
    Examples:
      labcommons site options
      labcommons site options --json
    """
    if as_json:
        click.echo(json.dumps(options.schema(), ensure_ascii=False))
        return
    width = max(map(len, options.KEYS))
    for option in options.OPTIONS:
        click.echo(f"{option.name:{width}}  {option.kind()['type']:7}  {option.about}")


@site.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--offline", is_flag=True, help="Ask neither the directory nor the agent.")
@click.option("--json", "as_json", is_flag=True, help="Print what the file decides as JSON.")
def check(file: Path | None, offline: bool, as_json: bool) -> None:
    """Say whether a site file is right; every wrong key with its remedy.

    FILE is LABCOMMONS_SITE_FILE by default. A denied group that the directory does not have is
    wrong; other unknown groups, and a directory that does not answer, are only said; so is an
    agent that goes by another state of this file.
    Exit 0: right; 1: not.

    \b
    Examples:
      labcommons site check
      labcommons site check --offline config/site.yaml
    """
    path = file or Path(os.environ.get("LABCOMMONS_SITE_FILE", DEFAULT_SITE_FILE))
    checked = load_site(path)
    # Also where nobody asks for JSON: two teams with one gid are wrong.
    groups = owners(checked)
    findings = [] if offline else _check_groups(checked, path)
    nodes = [] if offline else asyncio.run(_nodes())
    elsewhere = [] if file else _other_agents(path, nodes)
    fitting = _fitting(checked, nodes)
    advice = list(_advice(checked, nodes, fitting))
    if as_json:
        summary = {
            "file": str(path),
            "name": checked.site.name,
            "public_url": checked.site.public_url.rstrip("/"),
            "server_names": origins.server_names(checked),
            "demo": checked.site.demo,
            "sizes": list(checked.sizes),
            "gpus": {"source": checked.gpus.source, "listed": len(checked.gpus.devices)},
            # What the service of kernels needs to read the environments of teams and courses.
            "kernels_groups": sorted(pair.members for pair in groups.values()),
            # Whether the service acme is wanted.
            "acme": checked.https.acme is not None,
            # The port of the service ssh; 0 for none.
            "ssh": checked.ssh.port if checked.ssh else 0,
            # What the perimeter opens.
            "perimeter": perimeter_of(checked),
            # What the service mirror is started with; null for none.
            "mirror": mirror_of(checked),
            # Where backups go.
            "backup": checked.backup.target,
            # What there is to say of its groups; nothing wrong, or it would not come so far.
            "findings": [finding.as_json() for finding in findings],
            # Whose agents have read another site file.
            "agents_differ": elsewhere,
            # How many servers of each size run at once; null: any number.
            "fitting": fitting,
            "advice": advice,
        }
        click.echo(json.dumps(summary, ensure_ascii=False))
    else:
        click.echo(f"{path}: right. {checked.site.name}, {checked.site.public_url}")
        if fitting:
            shown = ", ".join(f"{name} {n}" for name, n in fitting.items())
            click.echo(f"{path}: servers that fit at once, all of one size: {shown}")
    for line in advice:
        click.echo(f"{path}: {line}", err=True)


async def _nodes() -> list[Node]:
    """What the agents say of their machines; nothing where none can be asked from here."""
    try:
        runtime = from_environment(timeout=5)
    except OSError:  # no certificate: not in the hub's container
        return []
    try:
        return await runtime.nodes()
    except RuntimeSilent:
        return []
    finally:
        await runtime.close()


def _other_agents(path: Path, nodes: list[Node]) -> list[str]:
    """Nodes whose agents go by another site file."""
    found = differing(nodes, site_digest(path))
    for node in found:
        click.echo(
            f"{path}: the agent on {node} goes by another site file, and refuses what only this "
            "one says; run 'make up', which starts hub and agent with this one",
            err=True,
        )
    return found


def _fitting(checked: Site, nodes: list[Node]) -> dict[str, int]:
    """How many servers of each size run at once on these machines; nothing without any."""
    sums = room.sums_of(checked.servers.machine, nodes)
    needs = {name: Need(size.guaranteed_bytes, size.cpu) for name, size in checked.sizes.items()}
    return {name: room.fit(need, sums) for name, need in needs.items()} if nodes else {}


def _advice(checked: Site, nodes: list[Node], fitting: Mapping[str, int]) -> Iterator[str]:
    """What to do about sizes of which none can start, or for whose memory people will wait."""
    if not fitting:
        return
    all_have = parse_bytes(room.sums_of(checked.servers.machine, nodes).memory or "0")
    for name, count in fitting.items():
        size = checked.sizes[name]
        of_memory = all_have // size.guaranteed_bytes
        if of_memory > count or (count and (size.guarantee or count >= FEW)):
            if count == 0:
                yield f"no server of size {name} can start: servers.machine allows less than one"
            continue
        yield (
            f"{f'only {count}' if count else 'none'} of size {name} can run at once: each counts "
            f"with {show_bytes(size.guaranteed_bytes)} of memory, all together have "
            f"{show_bytes(all_have)}; say in sizes.{name}.guarantee what each is sure to get, or "
            "in servers.machine.memory what all have together (docs/starts.md)"
        )


def perimeter_of(checked: Site) -> dict[str, Any]:
    """What the site file decides about the perimeter: a part of its plan (perimeter/plan.py)."""
    egress = checked.servers.egress
    listed = isinstance(egress, list)
    return {
        "enabled": checked.servers.perimeter == "on",
        "egress": {"mode": "list", "places": egress} if listed else {"mode": egress},
        "mirrors": mirror_places(checked.environments),
    }


def mirror_of(checked: Site) -> dict[str, Any] | None:
    """The configuration of the service mirror; None where the site file has none of it."""
    if checked.mirror is None:
        return None
    return {
        "nginx": conf.nginx(checked.mirror),
        "registry": conf.registry(checked.mirror),
        "kept": conf.kept(),
        "images": bool(checked.mirror.images),
        "images_port": checked.mirror.images_port,
    }


def _check_groups(checked: Site, path: Path) -> list[Finding]:
    """What the directory says of the groups; nothing where it does not answer."""
    try:
        findings = DirectoryOfSite(checked).unknown_groups()
    except (DirectoryError, click.ClickException) as error:
        click.echo(f"{path}: its groups are not checked at the directory: {error}", err=True)
        return []
    gettext = gettext_for(terminal_language())
    for finding in findings:
        click.echo(f"{path}: {finding.sentence(gettext)}", err=True)
    if any(finding.level == "wrong" for finding in findings):
        raise click.ClickException(
            f"{path}: a group of denied_groups that nobody can be in keeps nobody out"
        )
    return findings


@click.group()
def store() -> None:
    """The database."""


@store.command("migrate")
@click.option("--json", "as_json", is_flag=True, help="Print the database's address as JSON.")
def migrate(as_json: bool) -> None:
    """Bring the tables to this version. Harmless to repeat."""
    database = Store()
    try:
        database.migrate()
    finally:
        database.close()
    click.echo(
        json.dumps({"database": database.safe_url})
        if as_json
        else f"{database.safe_url}: up to date"
    )


@store.command("heads")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def heads(as_json: bool) -> None:
    """Say which versions of both databases' tables this version of LabCommons has.

    It asks no database: `make up` compares, and copies what is about to change.
    """
    import jupyterhub
    from alembic.script import ScriptDirectory

    places = {
        "store": MIGRATIONS,
        "hub": Path(jupyterhub.__file__).parent / "alembic",
    }
    found = {name: ScriptDirectory(place).get_current_head() for name, place in places.items()}
    if as_json:
        click.echo(json.dumps(found))
    else:
        for name, head in found.items():
            click.echo(f"{name}: {head}")
