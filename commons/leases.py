"""Whose server a lease is for, and its states, as the store keeps them and decisions see them."""

from __future__ import annotations

from enum import StrEnum

# A person's server: user name, server name; "" is the default server.
ServerKey = tuple[str, str]

# A job's container and lease have the place of a server of its owner's, by a name that no server
# of a person's has: ``job:17``.
JOB = "job:"


def job_server(job: int) -> str:
    """The name of the server that a job is."""
    return f"{JOB}{job}"


def job_of(server: str) -> int | None:
    """The job that a server is; None for a person's server."""
    number = server.removeprefix(JOB)
    return int(number) if number != server and number.isascii() and number.isdigit() else None


class LeaseState(StrEnum):
    """A lease is requested, waits in the queue, is held before its container exists, is active
    while that runs, and ends; why is in ``ended_reason``.
    """

    REQUESTED = "requested"
    QUEUED = "queued"
    HELD = "held"
    ACTIVE = "active"
    ENDED = "ended"


# The moves a lease may make; anything else is a defect and refused.
LEASE_MOVES: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.REQUESTED: frozenset({LeaseState.QUEUED, LeaseState.HELD, LeaseState.ENDED}),
    LeaseState.QUEUED: frozenset({LeaseState.HELD, LeaseState.ENDED}),
    LeaseState.HELD: frozenset({LeaseState.ACTIVE, LeaseState.ENDED}),
    LeaseState.ACTIVE: frozenset({LeaseState.ENDED}),
    LeaseState.ENDED: frozenset(),
}
