"""``labcommons gpu``: what there is, who holds it, who waits and why."""

from __future__ import annotations

import sys
import time
from typing import Any

import click
from sqlalchemy.orm import Session

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.leases import LeaseState
from commons.messages import Text
from commons.scopes import own_account
from commons.store.models import Lease
from commons.units import parse_duration, show_duration
from spawner import stops
from spawner.gpu import views
from spawner.gpu.cli.tools import as_json, operator, print_json, print_table, read, short, write
from spawner.gpu.devices import health
from spawner.gpu.ledger import invariants, transitions
from spawner.gpu.ledger.snapshot import read_snapshot
from spawner.gpu.policy.forecast import budgets_left, held, probe
from spawner.gpu.policy.limits import LimitScope
from spawner.gpu.quotas.document import show_value
from spawner.gpu.quotas.explain import settings_for
from spawner.gpu.quotas.quota_store import specs

SAY = views.speaker(lambda message: message, now=None)


def _when(moment: str | None) -> str:
    """An ISO time for a table."""
    return moment[:16].replace("T", " ") if moment else "-"


@click.group()
def gpu() -> None:
    """GPUs, who holds them, and who waits.

    \b
    Examples:
      labcommons gpu list
      labcommons gpu queue
      labcommons gpu explain alice
      labcommons gpu drain GPU-5c5a1b1e --reason "fan is loud"
    """


@gpu.command("list")
@as_json
def list_(as_json: bool) -> None:
    """GPUs: types with how many are free, then every device with its state.

    \b
    Example:
      labcommons gpu list --json
    """
    found, devices = read(
        lambda session: (transitions.availability(session), views.devices(session))
    )
    if as_json:
        types = [vars(kind) for kind in found.types]
        print_json({"simulated": found.simulated, "types": types, "devices": devices})
        return
    if not devices:
        click.echo("No GPUs. Set gpus.source in the site file, then restart the hub.")
        return
    for kind in found.types:
        note = "  (simulated)" if found.simulated else ""
        click.echo(f"{kind.model:24} {kind.free:3} of {kind.total} free{note}")
    click.echo()
    print_table(
        ("DEVICE", "MODEL", "NODE", "STATE", "SLOTS", "WHY"),
        [
            (
                one["id"],
                one["model"],
                one["node"],
                one["state"],
                f"{one['slots_held']}/{one['slots']}",
                one["reason"] or "",
            )
            for one in devices
        ],
    )


def _leases(waiting: bool) -> list[dict[str, Any]]:
    def work(session: Session) -> list[dict[str, Any]]:
        known = views.known(session)
        return [
            views.lease(row, known, SAY)
            for row in views.live(session, views.WAITING if waiting else views.HOLDING)
        ]

    return read(work)


@gpu.command()
@as_json
def leases(as_json: bool) -> None:
    """Who holds GPUs, oldest first.

    \b
    Example:
      labcommons gpu leases --json
    """
    found = _leases(waiting=False)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("Nobody holds a GPU.")
    else:
        print_table(
            ("LEASE", "SERVER", "ACCOUNT", "STATE", "SINCE (UTC)", "ENDS (UTC)", "DEVICES"),
            [
                (
                    one["id"],
                    f"{one['user']}/{one['server']}",
                    one["account"],
                    "out of reach" if one["out_of_reach"] else one["state"],
                    _when(one["since"]),
                    _when((one["stop"] or {}).get("at") or one["ends_at"]),
                    ", ".join(gpu["id"] for gpu in one["gpus"]),
                )
                for one in found
            ],
        )


@gpu.command()
@as_json
def queue(as_json: bool) -> None:
    """Who waits, in order, when each is expected to start, and why they wait.

    \b
    Example:
      labcommons gpu queue
    """
    found = _leases(waiting=True)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("Nobody waits for GPUs.")
    else:
        print_table(
            ("PLACE", "LEASE", "SERVER", "ACCOUNT", "GPUS", "START (UTC)", "WHY"),
            [
                (
                    one["waiting"]["position"] or "-",
                    one["id"],
                    f"{one['user']}/{one['server']}",
                    one["account"],
                    f"{one['count']} {one['gpu_type']}".strip(),
                    _when(one["waiting"]["expected_start"]),
                    " ".join(reason["sentence"] for reason in one["waiting"]["reasons"]),
                )
                for one in found
            ],
        )


