"""What servers hold together, and whether there is room for one more.

Sums are made of what runs (its containers' labels) and of what is starting, each time anew: there
is no counter that a killed hub could leave wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from commons.i18n import N_
from commons.leases import ServerKey
from commons.messages import Message, Text
from commons.site import Sums, parse_bytes
from spawner.options.form import show_bytes
from spawner.runtime import labels
from spawner.runtime.protocol import Free, Node, ServerState

STARTING = 2**28  # bytes that a start needs of the machine's memory, whatever its size
DISK = 2**28  # bytes that must be left on the data folder's disk

PERSON_SERVERS = Text(
    "person_servers", N_("You have {held} servers, and may have {most} at once. Stop one first.")
)
PERSON_MEMORY = Text(
    "person_memory",
    N_(
        "Your servers have {held} of memory together, this one wants {wanted}, and you may have "
        "{most} at once. Stop one, or choose a smaller size."
    ),
)
PERSON_CPU = Text(
    "person_cpu",
    N_(
        "Your servers have {held} CPU cores together, this one wants {wanted}, and you may have "
        "{most} at once. Stop one, or choose a smaller size."
    ),
)
MACHINE_SERVERS = Text("machine_servers", N_("{held} of {most} servers run on this machine."))
MACHINE_MEMORY = Text(
    "machine_memory",
    N_("This machine has {most} of memory for servers: {held} are taken, {wanted} are wanted."),
)
MACHINE_CPU = Text(
    "machine_cpu",
    N_("This machine has {most} CPU cores for servers: {held} are taken, {wanted} are wanted."),
)
MEMORY_LOW = Text("memory_low", N_("The machine is short of memory just now: {free} are left."))
DISK_LOW = Text("disk_low", N_("The disk is full: {free} are left. Tell an administrator."))
TOO_LARGE = Text(
    "too_large_here",
    N_(
        "This machine has no room for this size, even with nobody else on it. Choose a smaller one."
    ),
)


@dataclass(frozen=True)
class Need:
    """What one server takes of the sums: bytes, and cores."""

    memory: int = 0
    cpu: float = 0.0


Held = Mapping[ServerKey, Need]


def need_of(state: ServerState) -> Need:
    """As its container's labels say; nothing for one that an earlier version made."""
    try:
        return Need(
            int(state.labels.get(labels.MEMORY, "0")), float(state.labels.get(labels.CPU, "0"))
        )
    except ValueError:
        return Need()


def total(held: Iterable[Need]) -> Need:
    """Together."""
    found = list(held)
    return Need(sum(one.memory for one in found), sum(one.cpu for one in found))


def sums_of(machine: Sums, nodes: Iterable[Node]) -> Sums:
    """What all servers have together: what the site says, and the machine's memory without that."""
    if machine.memory is not None:
        return machine
    return machine.model_copy(update={"memory": str(sum(node.memory for node in nodes))})


def fit(need: Need, sums: Sums) -> int:
    """How many such servers run at once, with no others; at most as many as can be counted."""
    counts = [sys.maxsize if sums.servers is None else sums.servers]
    if sums.memory is not None and need.memory:
        counts.append(parse_bytes(sums.memory) // need.memory)
    if sums.cpu is not None and need.cpu:
        counts.append(int(min((sums.cpu + 1e-9) / need.cpu, sys.maxsize)))
    return min(counts)


def over_person(key: ServerKey, need: Need, held: Held, sums: Sums) -> Message | None:
    """Why a person may not have this server beside their others; None where they may."""
    theirs = [one for other, one in held.items() if other[0] == key[0] and other != key]
    return _over(need, theirs, sums, PERSON_SERVERS, PERSON_MEMORY, PERSON_CPU)


def over_machine(key: ServerKey, need: Need, held: Held, sums: Sums) -> Message | None:
    """Why the machine has no room for this server beside all others; None where it has."""
    others = [one for other, one in held.items() if other != key]
    return _over(need, others, sums, MACHINE_SERVERS, MACHINE_MEMORY, MACHINE_CPU)


def measured(free: Free | None, starting: int) -> Message | None:
    """Why nothing may start now, by what the machine has left; None where something may."""
    if free is None:
        return None
    if free.disk < DISK:
        return DISK_LOW(free=show_bytes(free.disk))
    if free.memory < STARTING * (starting + 1):
        return MEMORY_LOW(free=show_bytes(free.memory))
    return None


def _over(
    need: Need, others: list[Need], sums: Sums, servers: Text, memory: Text, cpu: Text
) -> Message | None:
    held = total(others)
    if sums.servers is not None and len(others) >= sums.servers:
        return servers(held=len(others), most=sums.servers)
    most = None if sums.memory is None else parse_bytes(sums.memory)
    if most is not None and held.memory + need.memory > most:
        return memory(
            held=show_bytes(held.memory), wanted=show_bytes(need.memory), most=show_bytes(most)
        )
    if sums.cpu is not None and held.cpu + need.cpu > sums.cpu + 1e-9:
        return cpu(held=f"{held.cpu:g}", wanted=f"{need.cpu:g}", most=f"{sums.cpu:g}")
    return None
