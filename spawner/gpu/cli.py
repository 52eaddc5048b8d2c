"""``labcommons gpu``: what there is and who holds it."""

from __future__ import annotations

import json

import click

from hub_ext.store import Store
from spawner.gpu.ledger import availability, live_leases


@click.group()
def gpu() -> None:
    """GPUs and their leases.

    \b
    Examples:
      labcommons gpu list
      labcommons gpu leases --json
    """


@gpu.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_types(as_json: bool) -> None:
    """GPU types: how many there are, how many are free."""
    found = Store().transact(availability, read=True)
    if as_json:
        types = [vars(kind) for kind in found.types]
        click.echo(json.dumps({"simulated": found.simulated, "types": types}, indent=2))
        return
    if not found.types:
        click.echo("No GPUs. Set gpus.source in the site file, then restart the hub.")
    for kind in found.types:
        note = "  (simulated)" if found.simulated else ""
        click.echo(f"{kind.model:24} {kind.free:3} of {kind.total} free{note}")


@gpu.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def leases(as_json: bool) -> None:
    """Leases that have not ended."""
    found = [
        {
            "id": lease.id,
            "user": lease.username,
            "server": lease.server_name,
            "state": lease.state.value,
            "devices": [device.device_id for device in lease.devices],
            "held_at": (lease.held_at or lease.requested_at).isoformat() + "Z",
        }
        for lease in Store().transact(live_leases, read=True)
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("Nobody holds a GPU.")
    for row in found:
        server = f"{row['user']}/{row['server']}"
        click.echo(f"{server:32} {row['state']:7} {row['held_at']}  {', '.join(row['devices'])}")
