"""``labcommons tls``: the site's certificates, and those between agent, hub and builders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from commons.site import SiteFileError, load_site
from commons.web import origins
from hub_ext import acme, agent_tls, tls, tls_served
from hub_ext.tls import TLSError


@click.group("tls")
def group() -> None:
    """Certificates."""


@group.command("init")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where they are kept; by default tls/ in LABCOMMONS_DATA.",
)
@click.option("--new-ca", is_flag=True, help="Make a new CA, too; everyone has to import it.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def init_command(folder: Path | None, new_ca: bool, as_json: bool) -> None:
    """Make the site's CA and certificates, or renew what needs it. Harmless to repeat.

    Also those of the agent and of who may ask it, in agent-tls/, with an authority of their own.

    A server.crt and server.key that you have put there yourself are left as they are.
    """
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    site = load_site()
    names = origins.server_names(site)
    if site.https.acme and folder is None:
        acme.take(data / "tls", data / "acme" / acme.ISSUED, names)
    outcomes = tls.init(folder or data / "tls", names, new_ca=new_ca)
    tls_served.publish(folder or data / "tls")
    if folder is None:  # beside them, what nobody outside sees
        outcomes += agent_tls.init(data / "agent-tls", new_ca=new_ca)
    if as_json:
        rows = [
            {
                "file": str(o.file),
                "state": o.state,
                "not_after": o.not_after.isoformat(),
                "advice": o.advice,
            }
            for o in outcomes
        ]
        click.echo(json.dumps(rows))
        return
    for outcome in outcomes:
        click.echo(f"{outcome.file}: {outcome.state}, valid until {outcome.not_after:%Y-%m-%d}")
        if outcome.advice:
            click.echo(f"  {outcome.advice}")


@group.command("renew")
def renew_command() -> None:
    """Renew what ends within 30 days, and let the proxy have it; the service certificates does it.

    What is known, and what is in the way, is written to health/certificates.json. Exit 1 where a
    certificate could not be renewed: what was served before goes on.

    \b
    Example:
      docker compose exec certificates labcommons tls renew
    """
    data = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    folder, outcomes = data / "tls", []
    issued, waits, own = data / "acme" / acme.ISSUED, "", True
    try:
        site = load_site()
        names = origins.server_names(site)
        if site.https.acme:
            acme.take(folder, issued, names)
            waits, own = acme.problem(issued), False
        outcomes = tls.init(folder, names)
        changed = tls_served.publish(folder)
    except (TLSError, SiteFileError, OSError) as error:
        problem = error.message if isinstance(error, TLSError) else str(error)
        tls_served.report(data / "health", outcomes, folder, problem)
        raise TLSError(problem) from error
    # That the authority gives none does not keep what there is from being served.
    tls_served.report(data / "health", outcomes, folder, waits, own)
    for outcome in outcomes:
        if outcome.state == "made":
            click.echo(f"{outcome.file}: renewed, valid until {outcome.not_after:%Y-%m-%d}")
    if changed:
        click.echo("the proxy takes up another certificate within seconds")


@group.command("acme")
def acme_command() -> None:
    """Get or renew a certificate of the authority in https.acme; the service acme does it.

    Harmless to repeat: one that has more than a third of its life before it stays. Exit 1 where
    none was given, with the reason.

    \b
    Example:
      docker compose exec acme labcommons tls acme
    """
    folder = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data")) / "acme"
    with acme.told(folder):
        site = load_site()
        if site.https.acme is None:
            raise TLSError("the site file names no authority: see https.acme in docs/site.md")
        names = origins.server_names(site)
        if acme.obtain(site.https.acme, folder, names):
            click.echo(f"a new certificate for {', '.join(names)}")
        else:
            click.echo("up to date")