@gpu.command()
@click.argument("user")
@click.option("--account", help="Charged to this subject; by default each one they have leases of.")
@as_json
def explain(user: str, account: str | None, as_json: bool) -> None:
    """What a person holds and waits for, and why; which limits hold, and what is used of them.

    \b
    Examples:
      labcommons gpu explain alice
      labcommons gpu explain alice --account group:vision
    """
    now = time.time()

    def work(session: Session) -> dict[str, Any]:
        known = views.known(session)
        mine = views.live(session, user=user)
        accounts = [account] if account else sorted({own_account(user), *(r.account for r in mine)})
        snapshot = read_snapshot(session, now, probes=tuple(probe(user, a, now) for a in accounts))
        said = specs(session)
        return {
            "user": user,
            "leases": [views.lease(row, known, SAY) for row in mine],
            "accounts": [
                {
                    "account": one,
                    "held": held(snapshot, LimitScope(user, one)),
                    "limits": [
                        {"key": s.key, "value": s.value, "source": s.source}
                        for s in settings_for(said, user, one)
                    ],
                    "budgets": [
                        {
                            "subject": left.subject,
                            "user": left.user or None,
                            "gpu_hours": left.budget.gpu_hours,
                            "used": round(left.used, 3),
                            "left": round(left.left, 3),
                        }
                        for left in budgets_left(snapshot, user, one)
                    ],
                }
                for one in accounts
            ],
        }

    found = read(work)
    if as_json:
        print_json(found)
        return
    if not found["leases"]:
        click.echo(f"{user} holds no GPU and waits for none.")
    for lease in found["leases"]:
        server = f"{lease['user']}/{lease['server']}"
        if lease["waiting"]:
            place, start = lease["waiting"]["position"], lease["waiting"]["expected_start"]
            click.echo(
                f"{server} waits for {lease['count']} GPU, place {place or '-'}, "
                f"expected start {_when(start)} UTC:"
            )
            for reason in lease["waiting"]["reasons"]:
                click.echo(f"  {reason['sentence']}")
        else:
            devices = ", ".join(gpu["id"] for gpu in lease["gpus"])
            click.echo(f"{server} holds {devices} until {_when(lease['ends_at'])} UTC")
    for one in found["accounts"]:
        click.echo(f"Charged to {one['account']}: {one['held']} GPU held")
        for limit in one["limits"]:
            value = show_value(limit["value"])
            click.echo(f"  {limit['key']}: {value}  (from {limit['source']})")
        for left in one["budgets"]:
            whose = left["user"] or "all together"
            click.echo(
                f"  GPU-hours of {whose}: {left['used']:g} used, {left['left']:g} left of "
                f"{left['gpu_hours']:g}  (from {left['subject']})"
            )


@gpu.command()
@click.argument("target")
@click.option("--reason", default="", help="Shown to everybody beside the GPU.")
@as_json
def drain(target: str, reason: str, as_json: bool) -> None:
    """Offer a GPU, or all of a node, to nobody new; what runs there goes on.

    \b
    Examples:
      labcommons gpu drain GPU-5c5a1b1e --reason "fan is loud"
      labcommons gpu drain node2
    """
    by = operator()
    _say_drained(write(lambda session: health.drain(session, target, by, reason)), as_json)


@gpu.command()
@click.argument("target")
@as_json
def undrain(target: str, as_json: bool) -> None:
    """Offer a GPU, or a node, again.

    \b
    Example:
      labcommons gpu undrain node2
    """
    _say_drained(write(lambda session: health.undrain(session, target)), as_json, "Offered again")


def _say_drained(done: health.Drained, as_json: bool, word: str = "Drained") -> None:
    if as_json:
        print_json(vars(done))
    else:
        click.echo(f"{word}: {', '.join(done.devices)}. Servers that run there: {done.running}.")
        if done.unkept:
            names = ", ".join(f"“{name}”" for name in done.unkept)
            click.echo(
                f"Reservations that cannot be kept now: {names}. “labcommons reservation show”"
            )


LEASE_AMBIGUOUS = Text("lease_ambiguous", N_("Several leases begin with “{id}”; write more of it."))
LEASE_NOT_FOUND = Text(
    "lease_not_found", N_("There is no lease “{id}”, or it is over; see “labcommons gpu leases”.")
)


def _lease(session: Session, lease_id: str) -> Lease:
    """A lease that has not ended, by its id or the beginning of it."""
    rows = [row for row in views.live(session) if row.id.startswith(lease_id)]
    if len(rows) != 1:
        raise NotAvailable((LEASE_AMBIGUOUS if rows else LEASE_NOT_FOUND)(id=lease_id[:40]))
    return rows[0]


