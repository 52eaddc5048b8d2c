"""Whether homes, teams and courses keep to their limits on the disk, and who sees to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import select

from commons.i18n import N_
from commons.messages import Text
from commons.store import DiskUse, prunes
from hub_ext.doctor.registry import Finding, Here, State, check
from spawner.options.form import show_bytes
from spawner.runtime.client import from_environment
from spawner.runtime.protocol import LEAST_ENGINE, AreaLimits, Free
from spawner.starts.room import DISK
from spawner.storage import Limits, share

SOON = 2 * 2**30  # bytes of a disk: with less, a build or a large file fills it
LATE = timedelta(hours=49)  # since the last time, where it is done each day

FILLS = Text("health_folder_fills", N_("has {used} of {limit}"))
ASK_OWNER = Text(
    "health_ask_owner",
    N_("see its largest folders with labcommons disk, and ask who works there to delete some"),
)
WATCHED = Text(
    "health_limits_watched",
    N_(
        "the file system keeps no project quotas ({reason}): limits are only watched, so one "
        "folder can fill the disk between two looks"
    ),
)
USE_QUOTAS = Text(
    "health_use_quotas",
    N_(
        "put data/{area} on XFS mounted with prjquota, or on ext4 with project quotas, then make "
        "up (docs/storage.md)"
    ),
)
BY_QUOTAS = Text(
    "health_limits_kept", N_("the file system keeps the limits; folders with one: {count}")
)
PRUNED = Text("health_pruned", N_("what nobody needs was removed on {at}, {freed} given back"))
NOT_PRUNED = Text("health_not_pruned", N_("what nobody needs was not removed yet"))
NO_PRUNE = Text(
    "health_no_prune", N_("the site file has storage.prune: never, and nobody has done it by hand")
)
PRUNE_FAILED = Text(
    "health_prune_failed", N_("removing what nobody needs came to no end on {at}: {problem}")
)
PRUNE_NOW = Text("health_prune_now", N_("labcommons disk prune does it now, and says why it fails"))
PRUNED_LATE = Text("health_pruned_late", N_("what nobody needs was last removed on {at}"))
SEE_HUB = Text(
    "health_see_hub",
    N_("see why in the hub’s log (docker compose logs hub); labcommons disk prune does it now"),
)
ROOM = Text("health_room", N_("{free} are free"))
LITTLE_ROOM = Text(
    "health_little_room", N_("only {free} are left; on a full disk no server starts")
)
NO_ROOM = Text("health_no_room", N_("the disk is full ({free} are left): no server starts"))
MAKE_ROOM = Text(
    "health_make_room",
    N_(
        "remove what nobody needs: labcommons disk prune; who has most: labcommons disk; what is "
        "Docker’s own: docker system df"
    ),
)
NO_LIMITS = Text("health_no_limits", N_("the site file sets no limits"))
KEPT = Text("health_storage_kept", N_("folders within their limits: {count}"))


@check("storage")
def storage(here: Here) -> Iterator[Finding]:
    """By the last look at each."""
    site = here.site.storage
    rows, limits = here.store.transact(
        lambda s: (list(s.scalars(select(DiskUse))), Limits(s, site)), read=True
    )
    near = [row for row in rows if share(row.bytes, limits.of(row.area, row.name)) >= site.warn]
    for row in near:
        limit = limits.of(row.area, row.name) or 0
        cause = FILLS(used=show_bytes(row.bytes), limit=show_bytes(limit))
        yield Finding(State.ADVICE, cause, ASK_OWNER(), f"{row.area}/{row.name}")
    if not near:
        yield Finding(State.OK, KEPT(count=len(rows)))


@check("room")
def room(here: Here) -> Iterator[Finding]:
    """What the agent's machine has left on the disks of Docker and of the data."""

    async def ask() -> list[Free]:
        runtime = from_environment(timeout=4)
        try:
            return await runtime.free()
        finally:
            await runtime.close()

    for one in asyncio.run(ask()):
        for about, left, least in (("Docker", one.engine, LEAST_ENGINE), ("data", one.disk, DISK)):
            free = show_bytes(left)
            if left < least:
                yield Finding(State.BROKEN, NO_ROOM(free=free), MAKE_ROOM(), about)
            elif left < SOON:
                yield Finding(State.WARNING, LITTLE_ROOM(free=free), MAKE_ROOM(), about)
            else:
                yield Finding(State.OK, ROOM(free=free), about=about)


@check("prune")
def prune(here: Here) -> Iterator[Finding]:
    """Whether what nobody needs was removed at the last hour for that."""
    last = here.store.transact(prunes.last, read=True)
    if last is None:
        never = here.site.storage.prune_time() is None
        yield Finding(State.ADVICE, (NO_PRUNE if never else NOT_PRUNED)(), PRUNE_NOW())
        return
    at = f"{last.at:%Y-%m-%d}"
    if last.problem:
        cause = PRUNE_FAILED(at=at, problem=last.problem)
        yield Finding(State.WARNING, cause, PRUNE_NOW())
    elif here.now.replace(tzinfo=None) - last.at > LATE and here.site.storage.prune_time():
        yield Finding(State.WARNING, PRUNED_LATE(at=at), SEE_HUB())
    else:
        yield Finding(State.OK, PRUNED(at=at, freed=show_bytes(prunes.freed(last))))


@check("quotas")
def quotas(here: Here) -> Iterator[Finding]:
    """Whether the file system itself keeps the limits, as the agent has found."""

    async def ask() -> list[AreaLimits]:
        runtime = from_environment(timeout=4)
        try:
            return await runtime.disk_limits()
        finally:
            await runtime.close()

    areas = asyncio.run(ask())
    for one in areas:
        if one.refusal:
            cause, remedy = WATCHED(reason=one.refusal), USE_QUOTAS(area=one.area)
            yield Finding(State.ADVICE, cause, remedy, one.area)
        else:
            yield Finding(State.OK, BY_QUOTAS(count=one.folders), about=one.area)
    if not areas:
        yield Finding(State.OK, NO_LIMITS())
