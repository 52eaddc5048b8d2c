"""Whether the ledger and what runs say the same: leases against containers, both ways."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from commons.i18n import N_
from commons.leases import LeaseState
from commons.messages import Message, Text
from commons.store import Lease
from hub_ext.doctor.registry import Finding, Here, State, check
from spawner.runtime import labels
from spawner.runtime.client import from_environment
from spawner.runtime.protocol import Runtime, ServerState

AGAIN = 2.0  # seconds until the second look: what starts or ends at this moment is no fault

NO_CONTAINER = Text(
    "health_lease_no_container",
    N_("{user} holds {gpus} GPUs by a lease, and no container runs with it"),
)
NO_LEASE = Text(
    "health_container_no_lease",
    N_("a container of {user} has GPUs, and the ledger has no lease for it: others may get them"),
)
OTHER_GPUS = Text(
    "health_lease_other_gpus",
    N_("the container of {user} has {found}, and the ledger says {wanted}"),
)
WITHIN_A_MINUTE = Text(
    "health_within_a_minute",
    N_(
        "the hub puts this right within a minute; if it stays so: labcommons gpu check --deep "
        "--repair, and see the hub’s log (docker compose logs hub)"
    ),
)
LEASES_RUN = Text("health_leases_run", N_("leases and containers agree: {count}"))

Wrong = Mapping[tuple[str, str], Message]  # by lease and code


def compare(containers: Iterable[ServerState], leases: Iterable[Lease]) -> Wrong:
    """What does not agree. Leases that are being started have no container yet."""
    held = (one for one in containers if one.runs and labels.LEASE in one.labels)
    running = {one.labels[labels.LEASE]: one for one in held}
    wrong: list[tuple[str, Message]] = []
    live: set[str] = set()
    for lease in leases:
        live.add(lease.id)
        container = running.get(lease.id)
        if container is None:
            if lease.state is LeaseState.ACTIVE:
                wrong.append((lease.id, NO_CONTAINER(user=lease.username, gpus=lease.gpus)))
            continue
        found = _devices(container)
        wanted = {(one.device_id, one.slot) for one in lease.devices if not one.released_at}
        if found != wanted:
            said = OTHER_GPUS(user=lease.username, found=_named(found), wanted=_named(wanted))
            wrong.append((lease.id, said))
    for id_ in running.keys() - live:
        wrong.append((id_, NO_LEASE(user=running[id_].user)))
    return {(id_, said.code): said for id_, said in wrong}


def _devices(container: ServerState) -> set[tuple[str, int]]:
    try:
        found = labels.read_devices(container.labels.get(labels.GPUS, ""))
    except ValueError:
        return set()
    return {(one.id, one.index) for one in found}


def _named(devices: set[tuple[str, int]]) -> str:
    return ", ".join(f"{id_}#{slot}" if slot else id_ for id_, slot in sorted(devices)) or "–"


def _holding(session: Session) -> list[Lease]:
    query = select(Lease).where(Lease.state.in_((LeaseState.HELD, LeaseState.ACTIVE)))
    return list(session.scalars(query.options(selectinload(Lease.devices))))


@check("leases")
def leases(here: Here) -> Iterator[Finding]:
    """Seen twice, or it is none."""

    async def look(runtime: Runtime) -> tuple[Wrong, int]:
        # Containers first: one that is made meanwhile has its lease by then.
        containers = await runtime.list()
        rows = here.store.transact(_holding, read=True)
        return compare(containers, rows), len(rows)

    async def twice() -> tuple[Wrong, int]:
        runtime = from_environment(timeout=2)
        try:
            first, count = await look(runtime)
            if not first:
                return first, count
            await asyncio.sleep(AGAIN)
            second, count = await look(runtime)
            return {key: said for key, said in second.items() if key in first}, count
        finally:
            await runtime.close()

    wrong, count = asyncio.run(twice())
    for (id_, code), said in sorted(wrong.items()):
        # Where somebody has GPUs that are given to others, work is lost.
        state = State.WARNING if code == NO_CONTAINER.code else State.BROKEN
        yield Finding(state, said, WITHIN_A_MINUTE(), id_)
    if not wrong:
        yield Finding(State.OK, LEASES_RUN(count=count))