@gpu.command()
@click.argument("lease")
@click.option("--message", default="", help="What the owner of a running server reads.")
@click.option("--by", default="root", show_default=True, help="Who the owner reads has done it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def cancel(lease: str, message: str, by: str, yes: bool, as_json: bool) -> None:
    """End a lease: what waits leaves the queue; a running server is stopped, its files stay.

    \b
    Examples:
      labcommons gpu cancel 4f5f --yes
      labcommons gpu cancel 4f5f --by carol --message "The machine is serviced today."
    """
    if len(message) > stops.MOST:
        raise click.UsageError(f"--message has more than {stops.MOST} characters")
    row = read(lambda session: _lease(session, lease))
    runs = row.state not in (LeaseState.REQUESTED, LeaseState.QUEUED)
    if not yes:
        what = "Stop the server" if runs else "End the request"
        click.confirm(f"{what} {row.username}/{row.server_name}?", abort=True)

    def work(session: Session) -> None:
        if runs:
            said = " ".join(message.split())
            stops.announce(session, row.username, row.server_name, by, said)
        transitions.cancel(session, row.id)

    write(work)
    if as_json:
        print_json({"lease": row.id, "cancelled": True})
    else:
        click.echo("The hub stops it now." if runs else "Taken from the queue.")


@gpu.command()
@click.argument("lease")
@click.argument("to", type=click.Choice([one.value for one in transitions.Place]))
@click.option("--reason", default="", help="What the person reads whose request it is.")
@click.option("--by", default="root", show_default=True, help="Who they read has done it.")
@as_json
def place(lease: str, to: str, reason: str, by: str, as_json: bool) -> None:
    """Move a request in the queue: front, back, usual; hold it until release.

    \b
    Examples:
      labcommons gpu place 4f5f front --reason "The review is on Monday."
      labcommons gpu place 4f5f hold --by carol --reason "Ask me which model it needs."
      labcommons gpu place 4f5f release
    """

    def work(session: Session) -> dict[str, Any]:
        row = _lease(session, lease)
        row = transitions.place(session, row.id, transitions.Place(to), by, reason)
        session.flush()
        return views.lease(row, views.known(session), SAY)

    found = write(work)
    if as_json:
        print_json(found)
    else:
        click.echo(f"{to}: the request of {found['user']}. The hub decides anew within seconds.")


@gpu.command()
@click.argument("lease")
@click.option("--by", "by", required=True, help="How much longer, such as 2h.")
@as_json
def extend(lease: str, by: str, as_json: bool) -> None:
    """Let a lease run longer, or by as much of that as its limits allow, with the reasons.

    Exit 1, with the reasons, where it may not run longer at all.

    \b
    Example:
      labcommons gpu extend 4f5f --by 2h
    """
    try:
        seconds = parse_duration(by)
    except ValueError as error:
        raise click.UsageError(f"--by {by!r} {error}") from error

    def work(session: Session) -> tuple[Any, Any, Any]:
        row = _lease(session, lease)
        added, reasons = transitions.extend(session, row.id, seconds)
        return added, reasons, row.ends_at

    added, reasons, ends_at = write(work)
    if as_json:
        print_json(
            {
                "extended": bool(added),
                "extended_by": added,
                "ends_at": views.iso(ends_at),
                "reasons": views.reasons(reasons, SAY),
            }
        )
    said = " ".join(SAY(reason) for reason in reasons)
    if not added:
        raise click.ClickException(f"not extended: {said}")
    if not as_json:
        less = f" That is {show_duration(added)} longer, the most that is allowed: {said}"
        click.echo(f"It ends at {short(ends_at)} UTC." + (less if reasons else ""))


@gpu.command()
@click.option("--repair", is_flag=True, help="Put right what can be put right.")
@click.option("--deep", is_flag=True, help="Over all the past, not only the last hours.")
@as_json
def check(repair: bool, deep: bool, as_json: bool) -> None:
    """Check what must always hold of leases. Exit 1 where something does not.

    \b
    Examples:
      labcommons gpu check
      labcommons gpu check --deep --repair
    """
    found = (write if repair else read)(
        lambda session: invariants.check(session, repair=repair, deep=deep)
    )
    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "message": one.message,
                    "lease": one.lease or None,
                    "repaired": one.repaired,
                }
                for one in found
            ]
        )
    elif not found:
        click.echo("All is as it must be.")
    else:
        for one in found:
            click.echo(str(one))
    if any(not one.repaired for one in found):
        sys.exit(1)
