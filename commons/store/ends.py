"""How each server ended, written once: by what, by whom, and what was known of it then.

Whoever ends a server says so before it does (a hub that is killed meanwhile keeps the cause); what
ends by itself is written by whoever sees it first. The first word about a container stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_args

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from commons.store import runs
from commons.store.models import ServerEnd, utcnow

Cause = Literal[
    "out_of_memory",
    "ended",  # by itself, ``exit_code`` says how
    "killed",  # by a signal that nobody of us sent
    "removed",  # its container was taken away outside of us
    "machine",  # the machine was started anew
    "engine",  # the machine's Docker was
    "stopped",  # by its owner
    "stopped_by",  # by somebody else: ``by``, ``message``
    "time_limit",
    "idle",
    "not_opened",
    "culled",  # nobody used it, by the site's ``servers.culling``
    "max_age",  # it had run for as long as that allows
    "preempted",
    "gpu_failed",
    "gpus_taken",  # its GPUs are another's in the ledger
    "lost_in_restart",  # the hub was started anew while it started or stopped
    "start_failed",
    "maintenance",  # at the time that was told
    "exam_over",  # by the exam's clock
    "released",  # it was started ahead of time, and nobody came
]
CAUSES: frozenset[str] = frozenset(get_args(Cause))
KEPT = timedelta(days=396)


@dataclass(frozen=True)
class Ending:
    """Why a server ends.

    Attributes:
        by: who asked for it; "" for nobody.
        message: what they say to the server's owner.
        data: figures: ``exit_code``, ``limit_bytes`` (of its memory), ``size``, ``environment``,
            ``limit_for``, ``idle_for``, ``open_for`` (seconds), ``account``, ``devices``.
    """

    cause: Cause
    by: str = ""
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


def record(
    session: Session,
    key: str,
    username: str,
    server: str,
    ending: Ending,
    lease_id: str | None = None,
) -> bool:
    """Write down how the server with this container (``key``) ends; False where it is known."""
    runs.over(session, key)
    if of(session, key) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(
                ServerEnd(
                    key=key,
                    username=username,
                    server_name=server,
                    lease_id=lease_id,
                    cause=ending.cause,
                    by=ending.by[:255],
                    message=ending.message[:1000],
                    data=dict(ending.data),
                )
            )
    except IntegrityError:  # another process wrote it at this moment
        return False
    return True


def last(session: Session, username: str, server: str) -> ServerEnd | None:
    """How a person's server last ended."""
    query = select(ServerEnd).where(ServerEnd.username == username, ServerEnd.server_name == server)
    return session.scalars(query.order_by(ServerEnd.id.desc()).limit(1)).first()


def of(session: Session, key: str) -> ServerEnd | None:
    """What is written of the end of the server with this container."""
    return session.scalars(select(ServerEnd).where(ServerEnd.key == key)).one_or_none()


def forget(session: Session, key: str) -> None:
    """It was going to be stopped, and goes on."""
    session.execute(delete(ServerEnd).where(ServerEnd.key == key))
    runs.goes_on(session, key)


def prune(session: Session) -> None:
    """Drop what nobody looks back at any more."""
    session.execute(delete(ServerEnd).where(ServerEnd.at < utcnow() - KEPT))
