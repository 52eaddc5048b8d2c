"""``labcommons demo``: limits, a course's reservation and a past, so that the demo shows them."""

from __future__ import annotations

import asyncio
import heapq
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import click
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from commons.site import DEFAULT_SITE_FILE, Site, load_site
from commons.store.models import GpuReservation, Lease, utcnow
from spawner.gpu.cli.tools import refusals, write
from spawner.gpu.devices import health
from spawner.gpu.devices.inventory import read_inventory
from spawner.gpu.ledger import allocation, reservations, transitions
from spawner.gpu.ledger.allocation import Ask
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.document import Specs, read_document

DAYS = 14  # of the past
BY = "demo"
# Each weekday: who, on whose account, from which hour (UTC) for how many hours, of which GPU.
USE = (
    ("alice", "group:vision", 8.0, 3.5, "A100"),
    ("bob", "group:vision", 9.0, 6.0, "A100"),
    ("s01", "course:ml101", 10.0, 1.0, "RTX 4090"),
    ("s02", "course:ml101", 11.5, 1.5, "RTX 4090"),
    ("alice", "group:vision", 13.0, 4.0, "A100"),
    ("s03", "course:ml101", 13.5, 0.5, "RTX 4090"),
)


@click.group()
def demo() -> None:
    """The demo's own data."""


@demo.command()
def fill() -> None:
    """Give a new demo limits, a reservation of its course and two weeks of past use.

    Nothing is done where somebody has set a limit, reserved or used a GPU already, and on a site
    that is no demo.

    \b
    Example:
      labcommons demo fill
    """
    site = load_site()
    if not site.site.demo or site.gpus.source != "simulated":
        click.echo("not filled: no demo, or its GPUs are real")
        return
    file = Path(os.environ.get("LABCOMMONS_SITE_FILE", DEFAULT_SITE_FILE)).parent / "quotas.yaml"
    with refusals():
        limits = read_document(file.read_text("utf-8"), str(file))
    filled = write(lambda session: begin(session, site, limits, utcnow()))
    click.echo("filled" if filled else "up to date")


def begin(session: Session, site: Site, limits: Specs, now: datetime) -> bool:
    """All of it, in the caller's transaction; False where there is something already."""
    if any(
        session.scalar(select(func.count()).select_from(table)) for table in (Lease, GpuReservation)
    ) or quota_store.specs(session):
        return False
    found = asyncio.run(read_inventory(site.gpus, _nobody))
    # The past first: time in the ledger never runs backwards.
    health.sync_inventory(session, found.devices, now=now - timedelta(days=DAYS + 1))
    live(session, now)
    quota_store.apply(session, limits, BY)
    lesson = {
        "name": "Machine learning, lab",
        "subject": "course:ml101",
        "gpus": 1,
        "gpu_type": "A100",
        "starts": f"{now + timedelta(days=1):%Y-%m-%d}T10:00",
        "duration": "90m",
        "timezone": "UTC",
        "repeat": "weekly",
        "weekdays": ["mon", "wed", "fri"],
    }
    reservations.create(session, reservations.check(lesson, site), BY, now.timestamp())
    return True


async def _nobody(_seconds: float) -> str:
    raise AssertionError("simulated GPUs are nobody's to ask for")


def live(session: Session, now: datetime) -> None:
    """The last days, as the ledger would have had them: each move at its own time."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    ends: list[tuple[datetime, str]] = []

    def be_at(moment: datetime) -> None:
        session.info.pop(transitions.NOW, None)
        transitions.lock(session, moment)

    def end_until(moment: datetime) -> None:
        while ends and ends[0][0] <= moment:
            at, lease = heapq.heappop(ends)
            be_at(at)
            transitions.end(session, lease, "stopped")
        be_at(moment)

    for at, user, account, hours, model in _starts(midnight):
        end_until(at)
        ask = Ask(user, "", account, 1, model, hours * 3600)
        [standing] = allocation.admit(session, [ask]).standings
        if standing.held:
            transitions.activate(session, standing.lease, "demo")
            heapq.heappush(ends, (at + timedelta(hours=hours), standing.lease))
    end_until(now)


def _starts(midnight: datetime) -> Iterator[tuple[datetime, str, str, float, str]]:
    for day in range(DAYS, 0, -1):
        date = midnight - timedelta(days=day)
        if date.weekday() < 5:
            for user, account, hour, hours, model in USE:
                yield date + timedelta(hours=hour), user, account, hours, model
