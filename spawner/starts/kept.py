"""What was asked for, in the store, until it runs or has come to nothing: a hub that is killed in
the middle of a start leaves it to the next one, with its place in line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from commons import maintenance
from commons.leases import ServerKey
from commons.store.models import ServerStart, utcnow
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.usage import seconds

TRIES = 3  # a start that ends the hub must not do so for ever
WORTH = timedelta(minutes=30)  # after that nobody waits for it; without time of maintenance


@dataclass(frozen=True)
class Kept:
    """A start that an earlier hub had begun. ``again``: it is to be begun anew."""

    server: ServerKey
    options: dict[str, Any]
    again: bool


def keep(
    session: Session, user: str, server: str, options: Mapping[str, Any], admin: bool = False
) -> float:
    """Write down what is asked for; when it was, in seconds since 1970.

    What is begun again keeps its time. What only waits for the end of a maintenance tries nothing.
    """
    row = session.get(ServerStart, (user, server))
    if row is None:
        row = ServerStart(username=user, server_name=server, asked_at=utcnow(), tries=0)
        session.add(row)
    row.user_options = dict(options)
    if admin or maintenance.current(session) is None:
        row.tries += 1
    return seconds(row.asked_at)


def over(session: Session, user: str, server: str) -> None:
    """It runs, or has come to nothing."""
    session.execute(
        delete(ServerStart).where(ServerStart.username == user, ServerStart.server_name == server)
    )


def left(session: Session) -> list[Kept]:
    """What an earlier hub leaves, in the order in which it was asked for.

    What has a lease, or waits for one, is not among it: that is begun again by its lease.
    """
    now = utcnow()
    rows = session.scalars(select(ServerStart).order_by(ServerStart.asked_at))
    return [
        Kept(
            (row.username, row.server_name),
            row.user_options,
            row.tries < TRIES
            and now - row.asked_at - maintenance.lasted(session, row.asked_at, now) <= WORTH,
        )
        for row in rows
        if transitions.of_server(session, row.username, row.server_name) is None
    ]
